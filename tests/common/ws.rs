//! A WebSocket client with tokio-tungstenite: sends and receives JSON, and gives access to every frame.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::http::Reply;
use super::within;

/// A builder for a WebSocket request.
#[derive(Clone, Debug)]
pub(crate) struct WsRequest {
    to: SocketAddr,
    path: String,
    headers: Vec<(String, String)>,
}

impl WsRequest {
    pub(crate) fn new(to: SocketAddr, path: &str) -> WsRequest {
        WsRequest { to, path: path.into(), headers: Vec::new() }
    }

    /// Replaces the header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> WsRequest {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Removes the header.
    pub(crate) fn without(mut self, name: &str) -> WsRequest {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn key(self, credential: &str) -> WsRequest {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    /// Sends the upgrade request.
    pub(crate) async fn ask(self) -> Result<Ws, Reply> {
        let stream = TcpStream::connect(self.to).await.unwrap();
        self.ask_on(stream).await
    }

    /// As `ask`, over a connected socket.
    pub(crate) async fn ask_on(self, stream: TcpStream) -> Result<Ws, Reply> {
        let mut request = format!("ws://{}{}", self.to, self.path).into_client_request().unwrap();
        for (name, value) in &self.headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let upgrade = tokio_tungstenite::client_async(request, stream);
        match within("the upgrade", upgrade).await {
            Ok((inner, _)) => Ok(Ws { inner }),
            Err(Error::Http(response)) => {
                let (head, body) = response.into_parts();
                Err(Reply {
                    status: head.status,
                    headers: head.headers,
                    body: body.unwrap_or_default().into(),
                })
            }
            Err(error) => panic!("{}: {error}", self.path),
        }
    }

    /// Opens a WebSocket. The upgrade must be granted.
    #[track_caller]
    pub(crate) fn open(self) -> impl Future<Output = Ws> {
        let at = std::panic::Location::caller();
        async move { self.ask().await.unwrap_or_else(|reply| panic!("{reply:?} ({at})")) }
    }

    /// Sends an upgrade request, which must be refused.
    #[track_caller]
    pub(crate) fn refused(self) -> impl Future<Output = Reply> {
        let at = std::panic::Location::caller();
        async move {
            match self.ask().await {
                Ok(_) => panic!("the upgrade was granted ({at})"),
                Err(reply) => reply,
            }
        }
    }
}

/// An open WebSocket.
pub(crate) struct Ws {
    inner: WebSocketStream<TcpStream>,
}

impl Ws {
    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        within("room to send", self.inner.send(message)).await.unwrap();
    }

    /// Sends a frame and ignores errors of a closed connection.
    pub(crate) async fn try_send(&mut self, frame: &Value) -> bool {
        within("room to send", self.inner.send(Message::text(frame.to_string()))).await.is_ok()
    }

    /// The next message of any kind; `None` if the connection ended without a close frame.
    #[track_caller]
    pub(crate) fn next_message(&mut self) -> impl Future<Output = Option<Message>> {
        within("the next frame", async { self.inner.next().await.and_then(Result::ok) })
    }

    /// The next JSON frame, including heartbeats.
    #[track_caller]
    pub(crate) fn next_frame(&mut self) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            loop {
                match self.next_message().await {
                    Some(Message::Text(text)) => {
                        return serde_json::from_str(&text)
                            .unwrap_or_else(|e| panic!("{e} in {text} ({at})"));
                    }
                    Some(Message::Ping(_) | Message::Pong(_)) => {}
                    other => panic!("{other:?} instead of a text frame ({at})"),
                }
            }
        }
    }

    /// The next JSON frame that is not a heartbeat.
    #[track_caller]
    pub(crate) fn next_json(&mut self) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let frame = self.try_next_json().await;
            frame.unwrap_or_else(|end| panic!("the WebSocket ended: {end:?} ({at})"))
        }
    }

    /// The next JSON frame that is not a heartbeat, or the code and reason of the close (`None`: no close
    /// frame).
    pub(crate) async fn try_next_json(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            match self.next_message().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] != "ping" {
                        return Ok(frame);
                    }
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(Message::Close(frame)) => {
                    return Err(frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
                }
                Some(other) => panic!("{other:?} instead of a text frame"),
                None => return Err(None),
            }
        }
    }

    /// The next JSON frame that is not a heartbeat, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let (kind, at) = (kind.to_owned(), std::panic::Location::caller());
        async move {
            let frame = self.next_json().await;
            assert_eq!(frame["type"], kind.as_str(), "{frame} ({at})");
            frame
        }
    }

    /// Sends a frame and returns its response, which must be the next frame.
    pub(crate) async fn ask(&mut self, frame: &Value) -> Value {
        self.send(frame).await;
        self.next_json().await
    }

    /// Reads to the end. Returns the code and reason of the close frame.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> impl Future<Output = (u16, String)> {
        let at = std::panic::Location::caller();
        async move {
            loop {
                match self.next_message().await {
                    Some(Message::Close(Some(frame))) => {
                        return (frame.code.into(), frame.reason.to_string());
                    }
                    Some(Message::Close(None)) | None => panic!("no close code ({at})"),
                    Some(_) => {}
                }
            }
        }
    }

    /// The TCP socket below, for violations of the protocol.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        self.inner.get_mut()
    }
}
