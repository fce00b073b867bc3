//! Signals, readiness told to systemd, the paced end, and the errands between.
//!
//! A first SIGTERM or SIGINT drains: accepting stops, readiness turns false, publishers get 503, subscribers are closed spread
//! over the drain time. A second one ends the process at once; what was acknowledged is on disk either way. A SIGHUP reads
//! the configured JWT key files anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::memory;
use crate::resource::leaving;
use crate::worker::Shared;
use crate::worker::mail::Mail;

/// Between sweeps of quiet rings.
const SWEEP: Duration = Duration::from_secs(5);
/// Between writes of what auth has put off.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// How long closed connections may take to go after the drain time.
const LAST: Duration = Duration::from_secs(2);

/// The signals that end the daemon.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals are ours. Needs a runtime.
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

    /// The next one that ends; answers the exit code a shell would show for it. A SIGHUP before it calls `on_hangup`.
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

/// Tells systemd; nothing without it.
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Sweeps, maintenance and the watchdog, until dropped. The watchdog is answered only while every worker turns.
pub async fn errands(shared: Arc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut maintain = tokio::time::interval(MAINTENANCE);
    let mut watch = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3_600)));
    let mut seen = vec![0; shared.metrics.workers.len()];
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                shared.tenants.sweep();
                shared.rates.sweep(shared.clock.now_ms());
                memory::give_back(true); // this thread opened the store, and has no hurry
            }
            _ = maintain.tick() => {
                if let Err(error) = shared.auth.maintain().await {
                    tracing::warn!(%error, "last uses and expired revocations could not be written");
                }
            }
            _ = watch.tick() => {
                let turns: Vec<u64> = shared.metrics.workers.iter().map(|worker| worker.turns.get()).collect();
                // Each worker turns at least once a second, also when idle.
                if turns.iter().zip(&seen).all(|(now, before)| now > before) && watchdog.is_some() {
                    notify(&[NotifyState::Watchdog]);
                }
                seen = turns;
            }
        }
    }
}

/// Erases what deleted users left, until dropped: beside the errands, since it may have much to do.
pub async fn erasures(shared: Arc<Shared>) {
    let mut round = tokio::time::interval(MAINTENANCE);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        if let Err(error) = leaving::erase(&shared.tenants).await {
            tracing::warn!(%error, "what deleted users left could not be erased; it is tried again");
        }
    }
}

/// Stops accepting, closes everyone within `seconds`, and returns when they are gone or the time is over.
pub async fn drain(shared: &Shared, seconds: u64) {
    shared.stopping.store(true, Ordering::Relaxed);
    notify(&[NotifyState::Stopping]);
    for mail in shared.mail.iter() {
        mail.push(Mail::Drain { seconds });
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds) + LAST;
    while shared.loads.iter().any(|load| load.load(Ordering::Relaxed) > 0) {
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!("some connections did not go in time");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
