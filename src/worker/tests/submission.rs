//! However writes reach the kernel, subscribers get the same: by `send`, by io_uring, and if the ring is
//! unavailable or fails during its work.

use super::*;
use crate::config::FanoutSubmission;
use crate::worker::submit::{Submission, broken_ring};

const EVENTS: usize = 12;
/// More than one submission.
const SUBSCRIBERS: usize = fanout::SENDS_PER_TURN + 20;

/// Publishes to many subscribers that read, one that reads late, and one that is gone. Returns what each of
/// the first two kinds received.
async fn story(submission: Submission) -> Vec<String> {
    let bench = Bench::new().await;
    bench.worker.state.borrow_mut().submission = submission;
    let mut peers: Vec<UnixStream> = (0..SUBSCRIBERS).map(|_| bench.subscriber(0).1).collect();
    let (gone, peer) = bench.subscriber(0);
    while bench.turn() {}
    drop(peer);
    let mut seen = vec![String::new(); SUBSCRIBERS];
    for event in 0..EVENTS {
        // The late subscriber's socket takes about 8 KiB of these, so it is written to in part and falls
        // behind.
        bench.publish(0, &format!("<{event}>{}", "x".repeat(2_000))).await;
        while bench.turn() {}
        for (peer, seen) in peers.iter_mut().zip(&mut seen).take(SUBSCRIBERS - 1) {
            seen.push_str(&read(peer));
        }
    }
    assert!(
        bench.worker.state.borrow_mut().connection(gone).is_none(),
        "a dead peer's connection is dropped"
    );
    assert_eq!(bench.worker.metrics().behind.get(), 1, "one is behind");
    let (late, text) = (&mut peers[SUBSCRIBERS - 1], &mut seen[SUBSCRIBERS - 1]);
    loop {
        let more = read(late);
        text.push_str(&more);
        while bench.turn() {}
        if more.is_empty() && bench.worker.metrics().behind.get() == 0 {
            break;
        }
    }
    seen
}

fn check(submission: impl FnOnce() -> Submission) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let seen = runtime.expect("a runtime").block_on(async { story(submission()).await });
    for (at, text) in seen.iter().enumerate() {
        let order: Vec<usize> = text
            .match_indices('<')
            .filter_map(|(at, _)| text[at + 1..].split_once('>')?.0.parse().ok())
            .collect();
        assert_eq!(order, (0..EVENTS).collect::<Vec<_>>(), "subscriber {at}");
    }
}

#[test]
fn fan_out_by_send_reaches_every_subscriber() {
    check(|| Submission::new(FanoutSubmission::Send));
}

/// On a kernel without io_uring, this is the same as the test above.
#[test]
fn fan_out_by_io_uring_reaches_every_subscriber() {
    check(|| Submission::new(FanoutSubmission::IoUring));
}

#[test]
fn a_refused_ring_falls_back_to_send() {
    let refused = || Err(std::io::ErrorKind::PermissionDenied.into());
    check(|| Submission::with(FanoutSubmission::IoUring, refused));
}

/// The ring's descriptor becomes something else: its first submission fails, and nothing of it is lost.
#[test]
fn a_ring_that_fails_falls_back_to_send() {
    check(|| Submission::with(FanoutSubmission::IoUring, broken_ring));
}
