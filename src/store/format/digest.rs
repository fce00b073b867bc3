//! Digests of several parts, as keys hold them.

use ring::digest;

/// Digest of the parts of a key. Parts are delimited, so different lists of parts have different digests.
#[must_use]
pub fn key_digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_lists_of_parts_have_different_digests() {
        assert_ne!(key_digest(&[b"ab", b"c"]), key_digest(&[b"a", b"bc"]));
        assert_eq!(key_digest(&[b"ab", b"c"]), key_digest(&[b"ab", b"c"]));
    }
}
