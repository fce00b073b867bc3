//! RFC 6455 framing of what the server sends. It knows bytes, not sockets.
//!
//! The server masks nothing (§5.1) and fragments nothing: every frame is final.

/// The longest header of an unmasked frame.
pub const MAX_HEADER: usize = 10;
/// The most payload bytes of a control frame (§5.5).
pub const MAX_CONTROL: usize = 125;

/// The opcode of a frame (§5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation = 0,
    /// Text.
    Text = 1,
    /// Binary.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

impl Opcode {
    /// Returns the opcode of a header's low four bits; `None` for the reserved ones.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }
    /// Returns true for Close, Ping and Pong.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Writes the header of a final text frame of `len` payload bytes (RFC 6455 §5.2) and returns it.
pub fn text_header(len: usize, out: &mut [u8; MAX_HEADER]) -> &[u8] {
    header(0x81, len, out)
}

/// Writes the header of a final, unmasked frame with first byte `first`, and returns it.
pub fn header(first: u8, len: usize, out: &mut [u8; MAX_HEADER]) -> &[u8] {
    out[0] = first;
    match len {
        0..=125 => {
            out[1] = len as u8;
            &out[..2]
        }
        126..=0xFFFF => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            &out[..4]
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            &out[..10]
        }
    }
}

/// Appends a complete text message.
pub fn text(payload: &str, out: &mut Vec<u8>) {
    frame(Opcode::Text, payload.as_bytes(), out);
}

/// Appends a complete binary message.
pub fn binary(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Binary, payload, out);
}

/// Appends a Ping; a payload over [`MAX_CONTROL`] is cut.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Ping, &payload[..payload.len().min(MAX_CONTROL)], out);
}

/// Appends a Pong; a payload over [`MAX_CONTROL`] is cut.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Pong, &payload[..payload.len().min(MAX_CONTROL)], out);
}

/// Appends a Close (§5.5.1). `None` is an empty one, which answers an empty one. A reason that does not fit
/// is cut between characters.
pub fn close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let mut payload = [0u8; MAX_CONTROL];
    let len = match code {
        None => 0,
        Some(code) => {
            let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
            payload[..2].copy_from_slice(&code.to_be_bytes());
            payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
            2 + reason.len()
        }
    };
    frame(Opcode::Close, &payload[..len], out);
}

fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let mut head = [0u8; MAX_HEADER];
    let head = header(0x80 | opcode as u8, payload.len(), &mut head);
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(head);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (len, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xFF, 0xFF]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            binary(&vec![7; len], &mut out);
            assert_eq!((&out[..head.len()], out.len()), (head, head.len() + len));
        }
    }

    #[test]
    fn control_payloads_are_cut_to_fit() {
        let mut out = Vec::new();
        close(Some(1012), &"ü".repeat(100), &mut out);
        assert_eq!(out[..4], [0x88, 2 + 122, 0x03, 0xF4]);
        assert_eq!(std::str::from_utf8(&out[4..]).expect("whole characters").chars().count(), 61);
        out.clear();
        close(None, "unsaid", &mut out);
        assert_eq!(out, [0x88, 0]);
        out.clear();
        ping(&[1; 200], &mut out);
        assert_eq!(out[..2], [0x89, 125]);
    }
}
