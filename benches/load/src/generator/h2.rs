//! SSE streams over HTTP/2, many on a connection. Hyper's client holds them open on a runtime of this thread.
//!
//! The runtime runs only while streams are opened. So this mode is not for streams that are idle for longer
//! than a keep-alive interval.

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::error::BenchError;
use crate::progress::Progress;
use crate::wire::Access;

/// Open streams. They end when this is dropped.
pub(crate) struct Streams {
    runtime: Runtime,
    senders: Vec<SendRequest<Empty<Bytes>>>,
    bodies: Vec<Incoming>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("streams", &self.bodies.len()).finish_non_exhaustive()
    }
}

impl Streams {
    /// Opens `count` streams, `each` on a connection, and waits for the `ready` of each.
    pub(crate) fn open(
        access: &Access,
        count: usize,
        each: usize,
        patience: Duration,
        progress: &mut dyn Progress,
    ) -> Result<Streams, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BenchError::io("make a runtime"))?;
        let mut streams = Streams { runtime, senders: Vec::new(), bodies: Vec::with_capacity(count) };
        progress.begin("opening streams", count as u64);
        let Streams { runtime, senders, bodies } = &mut streams;
        runtime.block_on(async {
            while bodies.len() < count {
                let mut sender = connect(access).await?;
                for _ in 0..each.min(count - bodies.len()) {
                    let opened = timeout(patience, subscribe(access, &mut sender)).await;
                    bodies.push(opened.map_err(|_| BenchError::Stalled {
                        seconds: patience.as_secs(),
                        waiting: format!("stream {} of {count} is to be ready", bodies.len()),
                    })??);
                }
                senders.push(sender);
                progress.at(bodies.len() as u64);
            }
            Ok::<(), BenchError>(())
        })?;
        Ok(streams)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.bodies.clear();
        self.senders.clear();
        // The tasks of the connections see that they are unused and tell the server. The time is limited,
        // because the runtime ends them anyway.
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    }
}

fn failed(error: hyper::Error) -> BenchError {
    BenchError::Server(format!("HTTP/2: {error}"))
}

async fn connect(access: &Access) -> Result<SendRequest<Empty<Bytes>>, BenchError> {
    let stream = TcpStream::connect(access.addr).await.map_err(BenchError::io("open a connection"))?;
    let builder = Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // The task ends with its connection, which ends when the sender and the bodies are dropped, or with the
    // runtime.
    tokio::spawn(connection);
    Ok(sender)
}

async fn subscribe(access: &Access, sender: &mut SendRequest<Empty<Bytes>>) -> Result<Incoming, BenchError> {
    let mut request = Request::get(format!("http://{}/api/v1/sse", access.host))
        .header(header::ACCEPT, "text/event-stream");
    if let Some((name, value)) = access.credential.trim_end().split_once(": ") {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).map_err(|error| BenchError::Server(error.to_string()))?;
    sender.ready().await.map_err(failed)?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != http::StatusCode::OK {
        return Err(BenchError::Server(format!("a stream got the response {}", response.status())));
    }
    let mut body = response.into_body();
    match body.frame().await {
        Some(Ok(_)) => Ok(body), // its first piece holds `ready`
        Some(Err(error)) => Err(failed(error)),
        None => Err(BenchError::Server("a stream ended before it was ready".into())),
    }
}
