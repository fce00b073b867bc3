//! Core memory: labelled text blocks that an agent always has in its prompt, for everybody or about one user.

use http::Method;

use super::collection::{Page, Versioned, if_match, versioned};
use crate::macros::protocol_struct;
use crate::url::{encode, path_with_query};
use crate::{Client, ClientError, Request};

protocol_struct! {
    /// A block.
    CoreMemoryBlock {
        /// The id, `block-…`.
        id: String,
        /// The organization of the block.
        organization_id: String,
        /// The agent of the block.
        agent_id: String,
        /// `human`, `persona` or `system`.
        label: String,
        /// The text.
        value: String,
        /// Maximum length of the text, in characters.
        limit: u64,
        /// Time of creation, RFC 3339.
        created_at: String,
        /// Time of the last change, RFC 3339.
        updated_at: String,
    } optional {
        /// The user whom the block is about; absent: it is for everybody.
        user_id: String,
    }
}

protocol_struct! {
    /// New content of a block.
    CoreMemoryChange {
        /// The text.
        value: String,
    } optional {
        /// Maximum length of the text, up to 10,000 characters; the daemon's default is 2,000.
        limit: u64,
    }
}

/// The core memory of an agent; see [`Client::core_memory`].
#[derive(Clone, Debug)]
pub struct CoreMemory<'a> {
    client: &'a Client,
    agent_id: String,
    user_id: Option<String>,
}

impl Client {
    /// Returns the core memory of an agent: about `user_id`, or for everybody.
    pub fn core_memory(&self, agent_id: &str, user_id: Option<&str>) -> CoreMemory<'_> {
        CoreMemory { client: self, agent_id: agent_id.to_owned(), user_id: user_id.map(str::to_owned) }
    }
}

impl CoreMemory<'_> {
    /// Lists its blocks: three at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blocks(&self) -> Result<Page<CoreMemoryBlock>, ClientError> {
        self.client.send_retrying(&Request::new(Method::GET, self.path(None))).await?.decode()
    }

    /// Gets a block.
    ///
    /// # Errors
    /// [`ClientError`]; 404 if there is no such block.
    pub async fn get(&self, label: &str) -> Result<Versioned<CoreMemoryBlock>, ClientError> {
        versioned(self.client.send_retrying(&Request::new(Method::GET, self.path(Some(label)))).await?)
    }

    /// Creates or replaces a block. If `version` is set, only if the block still has that version.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn put(
        &self,
        label: &str,
        version: Option<u64>,
        change: &CoreMemoryChange,
    ) -> Result<Versioned<CoreMemoryBlock>, ClientError> {
        let request = Request::new(Method::PUT, self.path(Some(label))).json(change)?;
        versioned(self.client.send(&if_match(request, version)).await?.error_for_status()?)
    }

    /// Deletes a block. If `version` is set, only if it still has that version.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn delete(&self, label: &str, version: Option<u64>) -> Result<(), ClientError> {
        let request = if_match(Request::new(Method::DELETE, self.path(Some(label))), version);
        self.client.send(&request).await?.error_for_status()?;
        Ok(())
    }

    fn path(&self, label: Option<&str>) -> String {
        let mut base = format!("/api/v1/agents/{}/core-memory", encode(&self.agent_id));
        if let Some(label) = label {
            base.push('/');
            base.push_str(&encode(label));
        }
        path_with_query(&base, self.user_id.iter().map(|user| ("user_id", encode(user))))
    }
}
