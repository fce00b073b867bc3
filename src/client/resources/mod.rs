//! The kinds of resources of a daemon (protocol §9), as clients see them, one file each.
//!
//! * Fields that a later version adds are ignored. A field that may be absent is an `Option`.
//! * In a change, `None` leaves a field as it is and `Some(None)` clears it.

mod agents;
mod core_memory;
mod memories;
mod messages;
mod tools;
mod users;

pub use agents::{Agent, AgentChange, AgentState, NewAgent, Said, Saying, State};
pub use core_memory::{Block, CoreMemory, Holding};
pub use memories::{
    Found, Hit, MemoriesOf, Memory, MemoryChange, MemoryType, MemoryVersion, NewMemory, Search,
};
pub use messages::{Message, MessagesOf, NewMessage};
pub use tools::{NewTool, Tool, ToolChange, ToolsOf};
pub use users::{NewUser, Profile, Session, User, UserRole};
