//! `late-join`: how long a new reader of a long stream waits for its first text, compared with a reader of a
//! short one. Both streams are spread over a log that is full of other events.
//!
//! * The events are filled in rounds: an array of other events, then chunks of the long stream, and now and then
//!   one of the short stream. Both streams stay open.
//! * Readers come one at a time over SSE, alternately to both streams. The time is from before the connect until
//!   the first byte of text is received, and until the whole text is.
//! * Each reader must get exactly the text.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem;
use serde_json::{Value, json};

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::stream_reader::StreamReader;
use crate::progress::Progress;
use crate::report::{DeliveryFaults, Report, histogram};
use crate::target::{Server, Target};
use crate::wire::http_connection::HttpConnection;
use crate::wire::message::{self, Message, Phase};
use crate::wire::request::{HttpPublish, subscribe};
use crate::wire::stamp::Template;
use crate::wire::stream::{CHUNK, StreamTexts, open_body, read_query};
use crate::wire::{Access, EVENTS_PER_PUBLISH, Wire};

/// Numbers of the two streams.
const LONG: usize = 0;
const SHORT: usize = 1;
/// Bytes of another event.
const EVENT_BYTES: usize = 128;
/// Bytes of a reader's buffer.
const READ: usize = 256 * 1_024;

const EXAMPLES: &str = "\
Examples:
  nervewire bench late-join --bar 'long_over_short<=2'     # 10,000 chunks among 1,000,000 events
  nervewire bench late-join --events 100000 --readers 500

The text of the long stream is at most 60 KB with the default sizes, so it is one event for a late
reader. A reader that gets another text fails the run.";

/// Measure the time to the first text of a late reader, of a long and of a short stream
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Other events in the log, before, between and after the chunks
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Chunks of the long stream
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) chunks: u64,
    /// Chunks of the short stream
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) short: u64,
    /// Bytes of a chunk
    #[arg(long, value_name = "BYTES", default_value_t = 6)]
    pub(crate) size: usize,
    /// Readers of each stream, one after the other
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) readers: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(_: &Args) -> usize {
    2
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { events, chunks, short, size, readers, common } = args;
    common.daemon_alone()?;
    if *short == 0 || short > chunks || *size == 0 || *size > 1_024 || *readers == 0 {
        let limits = "readers and short are at least 1, chunks at least as many as short, a chunk has 1 to 1,024 bytes";
        return Err(BenchError::Usage(limits.into()));
    }
    let about = format!(
        "streams of {chunks} and of {short} chunks of {size} bytes among {events} other events, {readers} late readers of \
         each over SSE"
    );
    let parameters = json!({
        "events": events, "chunks": chunks, "short": short, "size": size, "readers": readers, "runs": common.runs,
    });
    let mut report = Report::new("late-join", about, parameters, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        measure(args, run, &target, &mut report, progress)?;
    }
    Ok(report)
}

/// The times of the readers of one stream, in nanoseconds.
struct Times {
    first_text: Histogram<u64>,
    whole_text: Histogram<u64>,
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let daemon = Server::Daemon;
    let mut streams = Streams::fill(args, target, progress)?;
    let times = || Ok::<_, BenchError>(Times { first_text: histogram()?, whole_text: histogram()? });
    let mut times = [times()?, times()?];
    progress.begin("reading", args.readers);
    let mut delivery_faults = DeliveryFaults::default();
    let mut inexact = 0;
    for turn in 0..args.readers {
        let mut order = [LONG, SHORT];
        order.rotate_left((turn % 2) as usize);
        for stream in order {
            let reader = streams.read(stream, args.common.patience, &mut times[stream])?;
            let chunks = streams.chunks(stream);
            delivery_faults.deliveries += reader.next;
            delivery_faults.losses += reader.lost(chunks);
            delivery_faults.repeats += reader.repeats();
            inexact += u64::from(!reader.is_exact(chunks, false));
        }
        progress.at(turn + 1);
    }
    let micros = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let [long, short] = &times;
    report.add(daemon, "long", "first text of the long stream, p50", "µs", micros(&long.first_text, 0.5));
    report.add(daemon, "short", "first text of the short stream, p50", "µs", micros(&short.first_text, 0.5));
    let ratio = |quantile| {
        micros(&long.first_text, quantile) / micros(&short.first_text, quantile).max(f64::MIN_POSITIVE)
    };
    report.add(daemon, "long_over_short", "long over short, p50", "", ratio(0.5));
    report.add(daemon, "long_over_short_p99", "long over short, p99", "", ratio(0.99));
    report.latency(daemon, "long: connect to first text", &long.first_text);
    report.latency(daemon, "short: connect to first text", &short.first_text);
    report.latency(daemon, "long: connect to whole text", &long.whole_text);
    report.latency(daemon, "short: connect to whole text", &short.whole_text);
    report.count(daemon, run, delivery_faults, true);
    if inexact > 0 {
        report.fault(daemon, run, format_args!("{inexact} readers have another text"));
    }
    Ok(())
}

/// The two streams, filled.
struct Streams {
    access: Access,
    texts: StreamTexts,
    chunk_size: usize,
    request_ids: [String; 2],
    tokens: [String; 2],
    /// Chunks appended to each.
    appended: [u64; 2],
    scratch: Vec<u8>,
}

impl Streams {
    /// Opens the streams, and fills them and the log.
    fn fill(args: &Args, target: &Target, progress: &mut dyn Progress) -> Result<Streams, BenchError> {
        let access = target.access.clone();
        let mut caller = HttpConnection::new(&access, args.common.patience)?;
        let run = crate::wire::stamp::now_ns();
        let request_ids = ["long", "short"].map(|name| format!("bench-{run:x}-{name}"));
        let mut tokens = [String::new(), String::new()];
        for (request_id, token) in request_ids.iter().zip(&mut tokens) {
            let opened = caller.post("/api/v1/streams", &open_body(request_id, false))?;
            *token = opened["producer_token"].as_str().unwrap_or_default().to_owned();
        }
        let mut streams = Streams {
            access,
            texts: StreamTexts::new(),
            chunk_size: args.size,
            request_ids,
            tokens,
            appended: [0, 0],
            scratch: vec![0; READ],
        };
        progress.begin("filling the log", args.events);
        // A round for each publish of other events, or for each chunk if there are fewer of them.
        let rounds = args.chunks.min(args.events.div_ceil(EVENTS_PER_PUBLISH as u64)).max(1);
        let share = |total: u64, round: u64| total * round / rounds;
        let publish = HttpPublish::new(&streams.access, true);
        let (mut template, mut body, mut request) =
            (Template::custom(0, EVENT_BYTES), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let until = share(args.events, round);
            let mut first = share(args.events, round - 1);
            while first < until {
                let count = (until - first).min(EVENTS_PER_PUBLISH as u64);
                template.array(first, count, 0, &mut body);
                request.clear();
                publish.request(&body, &mut request);
                expect_success(caller.call(&request)?)?;
                first += count;
            }
            streams.append(LONG, share(args.chunks, round), &mut caller)?;
            streams.append(SHORT, share(args.short, round), &mut caller)?;
            progress.at(until);
        }
        Ok(streams)
    }

    /// Returns how many chunks a stream has.
    fn chunks(&self, stream: usize) -> u64 {
        self.appended[stream]
    }

    /// Appends chunks until the stream has `until` of them.
    fn append(&mut self, stream: usize, until: u64, caller: &mut HttpConnection) -> Result<(), BenchError> {
        while self.appended[stream] < until {
            let first = self.appended[stream];
            let end = until.min(first + EVENTS_PER_PUBLISH as u64);
            let chunk = |index: u64| {
                let text = self.texts.stretch(stream, index * self.chunk_size as u64, self.chunk_size);
                json!({"index": index, "chunk": String::from_utf8_lossy(text)})
            };
            let body = Value::from((first..end).map(chunk).collect::<Vec<Value>>()).to_string();
            let Access { host, credential, .. } = &self.access;
            let (request_id, token, length) = (&self.request_ids[stream], &self.tokens[stream], body.len());
            let request = format!(
                "POST /api/v1/streams/{request_id}/chunks HTTP/1.1\r\nHost: {host}\r\n{credential}X-Producer-Token: {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            expect_success(caller.call(request.as_bytes())?)?;
            self.appended[stream] = end;
        }
        Ok(())
    }

    /// Connects a new reader, and reads the text so far.
    fn read(
        &mut self,
        stream: usize,
        patience: Duration,
        times: &mut Times,
    ) -> Result<StreamReader, BenchError> {
        let failed = || BenchError::io("read a stream");
        let request = subscribe(&self.access, Wire::Sse, &read_query(&self.request_ids[stream]));
        let mut reader = StreamReader::of(stream);
        let began = Instant::now();
        let mut socket = TcpStream::connect_timeout(&self.access.addr, patience).map_err(failed())?;
        socket.set_read_timeout(Some(patience)).map_err(failed())?;
        socket.write_all(&request).map_err(failed())?;
        let (mut phase, mut held, mut has_text) = (Phase::Head(Wire::Sse), Vec::new(), false);
        while reader.next < self.appended[stream] {
            let read = socket.read(&mut self.scratch).map_err(failed())?;
            if read == 0 {
                return Err(BenchError::Server("a reader's connection ended before its text".into()));
            }
            held.extend_from_slice(&self.scratch[..read]);
            if !has_text && memmem::find(&held, CHUNK).is_some_and(|at| held.len() > at + CHUNK.len()) {
                has_text = true;
                times.first_text.saturating_record(began.elapsed().as_nanos() as u64);
            }
            let mut at = 0;
            while let Some((used, message)) = message::next(&mut phase, &held[at..])
                .map_err(|error| BenchError::Server(format!("a reader's response: {error}")))?
            {
                at += used;
                match message {
                    Message::Text(text) => {
                        reader.event(text, &self.texts, self.chunk_size);
                    }
                    Message::Answer { status, body } => {
                        expect_success((status.max(400), body))?;
                    }
                    _ => {}
                }
            }
            held.drain(..at);
        }
        times.whole_text.saturating_record(began.elapsed().as_nanos() as u64);
        Ok(reader)
    }
}

/// Checks the status of a response.
fn expect_success((status, body): (u16, &[u8])) -> Result<(), BenchError> {
    match status {
        200..=299 => Ok(()),
        _ => {
            let body = String::from_utf8_lossy(&body[..body.len().min(300)]);
            Err(BenchError::Server(format!("response {status}: {body}")))
        }
    }
}
