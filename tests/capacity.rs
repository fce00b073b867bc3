//! The daemon holds as many connections as allowed. These tests check the responses to further clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::Daemon;

/// `EventSource` gives up for ever on a 503, so it gets an event that makes it reconnect. All other clients
/// get the status.
#[tokio::test]
async fn a_full_process_refuses_on_every_transport() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS", 2).start().await;
    let sse = daemon.live_sse("/api/v1/sse").await;
    let _ws = daemon.live_ws("/api/v1/ws").await;

    let mut refusal = daemon.sse("/api/v1/sse").ask().await;
    assert_eq!(refusal.status, 200, "{}", refusal.head);
    let closing = refusal.next_block().await.unwrap();
    assert_eq!(closing.retry.as_deref().map(str::len), Some(4), "{closing:?}"); // 1,000 to 2,000 ms
    assert_eq!(closing.named("closing")["code"], "UNAVAILABLE");

    let refused = daemon.ws("/api/v1/ws").refused().await;
    refused.refused(503, "UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Publishers and operators are still served.
    daemon.publish_messages(&["in between"]).await;
    assert_eq!(daemon.get("/health").send().await.status, 200);

    // A released permit can be acquired again.
    drop(sse);
    common::until("a place", || async {
        let mut sse = daemon.sse("/api/v1/sse").ask().await;
        let ready = sse.next_block().await.unwrap();
        (ready.name.as_deref() == Some("ready")).then_some(())
    })
    .await;
}

/// Connections that cannot be served one by one get a complete refusal in a single write, in the usual
/// format.
#[tokio::test]
async fn a_flood_is_refused_in_one_write() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS", 2).start().await;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(tokio::net::TcpStream::connect(daemon.addr()).await.unwrap());
    }
    common::until("a refusal", || async {
        use tokio::io::AsyncReadExt as _;
        // The client sends nothing: the daemon responds without reading a request.
        let mut stream = tokio::net::TcpStream::connect(daemon.addr()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(std::time::Duration::from_millis(500), read).await.is_ok();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").filter(|_| ended)?;
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 1"), "{head}");
        assert!(head.contains("x-request-id: req-") && head.contains("connection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["code"], "UNAVAILABLE");
        assert!(common::is_timestamp(json["timestamp"].as_str()?), "{json}");
        Some(())
    })
    .await;
}
