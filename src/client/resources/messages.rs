//! Messages between users and agents. They are made and deleted, never changed.

use serde_json::Value;

use super::super::Client;
use super::super::event::{Metadata, Role, wire};
use super::super::resource::{Create, Query, Resource, Resources};

impl Client {
    /// Messages.
    pub fn messages(&self) -> Resources<'_, Message> {
        self.resource()
    }
}

wire! {
    /// A message.
    Message {
        /// `msg-…`.
        id: String,
        /// Whose.
        organization_id: String,
        /// To or from whom.
        agent_id: String,
        /// Who speaks.
        role: Role,
        /// What.
        content: String,
        /// RFC 3339.
        created_at: String,
    } maybe {
        /// From or to whom; absent: everybody.
        user_id: String,
        /// Which model made it.
        model: String,
        /// Any JSON.
        tool_calls: Value,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What a message is made of.
    NewMessage {
        /// To or from whom.
        agent_id: String,
        /// What.
        content: String,
    } maybe {
        /// From or to whom; a user's own credential needs none.
        user_id: String,
        /// Who speaks; the user where absent.
        role: Role,
        /// Which model made it.
        model: String,
        /// Any JSON.
        tool_calls: Value,
        /// Free data.
        metadata: Metadata,
    }
}

/// Which messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagesOf {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Of this user.
    pub user_id: Option<String>,
}

impl Query for MessagesOf {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let fields = [("agent_id", &self.agent_id), ("user_id", &self.user_id)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl Resource for Message {
    const PATH: &'static str = "/api/v1/messages";
    type Of = MessagesOf;
}

impl Create for Message {
    type New = NewMessage;
    type Made = Self;
}
