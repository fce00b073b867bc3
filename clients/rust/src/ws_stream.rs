//! A WebSocket to a daemon: JSON text frames in both directions, and the daemon's close code.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderName, Method, header};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connection::{BoxIo, connect};
use crate::read_timeout::ReadTimeout;
use crate::request::refused;
use crate::{Client, ClientError, Request};

/// Maximum bytes of a message from the daemon: more than any frame that it sends.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CONNECTION: HeaderName = header::CONNECTION;

/// A message from a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsMessage {
    /// A text frame.
    Text(String),
    /// The end, with the peer's code and reason if it sent them; `None` for a connection that was lost.
    Closed(Option<(u16, String)>),
}

/// An open WebSocket.
pub struct WsStream {
    socket: WebSocketStream<BoxIo>,
    /// How long it may be without a frame before it counts as dead.
    read_timeout: ReadTimeout,
    /// How long a frame may wait for the peer to read.
    send_timeout: Duration,
}

impl Client {
    /// Opens a WebSocket at `path`.
    ///
    /// # Errors
    /// [`ClientError`]; among them [`ClientError::Refused`] for any response but 101.
    pub async fn ws(&self, path: &str, read_timeout: Duration) -> Result<WsStream, ClientError> {
        let request = Request::new(Method::GET, path)
            .header(CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key());
        let mut request = self.prepare(&request, &self.inner.credentials.current())?.map(|_| ());
        // The handshake needs an absolute address, but sends only the path.
        *request.uri_mut() = http::Uri::builder()
            .scheme("ws")
            .authority(self.endpoint().host.as_str())
            .path_and_query(request.uri().path_and_query().map_or("/", |path| path.as_str()))
            .build()?;
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MESSAGE_BYTES_MAX);
        config.max_frame_size = Some(MESSAGE_BYTES_MAX);
        config.max_write_buffer_size = MESSAGE_BYTES_MAX;
        let io = connect(self.endpoint(), self.inner.timeouts.connect).await?;
        let limit = self.inner.timeouts.head;
        match timeout(limit, client_async_with_config(request, io, Some(config))).await {
            Err(_) => Err(ClientError::Timeout("the upgrade", limit)),
            Ok(Ok((socket, _))) => {
                Ok(WsStream { socket, read_timeout: ReadTimeout::new(read_timeout), send_timeout: limit })
            }
            Ok(Err(WsError::Http(response))) => {
                let (parts, body) = response.into_parts();
                Err(refused(parts.status, &parts.headers, &body.unwrap_or_default()))
            }
            Ok(Err(error)) => Err(error.into()),
        }
    }
}

impl WsStream {
    /// Sets how long the WebSocket may be without a frame.
    pub fn set_read_timeout(&mut self, read_timeout: Duration) {
        self.read_timeout.set(read_timeout);
    }

    /// Returns the next text frame or the end. The library answers pings. Binary frames are not part of the
    /// protocol.
    ///
    /// # Errors
    /// A frame that violates RFC 6455, a frame that is too large, or the read timeout.
    pub async fn next(&mut self) -> Result<WsMessage, ClientError> {
        loop {
            match self.read_timeout.wait("the next frame", self.socket.next()).await? {
                Some(Ok(Message::Text(text))) => return Ok(WsMessage::Text(text.as_str().to_owned())),
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| (u16::from(frame.code), frame.reason.as_str().to_owned()));
                    return Ok(WsMessage::Closed(reason));
                }
                Some(Ok(_)) => {}
                None | Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Io(_))) => {
                    return Ok(WsMessage::Closed(None));
                }
                Some(Err(WsError::Protocol(
                    tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                ))) => return Ok(WsMessage::Closed(None)),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// The connection has ended, or the peer does not read.
    pub async fn send(&mut self, text: String) -> Result<(), ClientError> {
        self.send_until(Instant::now() + self.send_timeout, text).await
    }

    /// Sends a text frame with the caller's deadline. If the call is cancelled, the frame may have been sent
    /// or not.
    pub(crate) async fn send_until(&mut self, deadline: Instant, text: String) -> Result<(), ClientError> {
        let sent = timeout_at(deadline, self.socket.send(Message::text(text))).await;
        sent.map_err(|_| ClientError::Timeout("room to send", self.send_timeout))?.map_err(ClientError::from)
    }

    /// Sends a close frame with code 1000 and drops the connection, without waiting for the peer's response.
    pub async fn close(mut self) {
        // The connection is dropped with `self` in any case.
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }
}
