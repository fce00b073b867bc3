//! Macros that define the types of the protocol.

/// Defines a struct of the protocol with required and optional fields.
macro_rules! protocol_struct {
    ($(#[$about:meta])* $name:ident {
        $($(#[$about_required:meta])* $field:ident: $type:ty,)*
    } optional {
        $($(#[$about_optional:meta])* $optional:ident: $inner:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$about_required])* pub $field: $type,)*
            $($(#[$about_optional])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $optional: Option<$inner>,)*
        }
    };
}
pub(crate) use protocol_struct;

/// Defines an enum of known strings. A string that a later version adds becomes `Other`.
macro_rules! string_enum {
    ($case:literal $(#[$about:meta])* $name:ident { $(#[$about_first:meta])* $first:ident, $($(#[$about_word:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = $case)]
        #[non_exhaustive]
        pub enum $name {
            $(#[$about_first])* #[default] $first,
            $($(#[$about_word])* $word,)*
            /// A value that this version does not know.
            #[serde(untagged)]
            Other(String),
        }
    };
}
pub(crate) use string_enum;
