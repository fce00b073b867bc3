//! The sets a filter or a narrowing is made of: names, channel patterns, kinds.
//!
//! * A set is sorted and holds no value twice, so equal sets are equal values and hash alike.
//! * Comparison is byte for byte: no case folding, no trimming, no Unicode normalisation.

use std::fmt;

use crate::event::{CHANNEL_BYTES, ID_BYTES, Kind, check_channel};

/// A sorted set of texts, in one allocation, so that a subscription among very many is compared in few cache misses.
///
/// Each value is its length, two bytes little endian, and its bytes; `None` is the empty set.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Names(Option<Box<[u8]>>);

// A length takes two bytes: `check_id` and `check_pattern` let nothing longer through.
const _: () = assert!(ID_BYTES + CHANNEL_BYTES <= u16::MAX as usize);

impl Names {
    /// No value.
    pub const EMPTY: Names = Names(None);

    /// The set of values that were checked.
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
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.each().count()
    }
    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.each().map(|value| std::str::from_utf8(value).unwrap_or_default()) // packed from texts
    }
    /// Whether `name` is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.has(name.as_bytes())
    }
    /// With the values read as channel patterns: whether one of them covers `channel`, a name or a pattern itself.
    #[must_use]
    pub fn covers_channel(&self, channel: &str) -> bool {
        self.covers(channel.as_bytes())
    }

    /// [`Names::contains`] for a frame's field, whose text nobody has to check again.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.each().any(|value| value == name)
    }
    /// [`Names::covers_channel`], in the same way.
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

/// The `a/` of a pattern `a/*`, `None` for a plain channel name.
#[must_use]
pub fn below(pattern: &str) -> Option<&str> {
    pattern.strip_suffix('*')
}

/// `prefix` ends with a slash and no level of a channel is empty, so `a/` itself is never below `a/`. A pattern
/// `a/b/*` is below `a/` as its channels are; the pattern `a/*` is below itself.
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

/// A set of [`Kind`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// Puts `kind` in.
    pub fn insert(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }
    /// Whether `kind` is one of them.
    #[must_use]
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Whether every kind of this set is in `other`.
    #[must_use]
    pub fn is_subset(self, other: Kinds) -> bool {
        self.0 & !other.0 == 0
    }
    /// The kinds, in the order of their ordinals.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}
