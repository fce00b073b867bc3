//! Paths, cursors and control frames of `tail`, without a socket.

use super::*;

fn tail(args: &TailArgs) -> Tail<'_> {
    Tail { failures: 3, ..Tail::new(args) }
}

#[test]
fn the_cursor_replaces_the_position_asked_for() {
    let args = TailArgs {
        types: Some("message,custom".into()),
        channel: Some("chat/*,a b".into()),
        since: Some("2026-11-22T10:00:00Z".into()),
        ..TailArgs::default()
    };
    let mut tail = tail(&args);
    let filter = "types=message,custom&channel=chat%2F%2A,a%20b";
    assert_eq!(tail.path("sse"), format!("/api/v1/sse?{filter}&since=2026-11-22T10%3A00%3A00Z"));
    tail.cursor = "Ab_-".into();
    assert_eq!(tail.path("ws"), format!("/api/v1/ws?{filter}&last_event_id=Ab_-"));
}

#[test]
fn positions() {
    let path = |args: TailArgs| tail(&args).path("sse");
    assert_eq!(path(TailArgs::default()), "/api/v1/sse");
    assert_eq!(path(TailArgs { earliest: true, ..TailArgs::default() }), "/api/v1/sse?earliest=true");
    assert_eq!(
        path(TailArgs { after: Some("C".into()), ..TailArgs::default() }),
        "/api/v1/sse?last_event_id=C"
    );
}

#[test]
fn control_frames_move_the_cursor() {
    let args = TailArgs::default();
    let mut tail = tail(&args);
    tail.control("ready", &serde_json::json!({"cursor": "A"}));
    assert_eq!((tail.cursor.as_str(), tail.ever_connected, tail.failures), ("A", true, 0));
    assert_eq!(tail.silence, SILENCE);
    tail.control("ready", &serde_json::json!({"cursor": "A", "heartbeat_seconds": 60}));
    assert_eq!(tail.silence, Duration::from_secs(180));
    tail.control("gap", &serde_json::json!({"after": "A", "resumes_at": "B", "reason": "trimmed"}));
    assert_eq!(tail.cursor, "B");
    tail.control("heartbeat", &serde_json::json!({"timestamp": "t", "cursor": "C"}));
    assert_eq!(tail.cursor, "C");
    tail.control("ack", &serde_json::json!({"ids": []}));
    assert_eq!(tail.cursor, "C");
}

#[test]
fn the_cursor_of_an_sse_event_survives_a_closing() {
    let args = TailArgs::default();
    let mut tail = tail(&args);
    let closing = |code: &str| SseEvent {
        event: "closing".into(),
        data: format!("{{\"type\":\"error\",\"code\":\"{code}\",\"message\":\"m\"}}"),
        id: "A".into(),
    };
    let end = tail.take_sse(&closing("UNAVAILABLE"), Some(1_500)).unwrap();
    assert!(matches!(end, Some(End::Lost(Next::Again(asked))) if asked == Duration::from_millis(1_500)));
    let end = tail.take_sse(&closing("UNAUTHORIZED"), Some(1_500)).unwrap();
    assert!(matches!(end, Some(End::Lost(Next::Stop(_)))));
}
