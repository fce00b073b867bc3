//! Loom models of the ring, on the code that ships but with smaller arrays. Run by `tests/loom`.
//!
//! A frame touches its [`Alive`] when it is read, when a reader checks it, and when it is dropped: loom fails
//! a model in which a touch can follow the drop or be concurrent with it. Preemptions are bounded as loom's
//! manual advises (`LOOM_MAX_PREEMPTIONS` sets another bound).

use loom::thread;

use super::*;

struct Frame {
    sequence: u64,
    alive: Alive,
}

impl Frame {
    fn new(sequence: u64) -> Arc<Self> {
        Arc::new(Self { sequence, alive: Alive::default() })
    }
}

impl RingItem for Frame {
    fn sequence(&self) -> u64 {
        self.alive.touch();
        self.sequence
    }
    fn bytes(&self) -> usize {
        1
    }
}

type Tools = (RingWriter<Frame>, Arc<Ring<Frame>>, Vec<Reader>);

fn world(readers: usize, initial_slots: usize, max_slots: usize) -> Tools {
    let (pins, readers) = Pins::new(readers);
    let limits = RingLimits { initial_slots, max_slots, max_bytes: usize::MAX };
    let (writer, ring) = ring(&pins, limits, 0);
    (writer, ring, readers)
}

fn check(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(bound));
    builder.check(model);
}

/// Reads the ring once from `from`: the frames are consecutive and alive, and `Behind` leads to a later
/// sequence. Returns the reader's position afterwards.
fn look(ring: &Ring<Frame>, reader: &mut Reader, from: u64) -> u64 {
    let mut out = Vec::new();
    match ring.read(reader, from, &mut out, 2) {
        RingRead::Frames => {
            assert!(!out.is_empty());
            for (frame, sequence) in out.iter().zip(from..) {
                assert_eq!(frame.sequence(), sequence);
            }
            from + out.len() as u64
        }
        RingRead::AtHead => from,
        RingRead::Behind { tail } => {
            assert!(tail > from, "behind {tail} at {from} leads nowhere");
            tail
        }
    }
}

fn spawn_looks(
    ring: &Arc<Ring<Frame>>,
    mut reader: Reader,
    from: u64,
    looks: usize,
) -> thread::JoinHandle<()> {
    let ring = ring.clone();
    thread::spawn(move || {
        let mut at = from;
        for _ in 0..looks {
            at = look(&ring, &mut reader, at);
        }
    })
}

/// Each publish to a full ring gives a slot to a new frame and retires the old one while readers read.
#[test]
fn loom_overwriting_under_two_readers() {
    check(3, || {
        let (mut writer, ring, readers) = world(2, 1, 1);
        writer.publish(Frame::new(0), 0);
        let readers: Vec<_> = readers.into_iter().map(|reader| spawn_looks(&ring, reader, 0, 1)).collect();
        writer.publish(Frame::new(1), 1);
        writer.publish(Frame::new(2), 2);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// The clock advances while a reader holds up garbage. A second visit must not free what the first protects,
/// nor the other way round.
#[test]
fn loom_overwriting_under_a_reader_that_returns() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 2, 2);
        writer.publish(Frame::new(0), 0);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 2);
        for sequence in 1..4 {
            writer.publish(Frame::new(sequence), sequence);
        }
        reader.join().unwrap();
    });
}

/// Growing replaces the array while a reader reads the old one.
#[test]
fn loom_growing_under_a_reader() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 1, 4);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 2);
        for sequence in 0..3 {
            writer.publish(Frame::new(sequence), sequence);
        }
        reader.join().unwrap();
        assert_eq!((writer.len(), writer.slots()), (3, 4));
    });
}

/// Trimming leaves stale pointers in the array: only the tail, read under the pin, prevents a reader from
/// following them.
#[test]
fn loom_trimming_under_a_reader() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 2, 2);
        writer.publish(Frame::new(0), 0);
        writer.publish(Frame::new(1), 1);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 2);
        writer.advance_tail(1);
        assert_eq!(writer.shrink_to(0, 2), 1);
        reader.join().unwrap();
    });
}

/// A quiet tenant releases everything, then publishes again; a reader is inside all the time.
#[test]
fn loom_release_and_reuse_under_a_reader() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 1, 2);
        writer.publish(Frame::new(0), 0);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 2);
        writer.release();
        writer.publish(Frame::new(1), 1);
        reader.join().unwrap();
        writer.release();
        assert!(writer.is_quiescent() && writer.slots() == 0);
    });
}

/// A new epoch: whatever a reader sees, it gets a sequence that leads into the epoch.
#[test]
fn loom_restart_under_a_reader() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 1, 1);
        writer.publish(Frame::new(0), 0);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 2);
        writer.restart(10);
        writer.publish(Frame::new(10), 10);
        reader.join().unwrap();
    });
}

/// The writer is dropped while a reader is inside: the ring takes over its frames and frees them with the
/// last reference.
#[test]
fn loom_the_writer_goes_under_a_reader() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 1, 1);
        writer.publish(Frame::new(0), 0);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 1);
        drop(ring);
        writer.publish(Frame::new(1), 1);
        drop(writer);
        reader.join().unwrap();
    });
}

/// Two rings share the pins: one writer's stamps and clock must not free what the other's reader protects.
#[test]
fn loom_two_writers_share_the_pins() {
    check(4, || {
        let (pins, mut readers) = Pins::new(1);
        let limits = RingLimits { initial_slots: 1, max_slots: 1, max_bytes: usize::MAX };
        let (mut one, ring) = ring(&pins, limits, 0);
        let (mut two, _) = super::ring(&pins, limits, 0);
        one.publish(Frame::new(0), 0);
        two.publish(Frame::new(0), 0);
        let reader = spawn_looks(&ring, readers.remove(0), 0, 1);
        let other = thread::spawn(move || two.publish(Frame::new(1), 1));
        one.publish(Frame::new(1), 1);
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// A held frame is never visible before its release, and the frames after it wait for it.
#[test]
fn loom_held_frames_stay_hidden() {
    check(4, || {
        let (mut writer, ring, mut readers) = world(1, 2, 2);
        let committed = Arc::new(AtomicU64::new(0));
        let reader = {
            let (ring, committed, mut reader) = (ring.clone(), committed.clone(), readers.remove(0));
            thread::spawn(move || {
                if look(&ring, &mut reader, 0) > 0 {
                    assert_eq!(committed.load(Ordering::Relaxed), 1);
                }
            })
        };
        writer.publish_hidden(Frame::new(0), 0);
        writer.publish(Frame::new(1), 0);
        committed.store(1, Ordering::Relaxed);
        assert!(writer.reveal(1));
        reader.join().unwrap();
    });
}
