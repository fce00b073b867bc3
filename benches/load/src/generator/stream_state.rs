//! What is known of the producers and readers of many streams: what was sent, acknowledged and received.
//!
//! * Readers have the tags from 0, sockets of producers those from [`PUBLISHERS`], takeovers those from
//!   [`TAKEOVERS`].
//! * This file only counts, and lists what `stream_load` has to do next: it does not know the engine.
//! * A chunk is timed from the last time that it was sent. A reader that was cut off does not time what it
//!   missed meanwhile.

use hdrhistogram::Histogram;
use serde_json::Value;

use super::engine::{ConnEvent, Ended, Handler, Key, is_type};
use super::stream_reader::StreamReader;
use super::subscribers::{PUBLISHERS, check_trouble, record_trouble};
use crate::error::BenchError;
use crate::report::histogram;
use crate::wire::Wire;
use crate::wire::stamp::now_ns;
use crate::wire::stream::{StreamTexts, ack};

/// First tag of connections that take a stream over.
pub(super) const TAKEOVERS: usize = 1 << 33;

/// How chunks are produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// `append` over a WebSocket.
    Append,
    /// Lines of an open request body, one for each stream. It is acknowledged at its end, so a chunk counts as
    /// acknowledged when a reader has it: it is shown after its commit only.
    Lines,
    /// `publish` over a WebSocket, of plain events without a stream.
    Publish,
}

/// The producer of one stream.
#[derive(Debug, Default)]
pub(super) struct StreamProducer {
    pub(super) request_id: String,
    pub(super) token: String,
    /// Index of the socket on which it sends.
    pub(super) socket: usize,
    /// False from a cut until the stream is taken over.
    pub(super) has_token: bool,
    /// How many chunks it may send so far.
    pub(super) due: u64,
    /// How many chunks it has sent, and how many of them are acknowledged.
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// When each chunk was sent, in microseconds since the start of the load.
    pub(super) sent_at: Vec<u32>,
}

/// A socket of producers.
#[derive(Debug, Default)]
pub(super) struct ProducerSocket {
    pub(super) key: Option<Key>,
    /// True if it can be written to.
    pub(super) is_open: bool,
    pub(super) streams: Vec<usize>,
    /// Bytes of the next write.
    pub(super) out: Vec<u8>,
    /// True if the body of [`Via::Lines`] was acknowledged.
    pub(super) is_body_done: bool,
}

/// A stream that was taken over.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) stream: usize,
    pub(super) token: String,
    pub(super) next_index: u64,
}

impl Takeover {
    /// Reads the response, without the envelope.
    pub(super) fn parse(stream: usize, data: &Value) -> Option<Takeover> {
        let token = data["producer_token"].as_str()?.to_owned();
        Some(Takeover { stream, token, next_index: data["next_index"].as_u64()? })
    }
}

/// Producers and readers, and what happened to them.
pub(super) struct StreamState {
    pub(super) via: Via,
    /// The transport of readers.
    pub(super) wire: Wire,
    pub(super) chunk_size: usize,
    pub(super) texts: StreamTexts,
    pub(super) producers: Vec<StreamProducer>,
    pub(super) sockets: Vec<ProducerSocket>,
    pub(super) readers: Vec<StreamReader>,
    /// For each reader the first chunk that it times.
    pub(super) timed_from: Vec<u64>,
    /// When the load started, in nanoseconds.
    began: u64,
    /// Readers that became ready, also again.
    pub(super) joined: usize,
    /// Chunks acknowledged and chunks read, so far.
    pub(super) acknowledged: u64,
    pub(super) delivered: u64,
    /// Streams whose finish was acknowledged.
    pub(super) finished: usize,
    /// Time from sending a chunk to its ack, and to each reader, in nanoseconds.
    pub(super) acks: Histogram<u64>,
    pub(super) reads: Histogram<u64>,
    /// Streams that may have something to send.
    pub(super) may_send: Vec<usize>,
    /// WebSockets of readers that are open and not subscribed.
    pub(super) unsubscribed: Vec<usize>,
    /// Takeovers that were answered, with their connections.
    pub(super) taken_over: Vec<(Key, Takeover)>,
    /// Sockets whose open body was acknowledged.
    pub(super) bodies_done: Vec<usize>,
    trouble: Option<String>,
}

impl StreamState {
    pub(super) fn new(via: Via, wire: Wire, chunk_size: usize) -> Result<StreamState, BenchError> {
        Ok(StreamState {
            via,
            wire,
            chunk_size,
            texts: StreamTexts::new(),
            producers: Vec::new(),
            sockets: Vec::new(),
            readers: Vec::new(),
            timed_from: Vec::new(),
            began: now_ns(),
            joined: 0,
            acknowledged: 0,
            delivered: 0,
            finished: 0,
            acks: histogram()?,
            reads: histogram()?,
            may_send: Vec::new(),
            unsubscribed: Vec::new(),
            taken_over: Vec::new(),
            bodies_done: Vec::new(),
            trouble: None,
        })
    }

    /// Checks that no error occurred.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        check_trouble(self.trouble.as_ref())
    }

    /// Returns the time since the start of the load.
    pub(super) fn micros(&self) -> u32 {
        // An hour fits.
        ((now_ns() - self.began) / 1_000) as u32
    }

    /// Returns true if everything that is due was sent, acknowledged and read.
    pub(super) fn is_delivered(&self) -> bool {
        self.producers.iter().all(|it| it.has_token && it.sent == it.due && it.acked == it.sent)
            && self.readers.iter().all(|it| it.next == self.producers[it.stream].sent)
    }

    /// Forgets the connections, after the daemon was killed.
    pub(super) fn disconnect(&mut self) {
        for socket in &mut self.sockets {
            (socket.key, socket.is_open) = (None, false);
            socket.out.clear();
        }
        self.producers.iter_mut().for_each(|it| it.has_token = false);
        self.may_send.clear();
        self.unsubscribed.clear();
        self.taken_over.clear();
    }

    fn micros_since(now: u32, sent_at: &[u32], index: u64) -> Option<u64> {
        sent_at.get(index as usize).map(|at| u64::from(now.saturating_sub(*at)) * 1_000)
    }

    /// The chunks of a stream before `next_index` are on disk.
    fn acknowledge(&mut self, stream: usize, next_index: u64) {
        let now = self.micros();
        let Some(producer) = self.producers.get_mut(stream) else { return };
        let times = (producer.acked..next_index)
            .filter_map(|index| StreamState::micros_since(now, &producer.sent_at, index));
        if self.via != Via::Lines {
            times.for_each(|time| self.acks.saturating_record(time));
        }
        self.acknowledged += next_index.saturating_sub(producer.acked);
        producer.acked = producer.acked.max(next_index);
        if producer.due > producer.sent {
            self.may_send.push(stream);
        }
    }

    fn on_reader(&mut self, tag: usize, seen: &ConnEvent<'_>) {
        let Some(reader) = self.readers.get_mut(tag) else { return };
        // Readers of streams over WebSocket subscribe by a frame, whose `ready` has its `ref`.
        let by_frame = self.wire == Wire::Ws && self.via != Via::Publish;
        match seen {
            ConnEvent::Text(text) => {
                if let Some(new) = reader.event(text, &self.texts, self.chunk_size) {
                    let (stream, next) = (reader.stream, reader.next);
                    self.delivered += new.end.saturating_sub(new.start);
                    let now = self.micros();
                    let producer = &self.producers[stream];
                    for index in new.filter(|index| *index >= self.timed_from[tag]) {
                        let time = StreamState::micros_since(now, &producer.sent_at, index);
                        time.into_iter().for_each(|time| self.reads.saturating_record(time));
                    }
                    if self.via == Via::Lines && next > producer.acked {
                        self.acknowledge(stream, next);
                    }
                } else if is_type(text, "done") {
                    reader.done(text.windows(COMPLETED.len()).any(|it| it == COMPLETED));
                } else if is_type(text, "ready") {
                    let is_subscribed = !by_frame || text.windows(7).any(|it| it == b"\"ref\":0");
                    self.joined += usize::from(is_subscribed);
                } else {
                    record_trouble(&mut self.trouble, tag, seen);
                }
            }
            ConnEvent::Open if by_frame => self.unsubscribed.push(tag),
            ConnEvent::Ended(Ended::Peer(None)) if reader.is_done() => {}
            seen => record_trouble(&mut self.trouble, tag, seen),
        }
    }

    fn on_producer(&mut self, at: usize, seen: &ConnEvent<'_>) {
        let Some(socket) = self.sockets.get_mut(at) else { return };
        match seen {
            ConnEvent::Open => {
                socket.is_open = true;
                self.may_send.extend_from_slice(&socket.streams);
            }
            ConnEvent::Text(text) if is_type(text, "ack") => match ack(text) {
                Some(ack) => match ack.next_index {
                    Some(next_index) => self.acknowledge(ack.stream, next_index),
                    None => self.finished += 1,
                },
                None => record_trouble(&mut self.trouble, PUBLISHERS + at, seen),
            },
            ConnEvent::Answer { status: 200, .. } if self.via == Via::Lines && !socket.is_body_done => {
                socket.is_body_done = true;
                self.bodies_done.push(at);
            }
            ConnEvent::Answer { status: 200, .. } if self.via == Via::Lines => self.finished += 1,
            // The daemon closes the connection of an open body after its response.
            ConnEvent::Ended(Ended::Peer(None)) if socket.is_body_done => socket.key = None,
            seen => record_trouble(&mut self.trouble, PUBLISHERS + at, seen),
        }
    }

    fn on_takeover(&mut self, key: Key, stream: usize, seen: &ConnEvent<'_>) {
        if let ConnEvent::Answer { status: 200, body } = seen {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            if let Some(takeover) = Takeover::parse(stream, &body["data"]) {
                return self.taken_over.push((key, takeover));
            }
        }
        let trouble = seen.trouble().map(|what| format!("takeover of stream {stream}: {what}"));
        self.trouble = self.trouble.take().or(trouble);
    }
}

/// The member of a `done` frame of a completed stream.
const COMPLETED: &[u8] = b"\"state\":\"completed\"";

impl Handler for StreamState {
    fn on_event(&mut self, key: Key, tag: usize, seen: ConnEvent<'_>) {
        if let Some(stream) = tag.checked_sub(TAKEOVERS) {
            self.on_takeover(key, stream, &seen);
        } else if let Some(at) = tag.checked_sub(PUBLISHERS) {
            self.on_producer(at, &seen);
        } else {
            self.on_reader(tag, &seen);
        }
    }
}
