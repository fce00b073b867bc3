//! A key of the configuration: its name, its kind with field and range, and its documentation.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::raw::RawValue;
use super::{Config, ListenAddr, TrustedProxies, jwt_keys};

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted name, as the file writes it: `limits.ring_slots`.
    pub name: &'static str,
    /// Type, field, range and default.
    pub kind: KeyType,
    /// The unit of the number; empty if the key has none.
    pub unit: &'static str,
    /// What a larger value costs in memory; empty if it costs none.
    pub memory: &'static str,
    /// What the key does, in one or two sentences of Markdown.
    pub text: &'static str,
}

/// The type of a key. `at` borrows the key's field in a [`Config`].
#[derive(Clone, Copy, Debug)]
pub enum KeyType {
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

impl KeyType {
    /// Parses the text of a variable or flag for a key of this type. Text that does not fit stays text, so
    /// that the error of the key says what it expects.
    pub(super) fn parse(&self, text: &str) -> RawValue {
        let text = text.trim();
        let json = || {
            serde_json::from_str(text).map_or_else(|_| RawValue::Str(text.to_owned()), RawValue::from_json)
        };
        match self {
            KeyType::Int { .. } | KeyType::Size { .. } => {
                text.replace('_', "").parse().map_or_else(|_| RawValue::Str(text.to_owned()), RawValue::Int)
            }
            KeyType::Bool { .. } => {
                text.parse().map_or_else(|_| RawValue::Str(text.to_owned()), RawValue::Bool)
            }
            KeyType::Listens { .. } | KeyType::WebOrigins { .. } | KeyType::Proxies { .. }
                if text.starts_with('[') && json_list(text) =>
            {
                json()
            }
            KeyType::Listens { .. } | KeyType::WebOrigins { .. } | KeyType::Proxies { .. } => RawValue::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| RawValue::Str(item.to_owned()))
                    .collect(),
            ),
            KeyType::JwtKeys => json(),
            KeyType::Listen { .. } | KeyType::Path { .. } | KeyType::Word { .. } => {
                RawValue::Str(text.to_owned())
            }
        }
    }
}

/// Whether the text is a JSON list. `[::1]:8080` starts like one, but is not.
fn json_list(text: &str) -> bool {
    serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok()
}

impl Key {
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
            KeyType::Int { at, default, .. } => *at(config) = *default,
            KeyType::Size { at, default, .. } => *at(config) = *default,
            KeyType::Bool { at, default } => *at(config) = *default,
            KeyType::Path { at, default } => *at(config) = PathBuf::from(default),
            KeyType::Listens { at, default } => *at(config) = vec![ListenAddr::Tcp(*default)],
            KeyType::Listen { at, default } => *at(config) = Some(ListenAddr::Tcp(*default)),
            KeyType::WebOrigins { at } => at(config).clear(),
            KeyType::Proxies { at } => *at(config) = TrustedProxies::default(),
            KeyType::Word { default, set, .. } => {
                let known = set(config, default);
                debug_assert!(known, "the default of {} is one of its words", self.name);
            }
            KeyType::JwtKeys => config.auth.jwt_keys.clear(),
        }
    }

    /// The current value as a file would write it, with secrets redacted.
    pub(super) fn value(&self, config: &Config) -> RawValue {
        // Each key has one accessor, which borrows mutably. Values are shown rarely, so a clone is cheap
        // enough.
        let mut config = config.clone();
        match &self.kind {
            KeyType::Int { at, .. } => RawValue::Int(i128::from(*at(&mut config))),
            KeyType::Size { at, .. } => RawValue::Int(*at(&mut config) as i128),
            KeyType::Bool { at, .. } => RawValue::Bool(*at(&mut config)),
            KeyType::Path { at, .. } => RawValue::Str(at(&mut config).display().to_string()),
            KeyType::Listens { at, .. } => {
                RawValue::List(at(&mut config).iter().map(|addr| RawValue::Str(addr.to_string())).collect())
            }
            KeyType::Listen { at, .. } => {
                RawValue::Str(at(&mut config).as_ref().map_or_else(|| "off".to_owned(), ToString::to_string))
            }
            KeyType::WebOrigins { at } => {
                RawValue::List(at(&mut config).iter().cloned().map(RawValue::Str).collect())
            }
            KeyType::Proxies { at } => at(&mut config).to_raw(),
            KeyType::Word { get, .. } => RawValue::Str(get(&config).to_owned()),
            KeyType::JwtKeys => jwt_keys::to_raw(&config.auth.jwt_keys),
        }
    }
}
