//! The usual way to write such a server: tokio's threads, a task per connection, one broadcast channel,
//! tungstenite, and a flush per event. `nervewire bench --naive` compares with it.
//!
//! * Its protocol is that of [the floor](floor.rs). Like the floor, it does not authenticate, filter or log.
//! * A subscriber that falls [`SLOTS`] events behind loses events, as usual for a broadcast channel. `/stats`
//!   counts them.
//! * Sockets have `TCP_NODELAY`, like the daemon's.
//!
//! `naive --listen 127.0.0.1:0` prints `{"listen":"…"}` and serves until its standard input closes.

#![allow(clippy::print_stdout, missing_docs, reason = "a program beside the daemon")]

mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

/// How many events a subscriber may be behind.
const SLOTS: usize = 65_536;

#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// One event, encoded once.
#[derive(Clone)]
struct Event {
    json: Utf8Bytes,
    sse: Bytes,
}

struct Hub {
    events: broadcast::Sender<Event>,
    published: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

impl Hub {
    fn publish(&self, event: &[u8]) {
        let sequence = self.published.fetch_add(1, Ordering::Relaxed) + 1; // only a number: no ordering is needed
        let (mut json, mut sse) = (Vec::new(), Vec::new());
        wire::json_event(event, sequence, &mut json);
        wire::sse_event(event, sequence, &mut sse);
        if let Ok(json) = Utf8Bytes::try_from(json) {
            let _ = self.events.send(Event { json, sse: sse.into() }); // without subscribers nothing is lost
        }
    }

    /// Returns the next event; `None` if the server ends.
    async fn next(&self, events: &mut broadcast::Receiver<Event>) -> Option<Event> {
        loop {
            match events.recv().await {
                Ok(event) => {
                    self.delivered.fetch_add(1, Ordering::Relaxed);
                    return Some(event);
                }
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn stats(&self) -> String {
        let [events, deliveries, lost] =
            [&self.published, &self.delivered, &self.lost].map(|it| it.load(Ordering::Relaxed));
        format!(
            "{{\"events\":{events},\"deliveries\":{deliveries},\"sends\":{deliveries},\"lost\":{lost},\"subscribers\":{}}}",
            self.events.receiver_count()
        )
    }
}

async fn serve(hub: Arc<Hub>, mut stream: TcpStream) -> io::Result<()> {
    let mut buf = Vec::with_capacity(4_096);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
        while let Some(request) = wire::request(&buf).map_err(io::Error::other)? {
            match request.target {
                wire::Target::Publish => {
                    wire::events(request.body).for_each(|event| hub.publish(event));
                    stream.write_all(wire::PUBLISHED).await?;
                }
                wire::Target::Ws => {
                    let mut opening = Vec::new();
                    wire::ws_opening(request.key, &mut opening);
                    let events = hub.events.subscribe();
                    stream.write_all(&opening).await?;
                    return websocket(&hub, stream, events).await;
                }
                wire::Target::Sse => {
                    let mut opening = Vec::new();
                    wire::sse_opening(&mut opening);
                    let events = hub.events.subscribe();
                    stream.write_all(&opening).await?;
                    return sse(&hub, stream, events).await;
                }
                wire::Target::Stats => {
                    stream.write_all(wire::answer("200 OK", &hub.stats()).as_bytes()).await?;
                }
                wire::Target::Other => {
                    stream.write_all(wire::answer("404 Not Found", "{}").as_bytes()).await?;
                }
            }
            let used = request.used;
            buf.drain(..used);
        }
    }
}

async fn websocket(hub: &Hub, stream: TcpStream, mut events: broadcast::Receiver<Event>) -> io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        tokio::select! {
            event = hub.next(&mut events) => {
                let Some(event) = event else { return Ok(()) };
                socket.send(Message::Text(event.json)).await.map_err(io::Error::other)?;
            }
            message = socket.next() => {
                if !matches!(message, Some(Ok(_))) {
                    return Ok(());
                }
            }
        }
    }
}

async fn sse(hub: &Hub, mut stream: TcpStream, mut events: broadcast::Receiver<Event>) -> io::Result<()> {
    let mut nothing = [0; 64];
    loop {
        tokio::select! {
            event = hub.next(&mut events) => {
                let Some(event) = event else { return Ok(()) };
                stream.write_all(&event.sse).await?;
            }
            read = stream.read(&mut nothing) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: most.maximum, maximum: most.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let socket = match args.listen {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(args.listen)?;
    let listener: TcpListener = socket.listen(4_096)?;
    println!("{{\"listen\":\"{}\"}}", listener.local_addr()?);
    // A file or /dev/null never closes; reading it would end at once.
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(io::stdin())?.st_mode);
    if matches!(kind, rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket) {
        std::thread::spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink()); // it has ended, with or without an error
            std::process::exit(0);
        });
    }
    let hub = Arc::new(Hub {
        events: broadcast::Sender::new(SLOTS),
        published: AtomicU64::new(0),
        delivered: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true)?;
        tokio::spawn(serve(Arc::clone(&hub), stream));
    }
}
