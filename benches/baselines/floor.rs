//! The floor: the cost in the kernel alone of sending events to subscribers. `nervewire bench --floor`
//! compares with it.
//!
//! * One thread, one epoll set, edge-triggered. Nothing is authenticated, filtered, logged or numbered per
//!   tenant.
//! * All events of one wake-up (at most `--depth`) are encoded once and sent as one `send` per subscriber,
//!   directly from one shared buffer. There is no allocation, copy or queue per delivery. `--depth 1` means
//!   one `send` per event.
//! * A subscriber that requests a stream (`?request_id=`) receives only the events of the stream, each by its
//!   own `send`. An array maps streams to subscribers.
//! * Nothing is lost. Bytes that a socket does not accept are kept and written later, in order. A subscriber
//!   with more than [`MAX_UNSENT`] unsent bytes is closed.
//! * The response to a publish is sent after its events.
//!
//! `floor --listen 127.0.0.1:0 [--depth N] [--uring [--uring-batch N] [--uring-fixed]]` prints
//! `{"listen":"…"}` and serves until its standard input (a pipe or a terminal) closes.

#![allow(clippy::print_stdout, missing_docs, reason = "a program beside the daemon")]

mod uring;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use clap::Parser;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::{Domain, Socket, Type};

/// Length of the listener's backlog, the same as the daemon's.
const BACKLOG: i32 = 4_096;
/// Maximum bytes that are kept for a subscriber that does not read.
const MAX_UNSENT: usize = 256 << 20;
const LISTENER: u64 = u64::MAX;
const STDIN: u64 = u64::MAX - 1;

#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Maximum events in one send.
    #[arg(long, default_value_t = 1_024)]
    depth: usize,
    /// Send through io_uring, with one enter per batch.
    #[arg(long)]
    uring: bool,
    /// Maximum sends in one enter.
    #[arg(long, default_value_t = 64)]
    uring_batch: u32,
    /// Register the sockets of subscribers with the ring.
    #[arg(long)]
    uring_fixed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A free slot.
    Free,
    /// The connection has no subscription: it sends HTTP requests.
    Http,
    Ws,
    Sse,
}

/// State that only a few connections have.
#[derive(Default)]
struct Side {
    /// An incomplete request.
    partial: Vec<u8>,
    /// Bytes that the socket did not accept. They are sent before anything else.
    unsent: Vec<u8>,
}

struct Conn {
    fd: Option<OwnedFd>,
    kind: Kind,
    side: Option<Box<Side>>,
}

struct Floor {
    listener: Socket,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    free: Vec<u32>,
    depth: usize,
    uring: Option<uring::Sender>,
    /// Encoded events of this wake-up, for each transport.
    ws: Vec<u8>,
    sse: Vec<u8>,
    /// The number of these events.
    pending: usize,
    /// The subscriber of each stream.
    streams: Vec<u32>,
    /// Connections with an outstanding response, one entry per publish.
    owed: Vec<u32>,
    answers: Vec<u8>,
    /// Number of subscribers of each transport. An encoding without subscribers is skipped.
    readers: [u32; 2],
    events: u64,
    deliveries: u64,
    sends: u64,
}

/// Sends the bytes that the socket accepts now; `None` if the connection is dead.
fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
    match send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(sent) => Some(sent),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_) => None,
    }
}

impl Conn {
    /// Returns true if bytes are already waiting for the socket.
    fn blocked(&self) -> bool {
        self.side.as_ref().is_some_and(|side| !side.unsent.is_empty())
    }

    /// Keeps the bytes that the socket did not accept, and registers for writability. Returns false if there
    /// are too many, or if the kernel refused.
    fn keep(&mut self, at: u32, rest: &[u8], epoll: &OwnedFd) -> bool {
        let Some(fd) = &self.fd else { return false };
        let side = self.side.get_or_insert_default();
        let first = side.unsent.is_empty();
        side.unsent.extend_from_slice(rest);
        let all =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        side.unsent.len() <= MAX_UNSENT
            && (!first || epoll::modify(epoll, fd, epoll::EventData::new_u64(at.into()), all).is_ok())
    }

    /// Sends `bytes`, or keeps the rest. Returns false if the connection must be closed.
    fn deliver(&mut self, at: u32, bytes: &[u8], epoll: &OwnedFd) -> bool {
        if self.blocked() {
            return self.keep(at, bytes, epoll);
        }
        let Some(fd) = &self.fd else { return false };
        match send_now(fd.as_fd(), bytes) {
            Some(sent) if sent == bytes.len() => true,
            Some(sent) => self.keep(at, &bytes[sent..], epoll),
            None => false,
        }
    }

    /// Handles a writable socket.
    fn writable(&mut self) -> bool {
        let (Some(fd), Some(side)) = (&self.fd, &mut self.side) else { return true };
        while !side.unsent.is_empty() {
            match send_now(fd.as_fd(), &side.unsent) {
                Some(0) => return true,
                Some(sent) => drop(side.unsent.drain(..sent)),
                None => return false,
            }
        }
        side.unsent = Vec::new();
        true
    }
}

impl Floor {
    fn new(args: &Args) -> io::Result<Floor> {
        let listener = Socket::new(Domain::for_address(args.listen), Type::STREAM.nonblocking(), None)?;
        listener.set_reuse_address(true)?;
        listener.set_tcp_nodelay(true)?; // accepted sockets inherit it
        listener.bind(&args.listen.into())?;
        listener.listen(BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        // The kernel refuses this for a file and for /dev/null, which never close.
        let _ = epoll::add(&epoll, io::stdin(), epoll::EventData::new_u64(STDIN), epoll::EventFlags::IN);
        let uring = args.uring.then(|| uring::Sender::new(args.uring_batch, args.uring_fixed)).transpose()?;
        Ok(Floor {
            listener,
            epoll,
            conns: Vec::new(),
            free: Vec::new(),
            depth: args.depth.max(1),
            uring,
            ws: Vec::with_capacity(1 << 20),
            sse: Vec::with_capacity(1 << 20),
            pending: 0,
            streams: Vec::new(),
            owed: Vec::with_capacity(1_024),
            answers: Vec::with_capacity(64 << 10),
            readers: [0; 2],
            events: 0,
            deliveries: 0,
            sends: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(1_024);
        let mut buf = vec![0u8; 256 << 10];
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for event in &ready {
                let flags = event.flags;
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    STDIN => match rustix::io::read(io::stdin(), &mut buf) {
                        Ok(0) | Err(_) => return Ok(()),
                        Ok(_) => {}
                    },
                    at => {
                        let at = at as u32;
                        if flags.contains(epoll::EventFlags::OUT) && !self.conns[at as usize].writable() {
                            self.close(at);
                        }
                        let end = flags.intersects(
                            epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                        );
                        if end || flags.contains(epoll::EventFlags::IN) {
                            self.readable(at, end, &mut buf);
                        }
                    }
                }
            }
            self.fan_out();
            self.answer();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let fd = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => fd,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::MFILE | Errno::NFILE) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let at = self.free.pop().unwrap_or(self.conns.len() as u32);
            let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(at.into()), flags)?;
            let conn = Conn { fd: Some(fd), kind: Kind::Http, side: None };
            match self.conns.get_mut(at as usize) {
                Some(slot) => *slot = conn,
                None => self.conns.push(conn),
            }
        }
    }

    fn close(&mut self, at: u32) {
        let conn = &mut self.conns[at as usize];
        match conn.kind {
            Kind::Free => return,
            Kind::Http => {}
            Kind::Ws => self.readers[0] -= 1,
            Kind::Sse => self.readers[1] -= 1,
        }
        if let Some(uring) = &mut self.uring {
            uring.forget(at);
        }
        self.owed.retain(|owed| *owed != at);
        *conn = Conn { fd: None, kind: Kind::Free, side: None }; // closing removes it from the epoll set
        self.free.push(at);
    }

    /// Reads everything that is available. With `end`, it reads to the end of the stream, which an edge
    /// reports once.
    fn readable(&mut self, at: u32, end: bool, buf: &mut [u8]) {
        loop {
            let conn = &mut self.conns[at as usize];
            let Some(fd) = &conn.fd else { return };
            let got = match recv(fd, &mut *buf, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.close(at),
                Ok((got, _)) => got,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => return self.close(at),
            };
            let going = match conn.kind {
                Kind::Http => self.requests(at, &buf[..got]),
                Kind::Ws => buf[0] & 0x0f != 8, // a Close frame ends it; other frames are ignored
                Kind::Sse | Kind::Free => true,
            };
            if !going {
                return self.close(at);
            }
            if got < buf.len() && !end {
                return;
            }
        }
    }

    /// Handles every whole request in `read`. Returns false if the connection must be closed.
    fn requests(&mut self, at: u32, read: &[u8]) -> bool {
        let conn = &mut self.conns[at as usize];
        let mut kept = conn.side.as_mut().map(|side| std::mem::take(&mut side.partial)).unwrap_or_default();
        let mut rest = read;
        if !kept.is_empty() {
            kept.extend_from_slice(read);
            rest = &kept;
        }
        while !rest.is_empty() {
            let Ok(request) = wire::request(rest) else { return false };
            let Some(request) = request else {
                self.conns[at as usize].side.get_or_insert_default().partial = rest.to_vec();
                return true;
            };
            rest = &rest[request.used..];
            match request.target {
                wire::Target::Publish => {
                    for event in wire::events(request.body) {
                        self.publish(event);
                    }
                    self.owed.push(at);
                }
                wire::Target::Ws => return self.subscribe(at, Kind::Ws, request.key, request.stream),
                wire::Target::Sse => return self.subscribe(at, Kind::Sse, &[], request.stream),
                target => {
                    let text = match target {
                        wire::Target::Stats => wire::answer("200 OK", &self.stats()),
                        _ => wire::answer("404 Not Found", "{}"),
                    };
                    if !self.conns[at as usize].deliver(at, text.as_bytes(), &self.epoll) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn stats(&self) -> String {
        format!(
            "{{\"events\":{},\"deliveries\":{},\"sends\":{},\"ws\":{},\"sse\":{}}}",
            self.events, self.deliveries, self.sends, self.readers[0], self.readers[1]
        )
    }

    fn subscribe(&mut self, at: u32, kind: Kind, key: &[u8], stream: Option<usize>) -> bool {
        self.answers.clear();
        match kind {
            Kind::Ws => wire::ws_opening(key, &mut self.answers),
            _ => wire::sse_opening(&mut self.answers),
        }
        // Pending events were published before this subscriber connected.
        self.fan_out();
        let conn = &mut self.conns[at as usize];
        conn.kind = kind;
        if let Some(stream) = stream {
            self.streams.resize(self.streams.len().max(stream + 1), u32::MAX);
            self.streams[stream] = at;
        }
        self.readers[usize::from(kind == Kind::Sse)] += 1;
        if let (Some(uring), Some(fd)) = (&mut self.uring, &conn.fd) {
            uring.learn(at, fd);
        }
        conn.deliver(at, &self.answers, &self.epoll)
    }

    fn publish(&mut self, event: &[u8]) {
        self.events += 1;
        if !self.streams.is_empty() {
            return self.publish_to_one(event);
        }
        if self.readers[0] > 0 {
            wire::ws_event(event, self.events, &mut self.ws);
        }
        if self.readers[1] > 0 {
            wire::sse_event(event, self.events, &mut self.sse);
        }
        self.pending += 1;
        if self.pending == self.depth {
            self.fan_out();
        }
    }

    /// Sends an event to the only subscriber of its stream.
    fn publish_to_one(&mut self, event: &[u8]) {
        let whose = wire::stream_of(event).and_then(|stream| self.streams.get(stream));
        let Some((at, conn)) = whose.and_then(|&at| Some((at, self.conns.get_mut(at as usize)?))) else {
            return;
        };
        let mut bytes = std::mem::take(&mut self.answers);
        bytes.clear();
        match conn.kind {
            Kind::Ws => wire::ws_event(event, self.events, &mut bytes),
            Kind::Sse => wire::sse_event(event, self.events, &mut bytes),
            Kind::Http | Kind::Free => return,
        }
        self.deliveries += 1;
        self.sends += 1;
        let sent = conn.deliver(at, &bytes, &self.epoll);
        self.answers = bytes;
        if !sent {
            self.close(at);
        }
    }

    /// Sends all pending events to every subscriber.
    fn fan_out(&mut self) {
        if self.pending == 0 {
            return;
        }
        let mut dead = Vec::new(); // allocates only if a connection broke
        let readers = u64::from(self.readers[0] + self.readers[1]);
        self.deliveries += readers * self.pending as u64;
        self.sends += readers;
        for (at, conn) in self.conns.iter_mut().enumerate() {
            let at = at as u32;
            let bytes = match conn.kind {
                Kind::Ws => &self.ws,
                Kind::Sse => &self.sse,
                Kind::Http | Kind::Free => continue,
            };
            let sent = match (&mut self.uring, &conn.fd) {
                (Some(uring), Some(fd)) if !conn.blocked() => uring.push(at, fd.as_fd(), bytes),
                _ => conn.deliver(at, bytes, &self.epoll),
            };
            if !sent {
                dead.push(at);
            }
        }
        if let Some(uring) = &mut self.uring {
            uring.finish();
            for (at, result) in uring.short() {
                let conn = &mut self.conns[at as usize];
                let bytes = if conn.kind == Kind::Ws { &self.ws } else { &self.sse };
                if result.is_none_or(|sent| !conn.keep(at, &bytes[sent..], &self.epoll)) {
                    dead.push(at);
                }
            }
        }
        dead.into_iter().for_each(|at| self.close(at));
        self.ws.clear();
        self.sse.clear();
        self.pending = 0;
    }

    /// Sends the responses to the publishes of this wake-up. Responses on one connection share one send.
    fn answer(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        for same in owed.chunk_by(|a, b| a == b) {
            let bytes = same.len() * wire::PUBLISHED.len();
            if same.len() == 1 {
                self.reply(same[0], wire::PUBLISHED);
                continue;
            }
            let mut answers = std::mem::take(&mut self.answers);
            answers.clear();
            answers.reserve(bytes);
            same.iter().for_each(|_| answers.extend_from_slice(wire::PUBLISHED));
            self.reply(same[0], &answers);
            self.answers = answers;
        }
        self.owed = owed;
        self.owed.clear();
    }

    fn reply(&mut self, at: u32, bytes: &[u8]) {
        let conn = &mut self.conns[at as usize];
        if conn.kind == Kind::Http && !conn.deliver(at, bytes, &self.epoll) {
            self.close(at);
        }
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: most.maximum, maximum: most.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let mut floor = Floor::new(&args)?;
    let addr = floor.listener.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    println!("{{\"listen\":\"{addr}\"}}");
    floor.run()
}
