//! The atomics, locks and shared pointers of the lock-free code: std's, or loom's in the model checker.
//!
//! * `event_ring` and `wake` import their atomics and locks only from here, so `tests/loom` checks the very code
//!   that ships.
//! * Locks are std's, and a poisoned one is used on: a panic ends one request and must not fail every later
//!   one that needs the lock. A contended lock sleeps until it is free. parking_lot's yields first, and the
//!   kernel then runs every other thread: workers that met at one lock were off their core for up to 7 ms.
//! * loom 0.7 treats `SeqCst` *accesses* as `AcqRel`; where a total order is needed, use [`fence`]`(SeqCst)`,
//!   which it models and which the C++ memory model makes strong enough.

#[cfg(loom)]
use loom::sync as imp;
#[cfg(loom)]
pub use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync as imp;
#[cfg(not(loom))]
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};

pub use imp::MutexGuard;

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Creates a mutex around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Acquires the lock, waiting until it is free.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(not(loom))]
impl<T> Mutex<T> {
    /// Acquires the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(imp::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(imp::TryLockError::WouldBlock) => None,
        }
    }
}

/// A lock for one writer or many readers.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

#[cfg(not(loom))]
impl<T> RwLock<T> {
    /// Creates a lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Acquires the lock for reading, waiting until there is no writer.
    pub fn read(&self) -> imp::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Acquires the lock for writing, waiting until it is free.
    pub fn write(&self) -> imp::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A condition variable, used with a [`Mutex`].
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

#[cfg(not(loom))]
impl Condvar {
    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Releases the lock and waits for a notification; it may also wake spuriously.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Like `wait`, for at most `patience`; also returns true if that time has passed.
    pub fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: std::time::Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let (guard, timed) =
            self.0.wait_timeout(guard, patience).unwrap_or_else(|poisoned| poisoned.into_inner());
        (guard, timed.timed_out())
    }
}

/// Makes an object's lifetime visible to loom: touching it after its drop, or concurrently with it, fails the
/// model. Outside loom it has no size and does nothing.
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

// SAFETY: the cell guards no data. Its purpose is that several threads may misuse it and loom then reports
// it.
#[cfg(loom)]
#[allow(unsafe_code)]
unsafe impl Sync for Alive {}

#[cfg(loom)]
impl Drop for Alive {
    fn drop(&mut self) {
        self.cell.with_mut(|_| ());
    }
}
