//! Agents, their states, and what is said to them.

use http::Method;
use serde_json::Value;

use super::super::event::{Metadata, wire, words};
use super::super::resource::{Change, Create, Resource, Resources, Versioned, if_match, versioned};
use super::super::{Client, ClientError, Request};

impl Client {
    /// Agents.
    pub fn agents(&self) -> Resources<'_, Agent> {
        self.resource()
    }
}

words! {
    "lowercase"
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
        /// The user who may change it with the scope `write`; absent: changing it takes `agents`.
        owner: String,
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
        /// The user who may change it; another than oneself takes the scope `agents`.
        owner: String,
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
        /// The user who may change it, or nobody; takes the scope `agents`.
        owner: Option<String>,
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
        /// Whether the platform is to remember it.
        memorizing: bool,
        /// Pictures that belong to it.
        image_uris: Vec<String>,
        /// Recordings that belong to it.
        voice_files: Vec<String>,
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

    /// Puts an agent into another state, if it is still of `version`, where one is named; `error_message` says why it is in
    /// [`State::Error`].
    ///
    /// # Errors
    /// [`ClientError`]; 409 where no way leads there from the state it is in, 412 if it has changed.
    pub async fn set_state(
        &self,
        id: &str,
        version: Option<u64>,
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
        let request = if_match(request.json(&Body { state, error_message })?, version);
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
