//! A subscription that outlives its connections: it reconnects with its cursor as protocol §5 and §6 allow.
//!
//! * It is pull-based: between two calls of [`Subscription::next`] nothing runs and nothing is read. So a
//!   slow reader slows the daemon down (which keeps its position) and does not fill memory. Events that were
//!   read are returned before more are read.
//! * A call that is cancelled (`select!`) loses nothing. What it began (a wait, a handshake, a new
//!   credential, a pong) is kept in the state with its deadline, and the next call continues it.
//! * An error ends the subscription. Every loss that it survives is reported as [`Status::Lost`].

use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::filter::{Filter, Position};
use crate::frame_handler::{FrameEffect, FrameHandler};
use crate::item::{Item, Status};
use crate::read_timeout::READ_TIMEOUT_BEFORE_READY;
use crate::retry::{self, Verdict};
use crate::sse_stream::SseStream;
use crate::ws_stream::{WsMessage, WsStream};
use crate::{Client, ClientError};

/// One of the daemon's two streaming endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// `/api/v1/ws`.
    #[default]
    WebSocket,
    /// `/api/v1/sse`, for networks where a proxy blocks WebSockets.
    Sse,
}

/// A subscription; see [`Client::subscribe`].
pub struct Subscription {
    client: Client,
    transport: Transport,
    /// The endpoint of [`Transport::Sse`], after `/api/v1/`.
    sse_endpoint: &'static str,
    /// Whether a first attempt that does not reach the daemon ends the subscription.
    fail_if_unreachable: bool,
    handler: FrameHandler,
    state: ConnectionState,
    /// The generation of the credential that the current or last stream was opened with.
    generation: u64,
    /// Whether the credential was renewed and no stream has sent `ready` since.
    credential_untested: bool,
}

enum ConnectionState {
    /// A stream must be opened now.
    Idle,
    /// A stream must be opened at this time.
    Waiting(Instant),
    Opening(BoxFuture<'static, Result<AnyStream, ClientError>>),
    Open(Box<OpenStream>),
    /// The credential was refused with this error; the provider is being called.
    Renewing(ClientError, BoxFuture<'static, Result<bool, ClientError>>),
    Ended,
}

struct OpenStream {
    stream: AnyStream,
    since: Instant,
    /// The pong that is being sent, and its deadline. If the call is cancelled, it may be sent twice.
    pong: Option<(Instant, String)>,
}

enum AnyStream {
    Ws(WsStream),
    Sse(SseStream),
}

impl Client {
    /// Subscribes to the events that match `filter`. Nothing is sent before the first [`Subscription::next`].
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        Subscription {
            client: self.clone(),
            transport: Transport::default(),
            sse_endpoint: "sse",
            fail_if_unreachable: false,
            handler: FrameHandler::new(filter),
            state: ConnectionState::Idle,
            generation: 0,
            credential_untested: false,
        }
    }
}

impl Subscription {
    /// Sets the transport; the default is [`Transport::WebSocket`].
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Reads streams from their first chunk to their end, over SSE.
    pub(crate) fn of_streams(mut self) -> Self {
        self.transport = Transport::Sse;
        self.sse_endpoint = "sse/llm";
        self
    }

    /// Asks for all parts of streams, not only for text.
    pub(crate) fn all_parts(mut self) -> Self {
        self.handler.filter.all_parts = true;
        self
    }

    /// Sets the start position; the default is [`Position::Now`]. After a lost connection the subscription
    /// always continues at [`Subscription::cursor`].
    #[must_use]
    pub fn position(mut self, position: Position) -> Self {
        self.handler.position = position;
        self
    }

    /// Ends with an error if the daemon cannot be reached at the first attempt, instead of waiting for it.
    #[must_use]
    pub fn fail_if_unreachable(mut self) -> Self {
        self.fail_if_unreachable = true;
        self
    }

    /// The cursor after the last item that was returned, for [`Position::After`] in a later subscription;
    /// `None` if nothing has arrived yet.
    pub fn cursor(&self) -> Option<&str> {
        Some(self.handler.cursor.as_str()).filter(|cursor| !cursor.is_empty())
    }

    /// Returns the next item; `None` after an error, which is always the last item.
    pub async fn next(&mut self) -> Option<Result<Item, ClientError>> {
        loop {
            let done = match &mut self.state {
                ConnectionState::Ended => return None,
                ConnectionState::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = ConnectionState::Idle;
                    None
                }
                ConnectionState::Idle => {
                    self.state = ConnectionState::Opening(self.open());
                    None
                }
                ConnectionState::Opening(opening) => {
                    let opened = opening.await;
                    self.opened(opened)
                }
                ConnectionState::Open(_) => self.read().await,
                ConnectionState::Renewing(_, renewing) => {
                    let renewed = renewing.await;
                    self.renewed(renewed)
                }
            };
            if done.is_some() {
                return done;
            }
        }
    }

    /// Returns the subscription as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Item, ClientError>> {
        futures_util::stream::unfold(self, async |mut subscription| {
            let item = subscription.next().await?;
            Some((item, subscription))
        })
    }

    /// Ends the subscription, with a close frame if the transport has one. Dropping a subscription ends it as
    /// well.
    pub async fn close(&mut self) {
        if let ConnectionState::Open(open) = std::mem::replace(&mut self.state, ConnectionState::Ended)
            && let AnyStream::Ws(socket) = open.stream
        {
            socket.close().await;
        }
    }

    fn open(&mut self) -> BoxFuture<'static, Result<AnyStream, ClientError>> {
        self.generation = self.client.inner.credentials.current().generation;
        let client = self.client.clone();
        match self.transport {
            Transport::WebSocket => {
                let path = self.handler.path("ws");
                Box::pin(async move { client.ws(&path, READ_TIMEOUT_BEFORE_READY).await.map(AnyStream::Ws) })
            }
            Transport::Sse => {
                let (path, cursor) = (self.handler.path(self.sse_endpoint), self.handler.cursor.clone());
                Box::pin(async move {
                    client.sse(&path, &cursor, READ_TIMEOUT_BEFORE_READY).await.map(AnyStream::Sse)
                })
            }
        }
    }

    fn opened(&mut self, opened: Result<AnyStream, ClientError>) -> Option<Result<Item, ClientError>> {
        match opened {
            Ok(stream) => {
                self.state =
                    ConnectionState::Open(Box::new(OpenStream { stream, since: Instant::now(), pong: None }));
                None
            }
            Err(error) => self.ended(error, None),
        }
    }

    async fn read(&mut self) -> Option<Result<Item, ClientError>> {
        let ConnectionState::Open(open) = &mut self.state else { return None };
        if let (Some((deadline, pong)), AnyStream::Ws(socket)) = (&open.pong, &mut open.stream) {
            if let Err(error) = socket.send_until(*deadline, pong.clone()).await {
                return self.lost(error);
            }
            open.pong = None;
        }
        let effect = match &mut open.stream {
            AnyStream::Ws(socket) => match socket.next().await {
                Ok(WsMessage::Text(text)) => self.handler.handle_ws(text),
                Ok(WsMessage::Closed(Some((code, reason)))) => {
                    Ok(FrameEffect::End(ClientError::Closed { code, reason }))
                }
                Ok(WsMessage::Closed(None)) => Ok(FrameEffect::End(ClientError::Ended)),
                Err(error) => Err(error),
            },
            AnyStream::Sse(stream) => match stream.next().await {
                Ok(Some(event)) => self.handler.handle_sse(event),
                Ok(None) => Ok(FrameEffect::End(ClientError::Ended)),
                Err(error) => Err(error),
            },
        };
        let error = match effect {
            Ok(FrameEffect::Nothing) => return None,
            Ok(FrameEffect::Item(item)) => return Some(Ok(item)),
            Ok(FrameEffect::Ready(item, read_timeout)) => {
                self.credential_untested = false;
                match &mut open.stream {
                    AnyStream::Ws(socket) => socket.set_read_timeout(read_timeout),
                    AnyStream::Sse(stream) => stream.set_read_timeout(read_timeout),
                }
                return Some(Ok(item));
            }
            Ok(FrameEffect::Pong(pong)) => {
                open.pong = Some((Instant::now() + self.client.inner.timeouts.head, pong));
                return None;
            }
            Ok(FrameEffect::End(error)) | Err(error) => error,
        };
        self.lost(error)
    }

    /// Handles the end of a stream that was open.
    fn lost(&mut self, error: ClientError) -> Option<Result<Item, ClientError>> {
        let ConnectionState::Open(open) = &self.state else { return None };
        if open.since.elapsed() >= self.client.inner.backoff.max {
            self.handler.failures = 0;
        }
        let retry_ms = match &open.stream {
            AnyStream::Ws(_) => None,
            AnyStream::Sse(stream) => stream.retry_ms(),
        };
        self.ended(error, retry_ms)
    }

    fn renew(&self) -> BoxFuture<'static, Result<bool, ClientError>> {
        let (client, generation) = (self.client.clone(), self.generation);
        Box::pin(async move { client.inner.credentials.renew(generation).await })
    }

    fn renewed(&mut self, renewed: Result<bool, ClientError>) -> Option<Result<Item, ClientError>> {
        let ConnectionState::Renewing(error, _) = std::mem::replace(&mut self.state, ConnectionState::Ended)
        else {
            return None;
        };
        match renewed {
            Ok(true) => {
                self.credential_untested = true;
                Some(Ok(self.retry(error, Duration::ZERO)))
            }
            Ok(false) => Some(Err(error)),
            Err(failed) => Some(Err(failed)),
        }
    }

    /// Decides what follows after a stream has ended or could not be opened.
    fn ended(&mut self, error: ClientError, retry_ms: Option<u64>) -> Option<Result<Item, ClientError>> {
        self.state = ConnectionState::Ended;
        let unreachable = matches!(error, ClientError::Connect { .. });
        match retry::after_stream_end(&error, retry_ms) {
            Verdict::Retry(_) if self.fail_if_unreachable && unreachable && !self.handler.ready_received => {
                Some(Err(error))
            }
            Verdict::Retry(requested) => Some(Ok(self.retry(error, requested))),
            // If a new credential is refused as well, the provider is not called again, to avoid an endless
            // loop.
            Verdict::Renew if !self.credential_untested => {
                self.state = ConnectionState::Renewing(error, self.renew());
                None
            }
            Verdict::Renew | Verdict::Stop => Some(Err(error)),
        }
    }

    fn retry(&mut self, error: ClientError, requested: Duration) -> Item {
        self.handler.failures = self.handler.failures.saturating_add(1);
        let retry_in = self.client.inner.backoff.wait(self.handler.failures, requested);
        self.state = ConnectionState::Waiting(Instant::now() + retry_in);
        Item::Status(Status::Lost { error, retry_in })
    }
}
