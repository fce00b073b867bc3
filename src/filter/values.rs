//! The sets that a filter or a narrowing consists of: names, channel patterns, kinds.
//!
//! * A set is sorted and holds no value twice, so equal sets are equal values and hash alike.
//! * Comparison is byte for byte: no case folding, no trimming, no Unicode normalisation.

use std::fmt;

use crate::event::{CHANNEL_BYTES, EventKind, ID_BYTES, check_channel};

/// A sorted set of texts in one allocation, so that comparing one subscription of very many costs few cache
/// misses.
///
/// Each value is stored as its length, two bytes little endian, and its bytes; `None` is the empty set.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Names(Option<Box<[u8]>>);

// A length fits into two bytes: `check_id` and `check_pattern` refuse longer values.
const _: () = assert!(ID_BYTES + CHANNEL_BYTES <= u16::MAX as usize);

impl Names {
    /// The empty set.
    pub const EMPTY: Names = Names(None);

    /// Creates the set of values that were already checked.
    pub(super) fn new(mut names: Vec<Box<str>>) -> Names {
        names.sort_unstable();
        names.dedup();
        let mut packed = Vec::with_capacity(names.iter().map(|name| name.len() + 2).sum());
        for name in &names {
            packed.extend_from_slice(&(name.len() as u16).to_le_bytes());
            packed.extend_from_slice(name.as_bytes());
        }
        Names((!packed.is_empty()).then(|| packed.into_boxed_slice()))
    }
    /// Returns true if the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    /// Returns the number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.each().count()
    }
    /// Returns the values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.each().map(|value| std::str::from_utf8(value).unwrap_or_default()) // packed from texts
    }
    /// Returns true if `name` is in the set.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.has(name.as_bytes())
    }
    /// Reads the values as channel patterns; returns true if one of them covers `channel`, which is a name or
    /// itself a pattern.
    #[must_use]
    pub fn covers_channel(&self, channel: &str) -> bool {
        self.covers(channel.as_bytes())
    }

    /// Like [`Names::contains`], for a field of a frame, whose text is already checked.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.each().any(|value| value == name)
    }
    /// Like [`Names::covers_channel`], for a field of a frame.
    pub(super) fn covers(&self, channel: &[u8]) -> bool {
        self.each().any(|value| {
            value == channel || value.strip_suffix(b"*").is_some_and(|prefix| is_below(channel, prefix))
        })
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<2>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            rest = after;
            Some(value)
        })
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Returns the `a/` of a pattern `a/*`, or `None` for a plain channel name.
#[must_use]
pub fn below(pattern: &str) -> Option<&str> {
    pattern.strip_suffix('*')
}

/// Returns true if `channel` is below `prefix`. The prefix ends with a slash and no level of a channel is
/// empty, so `a/` itself is never below `a/`. A pattern `a/b/*` is below `a/` like its channels, and the
/// pattern `a/*` is below itself.
fn is_below(channel: &[u8], prefix: &[u8]) -> bool {
    channel.len() > prefix.len() && channel.starts_with(prefix)
}

/// Checks a value of an id field.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    match id.len() {
        1..=ID_BYTES => Ok(()),
        _ => Err(format!("must be 1 to {ID_BYTES} bytes")),
    }
}

/// Checks a channel name, or a pattern: a channel name and `/*`.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    let name = pattern.strip_suffix("/*").unwrap_or(pattern);
    check_channel(name)?;
    match pattern.len() > CHANNEL_BYTES {
        true => Err(format!("must be at most {CHANNEL_BYTES} bytes")),
        false => Ok(()),
    }
}

/// A set of [`EventKind`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// Adds `kind`.
    pub fn insert(&mut self, kind: EventKind) {
        self.0 |= 1 << kind as u8;
    }
    /// Returns true if `kind` is in the set.
    #[must_use]
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
    /// Returns true if the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Returns true if every kind of this set is in `other`.
    #[must_use]
    pub fn is_subset(self, other: Kinds) -> bool {
        self.0 & !other.0 == 0
    }
    /// Returns the kinds, in the order of their ordinals.
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}
