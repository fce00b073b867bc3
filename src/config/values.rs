//! Settings whose value is one of a few words. Each type lists its words once; parsing and printing use that
//! list.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word, in the order the documentation shows.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of this value.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            /// The words that are allowed.
            type Err = &'static [&'static str];

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(Self::WORDS) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What an acknowledgement waits for.
    Durability {
        /// The batch is synced: it survives `kill -9` and power loss.
        Fsync = "fsync",
        /// The batch is queued in memory: faster, but lost with the process. For tests and temporary data.
        Memory = "memory",
    }
}

words! {
    /// How fan-out writes reach the kernel.
    FanoutSubmission {
        /// One system call per connection.
        Send = "send",
        /// One system call for up to 64 connections, where the kernel allows it.
        IoUring = "io_uring",
    }
}

words! {
    /// The least severe level that is written to the log.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// Failures that need an operator.
        Error = "error",
        /// Conditions that may soon need an operator.
        Warn = "warn",
        /// Starts, stops, listeners, and changes made by operators.
        Info = "info",
        /// Connections and requests.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// The format of a log line.
    LogFormat {
        /// `human` on a terminal, `json` otherwise.
        Auto = "auto",
        /// Text for people.
        Human = "human",
        /// One JSON object per line.
        Json = "json",
    }
}

pub(super) use words;
