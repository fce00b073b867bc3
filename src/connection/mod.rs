//! One subscriber's or publisher's connection, as plain data in its worker's slab.
//!
//! * It lives and dies on one worker; nothing here is shared or locked.
//! * While idle it owns no buffer, timer or task: [`Outbox`] and [`Inbound`] exist only while something is partial.
//! * It knows bytes and positions, not tenants' rings, indexes or the wheel: the worker moves it.

pub mod admission;
pub mod body;
pub mod client;
pub mod newcomers;
pub mod presence;
pub mod rate;
pub mod shares;
pub mod sink;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::close::Close;
use crate::frame::control::Ref;
use crate::frame::ws_decode::Decoder;
use crate::frame::{Encoding, Frame};
use crate::ids::Sequence;
use crate::metrics::Transport;

use admission::Admitted;
use shares::Claim;
pub use sink::{Sink, Wrote};

/// Most bytes of acks, pongs and errors held for a blocked connection; beyond that its inbound side is not read.
pub const CONTROL_BYTES: usize = 4 * 1024;
/// Most publishes of one WebSocket waiting for their commit; beyond that its inbound side is not read.
pub const INFLIGHT_PUBLISHES: u16 = 1_024;

/// Seconds of a worker's life: what its wheel counts. 136 years fit.
pub type Tick = u32;

/// How a connection reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Opened for publishing only.
    Silent,
    /// Its cursor is the worker's drained position of the tenant: the pump serves it.
    Live,
    /// It reads ring or log at its own pace.
    Behind,
}

/// Whether a connection's transport takes bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outlet {
    /// As far as anybody knows.
    #[default]
    Open,
    /// It took no more; an edge will say when it does.
    Blocked,
    /// The edge has come, and the connection's turn has not. Still blocked for everyone else: what it owes goes first, since
    /// the front of that may be out in part.
    Ready,
}

impl Outlet {
    /// Whether bytes have to wait.
    #[must_use]
    pub fn is_blocked(self) -> bool {
        self != Outlet::Open
    }
    /// The transport took no more.
    pub fn block(&mut self) {
        if *self == Outlet::Open {
            *self = Outlet::Blocked;
        }
    }
}

/// Yes-or-no facts of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Whether the transport takes bytes.
    pub outlet: Outlet,
    /// A log page was asked for and has not come.
    pub awaiting_log: bool,
    /// It is on the run list.
    pub running: bool,
    /// `caught_up` is owed when it gets live.
    pub caught_up_owed: bool,
    /// Its own publishes are hidden from it.
    pub no_echo: bool,
    /// A keep-alive is always an event, never a comment.
    pub heartbeat_event: bool,
    /// A close was sent; input is discarded until the peer is done.
    pub closing: bool,
    /// Nothing is read from it until an asynchronous step is done.
    pub paused: bool,
    /// Input was left in the socket; no further edge will tell.
    pub unread: bool,
    /// It answers each message with itself (the diagnostic echo).
    pub diagnostic_echo: bool,
}

/// An ack that is owed to a publisher: encoded when the connection takes bytes.
#[derive(Debug)]
pub struct Owed {
    /// The client's reference.
    pub reference: Option<Ref>,
    /// First sequence, and how many follow it without a hole.
    pub first: Sequence,
    /// Number of events.
    pub count: u32,
}

/// What a blocked connection still has to write.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The frame that went out in part, and how many of its bytes did.
    pub partial: Option<(Arc<Frame>, usize)>,
    /// Control bytes to follow it; taken from the front in as many pieces as the transport likes.
    pub control: BytesMut,
    /// Acks to follow them.
    pub owed: VecDeque<Owed>,
    /// Tick at which the last byte went out; a stall is measured from here.
    pub since: Tick,
}

/// What a peer has sent and is not dealt with, and what it was refused.
#[derive(Debug, Default)]
pub struct Inbound {
    /// WebSocket frames and messages that are partial.
    pub decoder: Decoder,
    /// Input that was read and has to wait, at most one read buffer; only while it may not be read.
    pub kept: Option<Box<[u8]>>,
    /// Publishes in a row that were refused for their rate; at [`rate::REFUSALS`] the connection ends.
    pub refused: u8,
    /// Tick at which the message began that `decoder` holds a part of.
    pub since: Option<Tick>,
    /// What `decoder` and `kept` have of the organization's share.
    pub claim: Option<Claim>,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process, never 0; shown in `ready` and listings.
    pub id: u64,
    /// Of its slab slot.
    pub generation: u32,
    /// Who it is, and its place in every limit: dropped with it. `None` for the diagnostic echo alone.
    pub admitted: Option<Admitted>,
    /// Where its bytes go.
    pub sink: Sink,
    /// What it speaks.
    pub transport: Transport,
    /// How it reads.
    pub mode: Mode,
    /// Facts.
    pub flags: Flags,
    /// Its tenant's view on this worker; meaningless while [`Mode::Silent`].
    pub view: u32,
    /// Its row in the view's index.
    pub row: Option<crate::filter::RowId>,
    /// Behind: the position read up to. Live: the position it joined at, below which the pump skips it.
    pub position: Sequence,
    /// Matches up to here are counted already.
    pub evaluated: Sequence,
    /// The last position whose id went out.
    pub told: Sequence,
    /// Which frames of the batch in progress are for it; bit per frame.
    pub mask: u64,
    /// Matches counted and not yet written.
    pub pending: u32,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// Events written.
    pub sent_events: u64,
    /// Bytes written.
    pub sent_bytes: u64,
    /// Tick at which the peer was last heard.
    pub heard: Tick,
    /// Tick at which the next heartbeat is due.
    pub heartbeat_at: Tick,
    /// Tick of its one valid entry in the wheel.
    pub look_at: Tick,
    /// What it still has to write, if anything.
    pub out: Option<Box<Outbox>>,
    /// What its peer has sent and is not dealt with, if anything, or what it was refused.
    pub inbound: Option<Box<Inbound>>,
    /// Bad frames in a row.
    pub bad_frames: u8,
    /// Publishes waiting for their commit.
    pub inflight: u16,
    /// While [`Flags::closing`]: why.
    pub closing_for: Close,
}

/// Every connection of a full process pays for each byte of this: density is a promise (`docs/benchmarks.md`).
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Connection>>() <= 176);

impl Outbox {
    /// Whether nothing is left to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none() && self.control.is_empty() && self.owed.is_empty()
    }
}

impl Connection {
    /// Whether it speaks WebSocket.
    #[must_use]
    pub fn is_ws(&self) -> bool {
        self.transport == Transport::Ws
    }

    /// How its transport carries events.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self.transport {
            Transport::Ws => Encoding::Ws,
            Transport::Sse => Encoding::SseChunked,
            Transport::SseHttp10 | Transport::SseH2 => Encoding::Sse,
        }
    }

    /// What it still has to write; made when first needed.
    pub fn outbox(&mut self) -> &mut Outbox {
        self.out.get_or_insert_default()
    }

    /// What its peer has sent; made when first needed.
    pub fn inbound(&mut self) -> &mut Inbound {
        self.inbound.get_or_insert_default()
    }

    /// Frees [`Connection::inbound`] if nothing is in it.
    pub fn tidy_inbound(&mut self) {
        if self
            .inbound
            .as_ref()
            .is_some_and(|it| it.kept.is_none() && it.refused == 0 && !it.decoder.is_partial())
        {
            self.inbound = None;
        }
    }

    /// Writes what is owed. `Wrote::blocked` says that something is left.
    pub fn flush(&mut self) -> Wrote {
        let mut total = Wrote { bytes: 0, blocked: false, gone: false };
        let Some(mut out) = self.out.take() else { return total };
        if let Some((frame, at)) = out.partial.take() {
            let mut skip = at;
            for part in frame.encoded(self.encoding()).parts() {
                let rest = &part[skip.min(part.len())..];
                skip = skip.saturating_sub(part.len());
                let wrote = self.sink.write(rest);
                total.bytes += wrote.bytes;
                if wrote.blocked || wrote.gone {
                    total = Wrote { bytes: total.bytes, ..wrote };
                    out.partial = Some((frame.clone(), at + total.bytes));
                    break;
                }
            }
            if out.partial.is_none() {
                self.sent_events += 1;
            }
        }
        if !total.blocked && !total.gone && !out.control.is_empty() {
            let wrote = self.sink.write(&out.control);
            out.control.advance(wrote.bytes);
            total = Wrote { bytes: total.bytes + wrote.bytes, ..wrote };
        }
        self.sent_bytes += total.bytes as u64;
        self.flags.outlet = if total.blocked { Outlet::Blocked } else { Outlet::Open };
        if !out.is_empty() {
            self.out = Some(out);
        }
        total
    }

    /// Writes control bytes now, or holds what the transport does not take. Over [`CONTROL_BYTES`] the inbound side
    /// is paused until they are gone ([`Connection::may_read`]).
    pub fn control(&mut self, bytes: &[u8]) -> Wrote {
        let waiting = self.out.as_ref().is_some_and(|out| out.partial.is_some() || !out.control.is_empty());
        let blocked = self.flags.outlet.is_blocked();
        let wrote = match blocked || waiting {
            true => Wrote::nothing(blocked),
            false => self.sink.write(bytes),
        };
        self.sent_bytes += wrote.bytes as u64;
        if wrote.bytes < bytes.len() && !wrote.gone {
            if wrote.blocked {
                self.flags.outlet.block();
            }
            self.outbox().control.extend_from_slice(&bytes[wrote.bytes..]);
        }
        wrote
    }

    /// Whether its inbound side may be read: not while it owes too much or waits for an asynchronous step.
    #[must_use]
    pub fn may_read(&self) -> bool {
        !self.flags.paused
            && self.inflight < INFLIGHT_PUBLISHES
            && self.out.as_ref().is_none_or(|out| out.control.len() < CONTROL_BYTES)
    }
}
