//! Signals, readiness for systemd, the graceful end, and periodic tasks.
//!
//! The first SIGTERM or SIGINT drains: the daemon stops accepting, readiness turns false, publishers get 503,
//! and subscribers are closed spread over the drain time. A second one ends the process at once; acknowledged
//! events are on disk either way. A SIGHUP reads the configured JWT key files again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::allocator;
use crate::domain::user_erasure;
use crate::time::CautiousClock;
use crate::worker::SharedState;
use crate::worker::mail::Mail;

/// Time between sweeps of quiet rings.
const SWEEP: Duration = Duration::from_secs(5);
/// Time between writes of what auth has deferred.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// Time between two looks at the leases of streams.
const STREAMS: Duration = Duration::from_secs(1);
/// Time for closed connections to end after the drain time.
const LAST: Duration = Duration::from_secs(2);

/// The signals that end the daemon.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs handlers for these signals. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal that ends the daemon; returns the exit code that a shell shows for it. Each
    /// SIGHUP before it calls `on_hangup`.
    pub async fn next(&mut self, on_hangup: impl Fn()) -> u8 {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return 128 + 15,
                _ = self.interrupt.recv() => return 128 + 2,
                _ = self.hangup.recv() => on_hangup(),
            }
        }
    }
}

/// Notifies systemd; does nothing without it.
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}

/// Runs sweeps, maintenance and the watchdog until dropped. The watchdog is notified only while every
/// worker's loop is running.
pub async fn run_maintenance(shared: Arc<SharedState>) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut maintain = tokio::time::interval(MAINTENANCE);
    let mut watch = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3_600)));
    let mut seen = vec![0; shared.metrics.workers.len()];
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                shared.tenants.release_idle();
                shared.tenants.rates().sweep(shared.clock.now_ms());
                allocator::release_free_pages(true); // this thread opened the store and has no other work
            }
            _ = maintain.tick() => {
                if let Err(error) = shared.auth.maintain().await {
                    tracing::warn!(%error, "last uses and expired revocations could not be written");
                }
            }
            _ = watch.tick() => {
                let turns: Vec<u64> = shared.metrics.workers.iter().map(|worker| worker.turns.get()).collect();
                // Each worker completes at least one turn a second, also when idle.
                if turns.iter().zip(&seen).all(|(now, before)| now > before) && watchdog.is_some() {
                    notify(&[NotifyState::Watchdog]);
                }
                seen = turns;
            }
        }
    }
}

/// Erases the data of deleted users, until dropped. It is separate from the periodic tasks, since it may have
/// much to do.
pub async fn run_erasures(shared: Arc<SharedState>) {
    let mut round = tokio::time::interval(MAINTENANCE);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        if let Err(error) = user_erasure::erase(&shared.tenants).await {
            tracing::warn!(%error, "data of deleted users could not be erased; retrying later");
        }
    }
}

/// Ends leases of streams, writes their text to segments, and removes old text, until dropped.
pub async fn run_streams(shared: Arc<SharedState>) {
    while let Err(error) = shared.tenants.recover_streams().await {
        tracing::warn!(%error, "open streams cannot be read; retrying");
        tokio::time::sleep(STREAMS).await;
    }
    let mut clock = CautiousClock::default();
    let mut round = tokio::time::interval(STREAMS);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        shared.tenants.maintain_streams().await;
        if let Err(error) = shared.tenants.expire_streams(clock.now_ms(&*shared.clock)).await {
            tracing::warn!(%error, "text of old streams could not be removed; retrying later");
        }
    }
}

/// Stops accepting, closes all connections within `seconds`, and returns when they are gone or the time is
/// over.
pub async fn drain(shared: &SharedState, seconds: u64) {
    shared.stopping.store(true, Ordering::Relaxed);
    notify(&[NotifyState::Stopping]);
    for mail in shared.mail.iter() {
        mail.push(Mail::Drain { seconds });
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds) + LAST;
    while shared.loads.iter().any(|load| load.load(Ordering::Relaxed) > 0) {
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!("some connections did not close in time");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
