//! LLM streams (protocol §8): text that is produced piece by piece, outlives its readers and its producer,
//! and certainly ends.
//!
//! * `writer` is what a producer holds; `producer` is the task behind it, `buffer` its unacknowledged chunks,
//!   and `state_watch` how it notices a cancellation while it has nothing to send.
//! * `reader` reads a stream from its first chunk to its end.
//! * `info` is a stream as the daemon lists it.

mod buffer;
mod error;
mod info;
mod part;
mod producer;
mod reader;
mod state_watch;
#[cfg(test)]
mod tests;
mod writer;

pub use error::StreamError;
pub use info::{GetStream, StreamFilter, StreamInfo, StreamText};
pub use part::{PartType, StreamPart};
pub use reader::{StreamItem, StreamReader};
pub use writer::{OpenStream, StreamWriter};
