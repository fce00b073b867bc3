//! The types of events, and the fields of each.

use super::field::Field;
use super::table::{FieldSets, SETS, TYPES, bit, with_event_types};

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

    /// Returns the fields of this kind, besides `type` and `id`.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        TYPES[self as usize]
    }

    /// Returns the field of this name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }

    /// Returns the examples of all fields of this kind as one event, as JSON.
    #[must_use]
    pub fn whole_example(self) -> String {
        let fields: Vec<String> =
            self.fields().iter().map(|field| format!(",\"{}\":{}", field.name, field.example)).collect();
        format!("{{\"type\":\"{}\"{}}}", self.name(), fields.concat())
    }

    /// Returns true if events of this kind may carry a `user_id`.
    #[must_use]
    pub const fn has_user(self) -> bool {
        self.field_sets().allowed & const { bit("user_id") } != 0
    }

    pub(super) const fn field_sets(self) -> FieldSets {
        SETS[self as usize]
    }
}
