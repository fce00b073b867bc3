//! The events of a deleted user are removed from the log, and no others.

#![allow(clippy::expect_used, clippy::panic)] // a test ends where its world does not hold

#[allow(dead_code, reason = "each test program uses its part of the harness")]
#[path = "store/harness.rs"]
mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{T1, T2, read_all, store};
use nervewire::event::Event;
use nervewire::frame::{Frame, RoutingKey};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{CommitCallback, CommitError, Rows, Store, TenantLog};
use nervewire::time::{Clock, SystemClock};

/// Commits one event of `len` bytes for each of `users`.
async fn publish(store: &Store, tenant: TenantId, users: &[&str], len: usize) -> Vec<Arc<Frame>> {
    let frames = frames(store, tenant, users, len).await;
    assert_eq!(append(store, tenant, frames.clone()).await, Ok(()));
    frames
}

async fn append(store: &Store, tenant: TenantId, frames: Vec<Arc<Frame>>) -> Result<(), CommitError> {
    let log = store.log(tenant).await.expect("a log");
    let (done, commit_result) = CommitCallback::channel();
    store.append(&log, frames, Rows::new(), None, done);
    commit_result.await.expect("a result")
}

async fn frames(store: &Store, tenant: TenantId, users: &[&str], len: usize) -> Vec<Arc<Frame>> {
    let log = store.log(tenant).await.expect("a log");
    let (end, now_ms, text) = (log.end(), SystemClock.now_ms(), "x".repeat(len));
    let frame = |(at, user): (usize, &&str)| {
        let json = format!(r#"{{"type":"message","agent_id":"a","user_id":"{user}","content":"{text}"}}"#);
        let mut frame = Frame::encode(&Event::parse(&json).expect("valid"), now_ms, 0);
        let sequence = Sequence(end.0 + 1 + at as u64);
        frame.seal(sequence, now_ms, &store.cursor_key().encode(tenant, sequence));
        Arc::new(frame)
    };
    users.iter().enumerate().map(frame).collect()
}

fn erasure(tenant: TenantId, user: &str) -> Rows {
    let mut rows = Rows::new();
    rows.erase_user(tenant, user).expect("short");
    rows
}

fn users(frames: &[Arc<Frame>]) -> Vec<(u64, &str)> {
    frames
        .iter()
        .map(|frame| (frame.sequence().counter(), frame.key(RoutingKey::User).unwrap_or_default()))
        .collect()
}

/// Reads the whole log repeatedly until it has no events of `user`.
async fn without(store: &Store, log: &Arc<TenantLog>, user: &str) -> Vec<Arc<Frame>> {
    let read = async {
        loop {
            let frames = read_all(store, log, Sequence::ZERO).await;
            if frames.iter().all(|frame| frame.key(RoutingKey::User) != Some(user)) {
                return frames;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("erased")
}

/// Ann is erased. Bob, who published between her events, can still be read from every position, also after a
/// restart.
#[tokio::test]
async fn erasing_a_user_removes_only_that_users_events() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let first = publish(&store, T1, &["ann", "bob", "ann"], 10).await;
    let second = publish(&store, T1, &["ann", "ann"], 10).await;
    let third = publish(&store, T1, &["bob", "ann"], 10).await;
    publish(&store, T2, &["ann"], 10).await;
    let log = store.log(T1).await.expect("a log");
    assert_eq!(read_all(&store, &log, Sequence::ZERO).await.len(), 7); // decoded, and kept in memory
    let before = log.bytes();

    store.write(erasure(T1, "ann")).await.expect("written");
    let left = without(&store, &log, "ann").await;
    let bobs = [first[1].clone(), third[0].clone()];
    assert_eq!(users(&left), users(&bobs));
    assert_eq!(left[0].sse(), first[1].sse());
    // From every position, also from those of removed events.
    for (at, frame) in first.iter().chain(&second).chain(&third).enumerate() {
        let after = read_all(&store, &log, frame.sequence()).await;
        let expected = bobs.iter().filter(|bob| bob.sequence() > frame.sequence()).count();
        assert_eq!(after.len(), expected, "after event {at}");
    }
    let theirs = store.log(T2).await.expect("a log");
    assert_eq!(read_all(&store, &theirs, Sequence::ZERO).await.len(), 1, "another organization's ann stays");

    // Her new events are refused. The sequences continue where they were, also over a restart.
    let late = frames(&store, T1, &["bob", "ann"], 10).await;
    assert_eq!(append(&store, T1, late).await, Err(CommitError::Deleted));
    let fourth = publish(&store, T1, &["bob"], 10).await;
    assert_eq!(fourth[0].sequence().0, third[1].sequence().0 + 3);
    store.close_blocking();
    drop(store);
    let store = harness::store(dir.path());
    let log = store.log(T1).await.expect("a log");
    let all = read_all(&store, &log, Sequence::ZERO).await;
    assert_eq!(users(&all), users(&[&bobs[..], &fourth].concat()));
    assert_eq!(log.last_event(), fourth[0].sequence());
    assert!(
        log.bytes() < before - 4 * 40,
        "what was erased is not counted, {before} before and {} now",
        log.bytes()
    );
}

/// A daemon that ends in the middle of an erasure continues it at its next start.
#[tokio::test]
async fn an_interrupted_erasure_is_finished_after_the_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    for _ in 0..100 {
        publish(&store, T1, &["ann", "bob"], 30_000).await; // one stored value each
    }
    let written = {
        let store = store.clone();
        tokio::task::spawn_blocking(move || {
            store.write_blocking(erasure(T1, "ann")).expect("written");
            store.close_blocking();
        })
    };
    written.await.expect("closed");
    drop(store);
    let store = harness::store(dir.path());
    let log = store.log(T1).await.expect("a log");
    assert!(log.bytes() > 100 * 35_000, "it was cut short: {} bytes are left", log.bytes());
    assert_eq!(without(&store, &log, "ann").await.len(), 100);
    assert!((100 * 30_000..100 * 31_000).contains(&log.bytes()), "{} bytes are left", log.bytes());
}
