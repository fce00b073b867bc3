//! The connection of one subscriber or publisher, as plain data in its worker's slab.
//!
//! * A connection stays on one worker; nothing here is shared or locked.
//! * While idle it owns no buffer, timer or task: [`Outbox`] and [`Inbound`] exist only while something is
//!   incomplete.
//! * It knows bytes and positions. Rings, indexes and the timer wheel are the worker's.

pub mod admission;
pub mod body_queue;
pub mod byte_shares;
pub mod client_frame;
pub mod presence;
pub mod sink;
pub mod unauthenticated;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::close::CloseReason;
use crate::frame::Frame;
use crate::frame::control::Ref;
use crate::frame::ws_decode::Decoder;
use crate::ids::Sequence;
use crate::transport::Transport;

use admission::ConnectionPermit;
use byte_shares::ByteClaim;
pub use sink::Sink;

/// The most bytes of acks, pongs and errors that are kept for a blocked connection. Above it nothing is read
/// from the client.
pub const CONTROL_BYTES: usize = 4 * 1024;
/// The most publishes of one WebSocket that wait for their commit. Above it nothing is read from the client.
pub const INFLIGHT_PUBLISHES: u16 = 1_024;
/// The most publishes in a row that are refused for their rate before a WebSocket is closed with code 1013.
pub const RATE_REFUSALS: u8 = 100;

/// Seconds since the worker started, the unit of its timer wheel. 136 years fit.
pub type Tick = u32;

/// How a connection reads events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// The connection only publishes.
    Silent,
    /// The connection's cursor is the worker's position in the tenant; the fan-out serves it.
    Live,
    /// The connection reads the ring or the log at its own pace.
    Behind,
}

/// Whether a connection's transport takes bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriteState {
    /// The transport takes bytes, as far as is known.
    #[default]
    Open,
    /// The transport took no more bytes. An edge-triggered event will report when it does.
    Blocked,
    /// The event has arrived, and the connection's turn has not. For all other code the connection is still
    /// blocked: its pending bytes go first, since part of a frame may already be sent.
    Ready,
}

impl WriteState {
    /// Returns true if new bytes have to wait.
    #[must_use]
    pub fn is_blocked(self) -> bool {
        self != WriteState::Open
    }
    /// Records that the transport took no more bytes.
    pub fn block(&mut self) {
        if *self == WriteState::Open {
            *self = WriteState::Blocked;
        }
    }
}

/// The result of writing to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteOutcome {
    /// Number of bytes that the transport took.
    pub bytes: usize,
    /// The transport takes no more bytes now.
    pub blocked: bool,
    /// The transport is dead.
    pub gone: bool,
}

impl WriteOutcome {
    /// The result of a write that was not tried or that took nothing.
    #[must_use]
    pub const fn nothing(blocked: bool) -> WriteOutcome {
        WriteOutcome { bytes: 0, blocked, gone: false }
    }
}

/// Boolean state of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Whether the transport takes bytes.
    pub write_state: WriteState,
    /// A log page was requested and has not arrived.
    pub awaiting_log: bool,
    /// The connection is on the run list.
    pub running: bool,
    /// `caught_up` has to be sent when the connection becomes live.
    pub caught_up_pending: bool,
    /// The connection does not receive its own publishes.
    pub no_echo: bool,
    /// A keep-alive is always an event, never a comment.
    pub heartbeat_event: bool,
    /// A close was sent; input is discarded until the peer closes.
    pub closing: bool,
    /// Nothing is read from the client until an asynchronous step is done.
    pub paused: bool,
    /// Input was left in the socket; no further edge will report it.
    pub unread: bool,
    /// Where events come from that the ring has not, and whether more come.
    pub source: EventSource,
}

/// Where a connection reads events that the ring has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventSource {
    /// The log.
    #[default]
    Log,
    /// The text of the streams that it reads.
    Streams,
    /// Everything was sent: it ends when the transport has taken it.
    Finished,
}

/// An ack that is still to be sent to a publisher. It is encoded when the connection takes bytes.
#[derive(Debug)]
pub struct PendingAck {
    /// The client's `ref`.
    pub reference: Option<Ref>,
    /// Sequence of the first event; the others follow without a gap.
    pub first: Sequence,
    /// Number of events.
    pub count: u32,
    /// For chunks of a stream: the index of its next chunk.
    pub next_index: Option<u64>,
}

/// What a blocked connection still has to write, in the order of the fields.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The frame that was sent in part, and the number of its bytes that were sent.
    pub partial: Option<(Arc<Frame>, usize)>,
    /// Control bytes that follow the frame. The transport may take them in any number of pieces.
    pub control: BytesMut,
    /// Acks that follow the control bytes.
    pub acks: VecDeque<PendingAck>,
    /// Tick at which the last byte was sent; a stall is measured from here.
    pub since: Tick,
}

/// Input of a peer that is incomplete or not yet handled, and the count of its refused publishes.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Incomplete WebSocket frames and messages.
    pub decoder: Decoder,
    /// Input that was read and has to wait, at most one read buffer. Present only while the connection may
    /// not be read.
    pub unprocessed: Option<Box<[u8]>>,
    /// Publishes in a row that were refused for their rate. At [`RATE_REFUSALS`] the connection is closed.
    pub refused: u8,
    /// Tick at which the incomplete message in `decoder` began.
    pub since: Option<Tick>,
    /// The bytes of `decoder` and `unprocessed`, counted in the organization's share.
    pub claim: Option<ByteClaim>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process, never 0; shown in `ready` and listings.
    pub id: u64,
    /// Generation of its slab slot.
    pub generation: u32,
    /// The principal, and the permits in every limit, which are released when this is dropped. `None` only
    /// for the diagnostic echo.
    pub admitted: Option<ConnectionPermit>,
    /// The transport that takes the bytes.
    pub sink: Sink,
    /// The protocol that the client speaks.
    pub transport: Transport,
    /// How the connection reads events.
    pub mode: ReadMode,
    /// Boolean state.
    pub flags: Flags,
    /// The tenant's view on this worker; has no meaning in [`ReadMode::Silent`].
    pub view: u32,
    /// Its row in the view's index.
    pub row: Option<crate::filter::RowId>,
    /// In [`ReadMode::Behind`] the position that is read. In [`ReadMode::Live`] the position at which the connection
    /// became live; the fan-out skips events up to it.
    pub position: Sequence,
    /// Matching events up to this position are already counted.
    pub evaluated: Sequence,
    /// The last position whose cursor was sent to the client.
    pub last_sent: Sequence,
    /// The frames of the present batch that match, one bit per frame.
    pub mask: u64,
    /// Matching events that are counted and not yet written.
    pub pending: u32,
    /// When the connection began, in Unix milliseconds.
    pub since_ms: u64,
    /// Number of events written.
    pub sent_events: u64,
    /// Number of bytes written.
    pub sent_bytes: u64,
    /// Tick at which input was last received from the peer.
    pub last_heard: Tick,
    /// Tick at which the next heartbeat is due.
    pub heartbeat_at: Tick,
    /// Tick of its one valid entry in the timer wheel.
    pub wheel_tick: Tick,
    /// What is still to be written; `None` if nothing is.
    pub out: Option<Box<Outbox>>,
    /// Input that is incomplete or not yet handled; `None` if there is none and no publish was refused.
    pub inbound: Option<Box<Inbound>>,
    /// Number of bad frames in a row.
    pub bad_frames: u8,
    /// Number of publishes that wait for their commit.
    pub inflight: u16,
    /// The reason, while [`Flags::closing`] is set.
    pub close_reason: CloseReason,
}

/// A full process has one of these for every connection, so each byte counts: memory per connection is a
/// published figure (`docs/benchmarks.md`).
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Connection>>() <= 176);

impl Outbox {
    /// Returns true if nothing is left to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none() && self.control.is_empty() && self.acks.is_empty()
    }
}

impl Connection {
    /// Returns what is still to be written; allocated on first use.
    pub fn outbox(&mut self) -> &mut Outbox {
        self.out.get_or_insert_default()
    }

    /// Returns the pending input; allocated on first use.
    pub fn inbound(&mut self) -> &mut Inbound {
        self.inbound.get_or_insert_default()
    }

    /// Frees [`Connection::inbound`] if it is empty.
    pub fn release_empty_inbound(&mut self) {
        if self
            .inbound
            .as_ref()
            .is_some_and(|it| it.unprocessed.is_none() && it.refused == 0 && !it.decoder.is_partial())
        {
            self.inbound = None;
        }
    }

    /// Writes pending bytes. `WriteOutcome::blocked` is true if some are left.
    pub fn flush(&mut self) -> WriteOutcome {
        let mut total = WriteOutcome { bytes: 0, blocked: false, gone: false };
        let Some(mut out) = self.out.take() else { return total };
        if let Some((frame, at)) = out.partial.take() {
            let mut skip = at;
            for part in frame.encoded(self.transport.wire_format()).parts() {
                let rest = &part[skip.min(part.len())..];
                skip = skip.saturating_sub(part.len());
                let wrote = self.sink.write(rest);
                total.bytes += wrote.bytes;
                if wrote.blocked || wrote.gone {
                    total = WriteOutcome { bytes: total.bytes, ..wrote };
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
            total = WriteOutcome { bytes: total.bytes + wrote.bytes, ..wrote };
        }
        self.sent_bytes += total.bytes as u64;
        self.flags.write_state = if total.blocked { WriteState::Blocked } else { WriteState::Open };
        if !out.is_empty() {
            self.out = Some(out);
        }
        total
    }

    /// Writes control bytes now, or keeps what the transport does not take. Above [`CONTROL_BYTES`] nothing
    /// is read from the client until they are written ([`Connection::may_read`]).
    pub fn control(&mut self, bytes: &[u8]) -> WriteOutcome {
        let waiting = self.out.as_ref().is_some_and(|out| out.partial.is_some() || !out.control.is_empty());
        let blocked = self.flags.write_state.is_blocked();
        let wrote = match blocked || waiting {
            true => WriteOutcome::nothing(blocked),
            false => self.sink.write(bytes),
        };
        self.sent_bytes += wrote.bytes as u64;
        if wrote.bytes < bytes.len() && !wrote.gone {
            if wrote.blocked {
                self.flags.write_state.block();
            }
            self.outbox().control.extend_from_slice(&bytes[wrote.bytes..]);
        }
        wrote
    }

    /// Returns true for the diagnostic echo: it returns each message to its sender.
    #[must_use]
    pub fn is_echo(&self) -> bool {
        self.admitted.is_none()
    }

    /// Returns true if input may be read: not while too much is waiting to be written or an asynchronous step
    /// is running.
    #[must_use]
    pub fn may_read(&self) -> bool {
        !self.flags.paused
            && self.inflight < INFLIGHT_PUBLISHES
            && self.out.as_ref().is_none_or(|out| out.control.len() < CONTROL_BYTES)
    }
}
