//! Hostile and broken peers. Each gets the response of the contract or is disconnected, nothing leaks, no
//! other client is affected, and the daemon never panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod common;

use std::time::{Duration, Instant};

use common::sse::Sse;
use common::{Daemon, custom, until, within};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Checks that the daemon still serves requests and has never panicked.
async fn unhurt(daemon: &Daemon) {
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let id = daemon.publish(custom("after", json!(1))).await;
    assert_eq!(ws.next_json().await["id"], id[0].as_str());
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Sends bytes on a new connection and reads until the peer ends it; `None` if the connection was reset.
async fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    // The peer may close the connection during the write.
    let _ = stream.write_all(bytes).await;
    everything(&mut stream).await
}

async fn everything(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = within("the peer's end", stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// The status code and the body of the first response in `text`.
#[track_caller]
fn answer(text: &str) -> (u16, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap())
        })
        .unwrap_or(body.len());
    let json = serde_json::from_str(&body[..length]).unwrap_or(Value::Null);
    (status, json)
}

/// Checks that `text` is a refusal with a JSON body, and that it ends the connection.
#[track_caller]
fn refused(text: &str, status: u16) {
    let (found, body) = answer(text);
    assert_eq!(found, status, "{text}");
    for field in ["code", "message", "details", "timestamp"] {
        assert!(body.get(field).is_some(), "{field} in {text}");
    }
    assert!(text.to_ascii_lowercase().contains("x-request-id: "), "{text}");
}

/// A head over the limit is refused with 431, in the usual error format.
#[tokio::test]
async fn oversize_heads_are_431_with_a_body() {
    let daemon = Daemon::start().await;
    let head = |extra: &str| format!("GET /health HTTP/1.1\r\nhost: a\r\n{extra}\r\n");
    refused(&raw(&daemon, head(&format!("x: {}\r\n", "y".repeat(17_000))).as_bytes()).await, 431);
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    refused(&raw(&daemon, head(&many).as_bytes()).await, 431);
    // The longest allowed head is accepted.
    let long = head(&format!("x: {}\r\nconnection: close\r\n", "y".repeat(12_000)));
    assert_eq!(answer(&raw(&daemon, long.as_bytes()).await).0, 200);
    let (status, _) = answer(
        &raw(&daemon, format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(70_000)).as_bytes()).await,
    );
    assert!(matches!(status, 414 | 431), "{status}");
    unhurt(&daemon).await;
}

/// A head that never completes holds its socket for at most `header_timeout_ms`, whether bytes arrive slowly
/// or not at all.
#[tokio::test]
async fn slow_heads_are_cut_off() {
    let daemon = Daemon::with().env("HEADER_TIMEOUT_MS", 400).env("IDLE_TIMEOUT_MS", 400).start().await;
    let started = Instant::now();
    let silent = raw(&daemon, b"");
    let half = raw(&daemon, b"GET /health HTTP/1.1\r\nhost: a\r\nx: ");
    let preface = raw(&daemon, b"PRI * HT");
    let dripping = async {
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let drip = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            for byte in b"GET /health HTTP/1.1\r\nhost: a\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
                tick.tick().await;
                if writer.write_all(&[*byte]).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut all = Vec::new();
        tokio::select! {
            _ = reader.read_to_end(&mut all) => {}
            () = drip => {}
        }
    };
    let idle = async {
        // A kept-alive connection that is silent after a response.
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        everything(&mut stream).await
    };
    let (_, _, _, (), idle) =
        within("all cut off", async { tokio::join!(silent, half, preface, dripping, idle) }).await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
    // The timeout does not apply to a WebSocket.
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    // Longer than the limit: only time can show that nothing happens.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ws.ask(&json!({"type": "ping"})).await["type"], "pong");
    unhurt(&daemon).await;
}

/// A body that stalls is refused after `body_timeout_ms`; a body that is too large is refused at once.
#[tokio::test]
async fn slow_and_oversize_bodies_are_refused() {
    let daemon = Daemon::with()
        .env("BODY_TIMEOUT_MS", 300)
        .env("HEADER_TIMEOUT_MS", 1_000)
        .env("LIMITS__BODY_BYTES", 100_000)
        .start()
        .await;
    let head = |more: &str| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{more}\r\n",
            daemon.key
        )
    };
    refused(&raw(&daemon, (head("content-length: 50\r\n") + "{\"type\":").as_bytes()).await, 408);
    refused(
        &raw(&daemon, (head("transfer-encoding: chunked\r\n") + "5\r\n{\"typ\r\n").as_bytes()).await,
        408,
    );
    refused(&raw(&daemon, head("content-length: 100001\r\n").as_bytes()).await, 413);
    let mut chunked = head("transfer-encoding: chunked\r\n").into_bytes();
    for _ in 0..30 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.extend_from_slice(&[b' '; 4_096]);
        chunked.extend_from_slice(b"\r\n");
    }
    refused(&raw(&daemon, &chunked).await, 413);
    unhurt(&daemon).await;
}

/// Clients that hold back the ends of their bodies fill the share of their own organization, and of no other.
#[tokio::test]
async fn unfinished_bodies_fill_only_their_organizations_share() {
    let daemon = Daemon::with()
        .env("LIMITS__BODY_BYTES", 100_000)
        .env("LIMITS__BODY_BYTES_PER_ORGANIZATION", 200_000)
        .start()
        .await;
    let acme = daemon.create_org("acme").await;
    let event = custom("c", json!("x".repeat(30_000))).to_string();
    let body = format!("[{event},{event},{event}]");
    let request = |key: &str| {
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        );
        format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let whole = request(&daemon.key);
    let (most, end) = whole.split_at(whole.len() - 10);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        stream.write_all(most).await.unwrap();
        held.push(stream);
    }
    let status = async |bytes: &[u8]| answer(&raw(&daemon, bytes).await).0;
    // Both bodies have arrived, except for their ends.
    let head = whole.len() - body.len();
    let kept = 2 * (most.len() - head);
    until("both are kept", || async {
        (daemon.metric("nervewire_request_body_bytes").await as usize == kept).then_some(())
    })
    .await;
    assert_eq!(status(&whole).await, 429);
    assert_eq!(status(&request(&acme)).await, 201);
    daemon.publish(custom("c", json!("what comes in one piece is not kept"))).await;
    held[0].write_all(end).await.unwrap();
    assert_eq!(answer(&everything(&mut held[0]).await).0, 201);
    drop(held);
    until("room again", || async { (status(&whole).await == 201).then_some(()) }).await;
    unhurt(&daemon).await;
}

/// Two contradicting body lengths are refused (RFC 9112 §6.1, §6.3), because a proxy may have read another
/// request.
#[tokio::test]
async fn ambiguous_lengths_end_the_connection() {
    let daemon = Daemon::start().await;
    let smuggled = "GET /health HTTP/1.1\r\nhost: smuggled\r\n\r\n";
    let head = |more: &str| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{more}\r\n",
            daemon.key
        )
    };
    for more in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: identity\r\ncontent-length: 5\r\n",
    ] {
        let text = raw(&daemon, (head(more) + "0\r\n\r\n" + smuggled).as_bytes()).await;
        let (status, _) = answer(&text);
        assert!((400..500).contains(&status), "{more}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{more}: nothing may follow: {text}");
    }
    for bytes in [
        head("content-length : 5\r\n") + "hello",
        head("transfer-encoding: chunked\r\n") + "zz\r\n",
        head("transfer-encoding: chunked\r\n") + "fffffffffffffffff\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n".into(),
        "GET /health HTTP/1.1\r\nho\0st: a\r\n\r\n".into(),
        "GET /health HTTP/9.9\r\n\r\n".into(),
        "GET  /health HTTP/1.1\r\n\r\n".into(),
        "\u{1}\u{2}\u{3}\r\n\r\n".into(),
    ] {
        let text = raw(&daemon, bytes.as_bytes()).await;
        let (status, _) = answer(&text);
        assert!((400..500).contains(&status), "{bytes:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    unhurt(&daemon).await;
}

/// Bytes that are not HTTP, and HTTP/2 that is invalid after its preface.
#[tokio::test]
async fn garbage_is_cut_off() {
    let daemon = Daemon::with().env("HEADER_TIMEOUT_MS", 1_000).env("HEARTBEAT_SECONDS", 1).start().await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = |n: usize| -> Vec<u8> {
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect()
    };
    let mut inputs = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // a TLS hello
        PREFACE.to_vec(),
        [PREFACE, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"].concat(), // a frame of 16 MiB
        [PREFACE, b"\0\0\0\x01\0\0\0\0\0"].concat(),                 // HEADERS on stream 0
        [PREFACE, b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"].concat(), // WINDOW_UPDATE of 0
        // A flood of PING without SETTINGS.
        [PREFACE, &b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(2_000)].concat(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
        b"\r\n".repeat(20_000),
    ];
    for n in [1, 10, 100, 1_000, 20_000] {
        inputs.push(noise(n));
        inputs.push([PREFACE, &noise(n)].concat());
    }
    for input in inputs {
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        let _ = stream.write_all(&input).await;
        let _ = stream.shutdown().await;
        everything(&mut stream).await;
    }
    unhurt(&daemon).await;
}

/// An upgrade request with an invalid head never becomes a WebSocket.
#[tokio::test]
async fn bad_upgrades_are_refused_before_credentials_are_read() {
    let daemon = Daemon::start().await;
    let ask = |more: &str| {
        let bytes = format!(
            "GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nauthorization: Bearer wrong\r\n{more}connection: close\r\n\r\n"
        );
        let daemon = &daemon;
        async move { raw(daemon, bytes.as_bytes()).await }
    };
    let good_key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (more, status) in [
        (String::new(), 426),
        (format!("upgrade: websocket\r\nconnection: upgrade\r\n{good_key}"), 426),
        (format!("upgrade: websocket\r\nconnection: upgrade\r\n{good_key}sec-websocket-version: 12\r\n"), 426),
        (format!("upgrade: h2c\r\nconnection: upgrade\r\n{good_key}sec-websocket-version: 13\r\n"), 426),
        ("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n".into(), 400),
        ("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: c2hvcnQ=\r\n".into(), 400),
        ("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: not base64!\r\n".into(), 400),
        (format!("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n{good_key}{good_key}"), 400),
        (format!("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n{good_key}content-length: 5\r\n"), 400),
        (format!("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n{good_key}"), 401),
    ] {
        let text = ask(&more).await;
        refused(&text, status);
        assert_eq!(text.to_ascii_lowercase().contains("sec-websocket-version: 13"), status == 426, "{text}");
    }
    let http10 = format!(
        "GET /api/v1/ws HTTP/1.0\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n{good_key}\r\n"
    );
    assert_eq!(answer(&raw(&daemon, http10.as_bytes()).await).0, 426);
    unhurt(&daemon).await;
}

/// A client frame, masked with zeros so that it is readable here.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..126 => bytes.push(0x80 | n as u8),
        n @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// An upgraded socket whose `ready` has been read, with no bytes left unread.
async fn bare_ws(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let head = format!(
        "GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        daemon.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    within("ready", async {
        while !got.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
        }
    })
    .await;
    assert!(String::from_utf8_lossy(&got).contains("\"ready\""));
    stream
}

/// The code of the close frame at the end of `bytes`.
#[track_caller]
fn close_code(bytes: &[u8]) -> Option<u16> {
    let mut at = 0;
    while at + 2 <= bytes.len() {
        let (opcode, length) = (bytes[at] & 15, usize::from(bytes[at + 1] & 127));
        let (length, head) = match length {
            126 => (usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])), 4),
            127 => panic!("a long frame"),
            n => (n, 2),
        };
        if opcode == 8 {
            return (length >= 2).then(|| u16::from_be_bytes([bytes[at + head], bytes[at + head + 1]]));
        }
        at += head + length;
    }
    None
}

/// A violation of RFC 6455 gets its close code and ends the TCP connection.
#[tokio::test]
async fn websocket_violations_get_their_close_code() {
    let daemon = Daemon::with().env("LIMITS__WS_FRAME_BYTES", 65_536).start().await;
    let big = 70_000;
    for (what, bytes, code) in [
        ("unmasked", vec![0x81, 2, b'{', b'}'], 1002),
        ("reserved bit 1", frame(0xc1, b"{}"), 1002),
        ("reserved bit 3", frame(0x91, b"{}"), 1002),
        ("opcode 3", frame(0x83, b"{}"), 1002),
        ("opcode 11", frame(0x8b, b""), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("text inside a message", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("long ping", frame(0x89, &[b'x'; 126]), 1002),
        ("close of one byte", frame(0x88, b"x"), 1002),
        ("close with a code nobody may send", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close with code 0", frame(0x88, &[0, 0]), 1002),
        ("length 5 in 16 bits", [vec![0x81, 0x80 | 126, 0, 5, 0, 0, 0, 0], b"hello".to_vec()].concat(), 1002),
        (
            "length 5 in 64 bits",
            [vec![0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0], b"hello".to_vec()].concat(),
            1002,
        ),
        ("length over 63 bits", vec![0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("binary", frame(0x82, b"{}"), 1003),
        ("bad UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("bad UTF-8 across frames", [frame(0x01, b"\xe2\x82"), frame(0x80, b"x")].concat(), 1007),
        ("bad UTF-8 in a close reason", frame(0x88, b"\x03\xe8\xff"), 1007),
        ("too large", frame(0x81, &vec![b' '; big]), 1009),
        ("announced too large", vec![0x81, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        (
            "too large together",
            [frame(0x01, &vec![b' '; big / 2]), frame(0x80, &vec![b' '; big / 2])].concat(),
            1009,
        ),
    ] {
        let mut stream = bare_ws(&daemon).await;
        stream.write_all(&bytes).await.unwrap();
        let mut said = Vec::new();
        let _ = within(what, stream.read_to_end(&mut said)).await;
        assert_eq!(close_code(&said), Some(code), "{what}: {said:x?}");
    }
    // A close frame from the peer is echoed with its code.
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut stream = bare_ws(&daemon).await;
        stream.write_all(&frame(0x88, &code.to_be_bytes())).await.unwrap();
        let mut said = Vec::new();
        within("the echo", stream.read_to_end(&mut said)).await.unwrap();
        assert_eq!(close_code(&said), Some(code));
    }
    // Ten invalid frames in a row.
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    for _ in 0..2 {
        for _ in 0..9 {
            ws.send_text("nonsense").await;
            assert_eq!(ws.expect("error").await["code"], "BAD_REQUEST");
        }
        assert_eq!(ws.ask(&json!({"type": "ping"})).await["type"], "pong");
    }
    for _ in 0..10 {
        ws.send_text("{}").await;
    }
    assert_eq!(ws.closed().await.0, 1008);
    unhurt(&daemon).await;
}

/// A whole session, head and frames, one byte per write.
#[tokio::test]
async fn byte_at_a_time_input_is_understood() {
    let daemon = Daemon::start().await;
    let stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = format!(
        "GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        daemon.key
    );
    let publish = json!({"type": "publish", "ref": 7, "event": custom("c", json!("täg"))}).to_string();
    let (first, second) = publish.as_bytes().split_at(publish.find('ä').unwrap() + 1);
    let session = [
        head.into_bytes(),
        frame(0x01, first), // in the middle of a character
        frame(0x89, b"ping"),
        frame(0x80, second),
        frame(0x88, &[]),
    ];
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        for byte in session.concat() {
            writer.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut said = Vec::new();
    let ((), read) =
        within("the session", async { tokio::join!(write, reader.read_to_end(&mut said)) }).await;
    read.unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    assert!(
        said.contains("\"ready\"") && said.contains("\u{8a}\u{4}ping") || said.contains("\u{4}ping"),
        "{said}"
    );
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"][0]["data"], "täg");
    // REST and SSE, byte by byte.
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let head = format!(
        "GET /api/v1/sse?earliest=true HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        daemon.key
    );
    for byte in head.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut sse = Sse::read_head(stream, Vec::new()).await;
    sse.next().await.named("ready");
    assert_eq!(sse.next_event().await["data"], "täg");
    unhurt(&daemon).await;
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident_bytes(pid: i32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

/// Closes a connection with a reset instead of a FIN.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn no_descriptor_is_left(daemon: &Daemon, before: usize) {
    until("every descriptor back", async || (descriptors(daemon.pid()) <= before).then_some(())).await;
    until("every connection forgotten", async || {
        (daemon.metric("nervewire_connections").await == 0.0).then_some(())
    })
    .await;
}

/// A peer that resets its connection in any state leaks nothing.
#[tokio::test]
async fn resets_in_every_state_leak_nothing() {
    let daemon = Daemon::start().await;
    unhurt(&daemon).await;
    until("a quiet start", async || (daemon.metric("nervewire_connections").await == 0.0).then_some(()))
        .await;
    let before = descriptors(daemon.pid());
    let request = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{more}\r\n", daemon.key)
    };
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for round in 0..20 {
        for bytes in [
            String::new(),
            "GE".into(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            request("GET /api/v1/sse", "")[..60].to_owned(),
            request("GET /api/v1/events?wait=60", ""),
            request("GET /api/v1/sse", ""),
            request("GET /api/v1/sse?earliest=true", ""),
            request("GET /api/v1/ws", upgrade),
            request("GET /api/v1/ws?earliest=true", upgrade),
            request("POST /api/v1/events", "content-length: 100\r\n") + "{",
            request("POST /api/v1/events", "content-length: 44\r\n")
                + r#"{"type":"custom","channel":"c","data":12345}"#,
        ] {
            let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
            let _ = stream.write_all(bytes.as_bytes()).await;
            if round % 2 == 1 {
                // In other rounds the reset comes after the daemon has begun to respond.
                let mut byte = [0];
                let _ = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
            }
            reset(stream);
        }
        let mut stream = bare_ws(&daemon).await;
        stream.write_all(&frame(0x01, b"{\"type\":")[..10]).await.unwrap();
        reset(stream);
        let mut stream = bare_ws(&daemon).await;
        stream.write_all(&frame(0x88, &[])).await.unwrap();
        reset(stream);
    }
    no_descriptor_is_left(&daemon, before).await;
    unhurt(&daemon).await;
}

/// Ten thousand peers that connect and disconnect at once, in several ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_aborted_connects_leak_nothing() {
    let daemon = Daemon::start().await;
    unhurt(&daemon).await;
    until("a quiet start", async || (daemon.metric("nervewire_connections").await == 0.0).then_some(()))
        .await;
    let before = descriptors(daemon.pid());
    let head = format!("GET /api/v1/sse HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", daemon.key);
    let addr = daemon.addr();
    let crowd: Vec<_> = (0..50)
        .map(|_| {
            let head = head.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    let mut stream = TcpStream::connect(addr).await.unwrap();
                    if n % 2 == 0 {
                        let _ = stream.write_all(head.as_bytes()).await;
                    }
                    if n % 3 == 0 {
                        let mut some = [0; 64];
                        let _ = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut some)).await;
                    }
                    reset(stream); // an orderly close would leave 10,000 ports in TIME_WAIT on this machine
                }
            })
        })
        .collect();
    for one in crowd {
        one.await.unwrap();
    }
    no_descriptor_is_left(&daemon, before).await;
    unhurt(&daemon).await;
}

/// Pings are answered as long as the peer reads the responses, and use no memory if it does not.
#[tokio::test]
async fn a_ping_flood_is_bounded() {
    let daemon = Daemon::start().await;
    let stream = bare_ws(&daemon).await;
    let before = resident_bytes(daemon.pid());
    let flood = [frame(0x89, &[b'x'; 125]), frame(0x81, br#"{"type":"ping"}"#)].concat().repeat(100);
    // The client reads nothing, so the daemon must stop reading too, and the write must block.
    let mut sent = 0;
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(500), async {
        stream.writable().await?;
        match stream.try_write(&flood) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    })
    .await
    {
        sent += n;
        assert!(sent < 64 << 20, "the daemon reads on without end");
    }
    let after = resident_bytes(daemon.pid());
    assert!(after < before + (8 << 20), "{before} {after}");
    unhurt(&daemon).await;
}

/// Subscribers that never read delay neither the publisher nor other subscribers, and use little memory.
#[tokio::test]
async fn subscribers_that_never_read_do_not_affect_others() {
    let daemon = Daemon::with()
        .env("LIMITS__BODY_BYTES", 1 << 20)
        .env("LIMITS__RING_BYTES_PER_TENANT", 4 << 20)
        .env("LIMITS__RING_BYTES_TOTAL", 8 << 20)
        .start()
        .await;
    let stuck_ws = bare_ws(&daemon).await;
    let head = format!("GET /api/v1/sse HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", daemon.key);
    let mut stuck_sse = Vec::new();
    for _ in 0..25 {
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stuck_sse.push(stream);
    }
    let mut reads = daemon.live_ws("/api/v1/ws").await;
    let piece = "x".repeat(8_000);
    let batch: Vec<Value> = (0..100).map(|_| custom("flood", json!(piece))).collect();
    let publish = async |rounds: usize| {
        for _ in 0..rounds {
            let ids = daemon.publish(json!(batch)).await;
            assert_eq!(ids.len(), 100);
        }
    };
    let read = async |reads: &mut common::ws::Ws, count: usize| {
        let mut last = String::new();
        for _ in 0..count {
            let frame = reads.next_json().await;
            assert_eq!(frame["type"], "custom");
            last = frame["id"].as_str().unwrap().to_owned();
        }
        last
    };
    let ((), _) = tokio::join!(publish(10), read(&mut reads, 1_000));
    let before = resident_bytes(daemon.pid());
    let ((), _) = tokio::join!(publish(30), read(&mut reads, 3_000));
    let after = resident_bytes(daemon.pid());
    // 24 MB were sent to each of 50 subscribers; a copy for each would take 1.2 GB. The store itself takes a
    // part of this.
    assert!(after < before + (150 << 20), "{before} {after}");
    // When they read again, every event is there.
    drop(stuck_ws);
    let mut sse = Sse::read_head(stuck_sse.pop().unwrap(), Vec::new()).await;
    sse.next().await.named("ready");
    sse.events(4_000).await;
    unhurt(&daemon).await;
}

/// JSON of any depth gets a response, in every place that reads JSON.
#[tokio::test]
async fn deeply_nested_json_never_crashes_the_daemon() {
    let daemon = Daemon::start().await;
    for depth in [100, 200, 10_000, 300_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        let objects = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        for inner in [&deep, &objects, &"[".repeat(depth)] {
            let event = format!(r#"{{"type":"custom","channel":"c","data":{inner}}}"#);
            for (path, body) in [
                ("events", &event),
                ("events", inner),
                ("api-keys", inner),
                ("tickets", inner),
                ("organizations", inner),
            ] {
                let reply = daemon
                    .post(&format!("/api/v1/{path}"))
                    .body("application/json", body.clone())
                    .send()
                    .await;
                assert!(matches!(reply.status.as_u16(), 201 | 400 | 413), "{path} {depth}: {reply:?}");
            }
            if event.len() < 60_000 {
                let mut ws = daemon.live_ws("/api/v1/ws").await;
                ws.send_text(&format!(r#"{{"type":"publish","ref":1,"event":{event}}}"#)).await;
                let answer = ws.next_json().await;
                assert!(matches!(answer["type"].as_str(), Some("ack" | "error" | "custom")), "{answer}");
                let mut ws = daemon.live_ws("/api/v1/ws").await;
                ws.send_text(inner).await;
                assert_eq!(ws.next_json().await["type"], "error");
            }
        }
        let header = "[".repeat(depth.min(6_000));
        let jwt = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
        assert_eq!(daemon.get("/api/v1/events").key(&format!("{jwt}.{jwt}.x")).send().await.status, 401);
    }
    unhurt(&daemon).await;
}
