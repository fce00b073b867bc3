//! Many streams with producers and readers: opens them, sends chunks at a rate or as fast as acknowledgements
//! allow, cuts connections, kills the daemon, and ends every stream.
//!
//! * One thread does all of it. Between two turns of the engine it sends what is due, one write for each socket
//!   of producers.
//! * A producer that was cut off takes its stream over and sends on from the `next_index` that the daemon
//!   names. That must not be before an acknowledged chunk. A reader that was cut off resumes after the last
//!   event that it handled.
//! * The same load can publish plain events ([`Via::Publish`]), for comparison. These have neither takeovers
//!   nor an end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::Signal;

use super::engine::{Engine, Key, TICK, until_quiet};
use super::stall_detector::StallDetector;
use super::stream_reader::StreamReader;
use super::stream_state::{ProducerSocket, StreamProducer, StreamState, TAKEOVERS, Takeover, Via};
use super::subscribers::PUBLISHERS;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::DeliveryFaults;
use crate::target::Target;
use crate::wire::event_id::add_last_event_id;
use crate::wire::http_connection::many;
use crate::wire::request::subscribe;
use crate::wire::stream::{
    Chunks, END_LINES, UNSUBSCRIBED, append_secret, finish_frame, finish_request, open_body, open_lines,
    plain_query, read_frame, read_query, takeover_request,
};
use crate::wire::{Access, Wire};

/// The longest wait for the kernel while chunks are produced. A chunk is sent at most this late.
const STEP: Duration = Duration::from_millis(1);

/// Connections that are opened at once. This is below the backlog of every listener.
const JOINING: usize = 128;

/// The size of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) via: Via,
    /// The transport of readers.
    pub(crate) wire: Wire,
    pub(crate) streams: usize,
    /// Readers of each stream.
    pub(crate) readers: usize,
    /// Sockets of all producers.
    pub(crate) sockets: usize,
    /// Chunks a second of each stream; 0 for as fast as acknowledgements allow.
    pub(crate) rate: f64,
    /// The most chunks of a stream that are sent and not acknowledged.
    pub(crate) outstanding: u64,
    /// Chunks that are sent together.
    pub(crate) array: u64,
    /// Bytes of a chunk.
    pub(crate) chunk_size: usize,
    pub(crate) patience: Duration,
}

/// What interrupts a load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interruptions {
    /// Connections to cut a second.
    pub(crate) cuts: f64,
    /// True to kill the daemon in the middle, and to start it again.
    pub(crate) kill: bool,
}

/// How often the load was interrupted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interrupted {
    pub(crate) readers: u64,
    pub(crate) takeovers: u64,
    /// Time from the end of the killed daemon until it was ready again.
    pub(crate) restart: Option<Duration>,
}

/// The state of every reader at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exactness {
    pub(crate) readers: u64,
    /// Readers that have exactly the produced text, and the end of the stream once.
    pub(crate) exact: u64,
}

/// A running load.
pub(crate) struct StreamLoad {
    shape: Shape,
    access: Access,
    engine: Engine,
    state: StreamState,
    /// The connection of each reader.
    reader_keys: Vec<Key>,
    scratch: Vec<u8>,
    /// Sockets with bytes to write.
    to_flush: Vec<usize>,
    random: u64,
    interrupted: Interrupted,
    faults: Vec<String>,
}

impl StreamLoad {
    /// Opens the streams, and connects their readers and producers.
    pub(crate) fn start(
        shape: Shape,
        target: &Target,
        progress: &mut dyn Progress,
    ) -> Result<StreamLoad, BenchError> {
        let mut state = StreamState::new(shape.via, shape.wire, shape.chunk_size)?;
        let run = format!("bench-{:x}", crate::wire::stamp::now_ns());
        state.producers = (0..shape.streams)
            .map(|stream| StreamProducer {
                request_id: format!("{run}-{stream}"),
                socket: stream % shape.sockets,
                has_token: shape.via == Via::Publish,
                ..StreamProducer::default()
            })
            .collect();
        state.sockets.resize_with(shape.sockets, ProducerSocket::default);
        for stream in 0..shape.streams {
            state.sockets[stream % shape.sockets].streams.push(stream);
        }
        let readers = shape.streams * shape.readers;
        state.readers = (0..readers).map(|at| StreamReader::of(at % shape.streams)).collect();
        state.timed_from = vec![0; readers];
        let mut load = StreamLoad {
            shape,
            access: target.access.clone(),
            engine: Engine::new()?,
            state,
            reader_keys: vec![0; readers],
            scratch: Vec::new(),
            to_flush: Vec::new(),
            random: 0x2545_f491_4f6c_dd1d,
            interrupted: Interrupted::default(),
            faults: Vec::new(),
        };
        if shape.via != Via::Publish {
            progress.begin("opening streams", 0);
            load.open_streams(false)?;
        }
        load.connect_readers(progress)?;
        load.connect_producers()?;
        Ok(load)
    }

    /// Produces for `duration`, and waits until everything was acknowledged and read.
    pub(crate) fn run(
        &mut self,
        duration: Duration,
        interruptions: Interruptions,
        target: &mut Target,
        progress: &mut dyn Progress,
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        let (mut turns_due, mut cuts) = (0, 0);
        let mut to_kill = interruptions.kill;
        if self.shape.rate == 0.0 {
            for (stream, producer) in self.state.producers.iter_mut().enumerate() {
                producer.due = u64::MAX;
                self.state.may_send.push(stream);
            }
        }
        while began.elapsed() < duration {
            let elapsed = began.elapsed();
            self.make_due(elapsed, &mut turns_due);
            self.step(STEP)?;
            if to_kill && elapsed >= duration / 2 {
                to_kill = false;
                self.kill(target, progress)?;
            }
            if elapsed.as_secs_f64() * interruptions.cuts > f64::from(cuts) {
                cuts += 1;
                self.cut()?;
            }
            progress.at(elapsed.as_millis() as u64);
        }
        // What is late is not sent any more: the rate shows it. What was sent before a cut is sent again.
        self.state.producers.iter_mut().for_each(|it| it.due = it.sent);
        let mut stall = StallDetector::new(self.shape.patience);
        while !self.state.is_delivered() {
            self.step(STEP)?;
            let counts = self.state.acknowledged + self.state.delivered + self.interrupted.takeovers;
            stall.check(counts, || {
                let late = |reader: &&StreamReader| reader.next < self.state.producers[reader.stream].sent;
                let behind = self.state.readers.iter().filter(late).count();
                let sent: u64 = self.state.producers.iter().map(|it| it.sent).sum();
                let acked: u64 = self.state.producers.iter().map(|it| it.acked).sum();
                format!("{acked} of {sent} chunks are acknowledged, {behind} readers are behind")
            })?;
        }
        Ok(())
    }

    /// Finishes every stream, and waits until every reader has its end. Plain events have none.
    pub(crate) fn finish(&mut self) -> Result<(), BenchError> {
        if self.shape.via != Via::Publish {
            for (stream, producer) in self.state.producers.iter().enumerate() {
                let out = &mut self.state.sockets[producer.socket].out;
                match self.shape.via {
                    Via::Lines => out.extend_from_slice(END_LINES),
                    _ => finish_frame(stream, &append_secret(&producer.request_id, &producer.token), out),
                }
                self.to_flush.push(producer.socket);
            }
            let mut stall = StallDetector::new(self.shape.patience);
            loop {
                let done = self.state.readers.iter().filter(|it| it.is_done()).count();
                let finished = self.state.finished;
                if finished == self.state.producers.len() && done == self.state.readers.len() {
                    break;
                }
                self.step(TICK)?;
                stall.check((done + finished) as u64, || {
                    format!("{finished} streams are finished, {done} readers are done")
                })?;
            }
        }
        let StreamLoad { engine, state, .. } = self;
        until_quiet(|wait| engine.turn(wait, state))?;
        self.state.check()
    }

    /// Returns the chunks that were acknowledged and the chunks that readers received, so far.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [self.state.acknowledged, self.state.delivered]
    }

    /// Discards the times so far.
    pub(crate) fn record(&mut self) {
        self.state.acks.reset();
        self.state.reads.reset();
    }

    /// Returns the times from sending a chunk to its ack and to its readers, in nanoseconds.
    pub(crate) fn times(&self) -> [&Histogram<u64>; 2] {
        [&self.state.acks, &self.state.reads]
    }

    pub(crate) fn interrupted(&self) -> Interrupted {
        self.interrupted
    }

    /// Returns what the daemon did wrong, besides the text of readers.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Compares what readers have with what was produced.
    pub(crate) fn exactness(&self) -> (Exactness, DeliveryFaults) {
        let (mut exactness, mut faults) = (Exactness::default(), DeliveryFaults::default());
        for reader in &self.state.readers {
            let chunks = self.state.producers[reader.stream].sent;
            exactness.readers += 1;
            exactness.exact += u64::from(reader.is_exact(chunks, self.shape.via != Via::Publish));
            faults.losses += reader.lost(chunks);
            faults.repeats += reader.repeats();
        }
        (exactness, faults)
    }

    /// Opens all streams, or takes them over, over several connections.
    fn open_streams(&mut self, takeover: bool) -> Result<(), BenchError> {
        let producers = &self.state.producers;
        let opened = many(&self.access, producers.len(), self.shape.patience, &|caller, stream| {
            let body = open_body(&producers[stream].request_id, takeover);
            let data = caller.post("/api/v1/streams", &body)?;
            Takeover::parse(stream, &data)
                .ok_or_else(|| BenchError::Server("a stream was opened without a token".into()))
        })?;
        for it in opened {
            self.take_over(it);
        }
        Ok(())
    }

    /// The producer of a stream sends on with a new token.
    fn take_over(&mut self, takeover: Takeover) {
        let Takeover { stream, token, next_index } = takeover;
        let read = self.state.readers.iter().filter(|it| it.stream == stream).map(|it| it.next).max();
        let producer = &mut self.state.producers[stream];
        for (what, count) in [("acknowledged", producer.acked), ("read", read.unwrap_or_default())] {
            if next_index < count {
                let fault = format!("stream {stream}: {count} chunks were {what}, {next_index} are stored");
                self.faults.push(fault);
            }
        }
        self.state.acknowledged += next_index.saturating_sub(producer.acked);
        (producer.acked, producer.sent) = (next_index, next_index);
        producer.sent_at.truncate(next_index as usize);
        (producer.token, producer.has_token) = (token, true);
        self.state.may_send.push(stream);
    }

    fn reader_request(&self, at: usize) -> Vec<u8> {
        let reader = &self.state.readers[at];
        let request_id = &self.state.producers[reader.stream].request_id;
        let access = &self.access;
        match (self.shape.via, self.shape.wire) {
            (Via::Publish, wire) => subscribe(access, wire, &plain_query(request_id)),
            (_, Wire::Ws) => subscribe(access, Wire::Ws, UNSUBSCRIBED),
            (_, wire) => {
                let mut request = subscribe(access, wire, &read_query(request_id));
                if let Some(cursor) = reader.cursor {
                    add_last_event_id(&mut request, &String::from_utf8_lossy(&cursor));
                }
                request
            }
        }
    }

    /// Connects a reader. It resumes after the last event that it handled.
    fn open_reader(&mut self, at: usize) -> Result<(), BenchError> {
        let request = self.reader_request(at);
        self.reader_keys[at] = self.engine.open(self.access.addr, self.shape.wire, at, &request)?;
        self.state.timed_from[at] = self.state.producers[self.state.readers[at].stream].sent;
        Ok(())
    }

    /// Connects all readers, some at a time, and waits until they are ready.
    fn connect_readers(&mut self, progress: &mut dyn Progress) -> Result<(), BenchError> {
        let (count, before) = (self.state.readers.len(), self.state.joined);
        progress.begin("connecting", count as u64);
        let (mut opened, mut stall) = (0, StallDetector::new(self.shape.patience));
        loop {
            let ready = self.state.joined - before;
            if ready == count {
                return Ok(());
            }
            while opened < count && opened - ready < JOINING {
                self.open_reader(opened)?;
                opened += 1;
            }
            self.step(TICK)?;
            progress.at(ready as u64);
            stall.check(ready as u64, || format!("{ready} of {count} readers are ready"))?;
        }
    }

    /// Opens a socket of producers. Lines follow the head of their request at once.
    fn open_socket(&mut self, at: usize) -> Result<(), BenchError> {
        let streams = &self.state.sockets[at].streams;
        let (wire, request) = match (self.shape.via, streams.first()) {
            (Via::Lines, Some(stream)) => {
                let StreamProducer { request_id, token, .. } = &self.state.producers[*stream];
                (Wire::Http, open_lines(&self.access, request_id, token))
            }
            _ => (Wire::Ws, subscribe(&self.access, Wire::Ws, UNSUBSCRIBED)),
        };
        let key = self.engine.open(self.access.addr, wire, PUBLISHERS + at, &request)?;
        let socket = &mut self.state.sockets[at];
        (socket.key, socket.is_open) = (Some(key), wire == Wire::Http);
        self.state.may_send.extend_from_slice(&socket.streams);
        Ok(())
    }

    /// Opens all sockets of producers, some at a time, and waits until they can be written to.
    fn connect_producers(&mut self) -> Result<(), BenchError> {
        let count = self.state.sockets.len();
        let mut stall = StallDetector::new(self.shape.patience);
        for at in 0..count {
            self.open_socket(at)?;
            let least = if at + 1 == count { count } else { at.saturating_sub(JOINING) };
            while self.state.sockets.iter().filter(|it| it.is_open).count() < least {
                self.step(TICK)?;
                stall.check(at as u64, || "producers cannot connect".into())?;
            }
        }
        Ok(())
    }

    /// Sends what may be sent, serves the connections, and does what follows from what they received.
    fn step(&mut self, wait: Duration) -> Result<(), BenchError> {
        let mut may_send = std::mem::take(&mut self.state.may_send);
        for stream in may_send.drain(..) {
            self.send_chunks(stream);
        }
        self.state.may_send = may_send;
        let mut to_flush = std::mem::take(&mut self.to_flush);
        for at in to_flush.drain(..) {
            let socket = &mut self.state.sockets[at];
            if let Some(key) = socket.key {
                self.engine.send(key, &socket.out);
            }
            socket.out.clear();
        }
        self.to_flush = to_flush;
        self.engine.turn(wait, &mut self.state)?;
        self.state.check()?;
        for tag in std::mem::take(&mut self.state.unsubscribed) {
            let reader = &self.state.readers[tag];
            let cursor = reader.cursor.map(|id| String::from_utf8_lossy(&id).into_owned());
            let request_id = &self.state.producers[reader.stream].request_id;
            self.engine.send(self.reader_keys[tag], &read_frame(request_id, cursor.as_deref()));
        }
        for (key, takeover) in std::mem::take(&mut self.state.taken_over) {
            self.engine.close(key);
            let socket = self.state.producers[takeover.stream].socket;
            self.take_over(takeover);
            self.interrupted.takeovers += 1;
            if self.shape.via == Via::Lines {
                self.open_socket(socket)?;
            }
        }
        for at in std::mem::take(&mut self.state.bodies_done) {
            let socket = &mut self.state.sockets[at];
            if let Some(key) = socket.key.take() {
                self.engine.close(key);
            }
            if let Some(stream) = socket.streams.first() {
                let StreamProducer { request_id, token, .. } = &self.state.producers[*stream];
                let request = finish_request(&self.access, request_id, token);
                let key = self.engine.open(self.access.addr, Wire::Http, PUBLISHERS + at, &request)?;
                socket.key = Some(key);
            }
        }
        Ok(())
    }

    /// Puts the chunks of a stream that are due into the next write of its socket.
    fn send_chunks(&mut self, stream: usize) {
        let Shape { via, outstanding, array, chunk_size: size, .. } = self.shape;
        let now = self.state.micros();
        let StreamState { producers, sockets, texts, .. } = &mut self.state;
        let producer = &mut producers[stream];
        let socket = &mut sockets[producer.socket];
        let due = producer.due.saturating_sub(producer.sent);
        let room = outstanding.saturating_sub(producer.sent.saturating_sub(producer.acked));
        // With little room it is better to wait for more than to send short arrays.
        if !producer.has_token || !socket.is_open || due == 0 || room < array.min(due) {
            return;
        }
        let end = producer.sent + due.min(room);
        if socket.out.is_empty() {
            self.to_flush.push(producer.socket);
        }
        let secret = append_secret(&producer.request_id, &producer.token);
        while producer.sent < end {
            let count = array.min(end - producer.sent);
            let chunks = Chunks { stream, index: producer.sent, count, size };
            match via {
                Via::Append => chunks.append_frame(texts, &secret, &mut self.scratch, &mut socket.out),
                Via::Lines => chunks.lines(texts, &mut self.scratch, &mut socket.out),
                Via::Publish => {
                    chunks.publish_frame(texts, &producer.request_id, &mut self.scratch, &mut socket.out);
                }
            }
            producer.sent += count;
        }
        producer.sent_at.resize(end as usize, now);
    }

    /// Makes chunks due at their times: every stream in turn, so that the load is even.
    fn make_due(&mut self, elapsed: Duration, turns: &mut u64) {
        let Shape { rate, array, streams, .. } = self.shape;
        if rate == 0.0 {
            return;
        }
        let turns_a_second = rate / array as f64 * streams as f64;
        while (*turns as f64) < elapsed.as_secs_f64() * turns_a_second {
            let stream = (*turns % streams as u64) as usize;
            self.state.producers[stream].due += array;
            self.state.may_send.push(stream);
            *turns += 1;
        }
    }

    /// Cuts a random connection off: of a reader or of producers.
    fn cut(&mut self) -> Result<(), BenchError> {
        let random = self.random() as usize;
        if random.is_multiple_of(2) && !self.state.readers.is_empty() {
            let at = random / 2 % self.state.readers.len();
            self.engine.close(self.reader_keys[at]);
            self.interrupted.readers += 1;
            return self.open_reader(at);
        }
        let at = random / 2 % self.state.sockets.len();
        let socket = &mut self.state.sockets[at];
        let is_settled = socket.streams.iter().all(|stream| self.state.producers[*stream].has_token);
        let Some(key) = socket.key.filter(|_| socket.is_open && is_settled) else { return Ok(()) };
        self.engine.close(key);
        (socket.key, socket.is_open) = (None, false);
        socket.out.clear();
        for stream in socket.streams.clone() {
            let producer = &mut self.state.producers[stream];
            producer.has_token = false;
            let request = takeover_request(&self.access, &producer.request_id);
            self.engine.open(self.access.addr, Wire::Http, TAKEOVERS + stream, &request)?;
        }
        match self.shape.via {
            Via::Lines => Ok(()), // its request needs the new token
            Via::Append | Via::Publish => self.open_socket(at),
        }
    }

    /// Kills the daemon, starts it again, and connects everybody again.
    fn kill(&mut self, target: &mut Target, progress: &mut dyn Progress) -> Result<(), BenchError> {
        let patience = self.shape.patience;
        target.end(Signal::KILL, patience)?;
        self.engine.close_all();
        self.state.disconnect();
        self.interrupted.restart = Some(target.start_again(patience)?);
        self.access = target.access.clone();
        self.open_streams(true)?;
        self.interrupted.takeovers += self.state.producers.len() as u64;
        self.connect_producers()?;
        self.interrupted.readers += self.state.readers.len() as u64;
        self.connect_readers(progress)
    }

    /// Returns the next number of a sequence that is the same in every run.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}
