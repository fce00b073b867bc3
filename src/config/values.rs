//! The settings that are one word out of a few. Each lists its words once; parsing and printing use that list.

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
            /// The words that would have done.
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
    /// What an acknowledgement has waited for.
    Durability {
        /// The batch is fsynced: it survives `kill -9` and power loss.
        Fsync = "fsync",
        /// The batch is in the process: faster, and lost with it. For tests and throw-away data.
        Memory = "memory",
    }
}

words! {
    /// How fan-out writes reach the kernel.
    FanoutSubmission {
        /// One system call per connection.
        Send = "send",
        /// Up to 64 connections by one system call, where the kernel allows it.
        IoUring = "io_uring",
    }
}

words! {
    /// The least important level the log writes.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What needs a hand.
        Error = "error",
        /// What may need one soon.
        Warn = "warn",
        /// Starts, stops, listeners, changes by operators.
        Info = "info",
        /// Connections and requests.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// The shape of a log line.
    LogFormat {
        /// Human on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text for eyes.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

pub(super) use words;
