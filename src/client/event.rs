//! Events as clients write and read them (protocol §2): one type for both ways.
//!
//! * What this version does not know, a new type or a known one in another shape, is [`Event::Other`] with all its fields:
//!   a newer daemon breaks no older client.
//! * A field that is absent is left out, since the daemon takes `null` for a value.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Free data of an event.
pub type Metadata = Map<String, Value>;

/// A struct of the wire: fields that must be there, and fields that may.
macro_rules! wire {
    ($(#[$about:meta])* $name:ident {
        $($(#[$must:meta])* $field:ident: $type:ty,)*
    } maybe {
        $($(#[$may:meta])* $option:ident: $inner:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$must])* pub $field: $type,)*
            $($(#[$may])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $option: Option<$inner>,)*
        }
    };
}
pub(super) use wire;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// What somebody said to an agent, or it to them.
    Message(Message),
    /// What an agent does now.
    AgentUpdate(AgentUpdate),
    /// What became of a memory.
    MemoryUpdate(MemoryUpdate),
    /// A piece of a stream of text.
    StreamChunk(StreamChunk),
    /// What went wrong, for people or for a stream.
    Error(ErrorEvent),
    /// Anything else, on a channel.
    Custom(Custom),
    /// What this version does not know, with its `type` and all other fields.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

wire! {
    /// `message`.
    Message {
        /// To or from whom.
        agent_id: String,
        /// What.
        content: String,
    } maybe {
        /// From or to whom; absent: everybody.
        user_id: String,
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// Made where absent; deduplicates for 24 h.
        message_id: String,
        /// Who speaks.
        role: Role,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// `agent_update`.
    AgentUpdate {
        /// Whose.
        agent_id: String,
        /// What it does now.
        status: AgentStatus,
    } maybe {
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// Why it is in `error`.
        error_message: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// `memory_update`.
    MemoryUpdate {
        /// Which.
        memory_id: String,
        /// Whose.
        agent_id: String,
        /// What became of it.
        operation: Operation,
    } maybe {
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// Whom it is about.
        user_id: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// `stream_chunk`.
    StreamChunk {
        /// Of which stream.
        request_id: String,
        /// The text; may be empty.
        chunk: String,
        /// Whether it is the last.
        is_final: bool,
    } maybe {
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// Its number in the stream.
        index: u64,
        /// Where several were merged, the number of the first.
        first_index: u64,
        /// Who speaks.
        agent_id: String,
        /// To whom.
        user_id: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// `error`.
    ErrorEvent {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    } maybe {
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// Whose.
        agent_id: String,
        /// To whom.
        user_id: String,
        /// Of which stream.
        request_id: String,
    }
}

wire! {
    /// `custom`.
    Custom {
        /// Up to 200 bytes, levels separated by `/`.
        channel: String,
        /// Any JSON.
        data: Value,
    } maybe {
        /// The event's id and cursor; the daemon's.
        id: String,
        /// RFC 3339; the daemon's where absent.
        timestamp: String,
        /// To whom; absent: to all of the organization.
        user_id: String,
        /// Whose.
        agent_id: String,
    }
}

/// A closed list of words, and room for those that come later.
macro_rules! words {
    ($case:literal $(#[$about:meta])* $name:ident { $(#[$first_about:meta])* $first:ident, $($(#[$one:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = $case)]
        #[non_exhaustive]
        pub enum $name {
            $(#[$first_about])* #[default] $first,
            $($(#[$one])* $word,)*
            /// A word that this version does not know.
            #[serde(untagged)]
            Other(String),
        }
    };
}
pub(super) use words;

words! {
    "lowercase"
    /// Who speaks.
    Role {
        /// A person.
        User,
        /// The agent.
        Assistant,
        /// Whoever set the agent up.
        System,
        /// A tool that the agent used.
        Tool,
    }
}

words! {
    "lowercase"
    /// What an agent does.
    AgentStatus {
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
        /// It is new.
        Created,
        /// It is gone.
        Deleted,
    }
}

words! {
    "lowercase"
    /// What became of a memory.
    Operation {
        /// It is new.
        Created,
        /// It was changed.
        Updated,
        /// It is gone.
        Deleted,
    }
}

impl Event {
    /// A message between a user and an agent.
    pub fn message(
        agent_id: impl Into<String>,
        user_id: impl Into<String>,
        content: impl Into<String>,
    ) -> Self {
        let (agent_id, user_id, content) = (agent_id.into(), Some(user_id.into()), content.into());
        Self::Message(Message { agent_id, user_id, content, ..Message::default() })
    }

    /// Anything, on a channel.
    pub fn custom(channel: impl Into<String>, data: impl Into<Value>) -> Self {
        Self::Custom(Custom { channel: channel.into(), data: data.into(), ..Custom::default() })
    }

    /// A piece of a stream.
    pub fn chunk(request_id: impl Into<String>, chunk: impl Into<String>, is_final: bool) -> Self {
        let (request_id, chunk) = (request_id.into(), chunk.into());
        Self::StreamChunk(StreamChunk { request_id, chunk, is_final, ..StreamChunk::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_comes_back_as_it_went() {
        for json in [
            json!({"type": "message", "id": "C", "agent_id": "a", "user_id": "u", "content": "x", "role": "tool",
                "message_id": "m", "metadata": {"k": [1]}, "timestamp": "t"}),
            json!({"type": "agent_update", "agent_id": "a", "status": "error", "error_message": "oh"}),
            json!({"type": "memory_update", "memory_id": "m", "agent_id": "a", "operation": "deleted"}),
            json!({"type": "stream_chunk", "request_id": "r", "chunk": "", "is_final": true, "index": u64::MAX,
                "first_index": 3}),
            json!({"type": "error", "code": "C", "message": "m", "request_id": "r"}),
            json!({"type": "custom", "channel": "a/b", "data": null, "user_id": "u"}),
        ] {
            let event: Event = serde_json::from_value(json.clone()).unwrap();
            assert!(!matches!(event, Event::Other(_)), "{json}");
            assert_eq!(serde_json::to_value(&event).unwrap(), json);
        }
        let made = serde_json::to_value(Event::custom("c", json!([1]))).unwrap();
        assert_eq!(made, json!({"type": "custom", "channel": "c", "data": [1]}));
    }

    #[test]
    fn what_is_not_known_is_kept_whole() {
        for json in [
            json!({"type": "hologram", "id": "C", "depth": 3}),
            json!({"type": "message", "id": "C", "content": {"parts": []}}),
            json!({"id": "C"}),
        ] {
            let event: Event = serde_json::from_value(json.clone()).unwrap();
            assert!(matches!(&event, Event::Other(map) if map.get("id") == Some(&json!("C"))), "{event:?}");
            assert_eq!(serde_json::to_value(&event).unwrap(), json);
        }
        assert!(serde_json::from_value::<Event>(json!("text")).is_err());
        let update = json!({"type": "agent_update", "agent_id": "a", "status": "dreaming"});
        let Event::AgentUpdate(update) = serde_json::from_value(update).unwrap() else { panic!("known") };
        assert_eq!(update.status, AgentStatus::Other("dreaming".into()));
    }
}
