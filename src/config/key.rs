//! A key of the configuration: its name, its kind with place and range, and what is written about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::raw::Raw;
use super::table::KEYS;
use super::{Config, ListenAddr, TrustedProxies, jwt_keys};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As the file writes it, dotted: `limits.ring_slots`.
    pub name: &'static str,
    /// Type, place, range and default.
    pub kind: Kind,
    /// What the number counts; empty where there is none.
    pub unit: &'static str,
    /// What a larger value costs in memory; empty where it costs none.
    pub memory: &'static str,
    /// What it does, one or two sentences of Markdown.
    pub text: &'static str,
}

/// A key's type. `at` borrows its place in a [`Config`].
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A count, time or size up to `u64`.
    Int {
        /// Its field.
        at: fn(&mut Config) -> &mut u64,
        /// Its default.
        default: u64,
        /// Least value, but for `zero`.
        min: u64,
        /// Greatest value.
        max: u64,
        /// What 0 means where it is allowed beside the range.
        zero: Option<&'static str>,
    },
    /// The same for what lives in memory.
    Size {
        /// Its field.
        at: fn(&mut Config) -> &mut usize,
        /// Its default.
        default: usize,
        /// Least value, but for `zero`.
        min: usize,
        /// Greatest value.
        max: usize,
        /// What 0 means where it is allowed beside the range.
        zero: Option<&'static str>,
    },
    /// true or false.
    Bool {
        /// Its field.
        at: fn(&mut Config) -> &mut bool,
        /// Its default.
        default: bool,
    },
    /// A path.
    Path {
        /// Its field.
        at: fn(&mut Config) -> &mut PathBuf,
        /// Its default.
        default: &'static str,
    },
    /// One or more addresses to listen on.
    Listens {
        /// Its field.
        at: fn(&mut Config) -> &mut Vec<ListenAddr>,
        /// Its default: this address alone.
        default: SocketAddr,
    },
    /// One address to listen on, or `"off"`.
    Listen {
        /// Its field.
        at: fn(&mut Config) -> &mut Option<ListenAddr>,
        /// Its default.
        default: SocketAddr,
    },
    /// Web origins (RFC 6454); default none.
    WebOrigins {
        /// Its field.
        at: fn(&mut Config) -> &mut Vec<String>,
    },
    /// Peers that are proxies; default none.
    Proxies {
        /// Its field.
        at: fn(&mut Config) -> &mut TrustedProxies,
    },
    /// One word out of a few.
    Word {
        /// The words.
        words: &'static [&'static str],
        /// Its default.
        default: &'static str,
        /// The word in force.
        get: fn(&Config) -> &'static str,
        /// Stores one of `words`; false for any other.
        set: fn(&mut Config, &str) -> bool,
    },
    /// `auth.jwt_keys[]`; default none.
    JwtKeys,
}

impl Key {
    /// The key of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The environment variable that sets it: `NERVEWIRE_LIMITS__RING_SLOTS`.
    pub fn variable(&self) -> String {
        format!("NERVEWIRE_{}", self.name.to_ascii_uppercase().replace('.', "__"))
    }

    /// The part before the dot; empty for a key of the top level.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The part after the dot.
    pub fn leaf(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, leaf)| leaf)
    }

    /// Puts the default into `config`.
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

    /// The value in force, in the shape a file would give it; secrets redacted.
    pub(super) fn value(&self, config: &Config) -> Raw {
        // The table has one accessor a key, and it borrows mutably; a copy is cheap where values are shown.
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
