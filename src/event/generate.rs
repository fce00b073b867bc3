//! Writes what other places take from the table of events: a section of `docs/protocol.md`.
//! `UPDATE_DOCS=1 cargo test --locked --lib event::generate` writes it; otherwise the test compares.

use std::fmt::Write as _;
use std::path::Path;

use super::EventKind;
use super::field::{Field, FieldType, Requirement};

/// Compares the part of a file between two lines, or writes it if `UPDATE_DOCS=1`.
fn is_written(file: &str, start: &str, end: &str, part: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).expect(file);
    let (before, rest) = text.split_once(start).expect("the line before the generated part");
    let (written, after) = rest.split_once(end).expect("the line after the generated part");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{start}{part}{end}{after}")).expect(file);
    } else {
        let update = "run `UPDATE_DOCS=1 cargo test --lib event::generate`";
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
    }
}

#[test]
fn the_protocol_document_has_every_type_and_field() {
    let mut part = String::new();
    for kind in EventKind::ALL {
        let (name, description) = (kind.name(), kind.description());
        let _ = writeln!(part, "\n**`{name}`**: {description}\n");
        part += "| field | | value | meaning |\n|---|---|---|---|\n";
        for field in kind.fields() {
            let given = match field.requirement {
                Requirement::Required => "required",
                Requirement::Generated => "made if absent",
                Requirement::Optional => "",
            };
            let _ =
                writeln!(part, "| `{}` | {given} | {} | {} |", field.name, values(field), field.description);
        }
        let _ = writeln!(part, "\n```json event\n{}\n```", kind.example());
    }
    let start = "<!-- events: generated from src/event/table.rs -->\n";
    is_written("docs/protocol.md", start, "\n<!-- end of events -->", &part);
}
