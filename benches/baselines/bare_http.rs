//! What taking requests costs without anything done with them: accepts, parses heads, drops bodies, answers 201 with ids that
//! are always the same. `nervewire bench publish --floor` puts the same load on it as on the daemon.
//!
//! * As many threads as the daemon has workers, each with a listener of its own on the same port and an epoll set.
//! * `httparse` for the head; a body is never held, only counted off. The answer is one `send`.
//! * `--hyper` serves by hyper instead, on as many runtimes of one thread: what its share is.
//! * Nothing is authenticated, checked, kept or routed.
//!
//! `bare_http --listen 127.0.0.1:0 [--ids N] [--threads N] [--hyper]` prints `{"listen":"…"}` and serves until its standard input
//! closes.

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

/// Connections the kernel keeps until they are accepted, as the daemon's.
const BACKLOG: i32 = 4_096;
/// Bytes read at once.
const READ: usize = 256 * 1_024;
/// Headers of a request at most.
const HEADERS: usize = 32;
/// Events taken from the kernel at once.
const BATCH: usize = 256;
const LISTENER: u64 = u64::MAX;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Ids in an answer.
    #[arg(long, default_value_t = 1)]
    ids: usize,
    /// Threads that serve; one per core if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Serves by hyper.
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

/// A listener that shares its port with the other threads'.
fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The body of an answer, as long as the daemon's.
fn ids(count: usize) -> Vec<u8> {
    let ids = vec!["\"AAAAAAAAAAAAAAAAAAAAAA\""; count].join(",");
    format!("{{\"data\":{{\"ids\":[{ids}]}},\"success\":true}}").into_bytes()
}

/// A whole answer with the daemon's headers.
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
    /// The start of a head whose rest is still to come.
    head: Vec<u8>,
    /// Bytes of the present body still to come.
    body: usize,
}

/// One thread's connections.
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

/// Takes what has come and answers each request that is whole. False: the connection is over.
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

/// An answer is short and its reader waits for it: the kernel takes it whole, or the connection is over.
fn send(conn: &mut Conn, answer: &[u8]) -> bool {
    conn.stream.write(answer).is_ok_and(|sent| sent == answer.len())
}

/// One thread's connections by hyper.
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
                // It ends when the bench closes the connection.
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
