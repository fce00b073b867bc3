//! Core memory: the blocks of text that an agent always has before it, for everybody or about one user.

use http::Method;

use super::super::event::wire;
use super::super::resource::{Page, Versioned, if_match, versioned};
use super::super::{Client, ClientError, Request, encode, path};

wire! {
    /// A block.
    Block {
        /// `block-…`.
        id: String,
        /// Whose organization's.
        organization_id: String,
        /// Of which agent.
        agent_id: String,
        /// `human`, `persona` or `system`.
        label: String,
        /// What it says.
        value: String,
        /// Characters that fit.
        limit: u64,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// About which user; absent: for everybody.
        user_id: String,
    }
}

wire! {
    /// What a block is to hold.
    Holding {
        /// What it says.
        value: String,
    } maybe {
        /// Characters that fit, up to 10,000; the daemon's default is 2,000.
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
    /// The core memory of an agent: about `user_id`, or for everybody.
    pub fn core_memory(&self, agent_id: &str, user_id: Option<&str>) -> CoreMemory<'_> {
        CoreMemory { client: self, agent_id: agent_id.to_owned(), user_id: user_id.map(str::to_owned) }
    }
}

impl CoreMemory<'_> {
    /// Its blocks: three at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blocks(&self) -> Result<Page<Block>, ClientError> {
        self.client.repeated(&Request::new(Method::GET, self.path(None))).await?.parsed()
    }

    /// A block.
    ///
    /// # Errors
    /// [`ClientError`]; 404 if nothing was put there.
    pub async fn get(&self, label: &str) -> Result<Versioned<Block>, ClientError> {
        versioned(self.client.repeated(&Request::new(Method::GET, self.path(Some(label)))).await?)
    }

    /// Puts a block there, in the place of `version`, where one is named.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn put(
        &self,
        label: &str,
        version: Option<u64>,
        holding: &Holding,
    ) -> Result<Versioned<Block>, ClientError> {
        let request = Request::new(Method::PUT, self.path(Some(label))).json(holding)?;
        versioned(self.client.send(&if_match(request, version)).await?.accepted()?)
    }

    /// Removes a block.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn delete(&self, label: &str, version: Option<u64>) -> Result<(), ClientError> {
        let request = if_match(Request::new(Method::DELETE, self.path(Some(label))), version);
        self.client.send(&request).await?.accepted()?;
        Ok(())
    }

    fn path(&self, label: Option<&str>) -> String {
        let mut base = format!("/api/v1/agents/{}/core-memory", encode(&self.agent_id));
        if let Some(label) = label {
            base.push('/');
            base.push_str(&encode(label));
        }
        path(&base, self.user_id.iter().map(|user| ("user_id", encode(user))))
    }
}
