//! Memories, their versions, and search.

use http::Method;

use super::collection::{Collection, Create, ListFilter, ListOptions, Page, Resource, Update};
use crate::event::Metadata;
use crate::macros::{protocol_struct, string_enum};
use crate::{Client, ClientError, Request};

impl Client {
    /// Returns the memories.
    pub fn memories(&self) -> Collection<'_, Memory> {
        self.resource()
    }
}

string_enum! {
    "PascalCase"
    /// The kind of a memory.
    MemoryType {
        /// General knowledge.
        Semantic,
        /// A fact.
        Factual,
        /// Something that happened.
        Episodic,
        /// How something is done.
        Procedural,
        /// What is relevant at the moment.
        Working,
        /// What is always relevant.
        Core,
        /// A thing to use.
        Resource,
        /// Something learned.
        Knowledge,
        /// The context of something.
        Contextual,
    }
}

protocol_struct! {
    /// A memory.
    Memory {
        /// The id, `memory-…`.
        id: String,
        /// The organization of the memory.
        organization_id: String,
        /// The text.
        content: String,
        /// The kind of the memory.
        memory_type: MemoryType,
        /// Importance, from 0 to 1.
        importance: f64,
        /// The version, which grows with each change.
        version: u64,
        /// Time of creation, RFC 3339.
        created_at: String,
        /// Time of the last change, RFC 3339.
        updated_at: String,
    } optional {
        /// The agent of the memory.
        agent_id: String,
        /// The user of the memory; absent: everybody's.
        user_id: String,
        /// What the memory belongs to, as free text.
        scope: String,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of a new memory.
    NewMemory {
        /// The text, 1–10,000 characters.
        content: String,
    } optional {
        /// The agent of the memory, which must exist.
        agent_id: String,
        /// The user of the memory. Absent: the caller's user, or everybody if the caller may write for all.
        user_id: String,
        /// The kind of the memory.
        memory_type: MemoryType,
        /// Importance, from 0 to 1.
        importance: f64,
        /// What the memory belongs to, as free text.
        scope: String,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of a memory to change.
    MemoryChange {} optional {
        /// The text, 1–10,000 characters.
        content: String,
        /// The kind of the memory.
        memory_type: Option<MemoryType>,
        /// Importance, from 0 to 1.
        importance: Option<f64>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

/// Selects the memories of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFilter {
    /// Only memories of this agent.
    pub agent_id: Option<String>,
    /// Only memories of this user.
    pub user_id: Option<String>,
}

impl ListFilter for MemoryFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let named = [("agent_id", &self.agent_id), ("user_id", &self.user_id)];
        named.into_iter().filter_map(|(name, id)| Some((name, id.clone()?))).collect()
    }
}

impl Resource for Memory {
    const PATH: &'static str = "/api/v1/memories";
    type Filter = MemoryFilter;
}

impl Create for Memory {
    type NewBody = NewMemory;
    type Created = Self;
}

impl Update for Memory {
    type Patch = MemoryChange;
}

protocol_struct! {
    /// An earlier or the current version of a memory.
    MemoryVersion {
        /// The version number; 1 is the first.
        version: u64,
        /// `created` or `updated`.
        operation: String,
        /// The text of this version.
        content: String,
        /// The kind in this version.
        memory_type: MemoryType,
        /// Importance, from 0 to 1.
        importance: f64,
        /// Time of the change, RFC 3339.
        updated_at: String,
    } optional {
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// A search request.
    MemoryQuery {
        /// Words to search for; `walk*` finds words that begin with `walk`.
        query: String,
    } optional {
        /// Only memories of this agent.
        agent_id: String,
        /// Only memories of this user.
        user_id: String,
        /// Only memories of this kind.
        memory_type: MemoryType,
        /// Minimum importance.
        min_importance: f64,
        /// Maximum age, in days.
        max_age_days: u64,
        /// Minimum score, from 0 to 1.
        threshold: f64,
        /// Maximum number of results, 1–100; the daemon's default is 10.
        limit: u64,
        /// Number of results to skip.
        offset: u64,
    }
}

/// The results of a search, best first.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct SearchResults {
    /// A page of results.
    pub results: Vec<MemoryHit>,
    /// Total number of results, as far as the daemon counts.
    pub total: u64,
    /// Whether there are more results after these.
    pub has_more: bool,
}

/// A search result.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct MemoryHit {
    /// The memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// How well it matches, from 0 to 1.
    pub score: f64,
}

impl Collection<'_, Memory> {
    /// Searches for memories that contain any of the words.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn search(&self, search: &MemoryQuery) -> Result<SearchResults, ClientError> {
        let request = Request::new(Method::POST, format!("{}/search", Memory::PATH)).json(search)?;
        self.client.send(&request).await?.error_for_status()?.decode_data()
    }

    /// Lists the versions of a memory, newest first. `list` works as for any list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(&self, id: &str, list: &ListOptions) -> Result<Page<MemoryVersion>, ClientError> {
        self.client.send_retrying(&list.request(&format!("{}/history", self.at(id)))).await?.decode()
    }
}
