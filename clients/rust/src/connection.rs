//! Sockets, and one HTTP/1.1 connection over hyper with the task that drives it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::endpoint::{Endpoint, Target};
use crate::error::ClientError;

/// Maximum bytes of a response that are read at once. A stream's reader holds the events of one such read.
const READ_BYTES_MAX: usize = 256 << 10;

/// A connected byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub(crate) type BoxIo = Pin<Box<dyn Io>>;

/// Connects a socket to a daemon.
pub(crate) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<BoxIo, ClientError> {
    let connecting = async {
        let io: BoxIo = match &endpoint.target {
            Target::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
            Target::Unix(path) => Box::pin(UnixStream::connect(path).await?),
        };
        Ok(io)
    };
    let connected = timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|source| ClientError::Connect { address: endpoint.to_string(), source })
}

/// The task that drives a connection. It is aborted when its owner is dropped.
pub(crate) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection for one request at a time.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) driver: Driver,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint, limit: Duration) -> Result<Self, ClientError> {
        let io = TokioIo::new(connect(endpoint, limit).await?);
        let (sender, connection) = Builder::new().max_buf_size(READ_BYTES_MAX).handshake(io).await?;
        let driver = tokio::spawn(async move {
            // The request that waits on this connection reports its failure.
            let _ = connection.await;
        });
        Ok(Self { sender, driver: Driver(driver) })
    }
}
