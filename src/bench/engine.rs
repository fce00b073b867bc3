//! One thread's connections: an epoll set, one scratch buffer, plain structs. No task, timer or buffer for each connection.
//!
//! * [`Engine::turn`] takes what the kernel has ready and tells a [`Watch`] each message; a mode acts between turns (publishes,
//!   opens, closes). So a watch never meets a half-changed engine, and a key is not used anew within a turn.
//! * Sockets are edge-triggered: read until a read comes back short. A connection made [`deaf`](Engine::deaf) is never read.
//! * Reading copies and allocates nothing but the tail of a message cut by the end of a read.
//! * It counts bytes and messages of nobody; what a message means is the watch's.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use memchr::memmem;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::burst::Bursts;
use super::error::BenchError;
use super::publisher;
use super::stamp::{Scan, Stamp};
use super::subscriber::{self, Message, Phase, Wire};

/// Bytes of the buffer every connection is read through; no message is longer.
const SCRATCH: usize = 512 * 1_024;
/// Events taken from the kernel at once.
const BATCH: usize = 512;
/// The same for who works in bursts, so that the mode has its say between few of them.
const SHORT_BATCH: usize = 16;
/// Loopback addresses that connections come from, in turns: each has its own 28,000 ports.
const ADDRESSES: u32 = 200;
/// Silence after which no repeat is expected any more, and how often it is waited for at the most.
const QUIET: Duration = Duration::from_millis(50);
const QUIETS: usize = 100;
const MODES_OWN: u64 = u64::MAX;

/// A connection's place; used anew after it has ended.
pub type Key = usize;

/// What happened on a connection.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The stream's head was accepted.
    Open,
    /// A stamped event; its text (JSON, or the fields of an SSE event).
    Event(Stamp, &'a [u8]),
    /// A message without a stamp: `ready`, `ack`, `gap`, heartbeats, events of others.
    Text(&'a [u8]),
    /// A whole HTTP answer; on a stream, its refusal.
    Answer {
        /// Its status.
        status: u16,
        /// Its body.
        body: &'a [u8],
    },
    /// It is over and gone; nothing follows.
    Ended(Ended),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed; with the code of a WebSocket Close if it sent one.
    Peer(Option<u16>),
    /// The kernel said so (reset, refused, timed out).
    Broken(io::ErrorKind),
    /// Bytes that are no such protocol.
    Malformed,
}

impl Seen<'_> {
    /// What it says of a connection on which nothing but events, `ready` and acks is to come; `None`: nothing is wrong.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        Some(match self {
            Seen::Text(text) if is_type(text, "gap") || is_type(text, "error") => {
                String::from_utf8_lossy(text).into_owned()
            }
            Seen::Answer { status, body } => format!("answered {status}: {}", String::from_utf8_lossy(body)),
            Seen::Ended(Ended::Peer(None)) => "the server closed the connection".into(),
            Seen::Ended(Ended::Peer(Some(code))) => format!("closed with {code}"),
            Seen::Ended(ended) => format!("ended: {ended:?}"),
            Seen::Open | Seen::Event(..) | Seen::Text(_) => return None,
        })
    }
}

/// Whether a message is of this `type`: JSON, or an SSE event around it.
#[must_use]
pub fn is_type(text: &[u8], kind: &str) -> bool {
    const NAME: &[u8] = b"\"type\":\"";
    memmem::find_iter(text, NAME).any(|at| {
        let value = &text[at + NAME.len()..];
        value.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"'))
    })
}

/// Waits until the connections are quiet: a repeat comes late if at all, and a hundred quiets are more than any server needs.
/// `turn` serves them for as long as it is told and answers whether anything came.
///
/// # Errors
/// Those of `turn`.
pub fn until_quiet(mut turn: impl FnMut(Duration) -> Result<bool, BenchError>) -> Result<(), BenchError> {
    for _ in 0..QUIETS {
        if !turn(QUIET)? {
            break;
        }
    }
    Ok(())
}

/// Is told what happens. `tag` is the number the mode gave the connection.
pub trait Watch {
    /// Something happened on the connection `key`.
    fn seen(&mut self, key: Key, tag: usize, seen: Seen<'_>);
}

struct Conn {
    stream: TcpStream,
    phase: Phase,
    /// The start of a message whose rest is still to come.
    partial: Vec<u8>,
    /// Bytes not yet taken by the kernel, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    tag: usize,
    /// Not read.
    deaf: bool,
    /// The code of a Close that came.
    closed: Option<u16>,
}

/// The connections of one thread.
pub struct Engine {
    set: OwnedFd,
    conns: Slab<Conn>,
    scratch: Box<[u8]>,
    ready: Vec<Event>,
    scan: Scan,
    /// Connections opened so far: chooses the next source address.
    opened: u32,
    bursts: Option<Bursts>,
    /// Ended connections whose slots are given back when the turn is over.
    gone: Vec<Key>,
}

impl AsFd for Engine {
    /// Readable while a connection has something.
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
    /// Without connections.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> Result<Engine, BenchError> {
        Ok(Engine {
            set: epoll::create(CreateFlags::CLOEXEC).map_err(BenchError::sys("make an epoll set"))?,
            conns: Slab::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            ready: Vec::with_capacity(BATCH),
            scan: Scan::new(),
            opened: 0,
            bursts: None,
            gone: Vec::new(),
        })
    }

    /// Works in short bursts and turns from now on, on the calling thread.
    pub fn in_bursts(&mut self) {
        self.bursts = Some(Bursts::new());
        self.ready = Vec::with_capacity(SHORT_BATCH);
    }

    /// Open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Connects to `to`, sending `request` as soon as it stands. Loopback targets are reached from many source addresses.
    ///
    /// # Errors
    /// No descriptor or port left. A refused connection ends later, as told to the watch.
    pub fn open(
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
            deaf: false,
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

    /// Watches a descriptor of the mode's own (an eventfd, a timer, another engine): it ends a turn, and nobody is told.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch(&self, fd: impl AsFd) -> Result<(), BenchError> {
        epoll::add(&self.set, fd, EventData::new_u64(MODES_OWN), EventFlags::IN)
            .map_err(BenchError::sys("watch a descriptor"))
    }

    /// Sends bytes, now or as the kernel takes them. A connection that has ended drops them.
    pub fn send(&mut self, key: Key, bytes: &[u8]) {
        self.send_pieces(key, [bytes, &[]]);
    }

    /// Sends two pieces that follow each other, by one system call where the kernel takes them.
    pub fn send_pieces(&mut self, key: Key, pieces: [&[u8]; 2]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let mut taken = 0;
        if conn.out.is_empty() {
            // An error comes back with the next event.
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

    /// From now on the connection is not read, or is again.
    pub fn deaf(&mut self, key: Key, deaf: bool, watch: &mut impl Watch) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.deaf == deaf {
            return;
        }
        conn.deaf = deaf;
        // Out of the set, so that what comes for it does not even wake the thread. A closed socket is in no set: nothing to do.
        if deaf {
            let _ = epoll::delete(&self.set, &conn.stream);
        } else {
            let _ = epoll::add(&self.set, &conn.stream, EventData::new_u64(key as u64), interest());
            self.read(key, watch); // its edge has passed
            self.sweep();
        }
    }

    /// Closes a connection; nobody is told. Not to be called from a watch (it cannot).
    pub fn close(&mut self, key: Key) {
        self.conns.try_remove(key);
    }

    /// Closes all; nobody is told.
    pub fn close_all(&mut self) {
        self.conns.clear();
    }

    /// Serves what is ready, waiting up to `timeout` for something. Answers whether anything was.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn turn(&mut self, timeout: Duration, watch: &mut impl Watch) -> Result<bool, BenchError> {
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
            if data == MODES_OWN {
                continue;
            }
            let (key, flags) = (data as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.flush(key);
            }
            if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                self.read(key, watch);
            }
        }
        let any = !ready.is_empty();
        self.ready = ready;
        self.sweep();
        Ok(any)
    }

    /// Gives back the slots of what ended.
    fn sweep(&mut self) {
        for key in self.gone.drain(..) {
            self.conns.try_remove(key);
        }
    }

    fn flush(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        while conn.out_at < conn.out.len() {
            match conn.stream.write(&conn.out[conn.out_at..]) {
                Ok(taken) => conn.out_at += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return, // it would block, or reading tells how it ended
            }
        }
        conn.out.clear();
        conn.out_at = 0;
    }

    fn read(&mut self, key: Key, watch: &mut impl Watch) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.deaf || self.gone.contains(&key) {
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
            let used = match deliver(conn, key, &self.scratch[..filled], &self.scan, watch) {
                Ok(used) => used,
                Err(
                    subscriber::Malformed::Frame
                    | subscriber::Malformed::Head
                    | subscriber::Malformed::Length,
                ) => {
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
        watch.seen(key, conn.tag, Seen::Ended(end));
        let _ = epoll::delete(&self.set, &conn.stream); // closed at the end of the turn in any case
        self.gone.push(key);
    }
}

/// What is waited for on every socket.
const fn interest() -> EventFlags {
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET)
}

/// Tells every whole message of `buf`; answers how many bytes they were.
fn deliver(
    conn: &mut Conn,
    key: Key,
    buf: &[u8],
    scan: &Scan,
    watch: &mut impl Watch,
) -> Result<usize, subscriber::Malformed> {
    let mut at = 0;
    while let Some((used, message)) = subscriber::next(&mut conn.phase, &buf[at..])? {
        at += used;
        match message {
            Message::Text(text) => match scan.find(text) {
                Some(stamp) => watch.seen(key, conn.tag, Seen::Event(stamp, text)),
                None => watch.seen(key, conn.tag, Seen::Text(text)),
            },
            Message::Open => watch.seen(key, conn.tag, Seen::Open),
            Message::Answer { status, body } => watch.seen(key, conn.tag, Seen::Answer { status, body }),
            Message::Close(code) => conn.closed = Some(code),
            Message::Ping(payload) => {
                let mut pong = Vec::with_capacity(payload.len() + 8);
                publisher::ws_pong(payload, &mut pong);
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
