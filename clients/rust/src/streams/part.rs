//! Parts: several texts beside each other in one stream, such as reasoning and answer.

pub use crate::event::{PartType, StreamPart};

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
