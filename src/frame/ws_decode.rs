//! RFC 6455 decoder of the server: it takes bytes in any split and returns complete messages. It knows bytes
//! and limits, not sockets.
//!
//! * An idle decoder is one null pointer. It owns memory only while a frame or a fragmented message is
//!   incomplete.
//! * A message that is complete in the input is unmasked in place and borrowed from it, never copied.
//! * A buffer grows with the bytes received, never with the announced length.
//! * An error is reported as soon as the offending byte arrives: a header's bits, an order, a length, bad
//!   UTF-8.
//! * After a [`Violation`] or [`Message::Close`] the rest of the input has no meaning; the caller must not
//!   pass more.

use super::ws::{MAX_CONTROL, Opcode};

/// The longest header of a masked frame.
const MAX_HEAD: usize = 14;

/// Limits of what a peer can make the server keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most payload bytes of one frame; a longer one is refused at its header.
    pub frame_bytes: usize,
    /// The most payload bytes of a message, all fragments together. A buffer never has more.
    pub message_bytes: usize,
    /// The most frames of one message; this stops an endless run of empty fragments.
    pub fragments: u32,
}

impl Limits {
    /// Limits of the diagnostic echo, large enough for conformance suites: 4 MiB in fragments of 64 bytes,
    /// and an empty last one.
    pub const ECHO: Limits = Limits { frame_bytes: 16 << 20, message_bytes: 16 << 20, fragments: 1 << 17 };

    /// Limits of clients: a message of at most `bytes`, in one frame or several.
    #[must_use]
    pub const fn client(bytes: usize) -> Limits {
        Limits { frame_bytes: bytes, message_bytes: bytes, fragments: 1_024 }
    }
}

/// A message from the peer, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text; valid UTF-8.
    Text(&'a str),
    /// Binary.
    Binary(&'a [u8]),
    /// A Ping, to be answered by a Pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A Pong, which answers a Ping or was unsolicited.
    Pong(&'a [u8]),
    /// The peer closes; the code is one that a peer may send.
    Close {
        /// `None` if the frame was empty.
        code: Option<u16>,
        /// The reason, at most 123 bytes.
        reason: &'a str,
    },
}

/// The result of one call.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeStep<'a> {
    /// Number of input bytes that were used; all of them if there is no message.
    pub used: usize,
    /// A message, or `None` if more input is needed.
    pub message: Option<Message<'a>>,
}

/// How the peer violated RFC 6455 or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// §5.1: a client masks every frame.
    #[error("a frame is not masked")]
    Unmasked,
    /// §5.2: no extension was negotiated that defines RSV1–3.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// §5.2: opcodes 3–7 and 11–15 are reserved.
    #[error("the opcode is unknown")]
    Opcode,
    /// §5.5: a control frame is neither fragmented nor longer than 125 bytes.
    #[error("a control frame is fragmented or over 125 bytes")]
    Control,
    /// §5.4: there is no message to continue.
    #[error("a continuation without a start")]
    NothingToContinue,
    /// §5.4: fragments of two messages may not be mixed.
    #[error("a new message inside a fragmented one")]
    Interleaved,
    /// §5.2: a length uses the fewest bytes, and a 64-bit length starts with a zero bit.
    #[error("a length is not encoded in the fewest bytes, or its highest bit is set")]
    Length,
    /// §5.5.1 and §7.4: the code has two bytes and is one that may be sent.
    #[error("the close frame is invalid")]
    Close,
    /// §5.6 and §8.1: a text is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// §10.4: a frame, a message or a number of fragments exceeds [`Limits`].
    #[error("over the limit")]
    TooLarge,
}

impl Violation {
    /// Returns the code with which the connection is closed (§7.4.1).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Violation::NotUtf8 => 1007,
            Violation::TooLarge => 1009,
            _ => 1002,
        }
    }
}

/// The state between two reads: empty unless a frame or message is incomplete.
#[derive(Debug, Default)]
pub struct Decoder(Option<Box<PartialMessage>>);

#[derive(Debug, Default)]
struct PartialMessage {
    /// The bytes of a header that the input ended in.
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// The frame whose payload is being read.
    frame: Option<OpenFrame>,
    /// Payload of a control frame that is being read, or that the last call returned.
    control: Vec<u8>,
    /// The data message that is being read, or that the last call returned.
    message: Option<Buffered>,
    /// The last call returned `control` or `message`; the next call frees it.
    handed_out: Option<Opcode>,
}

/// A frame whose header was read.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    opcode: Opcode,
    fin: bool,
    /// The mask, rotated so that it starts at the next payload byte.
    mask: [u8; 4],
    /// Payload bytes still to come.
    remaining: usize,
}

#[derive(Debug)]
struct Buffered {
    opcode: Opcode,
    data: Vec<u8>,
    /// Number of frames so far.
    fragments: u32,
    /// For a text: the number of bytes of `data` that are known to be UTF-8. It is less than all only inside
    /// a character.
    valid: usize,
}

/// Where a complete message is stored.
enum ReadyMessage {
    Nothing,
    Input { opcode: Opcode, at: usize },
    Control(Opcode),
    Data,
}

impl Decoder {
    /// Returns true if a frame or message is incomplete, so that memory is in use.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the bytes of memory that incomplete frames and messages take.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let buffers = |partial: &PartialMessage| {
            let message = partial.message.as_ref().map_or(0, |message| message.data.capacity());
            size_of::<PartialMessage>() + message + partial.control.capacity()
        };
        self.0.as_deref().map_or(0, buffers)
    }

    /// Reads up to the end of the next message. Call it with the rest of the input, even an empty rest, until
    /// it returns no message: that call also frees the buffer of the message before (or call
    /// [`Decoder::free`]).
    ///
    /// # Errors
    /// [`Violation`]: close the connection with its code.
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], limits: &Limits) -> Result<DecodeStep<'a>, Violation> {
        let (used, ready) = self.advance(input, limits)?;
        let message = match (ready, self.0.as_deref()) {
            (ReadyMessage::Input { opcode, at }, _) => Some(message(opcode, &input[at..used])?),
            (ReadyMessage::Control(opcode), Some(partial)) => Some(message(opcode, &partial.control)?),
            (ReadyMessage::Data, Some(PartialMessage { message: Some(whole), .. })) => {
                Some(message(whole.opcode, &whole.data)?)
            }
            _ => None,
        };
        Ok(DecodeStep { used, message })
    }

    fn advance(&mut self, input: &mut [u8], limits: &Limits) -> Result<(usize, ReadyMessage), Violation> {
        self.free();
        let mut at = 0;
        loop {
            if let Some(partial) = &mut self.0
                && partial.frame.is_some()
            {
                let (used, ready) = partial.payload(&mut input[at..], limits)?;
                at += used;
                match ready {
                    Some(ready) => return Ok((at, ready)),
                    None => continue,
                }
            }
            let Some((used, open)) = self.head(&input[at..])? else {
                return Ok((input.len(), ReadyMessage::Nothing));
            };
            at += used;
            let buffered = self.0.as_ref().and_then(|p| p.message.as_ref()).map_or(0, |m| m.data.len());
            let before = if open.opcode.is_control() { 0 } else { buffered };
            if open.remaining > limits.frame_bytes
                || open.remaining > limits.message_bytes.saturating_sub(before)
            {
                return Err(Violation::TooLarge);
            }
            let alone = open.opcode.is_control() || (open.fin && open.opcode != Opcode::Continuation);
            if alone && open.remaining <= input.len() - at {
                let end = at + open.remaining;
                unmask(&mut input[at..end], open.mask);
                self.free();
                return Ok((end, ReadyMessage::Input { opcode: open.opcode, at }));
            }
            self.0.get_or_insert_default().open(open, limits)?;
        }
    }

    /// Frees the message returned last, and the state if nothing is incomplete.
    pub fn free(&mut self) {
        let Some(partial) = &mut self.0 else { return };
        match partial.handed_out.take() {
            Some(opcode) if opcode.is_control() => partial.control = Vec::new(),
            Some(_) => partial.message = None,
            None => {}
        }
        if partial.head_len == 0 && partial.frame.is_none() && partial.message.is_none() {
            self.0 = None;
        }
    }

    /// Reads a header that may have begun in earlier input; keeps its bytes if it is incomplete.
    fn head(&mut self, input: &[u8]) -> Result<Option<(usize, OpenFrame)>, Violation> {
        let fragmented = self.0.as_ref().is_some_and(|partial| partial.message.is_some());
        let kept = self.0.as_ref().map_or(0, |partial| partial.head_len);
        if kept == 0 {
            if let Some(read) = parse_head(input, fragmented)? {
                return Ok(Some(read));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.0.get_or_insert_default();
        for (at, byte) in input.iter().enumerate() {
            let len = usize::from(partial.head_len);
            partial.head[len] = *byte; // a header of `MAX_HEAD` bytes is complete, so `len` is less
            partial.head_len += 1;
            if let Some((_, open)) = parse_head(&partial.head[..=len], fragmented)? {
                partial.head_len = 0;
                return Ok(Some((at + 1, open)));
            }
        }
        Ok(None)
    }
}

impl PartialMessage {
    fn open(&mut self, open: OpenFrame, limits: &Limits) -> Result<(), Violation> {
        if !open.opcode.is_control() {
            let message = self.message.get_or_insert(Buffered {
                opcode: open.opcode,
                data: Vec::new(),
                fragments: 0,
                valid: 0,
            });
            message.fragments += 1;
            if message.fragments > limits.fragments {
                return Err(Violation::TooLarge);
            }
        }
        self.frame = Some(open);
        Ok(())
    }

    /// Takes payload of the open frame. Returns `None` at the end of a fragment that does not end its
    /// message.
    fn payload(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<ReadyMessage>), Violation> {
        let Some(open) = &mut self.frame else { return Ok((0, None)) };
        let used = open.remaining.min(input.len());
        let piece = &mut input[..used];
        unmask(piece, open.mask);
        open.mask.rotate_left(used % 4);
        open.remaining -= used;
        let OpenFrame { opcode, fin, remaining, .. } = *open;
        if opcode.is_control() {
            self.control.extend_from_slice(piece); // at most 125 bytes, as its header was checked
        } else if let Some(message) = &mut self.message {
            message.push(piece, remaining, limits)?;
        }
        if remaining > 0 {
            return Ok((used, Some(ReadyMessage::Nothing)));
        }
        self.frame = None;
        if opcode.is_control() {
            self.handed_out = Some(opcode);
            return Ok((used, Some(ReadyMessage::Control(opcode))));
        }
        match &self.message {
            Some(message) if fin => {
                message.end()?;
                self.handed_out = Some(message.opcode);
                Ok((used, Some(ReadyMessage::Data)))
            }
            _ => Ok((used, None)),
        }
    }
}

impl Buffered {
    /// Adds `piece`, after which `remaining` bytes of the frame are missing.
    fn push(&mut self, piece: &[u8], remaining: usize, limits: &Limits) -> Result<(), Violation> {
        let need = self.data.len() + piece.len();
        if need > self.data.capacity() {
            // The buffer doubles, but never past what the frame can fill or a message may have.
            let most = need.saturating_add(remaining).min(limits.message_bytes.max(need));
            let target = (self.data.capacity() * 2).clamp(need, most);
            self.data.reserve_exact(target - self.data.len());
        }
        self.data.extend_from_slice(piece);
        if self.opcode != Opcode::Text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            // Without an error length, the tail may still become a character.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Violation> {
        match self.opcode == Opcode::Text && self.valid < self.data.len() {
            true => Err(Violation::NotUtf8),
            false => Ok(()),
        }
    }
}

/// Reads a client's frame header (§5.2) and checks each byte as it arrives. `None` means that the header is
/// longer than `bytes`.
fn parse_head(bytes: &[u8], fragmented: bool) -> Result<Option<(usize, OpenFrame)>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let fin = first & 0x80 != 0;
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Opcode)?;
    match opcode {
        Opcode::Continuation if !fragmented => return Err(Violation::NothingToContinue),
        Opcode::Text | Opcode::Binary if fragmented => return Err(Violation::Interleaved),
        opcode if opcode.is_control() && !fin => return Err(Violation::Control),
        _ => {}
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > MAX_CONTROL {
        return Err(Violation::Control);
    }
    let (len, mask_at) = match short {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(&[a, b, c, d, e, f, g, h]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
            _ => return Ok(None),
        },
        _ => (u64::from(short), 2),
    };
    let least = match short {
        126 => 126,
        127 => 1 << 16,
        _ => 0,
    };
    if len < least || len >> 63 != 0 {
        return Err(Violation::Length);
    }
    let Some(&[a, b, c, d]) = bytes.get(mask_at..mask_at + 4) else { return Ok(None) };
    let remaining = usize::try_from(len).map_err(|_| Violation::TooLarge)?;
    Ok(Some((mask_at + 4, OpenFrame { opcode, fin, mask: [a, b, c, d], remaining })))
}

/// Reads an unmasked, complete payload.
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(text(payload)?),
        Opcode::Continuation | Opcode::Binary => Message::Binary(payload),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Close => match payload {
            [] => Message::Close { code: None, reason: "" },
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(Violation::Close);
                }
                Message::Close { code: Some(code), reason: text(reason)? }
            }
            [_] => return Err(Violation::Close),
        },
    })
}

fn text(payload: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)
}

/// Returns true if a peer may send this close code: §7.4.1, the registry's 1012–1014, and the ranges of
/// §7.4.2.
#[must_use]
pub const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Removes the mask (§5.3), eight bytes per step, which the compiler widens to the machine's vectors.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
}

#[cfg(test)]
mod tests;
