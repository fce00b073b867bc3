//! The cost of receiving requests without processing them. The program accepts, parses heads, drops bodies,
//! and responds 201 with constant ids. `nervewire bench publish --floor` puts the same load on it as on the
//! daemon.
//!
//! * It has as many threads as the daemon has workers. Each has its own listener on the same port, and an
//!   epoll set.
//! * `httparse` parses the head. A body is never stored, only counted. The response is one `send`.
//! * `--hyper` serves with hyper instead, on the same number of single-threaded runtimes, to measure hyper's
//!   cost.
//! * Nothing is authenticated, checked, stored or routed.
//!
//! `bare_http --listen 127.0.0.1:0 [--ids N] [--threads N] [--hyper]` prints `{"listen":"…"}` and serves
//! until its standard input closes.

#![allow(clippy::print_stdout, missing_docs, reason = "a program beside the daemon")]

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use socket2::{Domain, Socket, Type};

/// Length of the listener's backlog, the same as the daemon's.
const BACKLOG: i32 = 4_096;
/// Bytes read at once.
const READ: usize = 256 * 1_024;
/// Maximum headers of a request.
const HEADERS: usize = 32;
/// Number of events taken from the kernel at once.
const BATCH: usize = 256;
const LISTENER: u64 = u64::MAX;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Number of ids in a response.
    #[arg(long, default_value_t = 1)]
    ids: usize,
    /// Number of threads; one per core if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Serve with hyper.
    #[arg(long)]
    hyper: bool,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let threads = match args.threads {
        Some(threads) => threads.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let body = ids(args.ids);
    let first = listener(args.listen)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listener(addr)?);
    }
    let answer: Arc<[u8]> = answer(&body).into();
    for listener in listeners {
        let (answer, body, hyper) = (answer.clone(), Bytes::from(body.clone()), args.hyper);
        std::thread::spawn(move || {
            let ended = if hyper { serve_hyper(listener, body) } else { serve(&listener, &answer) };
            if let Err(error) = ended {
                eprintln!("{error}");
                std::process::exit(1);
            }
        });
    }
    println!("{{\"listen\":\"{addr}\"}}");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Creates a listener that shares its port with those of the other threads.
fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Returns the body of a response, with the same length as the daemon's.
fn ids(count: usize) -> Vec<u8> {
    let ids = vec!["\"AAAAAAAAAAAAAAAAAAAAAA\""; count].join(",");
    format!("{{\"data\":{{\"ids\":[{ids}]}},\"success\":true}}").into_bytes()
}

/// Returns a whole response with the daemon's headers.
fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
         x-request-id: req-01a22dd6-6e7f-761b-bd47-242f8f9f88c1\r\nvary: origin\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\ncontent-length: {}\r\ndate: Mon, 30 Nov 2026 19:02:37 GMT\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

struct Conn {
    stream: TcpStream,
    /// The start of an incomplete head.
    head: Vec<u8>,
    /// Bytes of the current body that have not arrived yet.
    body: usize,
}

/// Serves the connections of one thread.
fn serve(listener: &TcpListener, answer: &[u8]) -> Result<(), Failure> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut conns: Slab<Conn> = Slab::new();
    let mut scratch = vec![0; READ];
    let mut ready: Vec<Event> = Vec::with_capacity(BATCH);
    loop {
        ready.clear();
        match epoll::wait(set.as_fd(), rustix::buffer::spare_capacity(&mut ready), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            if event.data.u64() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let entry = conns.vacant_entry();
                    epoll::add(&set, &stream, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
                    entry.insert(Conn { stream, head: Vec::new(), body: 0 });
                }
                continue;
            }
            let key = event.data.u64() as usize;
            let lives = conns.get_mut(key).is_some_and(|conn| read(conn, &mut scratch, answer));
            if !lives {
                conns.try_remove(key);
            }
        }
    }
}

/// Reads what has arrived and responds to each whole request. Returns false if the connection has ended.
fn read(conn: &mut Conn, scratch: &mut [u8], answer: &[u8]) -> bool {
    let got = match conn.stream.read(scratch) {
        Ok(0) => return false,
        Ok(got) => got,
        Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
    };
    let mut rest = &scratch[..got];
    let whole;
    if !conn.head.is_empty() {
        conn.head.extend_from_slice(rest);
        whole = std::mem::take(&mut conn.head);
        rest = &whole;
    }
    loop {
        let of_body = conn.body.min(rest.len());
        let was_body = conn.body > 0;
        conn.body -= of_body;
        rest = &rest[of_body..];
        if was_body && conn.body == 0 && !send(conn, answer) {
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(rest) {
            Ok(httparse::Status::Complete(used)) => {
                let length = request.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"));
                let length = length.and_then(|it| std::str::from_utf8(it.value).ok()?.parse::<usize>().ok());
                conn.body = length.unwrap_or(0);
                rest = &rest[used..];
                if conn.body == 0 && !send(conn, answer) {
                    return false;
                }
            }
            Ok(httparse::Status::Partial) => {
                conn.head = rest.to_vec();
                return true;
            }
            Err(_) => return false,
        }
    }
}

/// Sends a response. It is short and its reader waits for it, so the kernel accepts it whole, or the
/// connection has ended.
fn send(conn: &mut Conn, answer: &[u8]) -> bool {
    conn.stream.write(answer).is_ok_and(|sent| sent == answer.len())
}

/// Serves the connections of one thread with hyper.
fn serve_hyper(listener: TcpListener, body: Bytes) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let body = body.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| answer_hyper(request, body.clone()));
                // The task ends when the bench closes the connection.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer_hyper(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let mut response = Response::new(Full::new(answer));
    *response.status_mut() = hyper::StatusCode::CREATED;
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
