//! The atomics, locks and shared pointers of the lock-free code: std's, or loom's in the model checker.
//!
//! * `ring` and `wake` import these and nothing else of the kind, so `tests/loom` checks the very code that ships.
//! * loom 0.7 treats `SeqCst` *accesses* as `AcqRel`; where a total order is needed, use [`fence`]`(SeqCst)`,
//!   which it models and which the C++ memory model makes strong enough.

#[cfg(loom)]
pub use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};

/// loom's mutex with the face of parking_lot's: a poisoned lock is taken over.
#[cfg(loom)]
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
pub use loom::sync::MutexGuard;

#[cfg(loom)]
impl<T> Mutex<T> {
    /// A mutex around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Lets loom see an object's lifetime: touching it after, or concurrently with, its drop fails the model.
/// Outside loom it has no size and does nothing.
#[derive(Debug, Default)]
pub struct Alive {
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<()>,
}

impl Alive {
    /// Asserts (under loom) that no other thread may be dropping the object.
    #[inline]
    pub fn touch(&self) {
        #[cfg(loom)]
        self.cell.with(|_| ());
    }
}

// SAFETY: the cell guards no data; that it may be misused from several threads, and loom then says so, is its purpose.
#[cfg(loom)]
#[allow(unsafe_code)]
unsafe impl Sync for Alive {}

#[cfg(loom)]
impl Drop for Alive {
    fn drop(&mut self) {
        self.cell.with_mut(|_| ());
    }
}
