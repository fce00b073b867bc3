//! Writes what other places take from the table of events: the section of `docs/protocol.md` and the events of
//! the Rust client. `UPDATE_DOCS=1 cargo test --locked --lib event::generate` writes them, otherwise the tests
//! compare.

use std::fmt::Write as _;
use std::path::Path;

use super::EventKind;
use super::field::{Choices, Composite, Field, FieldType, Requirement};

/// Compares the part of a file between two lines, or writes it if `UPDATE_DOCS=1`.
fn is_written(file: &str, start: &str, end: &str, part: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).expect(file);
    let (before, rest) = text.split_once(start).expect("the line before the generated part");
    let (written, after) = rest.split_once(end).expect("the line after the generated part");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{start}{part}{end}{after}")).expect(file);
    } else {
        let update = "run `just api-docs`";
        assert!(written == part, "{file} is not what src/event/table.rs says: {update}");
    }
}

/// The values of a field, in a few words.
fn values(field: &Field) -> String {
    match field.field_type {
        FieldType::Id(bytes) => format!("id, at most {bytes} bytes"),
        FieldType::Text => "text".into(),
        FieldType::Choice(choices) => {
            choices.texts().iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
        }
        FieldType::Time => "time (RFC 3339)".into(),
        FieldType::Flag => "`true` or `false`".into(),
        FieldType::Count => "whole number".into(),
        FieldType::Channel(bytes) => format!("channel, at most {bytes} bytes"),
        FieldType::Json => "JSON".into(),
        FieldType::Object(bytes) => format!("JSON object, at most {bytes} bytes"),
        FieldType::Composite(composite) => format!("object: {}", composite_values(composite)),
    }
}

/// The fields of a composite, in a few words.
fn composite_values(composite: &Composite) -> String {
    let field = |field: &Field| {
        let optional = if field.requirement == Requirement::Optional { ", optional" } else { "" };
        format!("`{}` ({}{optional})", field.name, values(field))
    };
    composite.fields.iter().map(field).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_protocol_document_has_every_type_and_field() {
    let mut part = String::new();
    for kind in EventKind::ALL {
        let (name, description) = (kind.name(), kind.description());
        let _ = writeln!(part, "\n**`{name}`**: {description}\n");
        part += "| field | given | value | meaning |\n|---|---|---|---|\n";
        for field in kind.fields() {
            let given = match field.requirement {
                Requirement::Required => "required",
                Requirement::Generated => "generated if absent",
                Requirement::Optional => "optional",
            };
            let _ =
                writeln!(part, "| `{}` | {given} | {} | {} |", field.name, values(field), field.description);
        }
        let _ = writeln!(part, "\n```json event\n{}\n```", kind.example());
    }
    let start = "<!-- events: generated from src/event/table.rs -->\n";
    is_written("docs/protocol.md", start, "\n<!-- end of events -->", &part);
}

/// The struct of an event in the Rust client.
fn client_name(kind: EventKind) -> String {
    format!("{kind:?}Event")
}

fn client_type(field: &Field) -> &'static str {
    match field.field_type {
        FieldType::Id(_) | FieldType::Text | FieldType::Time | FieldType::Channel(_) => "String",
        FieldType::Choice(choices) => choices.name,
        FieldType::Flag => "bool",
        FieldType::Count => "u64",
        FieldType::Json => "Value",
        FieldType::Object(_) => "Metadata",
        FieldType::Composite(composite) => composite.name,
    }
}

/// `in_use` becomes `InUse`.
fn camel_case(text: &str) -> String {
    let capitalized = |word: &str| word[..1].to_uppercase() + &word[1..];
    text.split('_').map(capitalized).collect()
}

const CLIENT_ENUM: &str = "
/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = \"type\", rename_all = \"snake_case\")]
#[non_exhaustive]
pub enum Event {
";
const CLIENT_ENUM_END: &str =
    "    /// An event that this version does not know, with its `type` and all other fields.
    #[serde(untagged)]
    Other(Map<String, Value>),
}
";
const CLIENT_ID: &str = "        /// The event's id, which is also its cursor. The daemon sets it.
        id: String,
";

fn client_variant(kind: EventKind) -> String {
    format!("    /// {}\n    {kind:?}({}),\n", kind.description(), client_name(kind))
}

fn client_field(field: &&Field) -> String {
    let (about, of_type) = (field.description, client_type(field));
    match field.name {
        // `type` is a keyword of Rust.
        "type" => {
            format!("        /// {about}\n        #[serde(rename = \"type\")]\n        kind: {of_type},\n")
        }
        name => format!("        /// {about}\n        {name}: {of_type},\n"),
    }
}

/// The fields of a struct of the client: those that are required, and the others.
fn client_fields(fields: &'static [Field]) -> (String, String) {
    let (required, optional): (Vec<&Field>, Vec<&Field>) =
        fields.iter().partition(|field| field.requirement == Requirement::Required);
    let lines = |fields: Vec<&Field>| fields.iter().map(client_field).collect::<String>();
    (lines(required), lines(optional))
}

fn client_struct(kind: EventKind) -> String {
    let (required, optional) = client_fields(kind.fields());
    let (name, kind) = (client_name(kind), kind.name());
    format!(
        "\nprotocol_struct! {{\n    /// Event of type `{kind}`.\n    {name} {{\n{required}    }} optional {{\n{CLIENT_ID}{optional}    }}\n}}\n"
    )
}

fn client_composite(composite: &Composite) -> String {
    let (required, optional) = client_fields(composite.fields);
    let (name, description) = (composite.name, composite.description);
    format!(
        "\nprotocol_struct! {{\n    /// {description}\n    {name} {{\n{required}    }} optional {{\n{optional}    }}\n}}\n"
    )
}

fn client_choices(choices: &Choices) -> String {
    let word =
        |(text, meaning): &(&str, &str)| format!("        /// {meaning}\n        {},\n", camel_case(text));
    let words: String = choices.texts.iter().map(word).collect();
    let (name, description) = (choices.name, choices.description);
    format!(
        "\nstring_enum! {{\n    \"snake_case\"\n    /// {description}\n    {name} {{\n{words}    }}\n}}\n"
    )
}

#[test]
fn the_rust_client_has_every_type_and_field() {
    let fields = || EventKind::ALL.into_iter().flat_map(EventKind::fields);
    let mut composites: Vec<&Composite> = Vec::new();
    for field in fields() {
        match field.field_type {
            FieldType::Composite(of_field) if !composites.contains(&of_field) => composites.push(of_field),
            _ => {}
        }
    }
    let mut choices: Vec<&Choices> = Vec::new();
    for field in fields().chain(composites.iter().flat_map(|composite| composite.fields)) {
        match field.field_type {
            FieldType::Choice(of_field) if !choices.contains(&of_field) => choices.push(of_field),
            _ => {}
        }
    }
    let part = [
        CLIENT_ENUM.into(),
        EventKind::ALL.map(client_variant).concat(),
        CLIENT_ENUM_END.into(),
        EventKind::ALL.map(client_struct).concat(),
        composites.into_iter().map(client_composite).collect(),
        choices.into_iter().map(client_choices).collect(),
    ];
    let start = "// Generated from src/event/table.rs of the daemon.\n";
    is_written("clients/rust/src/event/types.rs", start, "// End.\n", &part.concat());
}
