//! How long a connection under hyper may go on: without a request, with half a head, with an answer that nobody reads, and in all.
//!
//! * [`Activity`] is what the transport and the requests of a connection note; [`Deadlines`] says from it when to end.
//! * One timer a connection, set for whatever comes first and moved only when it fires.
//! * A request that is being answered has no limit here: its body, its wait and its answer have their own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;

/// How long a connection that was asked to end by itself may take once nothing is under way.
const GRACE: Duration = Duration::from_secs(1);

/// What goes on on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests that are being answered.
    busy: Cell<u32>,
    /// Whether there was any request.
    used: Cell<bool>,
    /// When `busy` last fell to 0, or the connection began.
    idle_since: Cell<Instant>,
    /// When the first bytes came of a head that is not whole.
    head_since: Cell<Option<Instant>>,
    /// Since when the socket has taken no byte of what waits.
    blocked_since: Cell<Option<Instant>>,
    /// An answer cannot be got rid of in another way than by ending the connection.
    doomed: Cell<bool>,
    /// Of the task that drives the connection.
    waker: RefCell<Option<Waker>>,
    /// That task is at it, and looks at the deadlines before it ends.
    driven: Cell<bool>,
}

/// While it lives, the task that drives a connection need not be woken.
pub(super) struct Driven<'a>(&'a Activity);

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        self.0.driven.set(false);
    }
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(Rc<Activity>);

impl Activity {
    pub(super) fn new() -> Rc<Activity> {
        Rc::new(Activity {
            busy: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            doomed: Cell::new(false),
            waker: RefCell::default(),
            driven: Cell::new(false),
        })
    }

    /// The connection's task begins a round at whose end it polls its [`Deadlines`].
    pub(super) fn drive(&self) -> Driven<'_> {
        self.driven.set(true);
        Driven(self)
    }

    /// A request has come.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        self.used.set(true);
        self.head_since.set(None);
        Busy(self.clone())
    }

    /// Bytes were read from the socket.
    pub(super) fn read(&self) {
        if self.busy.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// The socket took bytes, or (`blocked`) none of those that wait.
    pub(super) fn wrote(&self, blocked: bool) {
        match blocked {
            false => self.blocked_since.set(None),
            true if self.blocked_since.get().is_none() => self.blocked_since.set(Some(Instant::now())),
            true => {}
        }
    }

    /// Whether bytes wait for the socket to take them.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// Ends the connection at once.
    pub(super) fn doom(&self) {
        self.doomed.set(true);
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

impl Drop for Busy {
    fn drop(&mut self) {
        let busy = self.0.busy.get().saturating_sub(1);
        self.0.busy.set(busy);
        if busy == 0 {
            self.0.idle_since.set(Instant::now());
            self.0.wake(); // which sets the timer
        }
    }
}

/// What is to be done with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It takes no further request and ends when what is under way is done.
    Retire,
    /// It is dropped: nothing is under way, or what is does not go on.
    Drop,
    /// It is dropped, with what the peer has not read.
    Reset,
}

/// The limits of one connection, and its timer.
#[derive(Debug)]
pub(super) struct Deadlines {
    activity: Rc<Activity>,
    header: Duration,
    idle: Duration,
    write: Duration,
    /// When it is as old as it may get.
    oldest: Option<Instant>,
    /// When it was asked to end by itself.
    retired: Option<Instant>,
    /// Whether the peer's bytes before a request are a request's head, which has to be whole in time. On HTTP/2 they may be
    /// anything, and no sign of life.
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

    /// It was asked to end by itself.
    pub(super) fn retire(&mut self) {
        self.retired.get_or_insert_with(Instant::now);
    }

    /// What comes next, and when.
    fn next(&self) -> Option<(Instant, End)> {
        let it = &*self.activity;
        if it.doomed.get() {
            return Some((Instant::now(), End::Reset));
        }
        let idle_since = it.idle_since.get();
        let waiting = match (it.head_since.get().filter(|_| self.heads), self.retired) {
            _ if it.busy.get() > 0 => None,
            _ if !it.used.get() => Some((idle_since + self.header, End::Drop)),
            (Some(since), _) => Some((since + self.header, End::Drop)),
            (None, Some(retired)) => Some((idle_since.max(retired) + GRACE, End::Drop)),
            (None, None) => Some((idle_since + self.idle, End::Retire)),
        };
        let blocked = it.blocked_since.get().map(|since| (since + self.write, End::Reset));
        let old = self.oldest.filter(|_| self.retired.is_none()).map(|oldest| (oldest, End::Retire));
        [waiting, blocked, old].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Ready when the connection is to end. Polled after the connection, in its task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        *self.activity.waker.borrow_mut() = Some(cx.waker().clone());
        loop {
            let Some((at, end)) = self.next() else { return Poll::Pending };
            if at <= Instant::now() {
                return Poll::Ready(end);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            // A timer that fires early is set anew then; one that would fire late is moved now.
            if timer.is_elapsed() || timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
