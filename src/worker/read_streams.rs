//! Serves connections that read named streams from their start (`stream_readers.rs` has what each waits for).
//!
//! * Such a connection reads the ring like any other. What the ring has not it reads from the text of its
//!   streams ([`Tenants::stream_page`](crate::tenant::Tenants::stream_page)), never from the log.
//! * It is over when every stream has ended and its position is past the end of each. Then it gets `done` for
//!   each, and an SSE response ends.
//! * The end of a stream is noticed by its final chunk. Every reader is also looked at once per
//!   `streams.unknown_wait_seconds`, so none is left waiting for a stream that is gone.

use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseReason;
use crate::connection::{EventSource, ReadMode};
use crate::error_response::ErrorResponse;
use crate::frame::Frame;
use crate::frame::RoutingKey;
use crate::frame::control::Control;
use crate::ids::Sequence;
use crate::store::ReadError;
use crate::tenant::Tenant;
use crate::tenant::streams::{Stream, StreamPage};
use crate::transport::WireFormat;

use super::sockets::Token;
use super::stream_readers::{StreamIds, StreamSubscription};
use super::view::BATCH_FRAMES;
use super::{WorkerLoop, WorkerState};

/// How long a reader waits before it retries a store that cannot be read now.
const RETRY: Duration = Duration::from_millis(200);

impl WorkerLoop<'_> {
    /// Makes a subscribed connection a reader of streams.
    pub(super) fn read_streams(&mut self, token: Token, subscription: StreamSubscription) {
        let Some(connection) = self.state.connection(token) else { return };
        // Chunks that were published without opening a stream are in the log alone.
        if subscription.streams.iter().any(Option::is_some) {
            connection.flags.source = EventSource::Streams;
        }
        let view = connection.view;
        let serial = self.state.stream_readers.insert(token.slot, view, subscription);
        self.watch_streams(token, serial);
        self.state.run(token);
    }

    /// Makes a connection one that reads no streams from their start.
    pub(super) fn forget_streams(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.source = EventSource::Log;
        self.state.stream_readers.remove(token.slot);
    }

    /// Looks at a reader's streams from time to time, until it is gone.
    fn watch_streams(&mut self, token: Token, serial: u64) {
        let worker = self.worker.clone();
        let pause = Duration::from_secs(self.worker.shared.config.streams.unknown_wait_seconds);
        // The task is owned by this worker's LocalSet, and ends with its subscription.
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(pause).await;
                let is_there = worker.with_state(|it| {
                    let is_there = it.state.is_reader(token, serial);
                    if is_there {
                        it.look_up_streams(token, true);
                    }
                    is_there
                });
                if !is_there {
                    return;
                }
            }
        });
    }

    /// Returns true if a connection that is behind is to read the text of its streams and not the ring.
    pub(super) fn wants_stream_page(&mut self, token: Token, join_position: Sequence) -> bool {
        let Some(connection) = self.state.connection(token) else { return false };
        let behind = join_position.counter().saturating_sub(connection.position.counter());
        connection.flags.source == EventSource::Streams && behind > BATCH_FRAMES as u64
    }

    /// Returns true if a connection reads the text of streams and not the log.
    pub(super) fn has_stream_source(&mut self, token: Token) -> bool {
        self.state.connection(token).is_some_and(|it| it.flags.source == EventSource::Streams)
    }

    /// Returns true if a connection reads streams from their start.
    pub(super) fn is_stream_reader(&self, token: Token) -> bool {
        self.state.stream_readers.get(token.slot).is_some()
    }

    /// Requests the events of the connection's streams after its position.
    pub(super) fn ask_streams(&mut self, token: Token) {
        let Some((tenant, ids)) = self.streams_of(token) else { return };
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.awaiting_log = true;
        let position = connection.position;
        let worker = self.worker.clone();
        // The task is owned by this worker's LocalSet. It ends with its one result, which names the
        // connection by generation.
        tokio::task::spawn_local(async move {
            let page = loop {
                let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
                let page = worker.shared.tenants.stream_page(&tenant, &names, position).await;
                let passing =
                    matches!(page, Err(ReadError::Unavailable | ReadError::Busy | ReadError::OverShare));
                if !passing || worker.state.borrow_mut().connection(token).is_none() {
                    break page;
                }
                tokio::time::sleep(RETRY).await;
            };
            worker.with_state(|it| it.on_stream_page(token, position, page));
            worker.nudge();
        });
    }

    fn on_stream_page(&mut self, token: Token, requested: Sequence, page: Result<StreamPage, ReadError>) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.awaiting_log = false;
        if connection.mode != ReadMode::Behind || connection.position != requested {
            return self.state.run(token); // the client subscribed again meanwhile
        }
        match page {
            Ok(page) => {
                self.note_streams(token, page.streams);
                let last = page.frames.last().map_or(requested, |frame| frame.sequence());
                self.deliver(token, &page.frames);
                if let Some(connection) = self.state.connection(token)
                    && connection.mode == ReadMode::Behind
                    && !connection.flags.write_state.is_blocked()
                    && connection.position <= last
                {
                    connection.position = last.max(page.through);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the text of streams could not be read for a subscriber");
                return self.close(token, CloseReason::Internal);
            }
        }
        self.state.run(token);
    }

    /// Looks up the streams whose final chunks are among `frames`, for their live readers.
    pub(super) fn on_final_chunks(&mut self, view: u32, frames: &[Arc<Frame>]) {
        if self.state.stream_readers.is_empty() {
            return;
        }
        for frame in frames.iter().filter(|frame| frame.is_final_chunk()) {
            let Some(id) = frame.key(RoutingKey::Request) else { continue };
            for slot in self.state.stream_readers.of_stream(view, id) {
                if let Some(token) = self.state.token_of(slot) {
                    self.look_up_streams(token, false);
                }
            }
        }
    }

    /// Looks up a reader's streams. One that does not exist then ends the connection if `is_late`.
    pub(super) fn look_up_streams(&mut self, token: Token, is_late: bool) {
        let Some((tenant, ids)) = self.streams_of(token) else { return };
        let Some(reader) = self.state.stream_readers.get_mut(token.slot) else { return };
        if std::mem::replace(&mut reader.is_looked_up, true) && !is_late {
            reader.has_news = true;
            return;
        }
        let serial = reader.serial;
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let found = loop {
                let Some(rights) = worker.with_state(|it| it.rights_of(token)) else { return };
                let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
                match worker.shared.tenants.visible_streams(&tenant, &names, &rights).await {
                    Ok(found) => break found,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            worker.with_state(|it| {
                if !it.state.is_reader(token, serial) {
                    return;
                }
                let mut has_news = false;
                if let Some(reader) = it.state.stream_readers.get_mut(token.slot) {
                    reader.is_looked_up = false;
                    has_news = std::mem::take(&mut reader.has_news);
                }
                let is_unknown = found.iter().any(Option::is_none);
                it.note_streams(token, found);
                match is_late && is_unknown {
                    true => it.end_unknown(token),
                    false => it.end_if_read(token),
                }
                if has_news {
                    it.look_up_streams(token, false);
                }
            });
            worker.nudge();
        });
    }

    fn note_streams(&mut self, token: Token, streams: Vec<Option<Stream>>) {
        let Some(rights) = self.rights_of(token) else { return };
        let visible = streams.into_iter().map(|stream| stream.filter(|stream| stream.is_visible(&rights)));
        if let Some(reader) = self.state.stream_readers.get_mut(token.slot) {
            reader.note(visible.collect());
        }
    }

    /// Ends a reader whose streams were not opened in time.
    fn end_unknown(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        let is_ws = connection.transport.wire_format() == WireFormat::Ws;
        let reference =
            self.state.stream_readers.get_mut(token.slot).and_then(|reader| reader.reference.take());
        self.forget_streams(token);
        if !is_ws {
            return self.close(token, CloseReason::UnknownStream);
        }
        let (_, message) = CloseReason::UnknownStream.words();
        let refusal = ErrorResponse { message: message.into(), ..ErrorResponse::not_found() };
        self.refuse(token, &refusal, reference);
    }

    /// Ends a reader that has read all of its streams to their ends.
    pub(super) fn end_if_read(&mut self, token: Token) {
        if !self.is_stream_reader(token) {
            return;
        }
        let Some(connection) = self.state.connection(token) else { return };
        let (view, format) = (connection.view, connection.transport.wire_format());
        let Some(position) = self.state.position_of(token) else { return };
        let Some(reader) = self.state.stream_readers.get_mut(token.slot) else { return };
        if reader.view != view || reader.end().is_none_or(|end| position < end) {
            return;
        }
        let ended = std::mem::take(&mut reader.ended);
        self.forget_streams(token);
        for stream in ended.iter().flatten() {
            let done = Control::Done {
                request_id: &stream.request_id,
                state: stream.state.name(),
                finish_reason: stream.finish_reason.as_deref(),
                usage: stream.usage.as_deref(),
            };
            self.control(token, &done);
        }
        if format != WireFormat::Ws {
            self.finish(token, CloseReason::Done);
        }
    }

    /// The tenant of a reader of streams, and the streams.
    fn streams_of(&mut self, token: Token) -> Option<(Arc<Tenant>, StreamIds)> {
        let view = self.state.connection(token)?.view;
        let tenant = self.state.views.get(view as usize)?.tenant.clone();
        Some((tenant, self.state.stream_readers.get(token.slot)?.ids.clone()))
    }

    fn rights_of(&mut self, token: Token) -> Option<crate::filter::Rights> {
        let connection = self.state.connection(token)?;
        let (view, row) = (connection.view, connection.row?);
        Some(self.state.views.get(view as usize)?.index.selection(row)?.rights.clone())
    }
}

impl WorkerState {
    /// Returns true if a connection still has this subscription to streams.
    fn is_reader(&mut self, token: Token, serial: u64) -> bool {
        self.connection(token).is_some()
            && self.stream_readers.get(token.slot).is_some_and(|reader| reader.serial == serial)
    }

    /// The token of the connection in a slot.
    fn token_of(&self, slot: u32) -> Option<Token> {
        let connection = self.connections.get(slot as usize)?;
        Some(Token { slot, generation: connection.generation })
    }

    /// The position up to which a connection was served.
    fn position_of(&mut self, token: Token) -> Option<Sequence> {
        let view = self.connection(token)?.view;
        let connection = self.connections.get(token.slot as usize)?;
        Some(self.views.get(view as usize)?.position_of(connection))
    }
}
