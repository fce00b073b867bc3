//! The problems of a configuration, all reported at once. Each problem names its key, its source and the
//! expected value.

use std::fmt;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file, at this line.
    File {
        /// The file's name as the user gave it.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// The environment variable of this name.
    Env(String),
    /// The command line flag, such as `--listen`.
    Flag(&'static str),
    /// No source: the key has its default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name} line {line}"),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One problem. `what` never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key as the file writes it, or the unknown name. Empty if the file is not valid TOML.
    pub key: String,
    /// The source of the value.
    pub origin: Origin,
    /// What is wrong, and what is expected.
    pub what: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, origin: Origin, what: impl Into<String>) -> Self {
        Self { key: key.into(), origin, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.what)
        } else if self.what.starts_with('[') {
            write!(f, "{}: {}{}", self.origin, self.key, self.what) // one entry of a list
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.what)
        }
    }
}

/// Every problem of a configuration. The list is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order in which they were found: file, environment, flags, relations.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// Exit code of a daemon whose configuration is invalid (`EX_USAGE` of sysexits).
    pub const EXIT_CODE: u8 = 64;
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "the configuration has a problem:\n  {one}"),
            many => {
                write!(f, "the configuration has {} problems:", many.len())?;
                for problem in many {
                    write!(f, "\n  {problem}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}
