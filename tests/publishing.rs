//! Publishing, as publishers see it: every kind, every way in, and what is refused.

mod common;

use common::Daemon;
use serde_json::json;

#[tokio::test]
async fn a_published_message_reaches_an_sse_and_a_websocket_subscriber() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let ids = daemon.publish_messages(&["hello"]).await;
    let event = sse.next_event().await;
    assert_eq!((&event["content"], &event["id"]), (&json!("hello"), &json!(ids[0])));
    assert_eq!(ws.next_json().await, event);
}
