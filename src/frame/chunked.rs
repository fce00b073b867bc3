//! Chunks of an HTTP/1.1 body (RFC 9112 §7.1): `<length in hex>\r\n<bytes>\r\n`, and the last one, which is
//! empty.
//!
//! * A stream is chunked because many clients wait for a full buffer if a body ends with its connection. They
//!   hand on a chunk at once.
//! * No chunk is empty but the last, or the body would end early.

/// The bytes after the content of a chunk.
pub const TAIL: &[u8] = b"\r\n";
/// The end of a body, without trailers.
pub const END: &[u8] = b"0\r\n\r\n";

/// Returns the length of the head of a chunk of `len` bytes; `len` is not 0.
#[must_use]
pub const fn head_len(len: usize) -> usize {
    hex_digits(len) + 2
}

const fn hex_digits(len: usize) -> usize {
    (usize::BITS - len.leading_zeros()).div_ceil(4) as usize
}

/// The longest head of a chunk.
pub const MAX_HEAD: usize = head_len(usize::MAX);

/// Writes the head of a chunk of `len` bytes and returns it.
pub fn head(len: usize, out: &mut [u8; MAX_HEAD]) -> &[u8] {
    let digits = hex_digits(len);
    for (at, to) in out[..digits].iter_mut().enumerate() {
        *to = b"0123456789abcdef"[len >> (4 * (digits - 1 - at)) & 15];
    }
    out[digits..digits + 2].copy_from_slice(b"\r\n");
    &out[..digits + 2]
}

/// Appends `bytes` as one chunk; appends nothing if there are none.
pub fn chunk(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    out.reserve(head_len(bytes.len()) + bytes.len() + TAIL.len());
    out.extend_from_slice(head(bytes.len(), &mut [0; MAX_HEAD]));
    out.extend_from_slice(bytes);
    out.extend_from_slice(TAIL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_length_in_hex() {
        for len in [1, 9, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 1 << 20] {
            let mut out = [0; MAX_HEAD];
            let head = head(len, &mut out);
            assert_eq!(head, format!("{len:x}\r\n").into_bytes());
            assert_eq!(head.len(), head_len(len));
        }
    }

    #[test]
    fn an_empty_chunk_is_not_written() {
        let mut out = Vec::new();
        chunk(b"", &mut out);
        assert_eq!(out, b"");
        chunk(b"retry: 2000\n", &mut out);
        assert_eq!(out, b"c\r\nretry: 2000\n\r\n");
    }
}
