//! Events as clients write and read them (protocol §2): one type for both directions.
//!
//! * What this version does not know (a new type, or a known type with another shape) is [`Event::Other`]
//!   with all its fields, so a newer daemon does not break an older client.
//! * An absent field is omitted, because the daemon reads `null` as a value.
//! * The types and fields are in `event/types.rs`, which is generated.

mod types;

use serde_json::{Map, Value};

pub use types::*;

/// Free data of an event.
pub type Metadata = Map<String, Value>;

impl Event {
    /// Creates a message between a user and an agent.
    pub fn message(
        agent_id: impl Into<String>,
        user_id: impl Into<String>,
        content: impl Into<String>,
    ) -> Self {
        let (agent_id, user_id, content) = (agent_id.into(), Some(user_id.into()), content.into());
        Self::Message(MessageEvent { agent_id, user_id, content, ..MessageEvent::default() })
    }

    /// Creates an event with any data on a channel.
    pub fn custom(channel: impl Into<String>, data: impl Into<Value>) -> Self {
        Self::Custom(CustomEvent { channel: channel.into(), data: data.into(), ..CustomEvent::default() })
    }

    /// Creates a chunk of a stream.
    pub fn chunk(request_id: impl Into<String>, chunk: impl Into<String>, is_final: bool) -> Self {
        let (request_id, chunk) = (request_id.into(), chunk.into());
        Self::StreamChunk(StreamChunkEvent { request_id, chunk, is_final, ..StreamChunkEvent::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_keeps_all_its_fields() {
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
    fn unknown_events_keep_all_their_fields() {
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
        assert_eq!(update.status, AgentUpdateStatus::Other("dreaming".into()));
    }
}
