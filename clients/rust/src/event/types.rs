//! The types of events and their fields. Do not edit the generated part: it is written from the daemon's table of
//! events (`src/event/table.rs`), by `just api-docs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Metadata;
use crate::macros::{protocol_struct, string_enum};

// Generated from src/event/table.rs of the daemon.

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A chat message.
    Message(MessageEvent),
    /// An agent was created, changed or deleted, or has a new status.
    AgentUpdate(AgentUpdateEvent),
    /// A memory was created, changed or deleted.
    MemoryUpdate(MemoryUpdateEvent),
    /// A chunk of an LLM's output.
    StreamChunk(StreamChunkEvent),
    /// Something failed.
    Error(ErrorEvent),
    /// Anything else, on a named channel.
    Custom(CustomEvent),
    /// An event that this version does not know, with its `type` and all other fields.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

protocol_struct! {
    /// Event of type `message`.
    MessageEvent {
        /// The agent that the event is about.
        agent_id: String,
        /// The text of the message.
        content: String,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// The message's id. If you set it, the message is published only once within 24 hours.
        message_id: String,
        /// The user who may see the event. If absent, everyone in the organization may.
        user_id: String,
        /// The author's role.
        role: MessageRole,
        /// Any JSON object.
        metadata: Metadata,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// Event of type `agent_update`.
    AgentUpdateEvent {
        /// The agent that the event is about.
        agent_id: String,
        /// The agent's status.
        status: AgentUpdateStatus,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// Why the agent failed.
        error_message: String,
        /// Any JSON object.
        metadata: Metadata,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// Event of type `memory_update`.
    MemoryUpdateEvent {
        /// The memory.
        memory_id: String,
        /// The agent that the event is about.
        agent_id: String,
        /// What happened to the memory.
        operation: MemoryOperation,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// The user who may see the event. If absent, everyone in the organization may.
        user_id: String,
        /// Any JSON object.
        metadata: Metadata,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// Event of type `stream_chunk`.
    StreamChunkEvent {
        /// The stream.
        request_id: String,
        /// The next piece of text. May be empty.
        chunk: String,
        /// True for the last chunk of the stream.
        is_final: bool,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// The chunk's position in the stream.
        index: u64,
        /// The index of the first of several merged chunks; `index` is that of the last.
        first_index: u64,
        /// The agent that the event is about.
        agent_id: String,
        /// The user who may see the event. If absent, everyone in the organization may.
        user_id: String,
        /// The part of the answer that the chunk belongs to. A chunk without it is text.
        part: StreamPart,
        /// Any JSON object.
        metadata: Metadata,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// Event of type `error`.
    ErrorEvent {
        /// A code for programs.
        code: String,
        /// A message for people.
        message: String,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// The agent that the event is about.
        agent_id: String,
        /// The user who may see the event. If absent, everyone in the organization may.
        user_id: String,
        /// The stream that failed.
        request_id: String,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// Event of type `custom`.
    CustomEvent {
        /// Names separated by single slashes, without `*`.
        channel: String,
        /// Any JSON.
        data: Value,
    } optional {
        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
        /// The user who may see the event. If absent, everyone in the organization may.
        user_id: String,
        /// The agent that the event is about.
        agent_id: String,
        /// When it happened. Defaults to the time of receipt.
        timestamp: String,
    }
}

protocol_struct! {
    /// The part of an answer that a chunk belongs to. A chunk without a part is text.
    StreamPart {
        /// The type of the part.
        #[serde(rename = "type")]
        kind: PartType,
        /// The id within the stream. Chunks with the same id belong together.
        id: String,
    } optional {
        /// A name, such as that of a tool.
        name: String,
    }
}

string_enum! {
    "snake_case"
    /// The role of a message's author.
    MessageRole {
        /// A person.
        User,
        /// The agent.
        Assistant,
        /// The party that configured the agent.
        System,
        /// A tool that the agent used.
        Tool,
    }
}

string_enum! {
    "snake_case"
    /// The status of an agent.
    AgentUpdateStatus {
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
        /// It was created.
        Created,
        /// It was deleted.
        Deleted,
    }
}

string_enum! {
    "snake_case"
    /// What happened to a memory.
    MemoryOperation {
        /// It was created.
        Created,
        /// It was changed.
        Updated,
        /// It was deleted.
        Deleted,
    }
}

string_enum! {
    "snake_case"
    /// The type of a part of an answer.
    PartType {
        /// The answer.
        Text,
        /// The model's reasoning.
        Reasoning,
        /// The arguments of a tool call, usually pieces of JSON.
        ToolInput,
        /// The result of a tool call.
        ToolOutput,
        /// A source that the answer cites.
        Source,
        /// Any other data.
        Data,
    }
}
// End.
