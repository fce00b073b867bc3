//! The kinds of resources of a daemon (protocol §9), as clients see them, one file each.
//!
//! * Fields that a later version adds are ignored. A field that may be absent is an `Option`.
//! * In a change, `None` leaves a field as it is and `Some(None)` clears it.

mod agents;
mod collection;
mod core_memory;
mod memories;
mod messages;
mod tools;
mod users;

pub use agents::{Agent, AgentChange, AgentState, AgentStatus, NewAgent, NewAgentMessage, SentAgentMessage};
pub use collection::{
    Collection, Create, ListFilter, ListOptions, Page, Resource, RowStream, Update, Versioned,
};
pub use core_memory::{CoreMemory, CoreMemoryBlock, CoreMemoryChange};
pub use memories::{
    Memory, MemoryChange, MemoryFilter, MemoryHit, MemoryQuery, MemoryType, MemoryVersion, NewMemory,
    SearchResults,
};
pub use messages::{Message, MessageFilter, NewMessage};
pub use tools::{NewTool, Tool, ToolChange, ToolFilter};
pub use users::{NewUser, ProfileChange, Session, User, UserRole};
