//! Random producers, ends, clocks, failing disks and crashes against a model of streams. In every case:
//!
//! * A stream ends exactly once, and no chunk follows its end in the log.
//! * What was acknowledged is never lost, what was read once never changes, and a producer whose stream was
//!   taken over adds nothing.
//! * Segments and tail, the log, and the events that readers get have the same chunks.
//! * The log keeps the chunks that are in no segment, however short its retention is.
//!
//! `NERVEWIRE_STREAM_CASES` sets the number of cases.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::streams::{Failing, Setup, World, request, writable};
use super::*;
use crate::event::EventKind;
use crate::frame::{Frame, RoutingKey};
use crate::store::{Retention, StreamText};
use crate::tenant::admission::stream_open::{OpenRequest, OpenedStream};
use crate::tenant::admission::stream_word::{ChunkInput, StreamAnswer, StreamAuthority};
use crate::tenant::streams::StreamError;
use crate::tenant::streams::state::{StreamEnd, StreamState};

/// The streams of a case.
const STREAMS: usize = 4;
/// Requests that are under way at once.
const UNDER_WAY: usize = 8;
/// Leases that producers ask for, in seconds.
const LEASES: [u32; 3] = [5, 30, 600];
const PART: &str = r#"{"type":"reasoning","id":"r"}"#;

/// One step. A request that is not awaited is under way while the next steps are taken.
#[derive(Clone, Debug)]
enum Step {
    /// Opens a stream, or takes it over.
    Open { stream: usize, lease: usize, awaited: bool },
    /// Appends chunks: from an index that is known or leaves a gap, and perhaps with a superseded token.
    Append { stream: usize, stale: bool, back: u64, ahead: bool, count: u64, ends: bool, awaited: bool },
    /// Ends a stream: 0 finishes, 1 fails, 2 cancels.
    End { stream: usize, stale: bool, how: usize, awaited: bool },
    /// An event of other traffic.
    Publish,
    /// The time goes on by seconds.
    Advance(u64),
    /// The wall clock is set by hours ahead or back.
    Set(i64),
    /// What the daemon does once a second.
    Tick,
    /// The next sync of the journal fails.
    FailSync,
    /// Everything under way is awaited, and everything is compared with the model.
    Check,
    /// The daemon is stopped and started.
    Restart,
    /// The daemon is killed and started.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS;
    let open = (stream.clone(), 0..LEASES.len(), any::<bool>())
        .prop_map(|(stream, lease, awaited)| Step::Open { stream, lease, awaited });
    let append = (stream.clone(), 0..8u8, 0..8u64, 0..20u8, 1..6u64, 0..16u8, 0..3u8).prop_map(
        |(stream, stale, back, ahead, count, ends, awaited)| Step::Append {
            stream,
            stale: stale == 0,
            back: back.saturating_sub(4),
            ahead: ahead == 0,
            count,
            ends: ends == 0,
            awaited: awaited == 0,
        },
    );
    let end = (stream, 0..4u8, 0..3usize, any::<bool>())
        .prop_map(|(stream, stale, how, awaited)| Step::End { stream, stale: stale == 0, how, awaited });
    prop_oneof![
        6 => open,
        24 => append,
        2 => end,
        3 => Just(Step::Publish),
        4 => prop::sample::select(vec![1u64, 3, 11, 40]).prop_map(Step::Advance),
        1 => (-50..50i64).prop_map(Step::Set),
        5 => Just(Step::Tick),
        1 => Just(Step::FailSync),
        3 => Just(Step::Check),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
    ]
}

/// The chunk that a producer of `generation` writes at `index`.
fn chunk(stream: usize, generation: u32, index: u64) -> (String, Option<&'static str>) {
    let mix = index * 7 + u64::from(generation) * 3 + stream as u64;
    let length = match mix % 41 {
        0 => 60_000,
        1 | 2 => 18_000,
        3..6 => 3_000,
        other => other as usize % 9,
    };
    (format!("{stream}.{generation}.{index}ü;{}", "x".repeat(length)), mix.is_multiple_of(5).then_some(PART))
}

/// What the model knows of a stream.
#[derive(Default)]
struct Known {
    /// The tokens that were answered, by generation, each with the index from which it was valid.
    takeovers: BTreeMap<u32, (String, u64)>,
    /// Number of openings and takeovers that were tried.
    tried: u32,
    /// The index at which the producer continues.
    next: u64,
    /// Chunks that were sent.
    sent: u64,
    /// Chunks that were acknowledged.
    acknowledged: u64,
    /// Ends that were tried.
    ends: HashSet<StreamState>,
    /// The end that was acknowledged or seen.
    end: Option<StreamState>,
    /// The text that was read.
    seen: String,
    /// The number of chunks and the state that readers' events were compared with.
    compared: Option<(u64, StreamState)>,
    /// The latest second in which its producer may have renewed its lease, and the latest in which it has.
    heard_s: (u64, u64),
    /// The longest and the shortest lease that was asked for.
    lease_s: (u64, u64),
}

enum Done {
    Opened { stream: usize, result: Result<OpenedStream, StreamError> },
    Said { stream: usize, word: Word, result: Result<StreamAnswer, StreamError> },
}

/// A word that was said.
#[derive(Clone, Copy, Debug)]
struct Word {
    generation: u32,
    /// A newer token had been answered before it was said.
    is_stale: bool,
    /// The index after its last chunk.
    end: u64,
    ends: Option<StreamState>,
    said_s: u64,
}

/// The kind of an event, its sequence, and its JSON.
type LoggedEvent = (EventKind, Sequence, serde_json::Value);

type UnderWay = Pin<Box<dyn Future<Output = Done>>>;

struct Case {
    _dirs: tempfile::TempDir,
    dir: PathBuf,
    io: Arc<Failing>,
    clock: Arc<ManualClock>,
    retention: Retention,
    world: Rc<World>,
    under_way: VecDeque<(usize, UnderWay)>,
    known: Vec<Known>,
    /// The disk may fail, or has failed and was not waited for.
    may_fail: bool,
    /// The latest second in which the leases may have begun anew.
    anew_s: u64,
    /// The second of the last tick.
    ticked_s: u64,
}

fn name(stream: usize) -> String {
    format!("s{stream}")
}

/// Copies what `kill -9` leaves: first the state, so that it never has what the journal lacks.
fn copy_image(from: &Path, to: &Path) {
    for part in ["log", "journal"] {
        std::fs::create_dir_all(to.join(part)).expect("made");
        for entry in std::fs::read_dir(from.join(part)).expect("a directory") {
            let entry = entry.expect("an entry");
            // The journal may remove a segment meanwhile.
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let _ = std::fs::copy(entry.path(), to.join(part).join(entry.file_name()));
            }
        }
    }
}

impl Case {
    fn new(short: bool) -> Case {
        let dirs = tempfile::tempdir().expect("a directory");
        let (dir, io) = (dirs.path().join("0"), Arc::new(Failing::default()));
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let retention = Retention { max_age_seconds: 0, max_events: if short { 6 } else { 0 }, max_bytes: 0 };
        let world = Rc::new(Case::open(&dir, &io, &clock, retention));
        let known = std::iter::repeat_with(Known::default).take(STREAMS).collect();
        let (under_way, may_fail) = (VecDeque::new(), false);
        Case {
            _dirs: dirs,
            dir,
            io,
            clock,
            retention,
            world,
            under_way,
            known,
            may_fail,
            anew_s: 0,
            ticked_s: 0,
        }
    }

    fn open(dir: &Path, io: &Arc<Failing>, clock: &Arc<ManualClock>, retention: Retention) -> World {
        std::fs::create_dir_all(dir).expect("made");
        let limits = StreamLimits { bytes: 120_000, ..StreamLimits::default() };
        World::open_dir(dir, Setup { io: io.clone(), retention, clock: clock.clone(), limits })
    }

    fn now_s(&self) -> u64 {
        self.clock.monotonic_us() / 1_000_000
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Open { stream, lease, awaited } => self.open_stream(stream, lease, awaited).await,
            Step::Append { stream, stale, back, ahead, count, ends, awaited } => {
                let known = &self.known[stream];
                let from = if ahead { known.next + 1 } else { known.next.saturating_sub(back) };
                let end = ends.then(|| StreamEnd::completed(Some("stop".into()), None));
                self.say(stream, stale, (from, count), end, awaited).await;
            }
            Step::End { stream, how: 2, awaited, .. } => self.cancel(stream, awaited).await,
            Step::End { stream, stale, how, awaited } => {
                let end = match how {
                    0 => StreamEnd::completed(Some("stop".into()), None),
                    _ => StreamEnd::failed("BROKEN".into(), "broken".into()),
                };
                let next = self.known[stream].next;
                self.say(stream, stale, (next, 0), Some(end), awaited).await;
            }
            Step::Publish => {
                let published = publish_json(&self.world.tenants, ID, &custom("other"), DURABLE).await;
                assert!(published.is_ok() || self.may_fail, "{published:?}");
            }
            Step::Advance(seconds) => self.clock.advance(seconds * 1_000),
            Step::Set(hours) => {
                let now_ms = self.clock.now_ms().saturating_add_signed(hours * 3_600_000);
                self.clock.set(now_ms);
            }
            Step::Tick => self.tick().await,
            Step::FailSync => {
                self.io.fail_syncs(1);
                self.may_fail = true;
            }
            Step::Check => self.check().await,
            Step::Restart => self.restart(false).await,
            Step::Crash => self.restart(true).await,
        }
    }

    /// Starts a request, and waits for all that are under way if it is `awaited`.
    async fn start(&mut self, stream: usize, mut request: UnderWay, awaited: bool) {
        match request.as_mut().now_or_never() {
            Some(done) => self.note(done),
            None => self.under_way.push_back((stream, request)),
        }
        if awaited || self.under_way.len() >= UNDER_WAY {
            self.drain().await;
        }
    }

    /// Waits for everything under way.
    async fn drain(&mut self) {
        let (streams, under_way): (Vec<_>, Vec<_>) = std::mem::take(&mut self.under_way).into_iter().unzip();
        for stream in streams {
            self.known[stream].heard_s.0 = self.now_s(); // it may be heard only now
        }
        for done in futures_util::future::join_all(under_way).await {
            self.note(done);
        }
    }

    async fn open_stream(&mut self, stream: usize, lease: usize, awaited: bool) {
        let now_s = self.now_s();
        let known = &mut self.known[stream];
        known.tried += 1;
        known.heard_s.0 = now_s;
        let lease = LEASES[lease];
        let seconds = u64::from(lease);
        known.lease_s = match known.lease_s {
            (0, 0) => (seconds, seconds),
            (most, least) => (most.max(seconds), least.min(seconds)),
        };
        let world = self.world.clone();
        let request = OpenRequest { takeover: true, lease_seconds: Some(lease), ..request(&name(stream)) };
        let request = async move { Done::Opened { stream, result: world.open(request).await } };
        self.start(stream, Box::pin(request), awaited).await;
    }

    async fn say(
        &mut self,
        stream: usize,
        stale: bool,
        (from, count): (u64, u64),
        end: Option<StreamEnd>,
        awaited: bool,
    ) {
        let now_s = self.now_s();
        let known = &mut self.known[stream];
        let mut tokens = known.takeovers.iter().rev().skip(usize::from(stale));
        let Some((&generation, (token, _))) = tokens.next() else { return };
        let ends = end.as_ref().map(|end| end.state);
        let word = Word { generation, is_stale: stale, end: from + count, ends, said_s: now_s };
        let token = token.clone();
        if !stale {
            (known.sent, known.heard_s.0) = (known.sent.max(word.end), now_s);
            known.next = if from <= known.next { known.next.max(word.end) } else { known.next };
            known.ends.extend(ends);
        }
        let world = self.world.clone();
        let request = async move {
            let chunks: Vec<_> = (from..word.end)
                .map(|index| {
                    let (text, part) = chunk(stream, generation, index);
                    ChunkInput { text: text.into(), part: part.map(Into::into) }
                })
                .collect();
            let authority = StreamAuthority::Producer(&token);
            let result = world.word(&name(stream), authority, Some(from), &chunks, end).await;
            Done::Said { stream, word, result }
        };
        self.start(stream, Box::pin(request), awaited).await;
    }

    async fn cancel(&mut self, stream: usize, awaited: bool) {
        if self.known[stream].takeovers.is_empty() {
            return; // its opening may not be on disk
        }
        self.known[stream].ends.insert(StreamState::Cancelled);
        let (world, said_s) = (self.world.clone(), self.now_s());
        let ends = None; // whoever came first has ended it
        let word = Word { generation: u32::MAX, is_stale: false, end: 0, ends, said_s };
        let request = async move {
            let (authority, end) = (StreamAuthority::Canceller, Some(StreamEnd::cancelled(None)));
            let result = world.word(&name(stream), authority, None, &[], end).await;
            Done::Said { stream, word, result }
        };
        self.start(stream, Box::pin(request), awaited).await;
    }

    /// Compares an answer with the model.
    fn note(&mut self, done: Done) {
        let may_fail = self.may_fail;
        match done {
            Done::Opened { stream, result: Ok(opened) } => {
                let known = &mut self.known[stream];
                assert_eq!(known.end, None, "{} was opened after its end", name(stream));
                assert!(opened.generation <= known.tried, "{opened:?}");
                assert!(
                    (known.acknowledged..=known.sent).contains(&opened.next_index),
                    "{opened:?}: {} acknowledged, {} sent",
                    known.acknowledged,
                    known.sent
                );
                known.next = opened.next_index;
                known.acknowledged = opened.next_index;
                let before =
                    known.takeovers.insert(opened.generation, (opened.producer_token, opened.next_index));
                assert!(before.is_none(), "generation {} was answered twice", opened.generation);
            }
            Done::Opened { result: Err(StreamError::InUse), .. } => {} // it has ended
            Done::Opened { result: Err(error), .. } => assert!(may_fail, "{error:?}"),
            Done::Said { stream, word, result: Ok(answer) } => {
                assert!(!word.is_stale, "{word:?} of a superseded producer: {answer:?}");
                let known = &mut self.known[stream];
                assert!((word.end..=known.sent).contains(&answer.next_index), "{word:?}: {answer:?}");
                known.acknowledged = known.acknowledged.max(answer.next_index);
                if word.generation != u32::MAX {
                    known.heard_s.1 = known.heard_s.1.max(word.said_s);
                }
                if let Some(state) = word.ends {
                    assert!(known.end.is_none_or(|end| end == state), "{:?} and {state:?}", known.end);
                    known.end = Some(state);
                }
            }
            Done::Said { stream, word, result: Err(error) } => {
                let known = &mut self.known[stream];
                match error {
                    StreamError::Fenced => assert!(word.generation < known.tried, "{word:?}"),
                    StreamError::Ended(state) => {
                        let possible = known.ends.contains(&state) || state == StreamState::Abandoned;
                        assert!(possible, "{word:?}: {state:?}");
                    }
                    StreamError::IndexTooHigh { expected } => {
                        assert!(expected < word.end && expected <= known.sent, "{word:?}: {expected}");
                        known.next = expected;
                    }
                    StreamError::TooMuchText { .. } | StreamError::Publish(PublishError::Backlog) => {}
                    error => assert!(may_fail, "{word:?}: {error:?}"),
                }
            }
        }
    }

    async fn tick(&mut self) {
        self.world.tenants.maintain_streams().await;
        self.world.settle().await;
        self.ticked_s = self.now_s();
        if self.may_fail {
            self.anew_s = self.ticked_s;
        }
    }

    /// Waits until nothing is under way and the store accepts writes.
    async fn calm(&mut self) {
        self.drain().await;
        self.world.settle().await;
        if self.may_fail {
            self.io.fail_syncs(0);
            writable(&self.world.tenants).await;
            self.may_fail = false;
            self.anew_s = self.now_s();
        }
        let tenant = self.world.tenant().await;
        self.world.tenants.load_streams(&tenant).await.expect("read");
    }

    /// Compares everything with the model.
    async fn check(&mut self) {
        self.calm().await;
        let tenant = self.world.tenant().await;
        let logged = self.logged(&tenant).await;
        let mut open = 0;
        for stream in 0..STREAMS {
            let log = logged.get(&name(stream)).map_or(&[][..], Vec::as_slice);
            open += usize::from(self.check_stream(&tenant, stream, log).await);
        }
        assert_eq!(self.world.tenants.open_streams(), open);
        let counted = self.world.tenants.store().counted_usage_blocking().expect("read");
        assert_eq!(self.world.tenants.store().usage(ID), counted.get(&ID).copied().unwrap_or_default());
    }

    /// Every event of the log that names a stream: its sequence and its JSON.
    async fn logged(&self, tenant: &Arc<Tenant>) -> BTreeMap<String, Vec<LoggedEvent>> {
        let (mut found, mut position) = (BTreeMap::<_, Vec<_>>::new(), Sequence::ZERO);
        loop {
            match self.world.tenants.store().read_log(tenant.log(), position).await.expect("read") {
                LogRead::Page(page) => {
                    for frame in page.frames() {
                        position = frame.sequence();
                        if let Some(id) = frame.key(RoutingKey::Request) {
                            let event = (frame.kind(), frame.sequence(), json(frame));
                            found.entry(id.to_owned()).or_default().push(event);
                        }
                    }
                }
                LogRead::Gap { resumes_at, is_damaged } => {
                    assert!(!is_damaged && self.retention.max_events > 0, "a gap up to {resumes_at:?}");
                    position = resumes_at;
                }
                LogRead::End { .. } => return found,
            }
        }
    }

    /// Compares a stream with the model and with the log. Returns true if it is open.
    async fn check_stream(&mut self, tenant: &Arc<Tenant>, at: usize, log: &[LoggedEvent]) -> bool {
        let (id, tenants) = (name(at), &self.world.tenants);
        let known = &mut self.known[at];
        let Some(view) = tenants.stream(tenant, &id).await.expect("read") else {
            assert!(known.takeovers.is_empty(), "{id} is lost");
            assert!(log.is_empty(), "{id} has events only");
            return false;
        };
        let stream = view.stream.clone();

        // The text.
        let (mut pieces, mut text) = (Vec::new(), String::new());
        let take = |piece: &StreamText| {
            pieces.push(piece.clone());
            true
        };
        view.read_all(tenants.store(), tenant, take).await.expect("read");
        let chunks: Vec<_> = pieces.iter().flat_map(StreamText::chunks).collect();
        assert_eq!(chunks.len() as u64, stream.next_index, "{id}");
        let mut last_generation = 0;
        for (index, found) in chunks.iter().enumerate() {
            let index = index as u64;
            let generation: u32 =
                found.text.split('.').nth(1).expect("a generation").parse().expect("a number");
            let (expected, part) = chunk(at, generation, index);
            assert!(found.text == expected && found.part == part && found.index == index, "{id} at {index}");
            assert!(generation >= last_generation, "{id}: {generation} after {last_generation}");
            let fenced =
                known.takeovers.iter().find(|(newer, (_, from))| **newer > generation && *from <= index);
            assert!(fenced.is_none(), "{id}: generation {generation} wrote {index} after {fenced:?}");
            last_generation = generation;
            text.push_str(found.text);
        }
        assert!(chunks.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "{id}");
        assert_eq!(stream.text_bytes, text.len() as u64, "{id}");
        let possible = known.acknowledged..=known.sent;
        assert!(possible.contains(&stream.next_index), "{id}: {} of {possible:?}", stream.next_index);
        assert!(text.starts_with(&known.seen), "{id}: what was read has changed");
        if known.end.is_some() {
            assert!(known.seen.is_empty() || stream.state != StreamState::Open, "{id} is open again");
        }
        known.seen = text;
        (known.next, known.acknowledged) = (stream.next_index, stream.next_index);

        // The state.
        let is_open = stream.state == StreamState::Open;
        match stream.state {
            StreamState::Open => {
                assert_eq!(known.end, None, "{id} is open");
                assert!(stream.generation <= known.tried, "{id}");
                let ends_s = known.heard_s.0.max(self.anew_s) + known.lease_s.0;
                assert!(self.ticked_s <= ends_s, "{id} outlives its lease");
            }
            StreamState::Abandoned => {
                let ends_s = known.heard_s.1 + known.lease_s.1;
                assert!(known.end == Some(stream.state) || self.ticked_s >= ends_s, "{id} ended too early");
            }
            state => assert!(known.ends.contains(&state), "{id} is {state:?}"),
        }
        if !is_open {
            assert!(
                known.end.is_none_or(|end| end == stream.state),
                "{id}: {:?}, {:?}",
                known.end,
                stream.state
            );
            known.end = Some(stream.state);
        }
        let newest = known.takeovers.keys().next_back().copied().unwrap_or_default();
        assert!((newest..=known.tried).contains(&stream.generation), "{id}");

        // The log.
        let sequence_of = |index: u64| chunks[index as usize].sequence;
        let mut finals = 0;
        for (kind, sequence, event) in log {
            assert_eq!(finals, 0, "{id}: {event} is after the end");
            if *kind == EventKind::Error {
                assert_eq!(event["code"], stream.error.as_ref().expect("an error").code.as_str(), "{id}");
            } else if event["is_final"] == true {
                finals += 1;
                assert_eq!(
                    (event["index"].as_u64(), Some(*sequence)),
                    (Some(stream.next_index), stream.end())
                );
            } else {
                let index = event["index"].as_u64().expect("an index");
                assert_eq!(event["chunk"], chunks[index as usize].text, "{id} at {index}");
                assert_eq!(*sequence, sequence_of(index), "{id} at {index}");
            }
        }
        let logged = log.iter().filter(|(kind, ..)| *kind == EventKind::StreamChunk).count() as u64 - finals;
        assert!(self.retention.max_events > 0 || logged == stream.next_index, "{id}: {logged} in the log");
        let is_trimmed = stream.end().is_some_and(|end| end <= tenant.log().oldest());
        assert!(if is_open { finals == 0 } else { finals == 1 || is_trimmed }, "{id}: {finals} ends");
        let tail = tenant
            .write
            .lock()
            .streams
            .get(&id)
            .and_then(|stream| stream.tail.chunks().next().map(|chunk| chunk.sequence));
        assert!(tail.is_none_or(|first| first > tenant.log().oldest()), "{id}: its tail was trimmed");

        // What readers get, from the beginning and from anywhere.
        let now = Some((stream.next_index, stream.state));
        let is_new = std::mem::replace(&mut known.compared, now) != now;
        let anywhere = stream.next_index * 5 % 7 % (stream.next_index + 1);
        let places = [0, anywhere, stream.next_index].into_iter().filter(|_| is_new);
        for from in places {
            let start = from.checked_sub(1).map_or(Sequence(stream.opened_after), sequence_of);
            let (mut position, mut rest, mut finals) = (start, String::new(), 0);
            loop {
                let page = tenants.stream_page(tenant, &[&id], position).await.expect("read");
                for frame in &page.frames {
                    assert!(frame.sequence() > position && finals == 0, "{id}");
                    position = frame.sequence();
                    let event = json(frame);
                    rest.push_str(event["chunk"].as_str().unwrap_or_default());
                    finals += u64::from(event["is_final"] == true);
                }
                assert!(page.through >= position, "{id}");
                if page.frames.is_empty() {
                    break;
                }
            }
            let expected: String = chunks[from as usize..].iter().map(|chunk| chunk.text).collect();
            assert!(rest == expected, "{id}: another rest from {from}");
            assert_eq!(finals, u64::from(!is_open), "{id}: readers are left waiting");
        }
        is_open
    }

    /// Stops the daemon, or kills it, and starts it again. Requests under way are never answered.
    async fn restart(&mut self, kill: bool) {
        self.io.fail_syncs(0); // a store that cannot write cannot close in time
        if kill {
            let next =
                self.dir.with_file_name(format!("{}-", self.dir.file_name().expect("a name").display()));
            copy_image(&self.dir, &next);
            self.under_way.clear();
            self.world.tenants.store().close_blocking();
            self.dir = next;
        } else {
            self.under_way.clear();
            self.world.tenants.store().close_blocking();
        }
        self.world = Rc::new(Case::open(&self.dir, &self.io, &self.clock, self.retention));
        self.world.tenants.recover_streams().await.expect("read");
        (self.may_fail, self.anew_s) = (false, self.now_s());
        self.known.iter_mut().for_each(|known| known.compared = None);
        self.check().await;
    }

    /// Ends every stream, and lets everything expire.
    async fn finish(&mut self) {
        self.check().await;
        self.clock.advance(601_000);
        self.tick().await;
        self.check().await;
        assert_eq!(self.world.tenants.open_streams(), 0, "every stream has ended");
        self.restart(true).await;
        assert_eq!(self.world.tenants.open_streams(), 0, "and stays so");
        for _ in 0..2 {
            self.world.tenants.expire_streams(u64::MAX - 1).await.expect("expired");
        }
        let tenant = self.world.tenant().await;
        for stream in 0..STREAMS {
            assert!(self.world.tenants.stream(&tenant, &name(stream)).await.expect("read").is_none());
        }
        let left = self.world.tenants.store().counted_usage_blocking().expect("read");
        assert!(left.get(&ID).is_none_or(|usage| usage.rows == 0 && usage.bytes == 0), "{left:?}");
    }

    /// Deletes the organization: nothing of it is accepted any more, and nothing stays open.
    async fn erase(&mut self) {
        self.check().await;
        let mut rows = Rows::new();
        rows.erase_tenant(ID);
        self.world.tenants.store().write(rows).await.expect("deleted");
        self.may_fail = true; // every word is refused from now on
        for stream in 0..STREAMS {
            let before = self.known[stream].acknowledged;
            let next = self.known[stream].next;
            self.say(stream, false, (next, 1), None, true).await;
            assert_eq!(self.known[stream].acknowledged, before, "a word after the deletion");
        }
        self.clock.advance(601_000);
        self.tick().await;
        assert_eq!(self.world.tenants.open_streams(), 0);
        let store = self.world.tenants.store();
        let since = std::time::Instant::now();
        while store.stats().erasures.load(Ordering::Relaxed) > 0 {
            assert!(since.elapsed().as_secs() < 30, "the organization is not erased");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(store.open_streams(ID).await.expect("read").streams.is_empty());
        let left = store.counted_usage_blocking().expect("read");
        assert!(left.get(&ID).is_none_or(|usage| usage.rows == 0 && usage.bytes == 0), "{left:?}");
    }
}

fn json(frame: &Frame) -> serde_json::Value {
    serde_json::from_slice(frame.json()).expect("JSON")
}

fn cases() -> u32 {
    std::env::var("NERVEWIRE_STREAM_CASES").map_or(6, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_stream_ends_once_with_its_whole_text(
        steps in prop::collection::vec(step(), 10..60),
        short_retention: bool,
        erased in 0..4u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut case = Case::new(short_retention);
            for step in steps {
                case.take(step).await;
            }
            match erased {
                0 => case.erase().await,
                _ => case.finish().await,
            }
        });
    }
}
