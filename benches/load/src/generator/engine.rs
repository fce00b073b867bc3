//! The connections of one thread: an epoll set, one scratch buffer, plain structs. There is no task, timer or
//! buffer per connection.
//!
//! * [`Engine::turn`] takes what the kernel has ready and passes each message to a [`Handler`]. A mode acts
//!   between turns (publishes, opens, closes). So a handler never sees a partly changed engine, and a key is
//!   not reused within a turn.
//! * Sockets are edge-triggered: they are read until a read is short. A connection made
//!   [`set_paused`](Engine::set_paused) is never read.
//! * Reading copies and allocates only the tail of a message that the end of a read cut off.
//! * The engine counts nothing. The handler interprets messages.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use memchr::memmem;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::burst::BurstPacer;
use crate::error::BenchError;
use crate::wire::Wire;
use crate::wire::message::{self, Message, Phase};
use crate::wire::request;
use crate::wire::stamp::{Scan, Stamp};

/// Bytes of the buffer through which every connection is read. No message is longer.
const SCRATCH: usize = 512 * 1_024;
/// Number of events taken from the kernel at once.
const BATCH: usize = 512;
/// The same number for engines that work in bursts, so that the mode runs more often.
const SHORT_BATCH: usize = 16;
/// Number of loopback source addresses, used in turn. Each has its own 28,000 ports.
const ADDRESSES: u32 = 200;
/// The longest wait of a mode for a descriptor to become ready.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// After this time without events, no repeat is expected any more; and how often it is awaited at most.
const QUIET: Duration = Duration::from_millis(50);
const QUIETS: usize = 100;
const MODE_DESCRIPTOR: u64 = u64::MAX;

/// The index of a connection. It is reused after the connection has ended.
pub(crate) type Key = usize;

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum ConnEvent<'a> {
    /// The head of the stream's response was accepted.
    Open,
    /// A stamped event with its text (JSON, or the fields of an SSE event).
    Event(Stamp, &'a [u8]),
    /// A message without a stamp: `ready`, `ack`, `gap`, a heartbeat, or an event of another publisher.
    Text(&'a [u8]),
    /// A whole HTTP response. On a stream it means a refusal.
    Answer {
        /// Status of the response.
        status: u16,
        /// Body of the response.
        body: &'a [u8],
    },
    /// The connection has ended and is removed. No other message follows.
    Ended(Ended),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer closed the connection; with the code of the WebSocket Close, if it sent one.
    Peer(Option<u16>),
    /// The kernel reported an error (reset, refused, timed out).
    Broken(io::ErrorKind),
    /// The received bytes do not follow the protocol.
    Malformed,
}

impl ConnEvent<'_> {
    /// Describes an unexpected message on a connection that should receive only events, `ready` and acks.
    /// Returns `None` if the message is expected.
    pub(crate) fn trouble(&self) -> Option<String> {
        Some(match self {
            ConnEvent::Text(text) if is_type(text, "gap") || is_type(text, "error") => {
                String::from_utf8_lossy(text).into_owned()
            }
            ConnEvent::Answer { status, body } => {
                format!("response {status}: {}", String::from_utf8_lossy(body))
            }
            ConnEvent::Ended(Ended::Peer(None)) => "the server closed the connection".into(),
            ConnEvent::Ended(Ended::Peer(Some(code))) => format!("closed with {code}"),
            ConnEvent::Ended(ended) => format!("ended: {ended:?}"),
            ConnEvent::Open | ConnEvent::Event(..) | ConnEvent::Text(_) => return None,
        })
    }
}

/// Returns true if a message has this `type`. The message is JSON, or an SSE event that contains it.
pub(crate) fn is_type(text: &[u8], kind: &str) -> bool {
    const NAME: &[u8] = b"\"type\":\"";
    memmem::find_iter(text, NAME).any(|at| {
        let value = &text[at + NAME.len()..];
        value.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"'))
    })
}

/// Waits until the connections are quiet, because a repeat may come late. The number of waits is limited; no
/// server needs more. `turn` serves the connections for the given time and returns true if anything arrived.
pub(crate) fn until_quiet(
    mut turn: impl FnMut(Duration) -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    for _ in 0..QUIETS {
        if !turn(QUIET)? {
            break;
        }
    }
    Ok(())
}

/// Receives what happens on connections. `tag` is the number that the mode gave the connection.
pub(crate) trait Handler {
    /// Something happened on the connection `key`.
    fn on_event(&mut self, key: Key, tag: usize, event: ConnEvent<'_>);
}

struct Conn {
    stream: TcpStream,
    phase: Phase,
    /// The start of an incomplete message.
    partial: Vec<u8>,
    /// Bytes that the kernel has not accepted yet, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    tag: usize,
    /// True if the connection is not read.
    paused: bool,
    /// The code of a received Close.
    closed: Option<u16>,
}

/// The connections of one thread.
pub(crate) struct Engine {
    set: OwnedFd,
    conns: Slab<Conn>,
    scratch: Box<[u8]>,
    ready: Vec<Event>,
    scan: Scan,
    /// Number of connections opened so far. It selects the next source address.
    opened: u32,
    bursts: Option<BurstPacer>,
    /// Ended connections whose slots are released at the end of the turn.
    ended: Vec<Key>,
}

impl AsFd for Engine {
    /// The descriptor is readable if a connection has an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("connections", &self.conns.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Creates an engine without connections.
    pub(crate) fn new() -> Result<Engine, BenchError> {
        Ok(Engine {
            set: epoll::create(CreateFlags::CLOEXEC).map_err(BenchError::sys("make an epoll set"))?,
            conns: Slab::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            ready: Vec::with_capacity(BATCH),
            scan: Scan::new(),
            opened: 0,
            bursts: None,
            ended: Vec::new(),
        })
    }

    /// From now on works in short bursts and short turns, on the calling thread.
    pub(crate) fn in_bursts(&mut self) {
        self.bursts = Some(BurstPacer::new());
        self.ready = Vec::with_capacity(SHORT_BATCH);
    }

    /// Connects to `to` and sends `request` as soon as the connection is established. Loopback targets are
    /// reached from many source addresses.
    pub(crate) fn open(
        &mut self,
        to: SocketAddr,
        wire: Wire,
        tag: usize,
        request: &[u8],
    ) -> Result<Key, BenchError> {
        let stream = self.connect(to).map_err(BenchError::io("open a connection"))?;
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        epoll::add(&self.set, &stream, EventData::new_u64(key as u64), interest())
            .map_err(BenchError::sys("watch a connection"))?;
        entry.insert(Conn {
            stream,
            phase: Phase::Head(wire),
            partial: Vec::new(),
            out: request.to_vec(),
            out_at: 0,
            tag,
            paused: false,
            closed: None,
        });
        Ok(key)
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if to.is_ipv4() && to.ip().is_loopback() {
            let host = 2 + self.opened % ADDRESSES;
            let from = IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + host));
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        self.opened = self.opened.wrapping_add(1);
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }

    /// Watches a descriptor of the mode (an eventfd, a timer, another engine). It ends a turn and calls no
    /// handler.
    pub(crate) fn watch(&self, fd: impl AsFd) -> Result<(), BenchError> {
        epoll::add(&self.set, fd, EventData::new_u64(MODE_DESCRIPTOR), EventFlags::IN)
            .map_err(BenchError::sys("watch a descriptor"))
    }

    /// Sends bytes, now or when the kernel accepts them. A connection that has ended drops them.
    pub(crate) fn send(&mut self, key: Key, bytes: &[u8]) {
        self.send_pieces(key, [bytes, &[]]);
    }

    /// Sends two consecutive pieces, by one system call if the kernel accepts them.
    pub(crate) fn send_pieces(&mut self, key: Key, pieces: [&[u8]; 2]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let mut taken = 0;
        if conn.out.is_empty() {
            // The next event of the connection reports the error.
            taken = match pieces {
                [only, []] => conn.stream.write(only),
                [first, second] => conn.stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]),
            }
            .unwrap_or(0);
        }
        for piece in pieces {
            let of_it = taken.min(piece.len());
            conn.out.extend_from_slice(&piece[of_it..]);
            taken -= of_it;
        }
    }

    /// Stops or resumes reading the connection.
    pub(crate) fn set_paused(&mut self, key: Key, paused: bool, handler: &mut impl Handler) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.paused == paused {
            return;
        }
        conn.paused = paused;
        // The socket is removed from the set, so that incoming data does not wake the thread. A closed socket
        // is in no set, so there is nothing to do.
        if paused {
            let _ = epoll::delete(&self.set, &conn.stream);
        } else {
            let _ = epoll::add(&self.set, &conn.stream, EventData::new_u64(key as u64), interest());
            self.read(key, handler); // its edge was reported earlier
            self.sweep();
        }
    }

    /// Closes a connection without calling a handler. A handler must not call this (it cannot).
    pub(crate) fn close(&mut self, key: Key) {
        self.conns.try_remove(key);
    }

    /// Closes all connections without calling a handler.
    pub(crate) fn close_all(&mut self) {
        self.conns.clear();
    }

    /// Serves what is ready, and waits up to `timeout` for it. Returns true if anything was ready.
    pub(crate) fn turn(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<bool, BenchError> {
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::sys("wait for connections")(error)),
        }
        for event in &ready {
            if let Some(bursts) = &mut self.bursts {
                bursts.pause();
            }
            let data = event.data.u64();
            if data == MODE_DESCRIPTOR {
                continue;
            }
            let (key, flags) = (data as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.flush(key);
            }
            if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                self.read(key, handler);
            }
        }
        let any = !ready.is_empty();
        self.ready = ready;
        self.sweep();
        Ok(any)
    }

    /// Releases the slots of ended connections.
    fn sweep(&mut self) {
        for key in self.ended.drain(..) {
            self.conns.try_remove(key);
        }
    }

    fn flush(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        while conn.out_at < conn.out.len() {
            match conn.stream.write(&conn.out[conn.out_at..]) {
                Ok(taken) => conn.out_at += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return, // it would block, or the next read reports the end
            }
        }
        conn.out.clear();
        conn.out_at = 0;
    }

    fn read(&mut self, key: Key, handler: &mut impl Handler) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.paused || self.ended.contains(&key) {
            return;
        }
        let end = loop {
            let held = conn.partial.len();
            self.scratch[..held].copy_from_slice(&conn.partial);
            let read = match conn.stream.read(&mut self.scratch[held..]) {
                Ok(0) => break Ended::Peer(conn.closed),
                Ok(read) => read,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => continue,
                    kind => break Ended::Broken(kind),
                },
            };
            let filled = held + read;
            let used = match deliver(conn, key, &self.scratch[..filled], &self.scan, handler) {
                Ok(used) => used,
                Err(message::Malformed::Frame | message::Malformed::Head | message::Malformed::Length) => {
                    break Ended::Malformed;
                }
            };
            conn.partial.clear();
            conn.partial.extend_from_slice(&self.scratch[used..filled]);
            if filled < self.scratch.len() {
                return; // a short read: the edge is used up
            }
            if used == 0 {
                break Ended::Malformed; // a message longer than the buffer
            }
        };
        handler.on_event(key, conn.tag, ConnEvent::Ended(end));
        let _ = epoll::delete(&self.set, &conn.stream); // closed at the end of the turn in any case
        self.ended.push(key);
    }
}

/// The epoll events of every socket.
const fn interest() -> EventFlags {
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET)
}

/// Passes every whole message of `buf` to the handler. Returns the number of their bytes.
fn deliver(
    conn: &mut Conn,
    key: Key,
    buf: &[u8],
    scan: &Scan,
    handler: &mut impl Handler,
) -> Result<usize, message::Malformed> {
    let mut at = 0;
    while let Some((used, message)) = message::next(&mut conn.phase, &buf[at..])? {
        at += used;
        match message {
            Message::Text(text) => match scan.find(text) {
                Some(stamp) => handler.on_event(key, conn.tag, ConnEvent::Event(stamp, text)),
                None => handler.on_event(key, conn.tag, ConnEvent::Text(text)),
            },
            Message::Open => handler.on_event(key, conn.tag, ConnEvent::Open),
            Message::Answer { status, body } => {
                handler.on_event(key, conn.tag, ConnEvent::Answer { status, body })
            }
            Message::Close(code) => conn.closed = Some(code),
            Message::Ping(payload) => {
                let mut pong = Vec::with_capacity(payload.len() + 8);
                request::ws_pong(payload, &mut pong);
                if conn.out.is_empty() {
                    let taken = conn.stream.write(&pong).unwrap_or(0);
                    pong.drain(..taken);
                }
                conn.out.extend_from_slice(&pong);
            }
            Message::Nothing => {}
        }
    }
    Ok(at)
}
