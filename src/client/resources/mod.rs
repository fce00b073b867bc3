//! The kinds of resources that a daemon keeps (protocol §9), as clients see them, a file each.
//!
//! * A field that a later version adds is passed over; one that may be absent is an `Option`.
//! * In a change `None` leaves a field as it is and `Some(None)` empties it.

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
