//! A key of the configuration: its name, its kind with field and range, and its documentation.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::raw::Raw;
use super::table::KEYS;
use super::{Config, ListenAddr, TrustedProxies, jwt_keys};

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted name, as the file writes it: `limits.ring_slots`.
    pub name: &'static str,
    /// Type, field, range and default.
    pub kind: Kind,
    /// The unit of the number; empty if the key has none.
    pub unit: &'static str,
    /// What a larger value costs in memory; empty if it costs none.
    pub memory: &'static str,
    /// What the key does, in one or two sentences of Markdown.
    pub text: &'static str,
}

/// The type of a key. `at` borrows the key's field in a [`Config`].
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A count, time or size up to `u64`.
    Int {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut u64,
        /// The default.
        default: u64,
        /// Least value, except for `zero`.
        min: u64,
        /// Greatest value.
        max: u64,
        /// The meaning of 0, where 0 is allowed outside the range.
        zero: Option<&'static str>,
    },
    /// As `Int`, for counts and sizes in memory (`usize`).
    Size {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut usize,
        /// The default.
        default: usize,
        /// Least value, except for `zero`.
        min: usize,
        /// Greatest value.
        max: usize,
        /// The meaning of 0, where 0 is allowed outside the range.
        zero: Option<&'static str>,
    },
    /// `true` or `false`.
    Bool {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut bool,
        /// The default.
        default: bool,
    },
    /// A path.
    Path {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut PathBuf,
        /// The default.
        default: &'static str,
    },
    /// One or more addresses to listen on.
    Listens {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut Vec<ListenAddr>,
        /// The default address.
        default: SocketAddr,
    },
    /// One address to listen on, or `"off"`.
    Listen {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut Option<ListenAddr>,
        /// The default.
        default: SocketAddr,
    },
    /// Web origins (RFC 6454); none by default.
    WebOrigins {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut Vec<String>,
    },
    /// Trusted proxies; none by default.
    Proxies {
        /// Borrows the field.
        at: fn(&mut Config) -> &mut TrustedProxies,
    },
    /// One of a fixed set of words.
    Word {
        /// The allowed words.
        words: &'static [&'static str],
        /// The default.
        default: &'static str,
        /// Returns the current word.
        get: fn(&Config) -> &'static str,
        /// Stores one of `words`. Returns false for any other word.
        set: fn(&mut Config, &str) -> bool,
    },
    /// `auth.jwt_keys[]`; none by default.
    JwtKeys,
}

impl Key {
    /// Finds the key with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The environment variable of the key, such as `NERVEWIRE_LIMITS__RING_SLOTS`.
    pub fn variable(&self) -> String {
        format!("NERVEWIRE_{}", self.name.to_ascii_uppercase().replace('.', "__"))
    }

    /// The part before the dot; empty for a top-level key.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The part after the dot.
    pub fn leaf(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, leaf)| leaf)
    }

    /// Stores the default in `config`.
    pub(super) fn reset(&self, config: &mut Config) {
        match &self.kind {
            Kind::Int { at, default, .. } => *at(config) = *default,
            Kind::Size { at, default, .. } => *at(config) = *default,
            Kind::Bool { at, default } => *at(config) = *default,
            Kind::Path { at, default } => *at(config) = PathBuf::from(default),
            Kind::Listens { at, default } => *at(config) = vec![ListenAddr::Tcp(*default)],
            Kind::Listen { at, default } => *at(config) = Some(ListenAddr::Tcp(*default)),
            Kind::WebOrigins { at } => at(config).clear(),
            Kind::Proxies { at } => *at(config) = TrustedProxies::default(),
            Kind::Word { default, set, .. } => {
                let known = set(config, default);
                debug_assert!(known, "the default of {} is one of its words", self.name);
            }
            Kind::JwtKeys => config.auth.jwt_keys.clear(),
        }
    }

    /// The current value as a file would write it, with secrets redacted.
    pub(super) fn value(&self, config: &Config) -> Raw {
        // Each key has one accessor, which borrows mutably. Values are shown rarely, so a clone is cheap
        // enough.
        let mut config = config.clone();
        match &self.kind {
            Kind::Int { at, .. } => Raw::Int(i128::from(*at(&mut config))),
            Kind::Size { at, .. } => Raw::Int(*at(&mut config) as i128),
            Kind::Bool { at, .. } => Raw::Bool(*at(&mut config)),
            Kind::Path { at, .. } => Raw::Str(at(&mut config).display().to_string()),
            Kind::Listens { at, .. } => {
                Raw::List(at(&mut config).iter().map(|addr| Raw::Str(addr.to_string())).collect())
            }
            Kind::Listen { at, .. } => {
                Raw::Str(at(&mut config).as_ref().map_or_else(|| "off".to_owned(), ToString::to_string))
            }
            Kind::WebOrigins { at } => Raw::List(at(&mut config).iter().cloned().map(Raw::Str).collect()),
            Kind::Proxies { at } => at(&mut config).to_raw(),
            Kind::Word { get, .. } => Raw::Str(get(&config).to_owned()),
            Kind::JwtKeys => jwt_keys::to_raw(&config.auth.jwt_keys),
        }
    }
}
