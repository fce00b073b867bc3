//! The types of events.

use super::table::with_event_types;

macro_rules! define_kinds {
    ($($ordinal:literal $kind:ident $name:literal: $description:literal, $example:literal { $($fields:tt)* })*) => {
        /// The kinds of event, in the order of their ordinals (which the log stores).
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum EventKind {
            $(#[doc = $description] $kind = $ordinal,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: [EventKind; [$($ordinal),*].len()] = [$(EventKind::$kind),*];
            /// The name of every kind.
            pub const NAMES: [&str; EventKind::ALL.len()] = [$($name),*];

            /// Returns the name on the wire (`type`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(EventKind::$kind => $name,)*
                }
            }
            /// Returns the kind that a `type` names.
            #[must_use]
            pub fn from_name(name: &str) -> Option<EventKind> {
                Some(match name {
                    $($name => EventKind::$kind,)*
                    _ => return None,
                })
            }
            /// Returns the description in the documents.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(EventKind::$kind => $description,)*
                }
            }
            /// Returns an example as publishers send it, as JSON.
            #[must_use]
            pub const fn example(self) -> &'static str {
                match self {
                    $(EventKind::$kind => $example,)*
                }
            }
            /// Returns the name of its schema in the API documents.
            #[must_use]
            pub const fn schema_name(self) -> &'static str {
                match self {
                    $(EventKind::$kind => concat!(stringify!($kind), "Event"),)*
                }
            }
        }
    };
}
with_event_types!(define_kinds);

const _: () = {
    let mut at = 0;
    while at < EventKind::ALL.len() {
        assert!(EventKind::ALL[at] as usize == at, "ordinals are in order, without gaps");
        at += 1;
    }
};

impl EventKind {
    /// Returns the kind of a stored ordinal.
    #[must_use]
    pub fn from_ordinal(ordinal: u8) -> Option<EventKind> {
        EventKind::ALL.get(usize::from(ordinal)).copied()
    }
}
