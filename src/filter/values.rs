//! The sets a filter or a narrowing is made of: names, channel patterns, kinds.
//!
//! * A set is sorted and holds no value twice, so equal sets are equal values and hash alike.
//! * Comparison is byte for byte: no case folding, no trimming, no Unicode normalisation.

use crate::event::{CHANNEL_BYTES, ID_BYTES, Kind, check_channel};

/// A sorted set of texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Names(Vec<Box<str>>);

impl Names {
    /// No value.
    pub const EMPTY: Names = Names(Vec::new());

    pub(super) fn new(mut names: Vec<Box<str>>) -> Names {
        names.sort_unstable();
        names.dedup();
        names.shrink_to_fit();
        Names(names)
    }
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
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
        match &self.0[..] {
            [one] => one.as_bytes() == name, // what nearly every filter asks for
            all => all.binary_search_by(|value| value.as_bytes().cmp(name)).is_ok(),
        }
    }
    /// [`Names::covers_channel`], in the same way.
    pub(super) fn covers(&self, channel: &[u8]) -> bool {
        let covers = |pattern| below(pattern).is_some_and(|prefix| is_below(channel, prefix.as_bytes()));
        self.has(channel) || self.iter().any(covers)
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
