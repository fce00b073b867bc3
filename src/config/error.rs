//! What can be wrong with a configuration, told all at once: each problem names its key, its source and what is expected.

use std::fmt;

/// Where a value stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at this line (from 1).
    File {
        /// The file's name as the user gave it.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// In an environment variable of this name.
    Env(String),
    /// In a command line flag, such as `--listen`.
    Flag(&'static str),
    /// Nowhere: the default of the key.
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

/// One thing wrong. `what` never holds a secret's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key concerned, as the file writes it, or the name that is no key; empty for a file that is no TOML.
    pub key: String,
    /// Where it stood.
    pub origin: Origin,
    /// What is wrong and what is expected.
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

/// Everything wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order found: file, environment, flags, relations.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The exit code of a daemon refused by its configuration (`EX_USAGE` of sysexits).
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
