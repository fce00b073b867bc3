//! Agents, their states, and messages to them.

use http::Method;
use serde_json::Value;

use super::collection::{Collection, Create, Resource, Update, Versioned, if_match, versioned};
use crate::event::Metadata;
use crate::macros::{protocol_struct, string_enum};
use crate::{Client, ClientError, Request};

impl Client {
    /// Returns the agents.
    pub fn agents(&self) -> Collection<'_, Agent> {
        self.resource()
    }
}

string_enum! {
    "lowercase"
    /// The state of an agent.
    AgentStatus {
        /// It is idle.
        Idle,
        /// It is thinking.
        Thinking,
        /// It is using a tool.
        Executing,
        /// It is waiting for somebody.
        Waiting,
        /// It has failed.
        Error,
    }
}

protocol_struct! {
    /// An agent.
    Agent {
        /// The id, `agent-…`.
        id: String,
        /// The organization of the agent.
        organization_id: String,
        /// The current state.
        state: AgentStatus,
        /// Time of creation, RFC 3339.
        created_at: String,
        /// Time of the last change, RFC 3339.
        updated_at: String,
    } optional {
        /// Display name.
        name: String,
        /// Description for people.
        description: String,
        /// Its system prompt.
        system: String,
        /// Free text.
        agent_type: String,
        /// Any JSON.
        llm_config: Value,
        /// Any JSON.
        embedding_config: Value,
        /// Any JSON.
        tool_rules: Value,
        /// The user who may change it with the scope `write`. Absent: changing it needs the scope `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
        /// Why the agent is in state `error`.
        error_message: String,
        /// Time of the last activity, RFC 3339.
        last_active_at: String,
    }
}

protocol_struct! {
    /// Fields of a new agent.
    NewAgent {} optional {
        /// Display name, 1–255 bytes.
        name: String,
        /// Description for people.
        description: String,
        /// Its system prompt.
        system: String,
        /// Free text.
        agent_type: String,
        /// Any JSON.
        llm_config: Value,
        /// Any JSON.
        embedding_config: Value,
        /// Any JSON.
        tool_rules: Value,
        /// The user who may change it. Naming another user than oneself needs the scope `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of an agent to change.
    AgentChange {} optional {
        /// Display name, 1–255 bytes.
        name: Option<String>,
        /// Description for people.
        description: Option<String>,
        /// Its system prompt.
        system: Option<String>,
        /// Free text.
        agent_type: Option<String>,
        /// Any JSON.
        llm_config: Option<Value>,
        /// Any JSON.
        embedding_config: Option<Value>,
        /// Any JSON.
        tool_rules: Option<Value>,
        /// The user who may change it, or nobody. Setting it needs the scope `agents`.
        owner: Option<String>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

impl Resource for Agent {
    const PATH: &'static str = "/api/v1/agents";
    type Filter = ();
}

impl Create for Agent {
    type NewBody = NewAgent;
    type Created = Self;
}

impl Update for Agent {
    type Patch = AgentChange;
}

protocol_struct! {
    /// The state of an agent, and since when.
    AgentState {
        /// The agent.
        agent_id: String,
        /// The current state.
        state: AgentStatus,
    } optional {
        /// Why the agent is in state `error`.
        error_message: String,
        /// Time of the last activity, RFC 3339.
        last_active_at: String,
    }
}

protocol_struct! {
    /// A message to an agent.
    NewAgentMessage {
        /// The text.
        message: String,
    } optional {
        /// The user who sends it. A user's own credential does not need it.
        user_id: String,
        /// Whether the platform should store it as a memory.
        memorizing: bool,
        /// Images that belong to the message.
        image_uris: Vec<String>,
        /// Voice recordings that belong to the message.
        voice_files: Vec<String>,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// The result of a message to an agent.
    SentAgentMessage {
        /// The id of the message that was created. The agent's replies arrive as events.
        message_id: String,
    } optional {
        /// The agent's reply, if it replies at once.
        response: String,
        /// Processing time, in milliseconds.
        processing_time_ms: u64,
    }
}

impl Collection<'_, Agent> {
    /// Gets the state of an agent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self, id: &str) -> Result<Versioned<AgentState>, ClientError> {
        versioned(
            self.client.send_retrying(&Request::new(Method::GET, format!("{}/state", self.at(id)))).await?,
        )
    }

    /// Sets the state of an agent. If `version` is set, only if it still has that version. `error_message`
    /// says why it is in [`AgentStatus::Error`].
    ///
    /// # Errors
    /// [`ClientError`]; 409 if the current state does not allow this change, 412 if the agent has changed.
    pub async fn set_state(
        &self,
        id: &str,
        version: Option<u64>,
        state: &AgentStatus,
        error_message: Option<&str>,
    ) -> Result<Versioned<AgentState>, ClientError> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            state: &'a AgentStatus,
            #[serde(skip_serializing_if = "Option::is_none")]
            error_message: Option<&'a str>,
        }
        let request = Request::new(Method::PUT, format!("{}/state", self.at(id)));
        let request = if_match(request.json(&Body { state, error_message })?, version);
        versioned(self.client.send(&request).await?.error_for_status()?)
    }

    /// Sends a message to an agent. The request is sent once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_message(
        &self,
        id: &str,
        message: &NewAgentMessage,
    ) -> Result<SentAgentMessage, ClientError> {
        let request = Request::new(Method::POST, format!("{}/messages", self.at(id))).json(message)?;
        self.client.send(&request).await?.error_for_status()?.decode_data()
    }
}
