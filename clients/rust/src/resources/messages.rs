//! Messages between users and agents. They are created and deleted, never changed.

use serde_json::Value;

use super::collection::{Collection, Create, ListFilter, Resource};
use crate::Client;
use crate::event::{MessageRole, Metadata};
use crate::macros::protocol_struct;

impl Client {
    /// Returns the messages.
    pub fn messages(&self) -> Collection<'_, Message> {
        self.resource()
    }
}

protocol_struct! {
    /// A message.
    Message {
        /// The id, `msg-…`.
        id: String,
        /// The organization of the message.
        organization_id: String,
        /// The agent that sends or receives it.
        agent_id: String,
        /// The role of the sender.
        role: MessageRole,
        /// The text.
        content: String,
        /// Time of creation, RFC 3339.
        created_at: String,
    } optional {
        /// The user who sends or receives it; absent: everybody.
        user_id: String,
        /// The model that generated it.
        model: String,
        /// Any JSON.
        tool_calls: Value,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of a new message.
    NewMessage {
        /// The agent that sends or receives it.
        agent_id: String,
        /// The text.
        content: String,
    } optional {
        /// The user who sends or receives it. A user's own credential does not need it.
        user_id: String,
        /// The role of the sender; the default is the user.
        role: MessageRole,
        /// The model that generated it.
        model: String,
        /// Any JSON.
        tool_calls: Value,
        /// Free data.
        metadata: Metadata,
    }
}

/// Selects the messages of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Only messages of this agent.
    pub agent_id: Option<String>,
    /// Only messages of this user.
    pub user_id: Option<String>,
}

impl ListFilter for MessageFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let fields = [("agent_id", &self.agent_id), ("user_id", &self.user_id)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl Resource for Message {
    const PATH: &'static str = "/api/v1/messages";
    type Filter = MessageFilter;
}

impl Create for Message {
    type NewBody = NewMessage;
    type Created = Self;
}
