//! The store's API: [`Store`], a handle that is cheap to clone, with its methods by subject. Dropping the last
//! handle closes the store.

mod backup;
mod open;
mod resources;
mod store;
mod streams;

pub use self::store::Store;
