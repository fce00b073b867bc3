//! Tests of the ring: each rule alone, then all of them under load.

use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

/// A frame that counts the frames alive and can check its own content.
struct Frame {
    sequence: u64,
    check: u64,
    bytes: usize,
    living: Arc<AtomicUsize>,
}

impl RingItem for Frame {
    /// Sometimes slow: a reader calls this between finding a frame and owning it, when a writer that did not
    /// respect its pin would free the frame.
    fn sequence(&self) -> u64 {
        CALLS.set(CALLS.get() + 1);
        if CALLS.get().is_multiple_of(251) {
            thread::yield_now();
        }
        self.sequence
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.check = 0; // so that a reader of a freed frame notices
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A ring with its readers, and a count of the frames alive.
struct World {
    writer: RingWriter<Frame>,
    ring: Arc<Ring<Frame>>,
    readers: Vec<Reader>,
    living: Arc<AtomicUsize>,
}

const START: u64 = 3 << 40;

thread_local! {
    static CALLS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl World {
    fn new(readers: usize, initial_slots: usize, max_slots: usize, max_bytes: usize) -> Self {
        let (pins, readers) = Pins::new(readers);
        let (writer, ring) = ring(&pins, RingLimits { initial_slots, max_slots, max_bytes }, START);
        Self { writer, ring, readers, living: Arc::default() }
    }

    fn frame(&self, bytes: usize) -> Arc<Frame> {
        frame(self.writer.head(), bytes, &self.living)
    }

    /// Publishes `count` frames of 10 bytes; all frames before them are committed.
    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let committed = self.writer.head();
            self.writer.publish(self.frame(10), committed);
        }
    }

    /// Returns the sequences (minus `START`) that a read from `from` returns, or its other result.
    fn read(&mut self, from: u64, max: usize) -> Result<Vec<u64>, RingRead> {
        let mut out = Vec::new();
        match self.ring.read(&mut self.readers[0], START + from, &mut out, max) {
            RingRead::Frames => Ok(out.iter().map(|frame| frame.sequence - START).collect()),
            other => {
                assert!(out.is_empty());
                Err(other)
            }
        }
    }

    /// Returns the number of frames alive after publishing has freed what it can.
    fn settled_living(&mut self) -> usize {
        self.writer.shrink_to(usize::MAX, 0);
        self.living()
    }

    fn living(&self) -> usize {
        self.living.load(Ordering::Relaxed)
    }
}

fn frame(sequence: u64, bytes: usize, living: &Arc<AtomicUsize>) -> Arc<Frame> {
    living.fetch_add(1, Ordering::Relaxed);
    Arc::new(Frame { sequence, check: !sequence, bytes, living: living.clone() })
}

fn behind(tail: u64) -> Result<Vec<u64>, RingRead> {
    Err(RingRead::Behind { tail: START + tail })
}

#[test]
fn frames_come_in_order_from_any_position_kept() {
    let mut world = World::new(1, 4, 16, 1000);
    assert_eq!(world.read(0, 9), Err(RingRead::AtHead));
    world.publish(5);
    assert_eq!(world.read(0, 9), Ok(vec![0, 1, 2, 3, 4]));
    assert_eq!(world.read(3, 9), Ok(vec![3, 4]));
    assert_eq!(world.read(1, 2), Ok(vec![1, 2]));
    assert_eq!(world.read(1, 0), Ok(vec![1]), "a read that may take nothing would never end");
    assert_eq!(world.read(5, 9), Err(RingRead::AtHead));
    assert_eq!(world.read(500, 9), Err(RingRead::AtHead), "a cursor from the future waits");
    assert_eq!(world.ring.head(), START + 5);
}

#[test]
fn a_read_appends_to_what_the_caller_has() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(2);
    let mut out = Vec::new();
    for _ in 0..2 {
        assert_eq!(world.ring.read(&mut world.readers[0], START, &mut out, 9), RingRead::Frames);
    }
    assert_eq!(out.len(), 4);
    assert_eq!(world.ring.read(&mut world.readers[0], 0, &mut out, 9), RingRead::Behind { tail: START });
    assert_eq!(out.len(), 4);
}

#[test]
fn it_grows_by_doubling_and_then_overwrites_the_oldest() {
    let mut world = World::new(1, 3, 10, 1000); // rounded up to 4 and 16
    assert_eq!(world.writer.slots(), 0);
    let sizes: Vec<_> = (0..20)
        .map(|_| {
            world.publish(1);
            world.writer.slots()
        })
        .collect();
    assert_eq!(sizes[..5], [4, 4, 4, 4, 8]);
    assert_eq!(sizes[7..9], [8, 16]);
    assert_eq!(sizes[19], 16);
    assert_eq!((world.writer.len(), world.settled_living()), (16, 16));
    assert_eq!(world.read(3, 9), behind(4));
    assert_eq!(world.read(4, 99), Ok((4..20).collect()));
}

#[test]
fn publishing_sweeps_up_behind_itself() {
    let mut world = World::new(1, 4, 4, 1000);
    for _ in 0..1000 {
        world.publish(1);
        assert!(world.living() < 4 + writer::RECLAIM_BATCH);
    }
}

#[test]
fn over_the_byte_cap_committed_frames_leave_and_others_stay() {
    let mut world = World::new(1, 4, 16, 50);
    world.publish(7);
    assert_eq!((world.writer.len(), world.writer.bytes(), world.writer.slots()), (5, 50, 8));
    assert_eq!(world.read(1, 9), behind(2));

    world.writer.publish(world.frame(200), START + 4);
    assert_eq!(world.read(3, 1), behind(4));
    assert_eq!((world.writer.len(), world.writer.bytes()), (4, 230), "4, 5, 6 await their commit");
    assert_eq!(world.writer.shrink_to(0, START + 6), 20);
    assert_eq!(world.read(6, 9), Ok(vec![6, 7]));
    assert_eq!(world.writer.bytes(), 210);
}

#[test]
fn a_full_ring_of_uncommitted_frames_has_no_room() {
    let mut world = World::new(1, 4, 4, 1000);
    for _ in 0..4 {
        assert!(world.writer.has_room(START));
        world.writer.publish(world.frame(1), START);
    }
    assert!(!world.writer.has_room(START));
    assert!(world.writer.has_room(START + 1));
}

#[test]
fn advancing_the_tail_frees_what_is_below_and_stops_at_the_head() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(4);
    world.writer.advance_tail(START + 3);
    assert_eq!((world.writer.len(), world.writer.bytes(), world.living()), (1, 10, 1));
    assert_eq!(world.read(0, 9), behind(3));
    world.writer.advance_tail(START + 99);
    assert_eq!((world.writer.tail(), world.living()), (START + 4, 0));
    world.publish(1);
    assert_eq!(world.read(4, 9), Ok(vec![4]));
}

#[test]
fn a_held_frame_hides_itself_and_all_that_follow_until_its_commit() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(1);
    world.writer.publish_hidden(world.frame(1), START + 1);
    world.writer.publish(world.frame(1), START + 1);
    world.writer.publish_hidden(world.frame(1), START + 1);
    assert_eq!((world.writer.head(), world.ring.head()), (START + 4, START + 1));
    assert_eq!(world.read(0, 9), Ok(vec![0]));
    assert_eq!(world.read(1, 9), Err(RingRead::AtHead));
    assert!(!world.writer.reveal(START + 1));
    assert!(world.writer.reveal(START + 2));
    assert_eq!(world.read(1, 9), Ok(vec![1, 2]));
    assert!(world.writer.reveal(START + 4));
    assert_eq!(world.read(3, 9), Ok(vec![3]));
    assert!(!world.writer.reveal(START + 4));
}

/// A held frame whose commit was refused is never read from the ring: readers before it continue with the
/// log.
#[test]
fn a_discarded_frame_is_never_seen() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(1);
    world.writer.publish_hidden(world.frame(1), START + 1);
    world.writer.publish(world.frame(1), START + 1);
    world.writer.publish_hidden(world.frame(1), START + 1);
    assert!(world.writer.discard(START + 2));
    assert_eq!((world.writer.tail(), world.ring.head()), (START + 2, START + 3));
    assert_eq!((world.read(0, 9), world.read(1, 9)), (behind(2), behind(2)));
    assert_eq!(world.read(2, 9), Ok(vec![2]));
    assert!(world.writer.discard(START + 4));
    assert_eq!((world.living(), world.writer.bytes()), (0, 0));
    assert_eq!(world.read(3, 9), behind(4));
    world.publish(1);
    assert_eq!(world.read(4, 9), Ok(vec![4]));
}

#[test]
fn a_quiet_ring_owns_nothing_and_goes_on_where_it_stopped() {
    let mut world = World::new(1, 4, 16, 1000);
    world.publish(9);
    world.writer.release();
    assert_eq!((world.living(), world.writer.slots(), world.writer.bytes()), (0, 0, 0));
    assert!(world.writer.is_quiescent() && world.writer.is_empty());
    assert_eq!(world.read(8, 9), behind(9));
    assert_eq!(world.read(9, 9), Err(RingRead::AtHead));
    world.publish(1);
    assert_eq!(world.writer.slots(), 4);
    assert_eq!(world.read(9, 9), Ok(vec![9]));
}

#[test]
fn a_restart_leads_every_old_cursor_into_the_new_epoch() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(2);
    world.writer.publish_hidden(world.frame(1), START + 2);
    let epoch = 1 << 40;
    world.writer.restart(START + epoch);
    assert_eq!(world.living(), 0);
    assert_eq!(world.read(1, 9), behind(epoch));
    assert_eq!(world.read(77, 9), behind(epoch), "never given out in the old epoch");
    assert_eq!(world.read(epoch, 9), Err(RingRead::AtHead));
    world.publish(1);
    assert_eq!(world.read(epoch, 9), Ok(vec![epoch]), "and nothing is held any more");
}

#[test]
fn a_pinned_reader_holds_back_what_it_may_see_and_nothing_newer() {
    let mut world = World::new(2, 2, 2, 1000);
    world.publish(2);
    let mut reader = world.readers.remove(0);
    let pinned = reader.pin();
    world.publish(1);
    assert_eq!(world.living(), 3, "frame 0 left the ring but waits for the reader");
    world.writer.release();
    assert_eq!((world.living(), world.writer.is_quiescent()), (3, false));
    let mut late = world.readers.remove(0);
    let later = late.pin();
    drop(pinned);
    world.writer.release();
    assert_eq!(
        (world.living(), world.writer.is_quiescent()),
        (0, true),
        "the later pin stands in nobody's way"
    );
    drop(later);
}

#[test]
fn the_ring_outlives_its_writer_and_frees_all() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(3);
    let World { writer, ring, mut readers, living } = world;
    drop(writer);
    let mut out = Vec::new();
    assert_eq!(ring.read(&mut readers[0], START, &mut out, 9), RingRead::Frames);
    drop(ring);
    assert_eq!((out.len(), living.load(Ordering::Relaxed)), (3, 3), "what was read stays");
    out.clear();
    assert_eq!(living.load(Ordering::Relaxed), 0);
}

#[test]
#[should_panic(expected = "pinned elsewhere")]
fn a_reader_of_other_pins_is_refused() {
    let mut world = World::new(1, 4, 4, 1000);
    world.publish(1);
    let (_, mut strangers) = Pins::new(1);
    let _ = world.ring.read(&mut strangers[0], START, &mut Vec::new(), 1);
}

#[test]
#[should_panic(expected = "frames come in sequence")]
fn a_frame_out_of_sequence_is_refused() {
    let mut world = World::new(1, 4, 4, 1000);
    let stranger = frame(START + 1, 1, &world.living);
    world.writer.publish(stranger, START);
}

/// What one reader saw while it followed the ring to `end`.
#[derive(Default)]
struct Journey {
    frames: u64,
    skipped: u64,
}

/// Follows the ring to `end` and checks every frame; after `Behind` it continues at the tail.
fn follow(ring: &Ring<Frame>, reader: &mut Reader, mut at: u64, end: u64) -> Journey {
    let (mut journey, mut out) = (Journey::default(), Vec::new());
    while at < end {
        match ring.read(reader, at, &mut out, 64) {
            RingRead::AtHead => thread::yield_now(),
            RingRead::Behind { tail } => {
                assert!(tail > at);
                journey.skipped += tail - at;
                at = tail;
            }
            RingRead::Frames => {
                for frame in out.drain(..) {
                    assert_eq!((frame.sequence, frame.check), (at, !at));
                    at += 1;
                    journey.frames += 1;
                }
            }
        }
    }
    journey
}

/// Runs readers beside a writer that does `turn(world, n)` for n in 0..turns; everything is freed at the end.
fn race(mut world: World, turns: usize, mut turn: impl FnMut(&mut World, usize)) -> Vec<Journey> {
    // The last sequence is known only at the end: readers follow until the writer says where that is.
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<_> = world
        .readers
        .drain(..)
        .map(|mut reader| {
            let (ring, end) = (world.ring.clone(), end.clone());
            thread::spawn(move || {
                let (mut at, mut journey) = (START, Journey::default());
                loop {
                    let last = end.load(Ordering::Acquire);
                    let to = if last == u64::MAX { ring.head() } else { last };
                    let leg = follow(&ring, &mut reader, at, to);
                    journey.frames += leg.frames;
                    journey.skipped += leg.skipped;
                    at += leg.frames + leg.skipped;
                    if last != u64::MAX {
                        return (at, journey);
                    }
                }
            })
        })
        .collect();
    for n in 0..turns {
        turn(&mut world, n);
    }
    let last = world.writer.head();
    end.store(last, Ordering::Release);
    let journeys = readers
        .into_iter()
        .map(|reader| {
            let (at, journey) = reader.join().unwrap();
            assert!(at >= last);
            journey
        })
        .collect();
    world.writer.release();
    assert!(world.writer.is_quiescent());
    assert_eq!(world.living(), 0);
    journeys
}

#[test]
fn readers_keep_up_with_a_growing_ring_and_miss_nothing() {
    let journeys = race(World::new(3, 2, 1 << 16, usize::MAX), 1 << 16, |world, _| world.publish(1));
    for journey in journeys {
        assert_eq!((journey.frames, journey.skipped), (1 << 16, 0));
    }
}

#[test]
fn lapped_readers_meet_only_whole_frames() {
    race(World::new(3, 4, 4, usize::MAX), 40_000, |world, n| {
        world.publish(1);
        if n % 1000 == 0 {
            thread::yield_now(); // lets readers in where there is one core
        }
    });
}

#[test]
fn release_restart_trim_and_hold_under_readers() {
    race(World::new(3, 2, 64, 400), 20_000, |world, n| {
        match n % 97 {
            13 => world.writer.release(),
            31 => world.writer.restart(world.writer.head() + 5),
            53 => world.writer.advance_tail(world.writer.head() - 1),
            71 => {
                let head = world.writer.head();
                world.writer.publish_hidden(world.frame(10), head);
                world.publish(1);
                world.writer.reveal(head + 1);
            }
            _ => {}
        }
        world.publish(1);
    });
}
