//! The cursor: a position in one tenant's order, as a client holds it.
//!
//! * Text: 22 characters of base64url without padding of `store_id(4) ‖ sequence(8) ‖ MAC(4)`, all big
//!   endian.
//! * The MAC is SipHash-2-4 over tenant, store id and sequence, cut to 32 bits. It prevents a cursor of
//!   another tenant or store from being taken for a position here. It is an integrity check and grants no
//!   right.
//! * The codec does not know where a tenant's order ends: its callers compare the position with the log.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use siphasher::sip::SipHasher24;

use crate::ids::{Sequence, TenantId};

/// Length of an encoded cursor in characters.
pub const CURSOR_LEN: usize = 22;
const RAW_LEN: usize = 16;
/// Number of bytes that the MAC covers: tenant, store id and sequence.
const SIGNED_LEN: usize = 8 + 4 + 8;

/// An encoded cursor: ASCII, safe in a URL, a header and a JSON string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor(pub [u8; CURSOR_LEN]);

impl Cursor {
    /// Returns the text that a client sees.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // base64url is ASCII
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The position that a client asks for. If several are given, the order is cursor, `since`, `earliest`; an
/// empty value counts as absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum StartPosition {
    /// Live, from the present end.
    #[default]
    Now,
    /// After this cursor, which is not verified yet.
    Cursor(Box<str>),
    /// From the first event received at or after this time, Unix milliseconds.
    Since(u64),
    /// From the oldest retained event.
    Earliest,
}

impl StartPosition {
    /// Returns the first of those given, in the order of precedence.
    #[must_use]
    pub fn strongest(cursor: Option<Box<str>>, since_ms: Option<u64>, earliest: bool) -> StartPosition {
        match (cursor, since_ms) {
            (Some(cursor), _) => StartPosition::Cursor(cursor),
            (None, Some(ms)) => StartPosition::Since(ms),
            (None, None) if earliest => StartPosition::Earliest,
            (None, None) => StartPosition::Now,
        }
    }
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The two characters of each 12-bit value.
static PAIRS: [[u8; 2]; 1 << 12] = {
    let mut pairs = [[0; 2]; 1 << 12];
    let mut bits = 0;
    while bits < pairs.len() {
        pairs[bits] = [BASE64URL[bits >> 6], BASE64URL[bits & 63]];
        bits += 1;
    }
    pairs
};

/// Encodes 128 bits, six bits per character from the front; the last character has two bits and four zeros.
/// The length is fixed and two characters are written at a time, because every event is numbered under its
/// tenant's lock.
fn base64url(bits: u128) -> [u8; CURSOR_LEN] {
    let mut text = [0; CURSOR_LEN];
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    // 60 bits, 60 bits and the last 8 bits.
    let parts = [high >> 4, high << 56 | low >> 8, low << 4];
    for (at, to) in text.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let shift = if at == 10 { 0 } else { 48 - 12 * (at % 5) };
        *to = PAIRS[(parts[at / 5] >> shift) as usize & 0xfff];
    }
    text
}

/// The key that signs a store's cursors. Both halves are created at `init` and kept in the store.
#[derive(Clone, Copy)]
pub struct CursorKey {
    /// The store that the cursor belongs to.
    pub store_id: [u8; 4],
    /// The SipHash key.
    pub key: [u8; 16],
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CursorKey").finish_non_exhaustive()
    }
}

impl CursorKey {
    fn mac(&self, tenant: TenantId, sequence: Sequence) -> [u8; 4] {
        let mut signed = [0; SIGNED_LEN];
        signed[..8].copy_from_slice(&tenant.0.to_be_bytes());
        signed[8..12].copy_from_slice(&self.store_id);
        signed[12..].copy_from_slice(&sequence.0.to_be_bytes());
        (SipHasher24::new_with_key(&self.key).hash(&signed) as u32).to_be_bytes()
    }

    /// Returns the cursor right after `sequence` in `tenant`.
    #[must_use]
    pub fn encode(&self, tenant: TenantId, sequence: Sequence) -> Cursor {
        let mut raw = [0u8; RAW_LEN];
        raw[..4].copy_from_slice(&self.store_id);
        raw[4..12].copy_from_slice(&sequence.0.to_be_bytes());
        raw[12..].copy_from_slice(&self.mac(tenant, sequence));
        Cursor(base64url(u128::from_be_bytes(raw)))
    }

    /// Returns an encoder for many cursors of one tenant.
    #[must_use]
    pub fn writer(&self, tenant: TenantId) -> CursorWriter {
        CursorWriter { key: *self, tenant, high: 0, state: self.state_before(tenant, 0) }
    }

    /// Returns the state of the MAC after the bytes that all sequences with the upper half `high` have in
    /// common.
    fn state_before(&self, tenant: TenantId, high: u32) -> SipState {
        let mut block = [0; 8];
        block[..4].copy_from_slice(&self.store_id);
        block[4..].copy_from_slice(&high.to_be_bytes());
        let mut state = SipState::new(&self.key);
        state.absorb(u64::from_le_bytes(tenant.0.to_be_bytes()));
        state.absorb(u64::from_le_bytes(block));
        state
    }

    /// Returns the position that `text` names in `tenant`, or `None` for a text that this store did not sign
    /// for this tenant.
    #[must_use]
    pub fn decode(&self, tenant: TenantId, text: &[u8]) -> Option<Sequence> {
        if text.len() != CURSOR_LEN {
            return None;
        }
        let mut raw = [0u8; RAW_LEN + 2]; // the decoder needs room for whole groups of four characters
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut raw).ok()?;
        if len != RAW_LEN || raw[..4] != self.store_id {
            return None;
        }
        let sequence = Sequence(u64::from_be_bytes(raw[4..12].try_into().ok()?));
        (raw[12..RAW_LEN] == self.mac(tenant, sequence)).then_some(sequence)
    }
}

/// Encodes cursors of one tenant faster than [`CursorKey::encode`]: mostly only the last four bytes under the
/// MAC differ.
#[derive(Debug)]
pub struct CursorWriter {
    key: CursorKey,
    tenant: TenantId,
    /// The upper half of the sequences that `state` belongs to.
    high: u32,
    state: SipState,
}

impl CursorWriter {
    /// As [`CursorKey::encode`].
    pub fn encode(&mut self, sequence: Sequence) -> Cursor {
        let (high, low) = ((sequence.0 >> 32) as u32, sequence.0 as u32);
        if high != self.high {
            (self.high, self.state) = (high, self.key.state_before(self.tenant, high));
        }
        let mac = self.state.finish(u64::from(low.swap_bytes()) | (SIGNED_LEN as u64) << 56) as u32;
        let store = u128::from(u32::from_be_bytes(self.key.store_id));
        Cursor(base64url(store << 96 | u128::from(sequence.0) << 32 | u128::from(mac)))
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012), whose state can be kept between blocks of 8 bytes.
#[derive(Clone, Copy)]
struct SipState([u64; 4]);

impl std::fmt::Debug for SipState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SipState").finish_non_exhaustive()
    }
}

impl SipState {
    fn new(key: &[u8; 16]) -> SipState {
        let key = u128::from_le_bytes(*key);
        let (k0, k1) = (key as u64, (key >> 64) as u64);
        let start = [*b"somepseu", *b"dorandom", *b"lygenera", *b"tedbytes"].map(u64::from_be_bytes);
        SipState([start[0] ^ k0, start[1] ^ k1, start[2] ^ k0, start[3] ^ k1])
    }

    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        self.0 = [v0, v1, v2.rotate_left(32), v3];
    }

    fn absorb(&mut self, block: u64) {
        self.0[3] ^= block;
        self.round();
        self.round();
        self.0[0] ^= block;
    }

    /// Returns the hash. `last` is the last block: the remaining bytes, and the total number of bytes in its
    /// upper byte.
    fn finish(mut self, last: u64) -> u64 {
        self.absorb(last);
        self.0[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.0.into_iter().fold(0, std::ops::BitXor::bitxor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CursorKey = CursorKey { store_id: [1, 2, 3, 4], key: [7; 16] };

    #[test]
    fn the_fixed_encoder_writes_what_the_general_one_does() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 1 << 127, 0xff << 60] {
            assert_eq!(base64url(bits).as_slice(), URL_SAFE_NO_PAD.encode(bits.to_be_bytes()).as_bytes());
        }
    }

    #[test]
    fn many_cursors_are_encoded_as_one_is() {
        let sequences = [0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, 7, u64::MAX - 1, u64::MAX];
        for tenant in [0, 9, u64::MAX].map(TenantId) {
            let mut writer = KEY.writer(tenant);
            for sequence in sequences.map(Sequence) {
                assert_eq!(writer.encode(sequence), KEY.encode(tenant, sequence));
            }
        }
    }

    #[test]
    fn a_cursor_comes_back_as_its_sequence() {
        for sequence in [0, 1, 41, u64::MAX] {
            let cursor = KEY.encode(TenantId(9), Sequence(sequence));
            assert_eq!(KEY.decode(TenantId(9), &cursor.0), Some(Sequence(sequence)));
        }
    }

    #[test]
    fn a_cursor_of_another_tenant_store_or_hand_does_not_verify() {
        let cursor = KEY.encode(TenantId(9), Sequence(5));
        assert_eq!(KEY.decode(TenantId(8), &cursor.0), None);
        let other = CursorKey { store_id: [1, 2, 3, 5], ..KEY };
        assert_eq!(other.decode(TenantId(9), &cursor.0), None);
        for at in 0..CURSOR_LEN {
            let mut forged = cursor.0;
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(KEY.decode(TenantId(9), &forged), None, "character {at}");
        }
        for bad in [
            "",
            "x",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "é".repeat(11).as_str(),
        ] {
            assert_eq!(KEY.decode(TenantId(9), bad.as_bytes()), None, "{bad}");
        }
    }
}
