//! LLM streams on the wire (`/api/v1/streams`): their text, what producers send, and what readers receive.
//!
//! * The text of a stream is a stretch of one long text, which starts elsewhere for each stream. So any number
//!   of chunks, however the daemon merged them, is checked by one comparison.
//! * The text has neither quotes nor escapes, so that it is the same in JSON.

use std::io::Write as _;

use memchr::{memchr, memmem};
use serde_json::{Value, json};

use super::Access;
use super::request::{ws_publish, ws_text};

/// Bytes after which the text repeats. It is a prime, and longer than any event.
const PERIOD: usize = 131_071;
/// Distance between the starts of two streams in the text.
const STRIDE: usize = 7_919;
/// The longest lease that the daemon grants, in seconds. No stream ends because a run takes long.
const LEASE_SECONDS: u32 = 600;
/// Bits of a `ref` that are the number of the stream. The others are an index.
const STREAM_BITS: u32 = 20;
/// The index in the `ref` of a `finish`.
const FINISH: u64 = u64::MAX >> (STREAM_BITS + 1);

/// The number of streams that have different texts.
pub(crate) const STREAMS_MAX: usize = PERIOD;

/// The text of all streams.
#[derive(Debug)]
pub(crate) struct StreamTexts(Vec<u8>);

impl StreamTexts {
    /// Creates the same texts every time.
    pub(crate) fn new() -> StreamTexts {
        const LETTERS: &[u8; 32] = b"etaoinshrdlu cmfwypvbgkqjxz ETA ";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut letter = || {
            // Xorshift, so that no short stretch of the text occurs twice.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            LETTERS[(state >> 32) as usize % LETTERS.len()]
        };
        let mut text: Vec<u8> = (0..PERIOD).map(|_| letter()).collect();
        text.extend_from_within(..);
        StreamTexts(text)
    }

    /// Returns `len` bytes of the text of `stream`, from byte `from` on. It is empty if no event is as long.
    pub(crate) fn stretch(&self, stream: usize, from: u64, len: usize) -> &[u8] {
        let start = (stream * STRIDE + (from % PERIOD as u64) as usize) % PERIOD;
        self.0.get(start..start + len).unwrap_or_default()
    }
}

/// Returns the body of a request that opens a stream, or takes it over.
pub(crate) fn open_body(request_id: &str, takeover: bool) -> Value {
    json!({"request_id": request_id, "lease_seconds": LEASE_SECONDS, "takeover": takeover})
}

/// Returns a whole request that takes a stream over.
pub(crate) fn takeover_request(access: &Access, request_id: &str) -> Vec<u8> {
    let body = open_body(request_id, true).to_string();
    let Access { host, credential, .. } = access;
    let length = body.len();
    format!(
        "POST /api/v1/streams HTTP/1.1\r\nHost: {host}\r\n{credential}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Returns the head of a request whose body stays open, a line for each chunk.
pub(crate) fn open_lines(access: &Access, request_id: &str, token: &str) -> Vec<u8> {
    let Access { host, credential, .. } = access;
    format!(
        "POST /api/v1/streams/{request_id}/chunks HTTP/1.1\r\nHost: {host}\r\n{credential}X-Producer-Token: {token}\r\n\
         Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes()
}

/// The end of such a body.
pub(crate) const END_LINES: &[u8] = b"0\r\n\r\n";

/// Returns a request that finishes a stream.
pub(crate) fn finish_request(access: &Access, request_id: &str, token: &str) -> Vec<u8> {
    let Access { host, credential, .. } = access;
    format!(
        "POST /api/v1/streams/{request_id}/finish HTTP/1.1\r\nHost: {host}\r\n{credential}X-Producer-Token: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    .into_bytes()
}

/// Chunks of one stream to send: `count` of them from `index` on, each of `size` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks {
    pub(crate) stream: usize,
    pub(crate) index: u64,
    pub(crate) count: u64,
    pub(crate) size: usize,
}

impl Chunks {
    fn each(self, texts: &StreamTexts) -> impl Iterator<Item = (u64, &[u8])> {
        let Chunks { stream, index, count, size } = self;
        (index..index + count).map(move |at| (at, texts.stretch(stream, at * size as u64, size)))
    }

    /// Returns the `ref` of a frame with these chunks.
    fn reference(self) -> u64 {
        (self.index + self.count) << STREAM_BITS | self.stream as u64
    }

    /// Appends an `append` frame to `out`. `secret` is [`append_secret`] of the stream.
    pub(crate) fn append_frame(
        self,
        texts: &StreamTexts,
        secret: &str,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        scratch.clear();
        let (reference, index) = (self.reference(), self.index);
        // Writing to a Vec never fails, here and below.
        let _ = write!(scratch, r#"{{"type":"append",{secret},"index":{index},"ref":{reference},"#);
        scratch.extend_from_slice(if self.count == 1 { b"\"chunk\":" } else { b"\"chunks\":[" });
        for (at, text) in self.each(texts) {
            if at != index {
                scratch.push(b',');
            }
            scratch.push(b'"');
            scratch.extend_from_slice(text);
            scratch.push(b'"');
        }
        scratch.extend_from_slice(if self.count == 1 { b"}" } else { b"]}" });
        ws_text(scratch, out);
    }

    /// Appends the lines of an open body to `out`, as one chunk of the body.
    pub(crate) fn lines(self, texts: &StreamTexts, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        for (at, text) in self.each(texts) {
            let _ = write!(scratch, r#"{{"index":{at},"chunk":""#);
            scratch.extend_from_slice(text);
            scratch.extend_from_slice(b"\"}\n");
        }
        let _ = write!(out, "{:x}\r\n", scratch.len());
        out.extend_from_slice(scratch);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a `publish` frame with the same chunks as plain events to `out`.
    pub(crate) fn publish_frame(
        self,
        texts: &StreamTexts,
        request_id: &str,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        scratch.clear();
        let is_array = self.count > 1;
        for (at, text) in self.each(texts) {
            scratch.extend_from_slice(match (is_array, at == self.index) {
                (false, _) => b"",
                (true, true) => b"[",
                (true, false) => b",",
            });
            let _ = write!(
                scratch,
                r#"{{"type":"stream_chunk","request_id":"{request_id}","index":{at},"is_final":false,"chunk":""#
            );
            scratch.extend_from_slice(text);
            scratch.extend_from_slice(b"\"}");
        }
        if is_array {
            scratch.push(b']');
        }
        ws_publish(self.reference(), scratch, is_array, true, out);
    }
}

/// Returns the members of a producer's frames that say which stream, and with which right.
pub(crate) fn append_secret(request_id: &str, token: &str) -> String {
    format!(r#""request_id":"{request_id}","producer_token":"{token}""#)
}

/// Appends a `finish` frame to `out`.
pub(crate) fn finish_frame(stream: usize, secret: &str, out: &mut Vec<u8>) {
    let reference = FINISH << STREAM_BITS | stream as u64;
    ws_text(format!(r#"{{"type":"finish",{secret},"ref":{reference}}}"#).as_bytes(), out);
}

/// What an `ack` of a WebSocket acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamAck {
    pub(crate) stream: usize,
    /// Index of the next chunk; `None` if the stream is finished.
    pub(crate) next_index: Option<u64>,
}

/// Parses an `ack`. The daemon's own index counts, where it sends one.
pub(crate) fn ack(text: &[u8]) -> Option<StreamAck> {
    let reference = number_after(text, b"\"ref\":")?;
    let index = reference >> STREAM_BITS;
    let stream = (reference & ((1 << STREAM_BITS) - 1)) as usize;
    let next_index = (index != FINISH).then(|| number_after(text, b"\"next_index\":").unwrap_or(index));
    Some(StreamAck { stream, next_index })
}

/// A received `stream_chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEvent<'a> {
    /// Index of the first chunk in it.
    pub(crate) first: u64,
    /// Index of the last chunk in it. For the end of a stream it is the number of chunks.
    pub(crate) last: u64,
    /// The text as it is in JSON.
    pub(crate) text: &'a [u8],
    /// True for the end of a stream, which has no text.
    pub(crate) is_final: bool,
}

/// Parses an event, or returns `None` if it is not a chunk.
pub(crate) fn chunk_event(text: &[u8]) -> Option<ChunkEvent<'_>> {
    let from = memmem::find(text, CHUNK)? + CHUNK.len();
    let chunk = text.get(from..from + memchr(b'"', &text[from..])?)?;
    let last = number_after(text, b"\"index\":")?;
    let first = number_after(text, b"\"first_index\":").unwrap_or(last);
    let is_final = memmem::find(text, b"\"is_final\":true").is_some();
    Some(ChunkEvent { first, last, text: chunk, is_final })
}

/// The bytes before the text of a chunk.
pub(crate) const CHUNK: &[u8] = b"\"chunk\":\"";

fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = memmem::find(text, name)? + name.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[at..at + digits]).ok()?.parse().ok()
}

/// Returns the query of a reader over SSE, with the path below `/api/v1/sse`. It gets the whole stream.
pub(crate) fn read_query(request_id: &str) -> String {
    format!("/llm?request_id={request_id}")
}

/// Returns the frame by which a WebSocket reads a stream from its start, or after `last_event_id`.
pub(crate) fn read_frame(request_id: &str, last_event_id: Option<&str>) -> Vec<u8> {
    let after = last_event_id.map(|id| format!(r#","last_event_id":"{id}""#)).unwrap_or_default();
    let frame =
        format!(r#"{{"type":"subscribe","request_id":["{request_id}"],"from_start":true,"ref":0{after}}}"#);
    let mut out = Vec::new();
    ws_text(frame.as_bytes(), &mut out);
    out
}

/// Returns the query of a subscription to plain chunks.
pub(crate) fn plain_query(request_id: &str) -> String {
    format!("?types=stream_chunk&request_id={request_id}")
}

/// The query of a WebSocket that is not subscribed to anything yet.
pub(crate) const UNSUBSCRIBED: &str = "?subscribe=none";

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::{Role, WebSocket};

    use super::*;

    fn frames(out: Vec<u8>, count: usize) -> Vec<Value> {
        let mut server = WebSocket::from_raw_socket(Cursor::new(out), Role::Server, None);
        (0..count).map(|_| serde_json::from_str(server.read().unwrap().to_text().unwrap()).unwrap()).collect()
    }

    #[test]
    fn texts_differ_between_streams_and_are_the_same_in_json() {
        let texts = StreamTexts::new();
        let [a, b] = [0, 1].map(|stream| texts.stretch(stream, 0, 1_000));
        assert_ne!(a, b);
        assert_eq!(&a[600..], texts.stretch(0, 600, 400));
        assert_eq!(texts.stretch(5, PERIOD as u64 - 3, 6)[3..], texts.stretch(5, 0, 6)[..3]);
        let text = String::from_utf8(texts.stretch(7, 0, PERIOD).to_vec()).unwrap();
        assert_eq!(json!(text).to_string(), format!("\"{text}\""));
        assert_eq!(texts.stretch(0, 0, 3 * PERIOD), b"");
    }

    #[test]
    fn frames_carry_the_text_and_their_acks_say_which_stream() {
        let (texts, mut scratch, mut out) = (StreamTexts::new(), Vec::new(), Vec::new());
        let chunks = Chunks { stream: 3, index: 7, count: 1, size: 5 };
        let secret = append_secret("r3", "t");
        chunks.append_frame(&texts, &secret, &mut scratch, &mut out);
        Chunks { count: 2, ..chunks }.append_frame(&texts, &secret, &mut scratch, &mut out);
        Chunks { count: 2, ..chunks }.publish_frame(&texts, "r3", &mut scratch, &mut out);
        chunks.publish_frame(&texts, "r3", &mut scratch, &mut out);
        finish_frame(3, &secret, &mut out);
        let frames = frames(out, 5);
        let text = |from, len| String::from_utf8(texts.stretch(3, from, len).to_vec()).unwrap();
        assert_eq!((&frames[0]["index"], &frames[0]["chunk"]), (&json!(7), &json!(text(35, 5))));
        assert_eq!(frames[1]["chunks"], json!([text(35, 5), text(40, 5)]));
        assert_eq!((&frames[1]["request_id"], &frames[1]["producer_token"]), (&json!("r3"), &json!("t")));
        assert_eq!((&frames[2]["events"][1]["index"], &frames[2]["type"]), (&json!(8), &json!("publish")));
        assert_eq!(frames[3]["event"]["chunk"], json!(text(35, 5)));
        let acked =
            |frame: &Value, more: &str| ack(format!(r#"{{"ref":{}{more}}}"#, frame["ref"]).as_bytes());
        assert_eq!(acked(&frames[1], ""), Some(StreamAck { stream: 3, next_index: Some(9) }));
        let of_daemon = acked(&frames[1], r#","next_index":12"#);
        assert_eq!(of_daemon, Some(StreamAck { stream: 3, next_index: Some(12) }));
        let finished = acked(&frames[4], r#","next_index":12"#);
        assert_eq!(finished, Some(StreamAck { stream: 3, next_index: None }));
    }

    #[test]
    fn the_lines_of_an_open_body_are_one_chunk_of_it() {
        let (texts, mut scratch, mut out) = (StreamTexts::new(), Vec::new(), Vec::new());
        Chunks { stream: 1, index: 0, count: 3, size: 4 }.lines(&texts, &mut scratch, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (length, rest) = text.split_once("\r\n").unwrap();
        let body = rest.strip_suffix("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(length, 16).unwrap(), body.len());
        let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[2]["index"]), (3, &json!(2)));
    }

    #[test]
    fn chunks_are_found_in_events_and_merged_events() {
        let event = br#"id: x
data: {"type":"stream_chunk","id":"x","request_id":"r","chunk":"abc","is_final":false,"index":9,"first_index":4}"#;
        let chunk = ChunkEvent { first: 4, last: 9, text: b"abc", is_final: false };
        assert_eq!(chunk_event(event), Some(chunk));
        let end = br#"{"type":"stream_chunk","request_id":"r","index":3,"chunk":"","is_final":true}"#;
        assert_eq!(chunk_event(end), Some(ChunkEvent { first: 3, last: 3, text: b"", is_final: true }));
        assert_eq!(chunk_event(br#"{"type":"ready"}"#), None);
    }
}
