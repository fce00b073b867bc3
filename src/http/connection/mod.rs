//! One accepted socket: finds out the client's address and protocol, and serves it until it closes or the
//! worker takes it over.
//!
//! * A trusted proxy may name its client, in a PROXY header before the first request or in headers of each
//!   request (`client_address`).
//! * The first bytes (the HTTP/2 preface) decide the protocol, so HTTP/1 has no cost for HTTP/2.
//!
//! `h1` and `h2` run hyper over `hyper_io`, and `service` answers each request. `proxy_protocol` parses the
//! PROXY header.

mod h1;
pub mod h2;
pub mod hyper_io;
mod proxy_protocol;
pub mod service;
mod socket_stream;

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connection::admission::AdmissionError;
use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::http::response::ApiResponse;
use crate::worker::connect::ConnectionHandoff;
use crate::worker::{Accepted, Worker};

use proxy_protocol::ParsedHeader;
use service::ListenerKind;
use socket_stream::SocketStream;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a new socket on this worker until it closes or is taken from hyper.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted, kind: ListenerKind) {
    let held = worker.hold_socket();
    let (stream, peer) = match SocketStream::from_accepted(accepted) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "could not use a new socket"),
    };
    let trusted = worker.shared.config.trusted_proxies.contains(peer);
    let newcomer = Rc::new(worker.shared.newcomers.add((!trusted).then_some(peer)));
    let taken = tokio::select! {
        biased;
        () = newcomer.evicted() => return tracing::debug!("closed a socket without a credential to make room for another"),
        taken = serve_protocol(&worker, stream, peer, kind, &newcomer) => taken,
    };
    drop(newcomer);
    let Some((stream, handoff)) = taken else { return };
    match stream.into_fd() {
        Ok(fd) => match worker.adopt_socket(fd, handoff) {
            Ok(()) => held.hand_over(),
            Err(error) => tracing::warn!(%error, "could not watch a socket"),
        },
        Err(error) => tracing::debug!(%error, "could not take a socket out of the runtime"),
    }
}

/// Serves a socket in the protocol that its peer uses. Returns the connection if its socket was taken from
/// hyper.
async fn serve_protocol(
    worker: &Rc<Worker>,
    stream: SocketStream,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> Option<(SocketStream, ConnectionHandoff)> {
    let config = &worker.shared.config;
    let (wait, trusted) = (config.header_timeout(), config.trusted_proxies.contains(peer));
    // All clients of a trusted proxy share its address, so the limit applies only to the clients that it
    // names.
    if !trusted && let Err(full) = newcomer.limit_by_address(peer) {
        refuse(worker, stream, full).await;
        return None;
    }
    let (stream, first, source) = tokio::time::timeout(wait, sniff(stream, trusted)).await.ok()??;
    if source.is_none() {
        newcomer.count_for_address(peer);
    } else if let Err(full) = newcomer.limit_by_address(source) {
        refuse(worker, stream, full).await;
        return None;
    }
    let peer = source.or(peer);
    if first.starts_with(H2_PREFACE) && kind == ListenerKind::Public {
        h2::serve(worker, stream, first, peer, newcomer).await;
        return None;
    }
    h1::serve(worker, stream, first, peer, kind, newcomer).await
}

/// Sends the reason why a socket is not served. It makes one write and ignores the rest.
async fn refuse(worker: &Worker, mut stream: SocketStream, full: AdmissionError) {
    worker.shared.metrics.refused.add(1);
    let answer = ApiResponse::error(&full.into(), &*worker.shared.clock).to_final_bytes();
    let _ = stream.write(&answer).await; // a failed write does not change the refusal
    let _ = stream.shutdown().await;
}

/// Reads until it is clear whether the peer uses HTTP/2; before that, the PROXY header of a trusted peer.
/// Returns the first bytes of HTTP, and the client that the header names. `None` if the peer closed first.
async fn sniff(mut stream: SocketStream, trusted: bool) -> Option<(SocketStream, Bytes, Option<IpAddr>)> {
    let mut first = Vec::with_capacity(1_024);
    let (mut may_name, mut source) = (trusted, None);
    loop {
        match if may_name { proxy_protocol::parse(&first) } else { ParsedHeader::Other } {
            ParsedHeader::Partial => {}
            ParsedHeader::Header { length, source: named } => {
                first.drain(..length);
                (may_name, source) = (false, named);
            }
            // Everything else is HTTP, or is refused as HTTP.
            ParsedHeader::Other => may_name = false,
        }
        if !may_name && (first.len() >= H2_PREFACE.len() || !H2_PREFACE.starts_with(&first)) {
            return Some((stream, first.into(), source));
        }
        if stream.read_buf(&mut first).await.ok()? == 0 {
            return None;
        }
    }
}
