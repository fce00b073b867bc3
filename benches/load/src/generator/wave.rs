//! Connects many subscribers, some at a time, and waits until each is ready.

use std::borrow::Cow;
use std::time::Duration;

use super::engine::{Engine, Handler, Key, TICK};
use super::stall_detector::StallDetector;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::wire::{Access, Wire};

/// Connections opened at once. This is below the backlog of every listener.
const JOINING: usize = 128;

/// A handler that counts the subscribers that become ready.
pub(crate) trait JoinWatcher: Handler {
    /// Returns how many are ready, in total.
    fn joined(&self) -> usize;
    /// Checks that no error occurred.
    fn check(&self) -> Result<(), BenchError>;
}

/// A number of subscribers to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wave<'a> {
    /// The server to connect to.
    pub access: &'a Access,
    /// The transport.
    pub wire: Wire,
    /// The tag of the first subscriber. The others follow.
    pub first: usize,
    /// The number of subscribers.
    pub count: usize,
    /// The longest time without progress.
    pub patience: Duration,
}

impl Wave<'_> {
    /// Opens the subscribers, [`JOINING`] at a time, each with the `request` of its index, and waits until
    /// all are ready. Returns their keys.
    pub(crate) fn join<'r>(
        &self,
        engine: &mut Engine,
        watcher: &mut impl JoinWatcher,
        request: impl Fn(usize) -> Cow<'r, [u8]>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Key>, BenchError> {
        let (count, before) = (self.count, watcher.joined());
        let mut keys = Vec::with_capacity(count);
        let mut stall = StallDetector::new(self.patience);
        let mut ready = 0;
        while ready < count {
            while keys.len() < count && keys.len() - ready < JOINING {
                let at = keys.len();
                keys.push(engine.open(self.access.addr, self.wire, self.first + at, &request(at))?);
            }
            engine.turn(TICK, watcher)?;
            watcher.check()?;
            ready = watcher.joined() - before;
            progress.at(ready as u64);
            stall.check(ready as u64, || format!("{ready} of {count} subscribers are ready"))?;
        }
        Ok(keys)
    }
}
