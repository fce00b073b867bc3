//! The atomics, locks and shared pointers of the lock-free code: std's, or loom's in the model checker.
//!
//! * `ring` and `wake` import these and nothing else of the kind, so `tests/loom` checks the very code that ships.
//! * Locks are std's, taken over when poisoned: a panic is one request's, not everybody's who needs the lock after it. A
//!   contended one sleeps until it is free. parking_lot's yields first, and the kernel takes a yield as leave to run
//!   everybody else: workers that met at one lock were off their core for up to 7 ms.
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

/// A lock for one.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(not(loom))]
impl<T> Mutex<T> {
    /// The lock, if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(imp::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(imp::TryLockError::WouldBlock) => None,
        }
    }
}

/// A lock for one who writes or many who read.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

#[cfg(not(loom))]
impl<T> RwLock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> imp::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until nobody else has it.
    pub fn write(&self) -> imp::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Where threads wait for what another does under a [`Mutex`].
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

#[cfg(not(loom))]
impl Condvar {
    /// Wakes one of those that wait.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Gives the lock back until it is told, or for no reason.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Likewise, for `patience` at most; whether that has passed.
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
