//! Time limits of a connection under hyper: without a request, with an incomplete head, with a response that
//! the peer does not read, and in total.
//!
//! * The transport and the requests of a connection record [`Activity`]; [`Deadlines`] decides from it when
//!   to close the connection.
//! * Each connection has one timer. It is set for the earliest deadline and is moved only when it fires.
//! * A request in progress has no limit here: its body, its wait and its response have their own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;

/// Time for a connection to close by itself after it was asked to, once no request is in progress.
const GRACE: Duration = Duration::from_secs(1);

/// The current activity of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// Number of requests in progress.
    busy: Cell<u32>,
    /// True once a request has been received.
    used: Cell<bool>,
    /// When `busy` last fell to 0, or when the connection started.
    idle_since: Cell<Instant>,
    /// When the first bytes of a head arrived that is not complete.
    head_since: Cell<Option<Instant>>,
    /// Since when the socket has accepted no byte although bytes are waiting.
    blocked_since: Cell<Option<Instant>>,
    /// True if a response can only be stopped by closing the connection.
    closing: Cell<bool>,
    /// Wakes the task that drives the connection.
    waker: RefCell<Option<Waker>>,
    /// True while that task runs. It checks the deadlines before it returns.
    driven: Cell<bool>,
}

/// While this exists, the task that drives a connection need not be woken.
pub(super) struct DriveGuard<'a>(&'a Activity);

impl Drop for DriveGuard<'_> {
    fn drop(&mut self) {
        self.0.driven.set(false);
    }
}

/// A request in progress. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct RequestGuard(Rc<Activity>);

impl Activity {
    pub(super) fn new() -> Rc<Activity> {
        Rc::new(Activity {
            busy: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            closing: Cell::new(false),
            waker: RefCell::default(),
            driven: Cell::new(false),
        })
    }

    /// Marks the start of a poll of the connection's task. The task polls its [`Deadlines`] at the end of it.
    pub(super) fn drive(&self) -> DriveGuard<'_> {
        self.driven.set(true);
        DriveGuard(self)
    }

    /// Notes the start of a request.
    pub(super) fn begin(self: &Rc<Self>) -> RequestGuard {
        self.busy.set(self.busy.get() + 1);
        self.used.set(true);
        self.head_since.set(None);
        RequestGuard(self.clone())
    }

    /// Notes that bytes were read from the socket.
    pub(super) fn read(&self) {
        if self.busy.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// Notes that the socket accepted bytes, or, if `blocked`, that it accepted none although bytes are
    /// waiting.
    pub(super) fn wrote(&self, blocked: bool) {
        match blocked {
            false => self.blocked_since.set(None),
            true if self.blocked_since.get().is_none() => self.blocked_since.set(Some(Instant::now())),
            true => {}
        }
    }

    /// Returns true if bytes are waiting for the socket to accept them.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// Closes the connection at once.
    pub(super) fn close_now(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if !self.driven.get()
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let busy = self.0.busy.get().saturating_sub(1);
        self.0.busy.set(busy);
        if busy == 0 {
            self.0.idle_since.set(Instant::now());
            self.0.wake(); // so that the task sets the timer
        }
    }
}

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeadlineAction {
    /// The connection accepts no further request and closes when those in progress are complete.
    Retire,
    /// The connection is dropped: no request is in progress, or it does not make progress.
    Drop,
    /// The connection is reset: unread bytes are discarded.
    Reset,
}

/// The time limits of one connection, and its timer.
#[derive(Debug)]
pub(super) struct Deadlines {
    activity: Rc<Activity>,
    header: Duration,
    idle: Duration,
    write: Duration,
    /// When the connection reaches its maximum age.
    oldest: Option<Instant>,
    /// When the connection was asked to close by itself.
    retired: Option<Instant>,
    /// True if bytes that the peer sends before a request are a request head, which must be complete in time.
    /// On HTTP/2 they may be any frames, and do not show that the connection is in use.
    heads: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadlines {
    pub(super) fn new(activity: &Rc<Activity>, config: &Config, heads: bool) -> Deadlines {
        let age = Duration::from_secs(config.connection_age_seconds);
        Deadlines {
            activity: activity.clone(),
            header: config.header_timeout(),
            idle: Duration::from_millis(config.idle_timeout_ms),
            write: config.write_timeout(),
            oldest: (!age.is_zero()).then(|| Instant::now() + age),
            retired: None,
            heads,
            timer: None,
        }
    }

    /// Notes that the connection was asked to close by itself.
    pub(super) fn retire(&mut self) {
        self.retired.get_or_insert_with(Instant::now);
    }

    /// The next deadline, and how to end the connection then.
    fn next(&self) -> Option<(Instant, DeadlineAction)> {
        let activity = &*self.activity;
        if activity.closing.get() {
            return Some((Instant::now(), DeadlineAction::Reset));
        }
        let idle_since = activity.idle_since.get();
        let waiting = match (activity.head_since.get().filter(|_| self.heads), self.retired) {
            _ if activity.busy.get() > 0 => None,
            _ if !activity.used.get() => Some((idle_since + self.header, DeadlineAction::Drop)),
            (Some(since), _) => Some((since + self.header, DeadlineAction::Drop)),
            (None, Some(retired)) => Some((idle_since.max(retired) + GRACE, DeadlineAction::Drop)),
            (None, None) => Some((idle_since + self.idle, DeadlineAction::Retire)),
        };
        let blocked = activity.blocked_since.get().map(|since| (since + self.write, DeadlineAction::Reset));
        let old =
            self.oldest.filter(|_| self.retired.is_none()).map(|oldest| (oldest, DeadlineAction::Retire));
        [waiting, blocked, old].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Ready when the connection must end. It is polled after the connection, in the same task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DeadlineAction> {
        *self.activity.waker.borrow_mut() = Some(cx.waker().clone());
        loop {
            let Some((at, end)) = self.next() else { return Poll::Pending };
            if at <= Instant::now() {
                return Poll::Ready(end);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            // A timer that fires too early is set again when it fires. One that would fire too late is moved
            // now.
            if timer.is_elapsed() || timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
