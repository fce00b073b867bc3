//! Splits the bytes of one connection into messages: the head of the response, then WebSocket frames, SSE
//! events or further HTTP responses.
//!
//! * [`next`] takes the first whole message from a buffer and returns its length. An incomplete message waits
//!   for more bytes. It copies and allocates nothing, so a thread reads ten thousand connections through one
//!   buffer.
//! * It trusts the measured server: framing is checked, JSON is not.
//! * Chunked SSE bodies are read without decoding. The chunk heads between two events are in neither event's
//!   used text, provided that no chunk boundary is inside an event's stamp.

use memchr::memmem;

use super::Wire;

/// Maximum length of a response's head.
const HEAD_MAX: usize = 16 * 1_024;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The head of the response has not arrived yet.
    Head(Wire),
    /// The head has arrived. For [`Wire::Http`] this is between two responses.
    Body(Wire),
}

/// One whole message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The head of a successful stream response: 101 for WebSocket, 200 for SSE.
    Open,
    /// A WebSocket text message, or an SSE event with all its fields.
    Text(&'a [u8]),
    /// A WebSocket Ping, which needs a Pong.
    Ping(&'a [u8]),
    /// A WebSocket Close with its code, 1005 if it had none.
    Close(u16),
    /// A whole HTTP response. For a stream it is a refusal.
    Answer {
        /// Status of the response.
        status: u16,
        /// Body of the response.
        body: &'a [u8],
    },
    /// A message that needs no action, such as a WebSocket Pong.
    Nothing,
}

/// Why received bytes do not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// There is no status line, or the head is too long.
    #[error("the response is not HTTP")]
    Head,
    /// The end of a response cannot be determined.
    #[error("an HTTP response without Content-Length")]
    Length,
    /// The frame is masked or fragmented, or its opcode is unknown.
    #[error("an unexpected WebSocket frame")]
    Frame,
}

/// Takes the first whole message from `buf`. Returns its length and the message, or `None` if more bytes are
/// needed.
///
/// # Errors
/// [`Malformed`]. The connection cannot be used after it.
pub(crate) fn next<'a>(phase: &mut Phase, buf: &'a [u8]) -> Result<Option<(usize, Message<'a>)>, Malformed> {
    match *phase {
        Phase::Head(wire) => head(wire, phase, buf),
        Phase::Body(Wire::Http) => head(Wire::Http, phase, buf),
        Phase::Body(Wire::Ws) => frame(buf),
        Phase::Body(Wire::Sse) => {
            Ok(memmem::find(buf, b"\n\n").map(|at| (at + 2, Message::Text(&buf[..at]))))
        }
    }
}

fn head<'a>(wire: Wire, phase: &mut Phase, buf: &'a [u8]) -> Result<Option<(usize, Message<'a>)>, Malformed> {
    let Some(end) = memmem::find(buf, b"\r\n\r\n") else {
        return if buf.len() > HEAD_MAX { Err(Malformed::Head) } else { Ok(None) };
    };
    let (head, after) = (&buf[..end], end + 4);
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| head.strip_prefix(b"HTTP/1.0 "))
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse::<u16>().ok())
        .ok_or(Malformed::Head)?;
    if matches!((wire, status), (Wire::Ws, 101) | (Wire::Sse, 200)) {
        *phase = Phase::Body(wire);
        return Ok(Some((after, Message::Open)));
    }
    let length = match content_length(head) {
        Some(length) => length,
        None if status == 204 => 0,
        None => return Err(Malformed::Length),
    };
    Ok(buf.get(after..after + length).map(|body| (after + length, Message::Answer { status, body })))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

/// Parses a frame from a server (RFC 6455 §5.2).
fn frame(buf: &[u8]) -> Result<Option<(usize, Message<'_>)>, Malformed> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    if second & 0x80 != 0 || first & 0xf0 != 0x80 {
        return Err(Malformed::Frame);
    }
    let (head, length): (usize, usize) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (10, usize::try_from(u64::from_be_bytes(*bytes)).map_err(|_| Malformed::Frame)?),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    let Some(payload) = head.checked_add(length).and_then(|end| buf.get(head..end)) else { return Ok(None) };
    let message = match first & 0x0f {
        1 => Message::Text(payload),
        8 => Message::Close(payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))),
        9 => Message::Ping(payload),
        10 => Message::Nothing,
        _ => return Err(Malformed::Frame),
    };
    Ok(Some((head + length, message)))
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;
    use crate::wire::stamp::{Scan, Stamp, Template};

    /// Returns the messages that a reader finds in `stream` when it is cut into `pieces`.
    fn read(wire: Wire, stream: &[u8], pieces: &[&[u8]]) -> Vec<String> {
        let mut phase = Phase::Head(wire);
        let (mut held, mut messages) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let mut at = 0;
            while let Some((used, message)) = next(&mut phase, &held[at..]).unwrap() {
                at += used;
                messages.push(match message {
                    Message::Text(text) => match Scan::new().find(text) {
                        Some(stamp) => format!("{}@{}", stamp.n, stamp.t),
                        None => "text".to_owned(),
                    },
                    other => format!("{other:?}"),
                });
            }
            held.drain(..at);
        }
        assert_eq!(held.len(), 0, "left of {} bytes", stream.len());
        messages
    }

    fn at_every_byte(wire: Wire, stream: &[u8], expected: &[&str]) {
        assert_eq!(read(wire, stream, &[stream]), expected);
        for cut in 0..stream.len() {
            assert_eq!(read(wire, stream, &[&stream[..cut], &stream[cut..]]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(wire, stream, &single), expected, "byte by byte");
    }

    fn event(n: u64, size: usize) -> Vec<u8> {
        Template::custom(0, size).stamped(Stamp { n, t: n + 40 }).to_vec()
    }

    fn text_frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Frame::message(payload.to_vec(), OpCode::Data(Data::Text), true).format(&mut out).unwrap();
        out
    }

    #[test]
    fn websocket_split_at_every_byte() {
        let stream = [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec(),
            text_frame(b"{\"type\":\"ready\"}"),
            text_frame(&event(1, 100)),
            vec![0x89, 2, b'h', b'i'],
            text_frame(&event(2, 300)),
            vec![0x8a, 0],
            text_frame(&event(3, 70_000)),
            vec![0x88, 2, 0x03, 0xf4],
        ]
        .concat();
        let expected = ["Open", "text", "1@41", "Ping([104, 105])", "2@42", "Nothing", "3@43", "Close(1012)"];
        assert_eq!(read(Wire::Ws, &stream, &[&stream]), expected);
        // The middle of the large event is uniform, so only its ends are cut everywhere.
        for cut in (0..800).chain(stream.len() - 200..stream.len()) {
            assert_eq!(read(Wire::Ws, &stream, &[&stream[..cut], &stream[cut..]]), expected, "cut at {cut}");
        }
        at_every_byte(Wire::Ws, &stream[..stream.len() - 70_014], &expected[..6]);
    }

    #[test]
    fn sse_split_at_every_byte() {
        let mut stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 2000\nevent: ready\ndata: {}\n\n".to_vec();
        for n in 1..4 {
            stream.extend_from_slice(b": heartbeat\nid: abc\ndata: ");
            stream.extend_from_slice(&event(n, 128));
            stream.extend_from_slice(b"\n\n");
        }
        at_every_byte(Wire::Sse, &stream, &["Open", "text", "1@41", "2@42", "3@43"]);
    }

    #[test]
    fn chunked_sse_is_read_through() {
        let mut stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for n in 1..3 {
            let event = [b"id: abc\ndata: ", event(n, 128).as_slice(), b"\n\n"].concat();
            stream.extend_from_slice(format!("{:x}\r\n", event.len()).as_bytes());
            stream.extend_from_slice(&event);
            if n == 1 {
                stream.extend_from_slice(b"\r\n");
            }
        }
        at_every_byte(Wire::Sse, &stream, &["Open", "1@41", "2@42"]);
    }

    #[test]
    fn answers_one_after_the_other() {
        let stream = b"HTTP/1.1 201 Created\r\ncontent-LENGTH: 2\r\n\r\n{}HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\nn";
        let expected = ["Answer { status: 201, body: [123, 125] }", "Answer { status: 503, body: [110] }"];
        at_every_byte(Wire::Http, stream, &expected);
        let refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno!";
        at_every_byte(Wire::Ws, refused, &["Answer { status: 401, body: [110, 111, 33] }"]);
    }

    #[test]
    fn what_is_no_such_protocol_is_refused() {
        let refuse = |phase, bytes: &[u8]| next(&mut { phase }, bytes).unwrap_err();
        assert_eq!(refuse(Phase::Head(Wire::Ws), b"SMTP ready\r\n\r\n"), Malformed::Head);
        assert_eq!(refuse(Phase::Head(Wire::Sse), &[b'x'; HEAD_MAX + 1]), Malformed::Head);
        assert_eq!(refuse(Phase::Body(Wire::Http), b"HTTP/1.1 200 OK\r\n\r\n"), Malformed::Length);
        assert_eq!(refuse(Phase::Body(Wire::Ws), &[0x81, 0x80]), Malformed::Frame);
        assert_eq!(refuse(Phase::Body(Wire::Ws), &[0x01, 0x01, 0]), Malformed::Frame);
    }
}
