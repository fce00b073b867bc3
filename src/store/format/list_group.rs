//! Groups of lists, and where an entry is in one.
//!
//! A group is identified by a digest, so any text may name one and keys stay short.

use super::digest::key_digest;
use super::keys::List;

/// Bytes of a group's digest.
pub(crate) const GROUP: usize = 16;
/// Bytes before an entry's id: list, digest, number.
pub(crate) const BEFORE_ID: usize = 1 + GROUP + 8;

/// A group of a list: what one page is taken from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    pub(crate) list: List,
    pub(crate) digest: [u8; GROUP],
}

impl Group {
    /// The group of `list` that is named by `parts`.
    #[must_use]
    pub fn new(list: List, parts: &[&str]) -> Group {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut digest = [0; GROUP];
        digest.copy_from_slice(&key_digest(&parts)[..GROUP]);
        Group { list, digest }
    }

    pub(crate) fn prefix(self) -> Vec<u8> {
        [&[self.list as u8][..], &self.digest].concat()
    }
}

/// A list index entry without its id: entries of a group are ordered by `number`, and those with equal
/// numbers by id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListEntry {
    /// The group.
    pub group: Group,
    /// The number that it is ordered by.
    pub number: u64,
}

/// A number and an id, which entries are ordered by.
pub(crate) type EntryKey = (u64, String);
