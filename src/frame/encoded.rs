//! One event as a transport carries it: at most a short head that is made when it is sent, and bytes of the frame.

use super::ws;

/// An event's bytes, in two parts to be written one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'f> {
    head: [u8; ws::MAX_HEADER],
    head_len: u8,
    body: &'f [u8],
}

impl<'f> Encoded<'f> {
    /// One WebSocket text message.
    pub(super) fn ws(json: &'f [u8]) -> Encoded<'f> {
        let mut head = [0; ws::MAX_HEADER];
        let head_len = ws::text_header(json.len(), &mut head).len() as u8;
        Encoded { head, head_len, body: json }
    }

    /// What stands in the frame as it is sent.
    pub(super) fn as_is(body: &'f [u8]) -> Encoded<'f> {
        Encoded { head: [0; ws::MAX_HEADER], head_len: 0, body }
    }

    /// The parts; the first may be empty.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head[..usize::from(self.head_len)], self.body]
    }

    /// Bytes of both parts.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Always false: no event is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends both parts to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }

    /// Both parts as one.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}
