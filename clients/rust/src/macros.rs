//! Macros that define the types of the protocol.

/// Defines a struct of the protocol with required and optional fields.
macro_rules! wire {
    ($(#[$about:meta])* $name:ident {
        $($(#[$must:meta])* $field:ident: $type:ty,)*
    } maybe {
        $($(#[$may:meta])* $option:ident: $inner:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$must])* pub $field: $type,)*
            $($(#[$may])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $option: Option<$inner>,)*
        }
    };
}
pub(crate) use wire;

/// Defines an enum of known words that also accepts words added later.
macro_rules! words {
    ($case:literal $(#[$about:meta])* $name:ident { $(#[$first_about:meta])* $first:ident, $($(#[$one:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = $case)]
        #[non_exhaustive]
        pub enum $name {
            $(#[$first_about])* #[default] $first,
            $($(#[$one])* $word,)*
            /// A word that this version does not know.
            #[serde(untagged)]
            Other(String),
        }
    };
}
pub(crate) use words;
