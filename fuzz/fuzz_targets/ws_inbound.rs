//! WebSocket bytes: the decoder agrees with tungstenite, and with itself however the input is split.
//!
//! Input: one byte that seeds the split lengths, then the bytes on the wire. Masked frames rarely survive
//! mutation, so the top bit of the first byte makes the target build the wire from frames:
//! `first byte, length byte, payload…`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::frame::ws_decode::{Decoder, Limits, Message, Violation};

const LIMITS: Limits = Limits { frame_bytes: 2048, message_bytes: 3000, fragments: 40 };

#[derive(Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

fn decode(wire: &[u8], split: impl Fn(usize) -> usize) -> (Vec<Owned>, Option<Violation>) {
    let (mut decoder, mut messages, mut from) = (Decoder::default(), Vec::new(), 0);
    while from < wire.len() {
        let end = wire.len().min(from + split(from).max(1));
        let mut read = wire[from..end].to_vec();
        let mut at = 0;
        loop {
            let step = match decoder.next(&mut read[at..], &LIMITS) {
                Ok(step) => step,
                Err(violation) => return (messages, Some(violation)),
            };
            at += step.used;
            let Some(message) = step.message else { break };
            messages.push(match message {
                Message::Text(text) => Owned::Text(text.into()),
                Message::Binary(bytes) => Owned::Binary(bytes.into()),
                Message::Ping(bytes) => Owned::Ping(bytes.into()),
                Message::Pong(bytes) => Owned::Pong(bytes.into()),
                Message::Close { code, reason } => {
                    messages.push(Owned::Close(code, reason.into()));
                    return (messages, None);
                }
            });
        }
        assert_eq!(at, read.len());
        from = end;
    }
    (messages, None)
}

struct Wire<'a>(&'a [u8]);

impl std::io::Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}
impl std::io::Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The messages, and whether the input ended in an error other than its end.
fn reference(wire: &[u8]) -> (Vec<Owned>, bool) {
    use tungstenite::{Error, Message, WebSocket, error::ProtocolError, protocol};
    let config = protocol::WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_frame_size(Some(LIMITS.frame_bytes))
        .max_message_size(Some(LIMITS.message_bytes));
    let mut socket = WebSocket::from_raw_socket(Wire(wire), protocol::Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(Message::Text(text)) => Owned::Text(text.as_str().into()),
            Ok(Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (u16::from(close.code), close.reason.as_str().to_owned()));
                if matches!(&close, Some((1002, reason)) if reason == "Protocol violation") {
                    return (messages, true); // tungstenite reports an invalid close code in this way
                }
                messages.push(match close {
                    Some((code, reason)) => Owned::Close(Some(code), reason),
                    None => Owned::Close(None, String::new()),
                });
                return (messages, false);
            }
            Ok(Message::Frame(_)) => return (messages, true),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (messages, false),
            Err(_) => return (messages, true),
        });
    }
}

/// Builds masked frames from `recipe`.
fn frames(mut recipe: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    while let [first, len, rest @ ..] = recipe {
        let len = usize::from(*len).min(rest.len());
        let payload = rest[..len].repeat(if *first & 0x40 != 0 { 9 } else { 1 });
        recipe = &rest[len..];
        wire.push(first & !0x40);
        match payload.len() {
            short @ 0..=125 => wire.push(0x80 | short as u8),
            long => {
                wire.push(0x80 | 126);
                wire.extend((long as u16).to_be_bytes());
            }
        }
        let mask = [1, 0x80, *first, 0xff];
        wire.extend(mask);
        wire.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    }
    wire
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, data)) = data.split_first() else { return };
    let wire = if seed & 0x80 != 0 { frames(data) } else { data.to_vec() };
    let whole = decode(&wire, |_| wire.len());
    assert_eq!(decode(&wire, |_| 1), whole);
    assert_eq!(decode(&wire, |at| (at * 31 + usize::from(seed)) % 17), whole);

    let (theirs, failed) = reference(&wire);
    let (ours, violation) = whole;
    if matches!(ours.last(), Some(Owned::Close(Some(1014), _))) {
        return; // registered after it was written
    }
    match violation {
        None => assert_eq!((ours, false), (theirs, failed)),
        // tungstenite accepts lengths in more bytes than needed, also of control frames, and any number of
        // fragments.
        Some(Violation::NotUtf8 | Violation::Length | Violation::Control | Violation::TooLarge) => {
            assert!(theirs.starts_with(&ours), "stricter or earlier")
        }
        Some(_) => assert_eq!(ours, theirs),
    }
});
