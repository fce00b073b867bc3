//! RFC 6455 framing of what the server sends. Knows bytes, no sockets.

/// Longest header of an unmasked frame.
pub const MAX_HEADER: usize = 10;

/// Writes the header of a final text frame of `len` payload bytes (RFC 6455 §5.2) and answers it.
pub fn text_header(len: usize, out: &mut [u8; MAX_HEADER]) -> &[u8] {
    header(0x81, len, out)
}

/// Writes the header of a final, unmasked frame with first byte `first`.
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
