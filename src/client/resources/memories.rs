//! Memories, their versions, and what is found in them.

use http::Method;

use super::super::event::{Metadata, wire, words};
use super::super::resource::{Change, Create, List, Page, Query, Resource, Resources};
use super::super::{Client, ClientError, Request};

impl Client {
    /// Memories.
    pub fn memories(&self) -> Resources<'_, Memory> {
        self.resource()
    }
}

words! {
    "PascalCase"
    /// What kind of memory it is.
    MemoryType {
        /// What is known.
        Semantic,
        /// A fact.
        Factual,
        /// Something that happened.
        Episodic,
        /// How something is done.
        Procedural,
        /// What matters just now.
        Working,
        /// What always matters.
        Core,
        /// A thing to use.
        Resource,
        /// Something learned.
        Knowledge,
        /// What surrounds something.
        Contextual,
    }
}

wire! {
    /// A memory.
    Memory {
        /// `memory-…`.
        id: String,
        /// Whose organization's.
        organization_id: String,
        /// What it says.
        content: String,
        /// What kind it is.
        memory_type: MemoryType,
        /// 0 to 1.
        importance: f64,
        /// Counts its changes.
        version: u64,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// Of which agent.
        agent_id: String,
        /// Of which user; absent: everybody's.
        user_id: String,
        /// What it belongs to.
        scope: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What a memory is made of.
    NewMemory {
        /// 1–10,000 characters.
        content: String,
    } maybe {
        /// Of which agent; it has to be there.
        agent_id: String,
        /// Of which user; absent: one's own, or everybody's where one may write for all.
        user_id: String,
        /// What kind it is.
        memory_type: MemoryType,
        /// 0 to 1.
        importance: f64,
        /// What it belongs to.
        scope: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What to change in a memory.
    MemoryChange {} maybe {
        /// 1–10,000 characters.
        content: String,
        /// What kind it is.
        memory_type: Option<MemoryType>,
        /// 0 to 1.
        importance: Option<f64>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

/// Which memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoriesOf {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Of this user.
    pub user_id: Option<String>,
}

impl Query for MemoriesOf {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let named = [("agent_id", &self.agent_id), ("user_id", &self.user_id)];
        named.into_iter().filter_map(|(name, id)| Some((name, id.clone()?))).collect()
    }
}

impl Resource for Memory {
    const PATH: &'static str = "/api/v1/memories";
    type Of = MemoriesOf;
}

impl Create for Memory {
    type New = NewMemory;
    type Made = Self;
}

impl Change for Memory {
    type Change = MemoryChange;
}

wire! {
    /// What a memory was.
    MemoryVersion {
        /// Which version: 1 is the first.
        version: u64,
        /// `created` or `updated`.
        operation: String,
        /// What it said.
        content: String,
        /// What kind it was.
        memory_type: MemoryType,
        /// 0 to 1.
        importance: f64,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What to look for.
    Search {
        /// Words; `walk*` finds what begins so.
        query: String,
    } maybe {
        /// Of this agent alone.
        agent_id: String,
        /// Of this user alone.
        user_id: String,
        /// Of this kind alone.
        memory_type: MemoryType,
        /// Of this importance at least.
        min_importance: f64,
        /// Made in so many days.
        max_age_days: u64,
        /// That fit so well at least, 0 to 1.
        threshold: f64,
        /// Memories at most, 1–100; the daemon's default is 10.
        limit: u64,
        /// So many are passed over.
        offset: u64,
    }
}

/// What was found, the best first.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Found {
    /// A page of it.
    pub results: Vec<Hit>,
    /// How many there are, as far as the daemon counts.
    pub total: u64,
    /// Whether there are more after these.
    pub has_more: bool,
}

/// A memory that was found.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Hit {
    /// It.
    #[serde(flatten)]
    pub memory: Memory,
    /// How well it fits, 0 to 1.
    pub score: f64,
}

impl Resources<'_, Memory> {
    /// Memories that have any of the words.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn search(&self, search: &Search) -> Result<Found, ClientError> {
        let request = Request::new(Method::POST, format!("{}/search", Memory::PATH)).json(search)?;
        self.client.send(&request).await?.accepted()?.data()
    }

    /// What a memory was, the newest version first; `list` as of any list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(&self, id: &str, list: &List) -> Result<Page<MemoryVersion>, ClientError> {
        self.client.repeated(&list.request(&format!("{}/history", self.at(id)))).await?.parsed()
    }
}
