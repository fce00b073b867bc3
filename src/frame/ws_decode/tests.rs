//! Tests of the decoder byte by byte: any split gives the same result, and an independent decoder agrees.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite;

use super::*;

/// A message that outlives its input.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Owned {
        match message {
            Message::Text(text) => Owned::Text(text.into()),
            Message::Binary(bytes) => Owned::Binary(bytes.into()),
            Message::Ping(bytes) => Owned::Ping(bytes.into()),
            Message::Pong(bytes) => Owned::Pong(bytes.into()),
            Message::Close { code, reason } => Owned::Close(code, reason.into()),
        }
    }
}

const SMALL: Limits = Limits { frame_bytes: 1 << 20, message_bytes: 1 << 20, fragments: 64 };

/// Feeds `wire` in reads that end at `splits`; stops at a violation or close. Also returns how many bytes
/// were fed.
fn decode(wire: &[u8], splits: &[usize], limits: &Limits) -> (Vec<Owned>, Option<Violation>, usize) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut ends: Vec<usize> = splits.iter().copied().filter(|at| *at < wire.len()).collect();
    ends.push(wire.len());
    ends.sort_unstable();
    let mut from = 0;
    for end in ends {
        let mut read = wire[from..end].to_vec();
        let mut at = 0;
        loop {
            match decoder.next(&mut read[at..], limits) {
                Err(violation) => return (messages, Some(violation), end),
                Ok(DecodeStep { used, message: None }) => {
                    assert_eq!(used, read.len() - at, "what is not used is lost");
                    break;
                }
                Ok(DecodeStep { used, message: Some(message) }) => {
                    at += used;
                    messages.push(message.into());
                    if matches!(messages.last(), Some(Owned::Close(..))) {
                        return (messages, None, end);
                    }
                }
            }
        }
        from = end;
    }
    (messages, None, wire.len())
}

fn every_byte(wire: &[u8]) -> Vec<usize> {
    (1..wire.len()).collect()
}

/// Returns a client's frame, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut head = [0; super::super::ws::MAX_HEADER];
    let mut out = super::super::ws::header(first, payload.len(), &mut head).to_vec();
    out[1] |= 0x80;
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

fn violation(wire: &[u8]) -> Option<Violation> {
    let whole = decode(wire, &[], &SMALL).1;
    assert_eq!(decode(wire, &every_byte(wire), &SMALL).1, whole, "the split does not matter");
    whole
}

#[test]
fn an_idle_decoder_is_one_null_pointer_and_a_whole_frame_is_borrowed() {
    assert_eq!(size_of::<Decoder>(), 8);
    let mut wire = [frame(0x81, b"hello"), frame(0x89, b"p"), frame(0x82, &[0; 3000])].concat();
    let range = wire.as_ptr_range();
    let mut decoder = Decoder::default();
    let mut at = 0;
    for expected in [5, 1, 3000] {
        let step = decoder.next(&mut wire[at..], &SMALL).expect("valid");
        at += step.used;
        let bytes = match step.message.expect("a whole frame") {
            Message::Text(text) => text.as_bytes(),
            Message::Ping(bytes) | Message::Binary(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes.len(), expected);
        assert!(range.contains(&bytes.as_ptr()));
        assert!(!decoder.is_partial());
    }
    assert_eq!(decoder.next(&mut wire[at..], &SMALL), Ok(DecodeStep { used: 0, message: None }));
}

#[test]
fn memory_goes_when_the_message_is_whole() {
    let mut decoder = Decoder::default();
    let mut wire = [frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x80, b"b")].concat();
    let last = wire.len() - 1;
    let (mut head, mut tail) = (wire[..last].to_vec(), wire.split_off(last));
    let step = decoder.next(&mut head, &SMALL).expect("valid");
    assert_eq!(step.message, Some(Message::Ping(b"ping")));
    let used = step.used;
    assert_eq!(decoder.next(&mut head[used..], &SMALL).expect("valid").message, None);
    assert!(decoder.is_partial());
    assert_eq!(decoder.next(&mut tail, &SMALL).expect("valid").message, Some(Message::Text("ab")));
    assert_eq!(decoder.next(&mut [], &SMALL).expect("valid").message, None);
    assert!(!decoder.is_partial());
}

#[test]
fn a_buffer_follows_the_bytes_not_the_announced_length() {
    let mut decoder = Decoder::default();
    let limits = Limits { frame_bytes: 1 << 30, message_bytes: 1 << 30, fragments: 4 };
    let mut head = vec![0x82, 0xff];
    head.extend((1u64 << 30).to_be_bytes());
    head.extend([0; 4 + 100]);
    assert_eq!(decoder.next(&mut head, &limits).expect("valid").message, None);
    let capacity = |decoder: &Decoder| {
        decoder.0.as_ref().and_then(|p| p.message.as_ref()).map_or(0, |m| m.data.capacity())
    };
    assert_eq!(capacity(&decoder), 100);

    let mut decoder = Decoder::default();
    let limits = Limits { frame_bytes: 1000, message_bytes: 1000, fragments: 4 };
    let wire = frame(0x82, &[7; 1000]);
    for piece in wire.chunks(90) {
        decoder.next(&mut piece.to_vec(), &limits).expect("valid");
        assert!(capacity(&decoder) <= 1000);
    }
}

#[test]
fn what_the_protocol_forbids_is_1002() {
    let close = |payload: &[u8]| violation(&frame(0x88, payload));
    let mut unmasked = frame(0x81, b"x");
    unmasked[1] &= 0x7f;
    assert_eq!(violation(&unmasked), Some(Violation::Unmasked));
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(violation(&frame(0x81 | bit, b"x")), Some(Violation::ReservedBits));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(violation(&frame(0x80 | opcode, b"x")), Some(Violation::Opcode));
    }
    assert_eq!(violation(&frame(0x89, &[0; 126])), Some(Violation::Control));
    assert_eq!(violation(&frame(0x09, b"")), Some(Violation::Control));
    assert_eq!(violation(&frame(0x80, b"x")), Some(Violation::NothingToContinue));
    assert_eq!(violation(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()), Some(Violation::Interleaved));
    assert_eq!(
        violation(&[frame(0x81, b"a"), frame(0x00, b"b")].concat()),
        Some(Violation::NothingToContinue)
    );
    for long in [
        &[0x81, 0xfe, 0, 125][..],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1],
    ] {
        assert_eq!(violation(long), Some(Violation::Length));
    }
    assert_eq!(close(&[3]), Some(Violation::Close));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535] {
        assert_eq!(close(&code.to_be_bytes()), Some(Violation::Close), "{code}");
    }
    for code in [1000u16, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(close(&code.to_be_bytes()), None, "{code}");
    }
    assert_eq!(close(&[3, 232, 0xff]), Some(Violation::NotUtf8));
    assert_eq!(
        [Violation::Close.code(), Violation::NotUtf8.code(), Violation::TooLarge.code()],
        [1002, 1007, 1009]
    );
}

#[test]
fn limits_are_refused_at_the_header() {
    let limits = Limits { frame_bytes: 10, message_bytes: 15, fragments: 3 };
    let refused = |wire: &[u8]| decode(wire, &every_byte(wire), &limits).1;
    assert_eq!(refused(&frame(0x82, &[0; 10])), None);
    assert_eq!(refused(&frame(0x82, &[0; 11])[..6]), Some(Violation::TooLarge), "before its payload");
    let ten = frame(0x02, &[0; 10]);
    assert_eq!(refused(&[ten.clone(), frame(0x80, &[0; 5])].concat()), None);
    assert_eq!(refused(&[ten.clone(), frame(0x80, &[0; 6])].concat()), Some(Violation::TooLarge));
    assert_eq!(
        refused(&[ten.clone(), frame(0x89, &[0; 6])].concat()),
        None,
        "a control frame is no part of it"
    );
    let empty = frame(0x00, b"");
    assert_eq!(refused(&[frame(0x01, b""), empty.clone(), empty.clone()].concat()), None);
    assert_eq!(
        refused(&[frame(0x01, b""), empty.clone(), empty.clone(), empty].concat()),
        Some(Violation::TooLarge)
    );
}

/// Autobahn's 6.4 cases require that the connection fails at the bad byte, not at the end of the frame or
/// message.
#[test]
fn bad_text_fails_with_the_byte_that_spoils_it() {
    let good = "κόσμε".as_bytes();
    let mut payload = good.to_vec();
    payload.extend([0xf4, 0x90, 0x80, 0x80]);
    payload.extend(b"edited");
    let spoiled_at = good.len() + 2; // f4 may begin a character, 90 cannot follow it

    let one = frame(0x81, &payload);
    let (_, violation, fed) = decode(&one, &every_byte(&one), &SMALL);
    assert_eq!((violation, fed), (Some(Violation::NotUtf8), 6 + spoiled_at));

    let parts = [frame(0x01, &payload[..spoiled_at - 1]), frame(0x00, &payload[spoiled_at - 1..])].concat();
    let (_, violation, fed) = decode(&parts, &every_byte(&parts), &SMALL);
    assert_eq!((violation, fed), (Some(Violation::NotUtf8), 6 + spoiled_at - 1 + 6 + 1));

    let cut = [frame(0x01, &good[..1]), frame(0x80, b"")].concat();
    assert_eq!(super::tests::violation(&cut), Some(Violation::NotUtf8), "half a character at the end");
}

/// Text, binary and control frames, including broken ones.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => prop::sample::select(vec![0x81u8, 0x01, 0x00, 0x80, 0x82, 0x02, 0x89, 0x8a]),
        1 => any::<u8>(),
    ];
    let text = prop::string::string_regex("[a-zé€😀]{0,60}").expect("regex").prop_map(String::into_bytes);
    let payload = prop_oneof![
        6 => text,
        2 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (65_500usize..65_600).prop_map(|len| vec![b'x'; len]),
    ];
    let close =
        (any::<u16>(), prop::sample::select(vec![1000u16, 1001, 1004, 1011, 3000, 4999]), any::<bool>())
            .prop_map(|(any, known, pick)| frame(0x88, &if pick { any } else { known }.to_be_bytes()));
    let any_frame = (first, payload).prop_map(|(first, payload)| frame(first, &payload));
    let frame = prop_oneof![12 => any_frame, 1 => close, 1 => prop::collection::vec(any::<u8>(), 0..20)];
    prop::collection::vec(frame, 1..8).prop_map(|frames| frames.concat())
}

/// Returns tungstenite's result for the same bytes: the messages, and whether it ended in an error other than
/// the end of input.
fn tungstenite(wire: &[u8]) -> (Vec<Owned>, bool) {
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
    let config = tungstenite::protocol::WebSocketConfig::default()
        .max_frame_size(Some(SMALL.frame_bytes))
        .max_message_size(Some(SMALL.message_bytes));
    let mut socket = tungstenite::WebSocket::from_raw_socket(
        Wire(wire),
        tungstenite::protocol::Role::Server,
        Some(config),
    );
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Owned::Text(text.as_str().into()),
            Ok(tungstenite::Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(tungstenite::Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(tungstenite::Message::Close(close)) => {
                // tungstenite returns an invalid code as its own answer to it.
                if close.as_ref().is_some_and(|c| c.reason.as_str() == "Protocol violation") {
                    return (messages, true);
                }
                let (code, reason) =
                    close.map_or((None, String::new()), |c| (Some(c.code.into()), c.reason.as_str().into()));
                messages.push(Owned::Close(code, reason));
                return (messages, false);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("only when writing"),
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (messages, false),
            Err(_) => return (messages, true),
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_agrees_with_tungstenite_in_any_split(
        wire in frames(),
        splits in prop::collection::vec(0usize..400, 0..12),
    ) {
        let (messages, violation, _) = decode(&wire, &splits, &SMALL);
        let (theirs, failed) = tungstenite(&wire);
        match violation {
            None => {
                // tungstenite does not know 1014.
                if !matches!(messages.last(), Some(Owned::Close(Some(1014), _))) {
                    prop_assert_eq!(&messages, &theirs);
                    prop_assert!(!failed);
                }
            }
            Some(violation) => {
                // Our decoder may fail earlier (at a header, at a bad byte), or where tungstenite is lenient,
                // but never later.
                prop_assert!(messages.len() <= theirs.len() && messages == theirs[..messages.len()]);
                // tungstenite accepts lengths in more bytes than needed, also for control frames.
                let early = matches!(violation, Violation::NotUtf8 | Violation::Length | Violation::Control);
                prop_assert!(early || theirs.len() == messages.len());
            }
        }
        if failed {
            prop_assert!(violation.is_some() || matches!(messages.last(), Some(Owned::Close(Some(1014), _))));
        }
        let byte_by_byte = decode(&wire, &every_byte(&wire), &SMALL);
        prop_assert_eq!((&byte_by_byte.0, byte_by_byte.1), (&messages, violation));
    }

    #[test]
    fn unmasking_is_an_xor(payload in prop::collection::vec(any::<u8>(), 0..80), mask: [u8; 4]) {
        let mut fast = payload.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}
