//! Parts: several texts beside each other in one stream, such as reasoning and answer.

use crate::macros::{protocol_struct, string_enum};

string_enum! {
    "snake_case"
    /// What the text of a part is.
    PartType {
        /// The answer.
        Text,
        /// The model's reasoning.
        Reasoning,
        /// Arguments of a tool call, usually pieces of JSON.
        ToolInput,
        /// The result of a tool call.
        ToolOutput,
        /// A source that the answer cites.
        Source,
        /// Any other data.
        Data,
    }
}

protocol_struct! {
    /// The part of a stream that a chunk belongs to. Chunks without a part are text.
    StreamPart {
        /// What the text is.
        #[serde(rename = "type")]
        kind: PartType,
        /// The id within the stream, 1–64 bytes: chunks with the same id make up one text.
        id: String,
    } optional {
        /// A name, at most 256 bytes, e.g. that of the tool.
        name: String,
    }
}

impl StreamPart {
    /// Creates a part without a name.
    ///
    /// ```
    /// use nervewire_client::{PartType, StreamPart};
    ///
    /// let part = StreamPart::new(PartType::Reasoning, "r1");
    /// assert_eq!(serde_json::to_string(&part)?, r#"{"type":"reasoning","id":"r1"}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn new(kind: PartType, id: impl Into<String>) -> Self {
        Self { kind, id: id.into(), name: None }
    }
}
