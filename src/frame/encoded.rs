//! One event as a transport carries it: bytes of the frame, and for some transports a short head that is
//! created when the event is sent.

use super::ws;

/// An event's bytes in two parts, to be written one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'f> {
    head: [u8; ws::MAX_HEADER],
    head_len: u8,
    body: &'f [u8],
}

impl<'f> Encoded<'f> {
    /// Encodes one WebSocket text message.
    pub(super) fn ws(json: &'f [u8]) -> Encoded<'f> {
        let mut head = [0; ws::MAX_HEADER];
        let head_len = ws::text_header(json.len(), &mut head).len() as u8;
        Encoded { head, head_len, body: json }
    }

    /// Takes bytes of the frame as they are.
    pub(super) fn as_is(body: &'f [u8]) -> Encoded<'f> {
        Encoded { head: [0; ws::MAX_HEADER], head_len: 0, body }
    }

    /// Returns the parts; the first may be empty.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head[..usize::from(self.head_len)], self.body]
    }

    /// Returns the bytes of both parts.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Returns false, because no event is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends both parts to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }

    /// Returns both parts joined.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}
