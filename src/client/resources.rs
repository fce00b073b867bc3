//! The kinds of resources that a daemon keeps (protocol §9), as clients see them: agents, messages, tools.
//!
//! * A field that a later version adds is passed over; one that may be absent is an `Option`.
//! * In a change `None` leaves a field as it is and `Some(None)` empties it.

use http::Method;
use serde_json::Value;

use super::event::{Metadata, Role, wire, words};
use super::resource::{Change, Create, Query, Resource, Resources, Versioned, versioned};
use super::{Client, ClientError, Request};

impl Client {
    /// Agents.
    pub fn agents(&self) -> Resources<'_, Agent> {
        self.resource()
    }

    /// Messages.
    pub fn messages(&self) -> Resources<'_, Message> {
        self.resource()
    }

    /// Tools.
    pub fn tools(&self) -> Resources<'_, Tool> {
        self.resource()
    }
}

words! {
    /// What an agent does.
    State {
        /// Nothing.
        Idle,
        /// It thinks.
        Thinking,
        /// It uses a tool.
        Executing,
        /// It waits for somebody.
        Waiting,
        /// Something went wrong.
        Error,
    }
}

wire! {
    /// An agent.
    Agent {
        /// `agent-…`.
        id: String,
        /// Whose.
        organization_id: String,
        /// What it does now.
        state: State,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// For people.
        name: String,
        /// For people.
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
        /// Free data.
        metadata: Metadata,
        /// Why it is in `error`.
        error_message: String,
        /// RFC 3339.
        last_active_at: String,
    }
}

wire! {
    /// What an agent is made of.
    NewAgent {} maybe {
        /// For people; 1–255 bytes.
        name: String,
        /// For people.
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
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What to change in an agent.
    AgentChange {} maybe {
        /// For people; 1–255 bytes.
        name: Option<String>,
        /// For people.
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
        /// Free data.
        metadata: Option<Metadata>,
    }
}

impl Resource for Agent {
    const PATH: &'static str = "/api/v1/agents";
    type Of = ();
}

impl Create for Agent {
    type New = NewAgent;
    type Made = Self;
}

impl Change for Agent {
    type Change = AgentChange;
}

wire! {
    /// What an agent does, and since when.
    AgentState {
        /// Whose.
        agent_id: String,
        /// What.
        state: State,
    } maybe {
        /// Why it is in `error`.
        error_message: String,
        /// RFC 3339.
        last_active_at: String,
    }
}

wire! {
    /// What is said to an agent.
    Saying {
        /// The text.
        message: String,
    } maybe {
        /// Who says it; a user's own credential needs none.
        user_id: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What became of what was said.
    Said {
        /// The message that was made of it; what the agent answers comes as events.
        message_id: String,
    } maybe {
        /// What the agent answered at once, if it does so.
        response: String,
        /// How long it took.
        processing_time_ms: u64,
    }
}

impl Resources<'_, Agent> {
    /// What an agent does now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self, id: &str) -> Result<Versioned<AgentState>, ClientError> {
        versioned(self.client.repeated(&Request::new(Method::GET, format!("{}/state", self.at(id)))).await?)
    }

    /// Puts an agent into another state; `error_message` says why it is in [`State::Error`].
    ///
    /// # Errors
    /// [`ClientError`]; 409 where no way leads there from the state it is in.
    pub async fn set_state(
        &self,
        id: &str,
        state: &State,
        error_message: Option<&str>,
    ) -> Result<Versioned<AgentState>, ClientError> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            state: &'a State,
            #[serde(skip_serializing_if = "Option::is_none")]
            error_message: Option<&'a str>,
        }
        let request = Request::new(Method::PUT, format!("{}/state", self.at(id)));
        let request = request.json(&Body { state, error_message })?;
        versioned(self.client.send(&request).await?.accepted()?)
    }

    /// Says something to an agent. Sent once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn say(&self, id: &str, saying: &Saying) -> Result<Said, ClientError> {
        let request = Request::new(Method::POST, format!("{}/messages", self.at(id))).json(saying)?;
        self.client.send(&request).await?.accepted()?.data()
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
        /// From or to whom.
        user_id: String,
        /// Who speaks.
        role: Role,
        /// What.
        content: String,
        /// RFC 3339.
        created_at: String,
    } maybe {
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

wire! {
    /// A tool.
    Tool {
        /// `tool-…`.
        id: String,
        /// Whose.
        organization_id: String,
        /// For people and agents.
        name: String,
        /// By these it is found.
        tags: Vec<String>,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// For agents.
        description: String,
        /// What it takes.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// What it does.
        source_code: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What a tool is made of.
    NewTool {
        /// 1–255 bytes.
        name: String,
    } maybe {
        /// For agents.
        description: String,
        /// What it takes.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// What it does.
        source_code: String,
        /// By these it is found.
        tags: Vec<String>,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What to change in a tool.
    ToolChange {} maybe {
        /// 1–255 bytes.
        name: String,
        /// For agents.
        description: Option<String>,
        /// What it takes.
        json_schema: Option<Value>,
        /// Free text.
        source_type: Option<String>,
        /// What it does.
        source_code: Option<String>,
        /// By these it is found.
        tags: Vec<String>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

/// Which tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolsOf {
    /// With these tags; a tag holds no comma.
    pub tags: Vec<String>,
    /// With all of them instead of any.
    pub match_all: bool,
}

impl Query for ToolsOf {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        if self.tags.is_empty() {
            return Vec::new();
        }
        let mut pairs = vec![("tags", self.tags.join(","))];
        pairs.extend(self.match_all.then(|| ("match_all", "true".to_owned())));
        pairs
    }
}

impl Resource for Tool {
    const PATH: &'static str = "/api/v1/tools";
    type Of = ToolsOf;
}

impl Create for Tool {
    type New = NewTool;
    type Made = Self;
}

impl Change for Tool {
    type Change = ToolChange;
}
