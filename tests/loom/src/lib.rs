//! `ring` and `wake` under loom. The models are in the `loom_tests` of those modules; the command is in
//! `Cargo.toml`.

#[path = "../../../src/event_ring/mod.rs"]
pub mod event_ring;
#[path = "../../../src/sync.rs"]
pub mod sync;
#[path = "../../../src/wake.rs"]
pub mod wake;

#[cfg(test)]
mod loom_tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::{
        event_ring::{Pins, Reader, Ring, RingItem, RingLimits, RingRead, ring},
        sync::{Alive, Arc, Mutex},
        wake::{WakeBits, WakeQueue},
    };

    struct Frame(u64, Alive);
    impl RingItem for Frame {
        fn sequence(&self) -> u64 {
            self.1.touch();
            self.0
        }
        fn bytes(&self) -> usize {
            1
        }
    }

    struct Tenant {
        ring: Arc<Ring<Frame>>,
        bits: WakeBits,
    }

    /// A worker: registers, starts at the head, then sleeps, drains, takes and reads until it sees `end`. A
    /// lost wake-up would be a deadlock. Returns the number of frames it read.
    fn work(tenant: &Tenant, queue: &WakeQueue<()>, reader: &mut Reader, end: u64) -> usize {
        tenant.bits.subscribe(0);
        let mut at = tenant.ring.head();
        let (mut signals, mut out) = (Vec::new(), Vec::new());
        while at < end {
            queue.wait();
            queue.drain(&mut signals);
            for () in signals.drain(..) {
                tenant.bits.take(0);
                loop {
                    match tenant.ring.read(reader, at, &mut out, 8) {
                        RingRead::Frames => at = out.last().map_or(at, |frame| frame.sequence() + 1),
                        RingRead::Behind { tail } => at = tail,
                        RingRead::AtHead => break,
                    }
                }
            }
        }
        out.len()
    }

    /// The path of an event inside the process, from two publishers of one tenant to a worker that just got
    /// its first subscriber. The worker reaches the end, whatever frames it has to skip.
    #[test]
    fn loom_publishers_reach_a_worker_that_is_registering() {
        static FULL: AtomicUsize = AtomicUsize::new(0);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(|| {
            let (pins, mut readers) = Pins::new(1);
            let limits = RingLimits { initial_slots: 1, max_slots: 1, max_bytes: usize::MAX };
            let (writer, ring) = ring(&pins, limits, 0);
            let tenant = Arc::new(Tenant { ring, bits: WakeBits::new() });
            let queue = Arc::new(WakeQueue::new().unwrap());
            let writer = Arc::new(Mutex::new(writer));
            let publishers = [(); 2].map(|()| {
                let (tenant, queue, writer) = (tenant.clone(), queue.clone(), writer.clone());
                loom::thread::spawn(move || {
                    let mut writer = writer.lock();
                    let sequence = writer.head();
                    writer.publish(Arc::new(Frame(sequence, Alive::default())), sequence);
                    drop(writer);
                    tenant.bits.signal(|_| queue.push(()));
                })
            });
            let seen = work(&tenant, &queue, &mut readers[0], 2);
            publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
            FULL.fetch_add(usize::from(seen == 2), Ordering::Relaxed);
        });
        assert!(FULL.load(Ordering::Relaxed) > 0, "in some order nothing is skipped");
    }
}
