//! Tests streams where their certain end is at stake: a slow or failing disk, a table that was emptied, a text
//! that is being checkpointed.

use super::*;
use crate::auth::{Auth, AuthSettings, OwnKey, Principal, Publish, StoredRecords};
use crate::store::{Checkpoint, OpenStreamRow, Retention, StreamText};
use crate::tenant::admission::stream_open::{OpenRequest, OpenedStream};
use crate::tenant::admission::stream_word::{ChunkInput, StreamAnswer, StreamAuthority, StreamWord};
use crate::tenant::streams::state::{StreamEnd, StreamState};
use crate::tenant::streams::table::{CHECKPOINT_SECONDS, FLOOR_SECONDS, OpenStream, StreamTable, TAIL_BYTES};
use crate::tenant::streams::{Stream, StreamError};

/// The time at which tests start, Unix milliseconds.
const START_MS: u64 = 1_800_000_000_000;
/// How long the text of ended streams is kept, in milliseconds.
const KEEP_MS: u64 = 86_400_000;

/// What a test of streams starts with.
pub(super) struct Setup {
    pub(super) io: Arc<dyn Io>,
    pub(super) retention: Retention,
    pub(super) clock: Arc<ManualClock>,
    pub(super) limits: StreamLimits,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            io: Arc::new(Disk),
            retention: Retention::default(),
            clock: Arc::new(ManualClock::at(START_MS)),
            limits: StreamLimits::default(),
        }
    }
}

/// Tenants with streams, on a real store.
pub(super) struct World {
    auth: Auth,
    pub(super) tenants: Arc<Tenants>,
    pub(super) clock: Arc<ManualClock>,
}

impl World {
    pub(super) fn open_dir(dir: &std::path::Path, setup: Setup) -> World {
        let Setup { io, retention, clock, limits } = setup;
        let mut options = StoreOptions::new(dir);
        (options.reserve_bytes, options.clock, options.io) = (0, clock.clone(), io);
        (options.retention, options.cache_bytes) = (retention, 1 << 20);
        let store = Store::open(options).expect("a store");
        let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
        let own = OwnKey::load_or_make(dir).expect("a key");
        let auth = Auth::new(&AuthSettings::default(), own, records, clock.clone()).expect("auth");
        let limits = Limits {
            ring_slots: 64,
            ring_bytes: 1 << 20,
            ring_bytes_total: 1 << 26,
            event_bytes: 65_536,
            rates: RateLimits::default(),
            streams: limits,
        };
        let (pins, _) = Pins::new(1);
        let metrics = Arc::new(Metrics::new(1));
        let tenants = Tenants::new(store, pins, Arc::new([]), clock.clone(), metrics, limits);
        World { auth, tenants, clock }
    }

    pub(super) async fn tenant(&self) -> Arc<Tenant> {
        self.tenants.open(ID).await.expect("opened")
    }

    /// Opens a stream or takes it over.
    pub(super) async fn open(&self, request: OpenRequest) -> Result<OpenedStream, StreamError> {
        let tenant = self.tenants.open(ID).await?;
        let operator = Principal::local_operator();
        let right = operator.authorize::<Publish>().expect("a publisher");
        let opened = self.tenants.open_stream(&tenant, &self.auth, &right, request, &ChannelWaiter).await;
        opened.map(|(opened, _)| opened)
    }

    /// Appends chunks and ends the stream after them, if there is an `end`.
    pub(super) async fn say(
        &self,
        id: &str,
        token: &str,
        index: Option<u64>,
        texts: &[&str],
        end: Option<StreamEnd>,
    ) -> Result<StreamAnswer, StreamError> {
        let chunks: Vec<_> =
            texts.iter().map(|text| ChunkInput { text: (*text).into(), part: None }).collect();
        let authority = StreamAuthority::Producer(token);
        self.word(id, authority, index, &chunks, end).await
    }

    /// Says any word about a stream.
    pub(super) async fn word(
        &self,
        id: &str,
        authority: StreamAuthority<'_>,
        index: Option<u64>,
        chunks: &[ChunkInput<'_>],
        end: Option<StreamEnd>,
    ) -> Result<StreamAnswer, StreamError> {
        let tenant = self.tenants.open(ID).await?;
        let actor = Actor::daemon();
        let word = StreamWord { actor, id, authority, index, chunks, end, producer: None };
        self.tenants.stream_word(&tenant, word, Some(&ChannelWaiter)).await
    }

    async fn cancel(&self, id: &str) -> Result<StreamAnswer, StreamError> {
        self.word(id, StreamAuthority::Canceller, None, &[], Some(StreamEnd::cancelled(None))).await
    }

    /// A stream as readers see it; `None` if there is none.
    pub(super) async fn read(&self, id: &str) -> Option<(Stream, String)> {
        let tenant = self.tenant().await;
        let view = self.tenants.stream(&tenant, id).await.expect("read")?;
        let mut text = String::new();
        let mut take = |piece: &StreamText| {
            piece.chunks().for_each(|chunk| text.push_str(chunk.text));
            true
        };
        view.read_all(self.tenants.store(), &tenant, &mut take).await.expect("read");
        Some((view.stream, text))
    }

    async fn state(&self, id: &str) -> Option<StreamState> {
        self.read(id).await.map(|(stream, _)| stream.state)
    }

    /// Waits until everything that was queued before is on disk, and its effects are in memory.
    pub(super) async fn settle(&self) {
        let (done, settled) = CommitCallback::channel();
        self.tenants.store().write_then(Rows::new(), done);
        let _ = settled.await; // a store that fails has answered everything before
    }

    /// Closes the store, so that its directory can be opened again.
    pub(super) fn close(self) {
        self.tenants.store().close_blocking();
    }
}

pub(super) fn request(id: &str) -> OpenRequest {
    OpenRequest { request_id: Some(id.into()), ..OpenRequest::default() }
}

fn takeover(id: &str) -> OpenRequest {
    OpenRequest { takeover: true, ..request(id) }
}

/// Polls `future` until `reached` is true. The future must not be ready before.
async fn poll_until<F: Future + Unpin>(future: &mut F, mut reached: impl FnMut() -> bool) {
    while !reached() {
        assert!(futures_util::FutureExt::now_or_never(&mut *future).is_none(), "it has ended");
        tokio::task::yield_now().await;
    }
}

/// A row of an open stream without segments.
fn row() -> OpenStreamRow {
    OpenStreamRow {
        generation: 1,
        token_digest: [1; 32],
        lease_seconds: 60,
        agent_status: false,
        number: 1,
        opened_ms: 1,
        opened_after: Sequence(10),
        checkpoint: Checkpoint { sequence: Sequence(10), ..Checkpoint::default() },
        opener: "o".into(),
        agent_id: None,
        user_id: None,
    }
}

/// The segments of checkpoints that are made while an earlier one is being committed follow those of the
/// earlier one, and together they have every chunk once.
#[test]
fn checkpoints_never_share_a_segment_number_or_a_chunk() {
    let mut stream = OpenStream::new(row(), 0);
    let (mut sequence, mut on_disk, mut expected) = (10, Vec::new(), String::new());
    for round in 0..6u64 {
        for n in 0..40u64 {
            sequence += 1 + n % 3; // other events are in between
            let text = format!("{round}.{n};{}", "x".repeat(4_000 * (n as usize % 3)));
            stream.push(Sequence(sequence), 1, &text, None);
            expected.push_str(&text);
        }
        let (checkpoint, segments) = stream.next_checkpoint();
        assert!(segments.len() > 1, "{} segments", segments.len());
        assert_eq!(checkpoint.segments as usize, on_disk.len() + segments.len());
        assert_eq!(checkpoint.text_bytes as usize, expected.len());
        assert_eq!((checkpoint.next_index, checkpoint.sequence), ((round + 1) * 40, Sequence(sequence)));
        on_disk.extend(segments);
        stream.in_flight = Some(checkpoint);
        // Every other checkpoint is on disk before the next one is made.
        if round % 2 == 1 {
            stream.row.checkpoint = checkpoint;
            stream.in_flight = None;
            stream.tail.forget_before(checkpoint.next_index);
        }
    }
    let chunks: Vec<_> = on_disk.iter().flat_map(StreamText::chunks).collect();
    assert!(chunks.iter().map(|chunk| chunk.index).eq(0..240));
    assert!(chunks.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(chunks.iter().map(|chunk| chunk.text).collect::<String>(), expected);
    assert!(stream.tail.is_empty());
}

/// The table knows which streams have a tail, and from where the log is needed for them.
#[test]
fn the_log_is_needed_from_the_oldest_chunk_of_any_tail() {
    let mut table = StreamTable::default();
    for id in ["a", "b", "idle"] {
        table.insert(id.into(), OpenStream::new(row(), 0));
    }
    assert_eq!((table.kept_after(), table.kept_after_now(Some(Sequence(5)))), (None, None));
    for (id, sequence) in [("a", 20), ("b", 30), ("a", 40)] {
        table.get_mut(id).expect("open").push(Sequence(sequence), 1, "x", None);
        table.note_tail(id);
    }
    assert_eq!(table.kept_after(), Some(Sequence(19)));
    assert_eq!(table.with_tail().count(), 2);
    table.get_mut("a").expect("open").tail.forget_before(2);
    table.note_tail("a");
    assert_eq!(table.kept_after(), Some(Sequence(29)));
    assert_eq!(table.kept_after_now(Some(Sequence(5))), Some(Sequence(5)), "it is not searched now");
    table.remove("b");
    assert_eq!((table.kept_after(), table.kept_after_now(Some(Sequence(5)))), (None, None));
    table.is_loaded = true;
    assert_eq!((table.reset(), table.len(), table.resets), (2, 0, 1));
    assert!(matches!(table.open("a"), Err(StreamError::NotLoaded)));
    assert!(table.has_any, "there may still be streams on disk");
}

/// The opening of a stream is on a slow disk for longer than its lease. Its lease must end it all the same.
#[tokio::test]
async fn a_lease_that_ends_before_its_opening_is_on_disk_ends_the_stream_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let world = World::open_dir(dir.path(), Setup { io: gate.clone(), ..Setup::default() });
    // The floor of another stream is written now, so that the round below writes nothing.
    world.open(request("other")).await.expect("opened");
    world.tenants.maintain_streams().await;
    gate.set(true);
    let mut opening = Box::pin(world.open(OpenRequest { lease_seconds: Some(5), ..request("slow") }));
    let tenant = world.tenant().await;
    poll_until(&mut opening, || tenant.write.lock().streams.get("slow").is_some()).await;
    world.clock.advance(6_000);
    world.tenants.maintain_streams().await;
    gate.set(false);
    opening.await.expect("opened");
    assert_eq!(world.state("slow").await, Some(StreamState::Open));
    world.clock.advance(1_000);
    world.tenants.maintain_streams().await;
    world.settle().await;
    assert_eq!(world.state("slow").await, Some(StreamState::Abandoned));
}

/// A stream of a deleted user is erased while the streams are not in memory. The log keeps the text of the
/// others.
#[tokio::test]
async fn erasing_a_stream_before_the_others_are_read_keeps_their_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    let opened = world.open(request("long")).await.expect("opened");
    world.say("long", &opened.producer_token, None, &["text"], None).await.expect("appended");
    world.open(request("gone")).await.expect("opened");
    world.cancel("gone").await.expect("cancelled");
    let tenant = world.tenant().await;
    world.tenants.restart_rings(); // as after a failed commit: the table is empty
    world.tenants.erase_stream(&tenant, "gone").await.expect("erased");
    assert!(tenant.log().kept_after().is_some(), "the text of the long one is in the log only");
    assert_eq!(world.read("long").await.map(|(_, text)| text), Some("text".into()));
    assert_eq!(world.state("gone").await, None);
}

/// Waits for room in the commit queue are limited for rows without events. Takeovers and checkpoints have
/// waited for room of their own, so they are not refused: memory already has what they write.
#[tokio::test]
async fn a_full_queue_refuses_no_checkpoint_and_no_takeover() {
    const ROWS: usize = 64 * 1024;
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let world = World::open_dir(dir.path(), Setup { io: gate.clone(), ..Setup::default() });
    let opened = world.open(request("a")).await.expect("opened");
    let first = "x".repeat(100);
    world.say("a", &opened.producer_token, None, &[&first], None).await.expect("appended");
    gate.set(true);
    let event = custom("waits");
    let mut waits = Box::pin(publish_json(&world.tenants, ID, &event, DURABLE));
    assert!(futures_util::FutureExt::now_or_never(waits.as_mut()).is_none());
    gate.waits();
    for _ in 0..ROWS {
        world.tenants.store().write_later(Rows::new());
    }
    let mut refused = Box::pin(world.tenants.store().write(Rows::new()));
    assert!(futures_util::FutureExt::now_or_never(refused.as_mut()).is_none());
    world.clock.advance(CHECKPOINT_SECONDS * 1_000);
    let tenant = world.tenant().await;
    let mut round = Box::pin(world.tenants.maintain_streams());
    let in_flight = || tenant.write.lock().streams.get("a").is_some_and(|stream| stream.in_flight.is_some());
    poll_until(&mut round, in_flight).await;
    let mut taking = Box::pin(world.open(takeover("a")));
    let is_taken = || tenant.write.lock().streams.get("a").is_some_and(|it| it.row.generation == 2);
    poll_until(&mut taking, is_taken).await;
    gate.set(false);
    waits.await.expect("published");
    assert_eq!(refused.await, Err(CommitError::Unavailable), "the queue was full");
    round.await;
    let taken = taking.await.expect("taken over");
    world.settle().await;
    let end = Some(StreamEnd::completed(None, None));
    world.say("a", &taken.producer_token, None, &["y"], end).await.expect("finished");
    let (stream, text) = world.read("a").await.expect("there");
    assert_eq!((stream.state, text), (StreamState::Completed, first + "y"));
}

/// A reader that looks at streams right after the store was opened again never takes an empty table for
/// streams without text.
#[tokio::test]
async fn a_table_that_was_emptied_shows_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    let opened = world.open(request("a")).await.expect("opened");
    world.say("a", &opened.producer_token, None, &["text"], None).await.expect("appended");
    let tenant = world.tenant().await;
    assert!(world.tenants.look(&tenant, &["a"]).is_some());
    world.tenants.restart_rings();
    assert!(world.tenants.look(&tenant, &["a"]).is_none());
    assert_eq!(world.read("a").await.map(|(_, text)| text), Some("text".into()));
}

/// The organization is removed from memory while its streams cannot be read. They are maintained again when
/// they are used.
#[tokio::test]
async fn streams_of_an_organization_that_was_forgotten_are_checkpointed_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    let lease = OpenRequest { lease_seconds: Some(600), ..request("a") };
    let opened = world.open(lease).await.expect("opened");
    world.settle().await;
    world.clock.advance(QUIET_MS);
    world.tenants.restart_rings();
    swept(&world.tenants).await;
    world.tenants.maintain_streams().await; // the organization is not in memory
    world.say("a", &opened.producer_token, None, &["text"], None).await.expect("appended");
    world.clock.advance(CHECKPOINT_SECONDS * 1_000);
    world.tenants.maintain_streams().await;
    world.settle().await;
    let tenant = world.tenant().await;
    let segments = tenant.write.lock().streams.get("a").map(|stream| stream.row.checkpoint.segments);
    assert_eq!(segments, Some(1));
}

/// The state of a stream is kept ten times as long as its text, also if somebody has removed its text before.
#[tokio::test]
async fn a_removed_text_does_not_shorten_the_life_of_its_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    for id in ["removed", "kept"] {
        let opened = world.open(request(id)).await.expect("opened");
        let end = Some(StreamEnd::completed(None, None));
        world.say(id, &opened.producer_token, None, &["text"], end).await.expect("finished");
    }
    let tenant = world.tenant().await;
    world.tenants.remove_stream_text(&tenant, Actor::daemon(), "removed").await.expect("removed");
    let at = async |ms: u64| {
        world.tenants.expire_streams(START_MS + ms).await.expect("expired");
        let mut seen = Vec::new();
        for id in ["removed", "kept"] {
            seen.push(world.read(id).await.map(|(stream, text)| (stream.is_expired, text)));
        }
        seen
    };
    let gone = Some((true, String::new()));
    assert_eq!(at(KEEP_MS - 1).await, [gone.clone(), Some((false, "text".into()))]);
    assert_eq!(at(KEEP_MS).await, [gone.clone(), gone.clone()]);
    assert_eq!(at(STATE_KEPT * KEEP_MS - 1).await, [gone.clone(), gone]);
    assert_eq!(at(STATE_KEPT * KEEP_MS).await, [None, None]);
    assert!(world.tenants.store().expired_streams(u64::MAX - 1, 9).await.expect("read").is_empty());
}

/// The wall clock is set years ahead for a moment. Streams that end after it was set back expire in their
/// time, although the log's time of receipt never goes back.
#[tokio::test]
async fn a_jump_of_the_wall_clock_does_not_keep_later_streams_for_years() {
    const YEARS_MS: u64 = 20 * 365 * 86_400_000;
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    let tenant = world.tenant().await;
    let early = world.open(request("early")).await.expect("opened");
    world.clock.set(START_MS + YEARS_MS);
    publish(&world.tenants, &tenant, "from the future").await;
    world.tenants.maintain_streams().await;
    assert_eq!(world.state("early").await, Some(StreamState::Open), "no lease follows the wall clock");
    world.clock.set(START_MS);
    let end = Some(StreamEnd::completed(None, None));
    world.say("early", &early.producer_token, None, &["text"], end).await.expect("finished");
    world.tenants.expire_streams(START_MS + KEEP_MS).await.expect("expired");
    assert_eq!(world.read("early").await.map(|(stream, _)| stream.is_expired), Some(true));
    world.tenants.expire_streams(START_MS + STATE_KEPT * KEEP_MS).await.expect("expired");
    assert_eq!(world.state("early").await, None);
}

/// A stream ends while a checkpoint of its text is being committed, by finish, cancel and lease.
#[tokio::test]
async fn a_stream_that_ends_during_its_checkpoint_has_its_whole_text() {
    for how in ["finish", "cancel", "lease"] {
        let dir = tempfile::tempdir().expect("a directory");
        let gate = Arc::new(Gate::default());
        let world = World::open_dir(dir.path(), Setup { io: gate.clone(), ..Setup::default() });
        let opened = world.open(request("a")).await.expect("opened");
        let (token, long) = (opened.producer_token.as_str(), "x".repeat(TAIL_BYTES));
        let tenant = world.tenant().await;
        gate.set(true);
        let texts = ["1", &long];
        let mut append = Box::pin(world.say("a", token, None, &texts, None));
        let in_flight = || {
            let side = tenant.write.lock();
            side.streams.get("a").is_some_and(|stream| stream.in_flight.is_some())
        };
        poll_until(&mut append, in_flight).await;
        let mut second = Box::pin(world.say("a", token, None, &["2"], None));
        let next = || tenant.write.lock().streams.get("a").map(|stream| stream.next_index);
        poll_until(&mut second, || next() == Some(3)).await;
        let is_ending = || tenant.write.lock().streams.get("a").is_some_and(|it| it.ending.is_some());
        let mut ending = Box::pin(async {
            match how {
                "finish" => {
                    let end = Some(StreamEnd::completed(None, None));
                    world.say("a", token, None, &["3"], end).await.expect("finished");
                }
                "cancel" => drop(world.cancel("a").await.expect("cancelled")),
                _ => {
                    world.clock.advance(61_000);
                    world.tenants.maintain_streams().await;
                }
            }
        });
        if how != "lease" {
            poll_until(&mut ending, is_ending).await;
        } else {
            // The round also waits for the floor, so that it may or may not have ended here.
            while !is_ending() {
                let _ = futures_util::FutureExt::now_or_never(&mut ending);
                tokio::task::yield_now().await;
            }
        }
        let refused = world.say("a", token, None, &["4"], None).await;
        assert!(matches!(refused, Err(StreamError::Ended(_))), "{how}: {refused:?}");
        gate.set(false);
        append.await.expect("appended");
        second.await.expect("appended");
        if how != "lease" {
            ending.await;
        }
        world.settle().await;
        let third = if how == "finish" { "3" } else { "" };
        let (stream, text) = world.read("a").await.expect("there");
        assert_eq!(text, format!("1{long}2{third}"), "{how}");
        assert_eq!((stream.next_index, stream.segments), (3 + third.len() as u64, 2), "{how}");
        assert_eq!((world.tenants.open_streams(), tenant.log().kept_after()), (0, None), "{how}");
    }
}

/// Appends of the old producer are under way when the stream is taken over: those before it stay, and its
/// next word is refused. What the new producer is told is where it continues.
#[tokio::test]
async fn a_takeover_amid_appends_continues_after_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let world = World::open_dir(dir.path(), Setup { io: gate.clone(), ..Setup::default() });
    let old = world.open(request("a")).await.expect("opened");
    let tenant = world.tenant().await;
    gate.set(true);
    let mut before = Box::pin(world.say("a", &old.producer_token, Some(0), &["1", "2"], None));
    let next = || tenant.write.lock().streams.get("a").map(|stream| stream.next_index);
    poll_until(&mut before, || next() == Some(2)).await;
    let mut taking = Box::pin(world.open(takeover("a")));
    let is_taken = || tenant.write.lock().streams.get("a").is_some_and(|it| it.row.generation == 2);
    poll_until(&mut taking, is_taken).await;
    for end in [None, Some(StreamEnd::completed(None, None))] {
        let after = world.say("a", &old.producer_token, Some(2), &["late"], end).await;
        assert!(matches!(after, Err(StreamError::Fenced)), "{after:?}");
    }
    gate.set(false);
    let (before, new) = (before.await.expect("appended"), taking.await.expect("taken over"));
    assert_eq!((before.next_index, new.next_index, new.generation), (2, 2, 2));
    let retried = world.say("a", &new.producer_token, Some(1), &["2", "3"], None).await.expect("appended");
    assert_eq!((retried.next_index, retried.ids.len()), (3, 1));
    assert_eq!(world.read("a").await.map(|(_, text)| text), Some("123".into()));
    world.close();

    let world = World::open_dir(dir.path(), Setup::default());
    let after = world.say("a", &old.producer_token, None, &["late"], None).await;
    assert!(matches!(after, Err(StreamError::Fenced)), "{after:?}");
    world.say("a", &new.producer_token, None, &["4"], None).await.expect("appended");
    assert_eq!(world.read("a").await.map(|(_, text)| text), Some("1234".into()));
}

/// A disk whose next syncs fail on demand.
#[derive(Default)]
pub(super) struct Failing {
    syncs: std::sync::atomic::AtomicU32,
}

impl Failing {
    pub(super) fn fail_syncs(&self, count: u32) {
        self.syncs.store(count, Ordering::SeqCst);
    }
}

impl Io for Failing {
    fn sync(&self, file: &std::fs::File) -> std::io::Result<()> {
        let fails = |left: u32| left.checked_sub(1);
        match self.syncs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails) {
            Ok(_) => Err(std::io::Error::from_raw_os_error(5)),
            Err(_) => file.sync_data(),
        }
    }
}

/// Waits until the store accepts writes.
pub(super) async fn writable(tenants: &Tenants) {
    let mut state = tenants.store().watch_state();
    state.wait_for(|state| *state == crate::store::StoreState::Writable).await.expect("it is open");
}

/// A takeover and an append whose commits failed have not happened: the older token is the newest one again.
#[tokio::test]
async fn a_failed_takeover_leaves_the_older_token_in_force() {
    let dir = tempfile::tempdir().expect("a directory");
    let io = Arc::new(Failing::default());
    let world = World::open_dir(dir.path(), Setup { io: io.clone(), ..Setup::default() });
    let old = world.open(request("a")).await.expect("opened");
    world.say("a", &old.producer_token, None, &["1"], None).await.expect("appended");
    for attempt in 0..2 {
        io.fail_syncs(1);
        let failed = match attempt {
            0 => world.open(takeover("a")).await.map(drop),
            _ => world.say("a", &old.producer_token, None, &["lost"], None).await.map(drop),
        };
        let unknown = CommitError::Unknown;
        assert!(
            matches!(&failed, Err(StreamError::Publish(PublishError::Commit(error))) if *error == unknown),
            "{failed:?}"
        );
        writable(&world.tenants).await;
        assert_eq!(
            world.read("a").await.map(|(stream, text)| (stream.generation, text)),
            Some((1, "1".into()))
        );
    }
    let answer = world.say("a", &old.producer_token, Some(1), &["2"], None).await.expect("appended");
    assert_eq!(answer.next_index, 2);
    assert_eq!(world.open(takeover("a")).await.expect("taken over").generation, 2);
    assert_eq!(world.read("a").await.map(|(_, text)| text), Some("12".into()));
}

/// The log keeps the events from the oldest chunk that is in no segment, and a start reads it from the floor,
/// not from the checkpoint of a stream that was idle for long.
#[tokio::test]
async fn a_start_reads_the_log_from_the_floor() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::open_dir(dir.path(), Setup::default());
    let lease = |id: &str| OpenRequest { lease_seconds: Some(600), ..request(id) };
    world.open(lease("idle")).await.expect("opened");
    let busy = world.open(lease("busy")).await.expect("opened");
    let tenant = world.tenant().await;
    publish(&world.tenants, &tenant, "other traffic").await;
    assert_eq!(tenant.log().kept_after(), None, "no stream has text");
    let first = world.say("busy", &busy.producer_token, None, &["1"], None).await.expect("appended");
    let first = world.tenants.cursors().decode(ID, &first.ids[0].0).expect("an id");
    assert_eq!(tenant.log().kept_after(), Some(Sequence(first.0 - 1)));
    let log_from = async || world.tenants.store().open_streams(ID).await.expect("read").log_from();
    assert!(log_from().await < Some(first));
    for _ in 0..2 {
        // The first round writes the text to a segment, the second the floor.
        world.clock.advance(FLOOR_SECONDS * 1_000);
        world.tenants.maintain_streams().await;
        world.settle().await;
    }
    assert_eq!(tenant.log().kept_after(), None, "the text is in a segment");
    let floor = log_from().await.expect("streams are open");
    assert!(floor >= first, "{floor:?} is before the chunk {first:?}");
    publish(&world.tenants, &tenant, "other traffic").await;
    world.say("busy", &busy.producer_token, None, &["2"], None).await.expect("appended");
    world.close();

    let world = World::open_dir(dir.path(), Setup::default());
    let tenant = world.tenant().await;
    assert_eq!(tenant.log().kept_after(), Some(floor), "before the streams are read");
    world.tenants.recover_streams().await.expect("read");
    assert!(tenant.log().kept_after() > Some(floor), "the exact position");
    assert_eq!(world.read("busy").await.map(|(_, text)| text), Some("12".into()));
    assert_eq!(
        world.read("idle").await.map(|(stream, text)| (stream.next_index, text)),
        Some((0, "".into()))
    );
}
