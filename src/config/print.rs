//! Prints the configuration: as TOML that can be loaded again, and as the tables of `docs/configuration.md`.

use std::fmt::Write as _;

use super::apply::range_text;
use super::error::Origin;
use super::key::{Key, KeyType};
use super::raw::RawValue;
use super::table::KEYS;
use super::{Config, Origins};

/// Prints every key with its value and, as a comment, its source. The result is valid TOML that loads to the
/// same configuration. Only secrets are replaced, by a word that is refused when loaded.
pub fn print(config: &Config, origins: &Origins) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            let _ = write!(out, "\n[{section}]\n");
        }
        let origin = origins.get(key.name).unwrap_or(&Origin::Default).to_string();
        // A file name may contain any character, but a comment ends at the end of the line.
        let origin = origin.replace(|c: char| c.is_control(), "?");
        let _ = writeln!(out, "{} = {} # {origin}", key.leaf(), toml_text(&key.value(config)));
    }
    out
}

/// The reference tables of `docs/configuration.md`, one per section. A test compares the page with them.
pub fn reference() -> String {
    let mut out = String::new();
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section()) {
            let gap = if section.is_some() { "\n" } else { "" };
            let title = if key.section().is_empty() {
                "Top level".to_owned()
            } else {
                format!("`[{}]`", key.section())
            };
            let _ =
                writeln!(out, "{gap}### {title}\n\n| key | default | unit and range | memory | meaning |");
            let _ = writeln!(out, "|---|---|---|---|---|");
            section = Some(key.section());
        }
        let unit = [key.unit.to_owned(), range(key)].into_iter().filter(|text| !text.is_empty());
        let unit = unit.collect::<Vec<_>>().join("; ");
        let memory = if key.memory.is_empty() { "–" } else { key.memory };
        let _ =
            writeln!(out, "| `{}` | {} | {unit} | {memory} | {} |", key.name, default_text(key), key.text);
    }
    out
}

fn default_text(key: &Key) -> String {
    let value = key.value(&Config::default());
    let meaning = match (&key.kind, &value) {
        (
            KeyType::Int { zero: Some(zero), .. } | KeyType::Size { zero: Some(zero), .. },
            RawValue::Int(0),
        ) => {
            format!(" ({zero})")
        }
        (_, RawValue::Int(number)) if key.unit.starts_with("bytes") => binary(*number),
        _ => String::new(),
    };
    format!("`{}`{meaning}", toml_text(&value))
}

/// ` (64 MiB)` for a round number of bytes.
fn binary(number: i128) -> String {
    [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| number >= *unit && number % *unit == 0)
        .map_or_else(String::new, |(unit, name)| format!(" ({} {name})", number / unit))
}

fn range(key: &Key) -> String {
    match &key.kind {
        KeyType::Int { min, max, zero, .. } => range_text(min, max, *zero),
        KeyType::Size { min, max, zero, .. } => range_text(min, max, *zero),
        KeyType::Bool { .. } => "true or false".to_owned(),
        KeyType::Word { words, .. } => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        KeyType::Listens { .. } => "a string or a list of strings".to_owned(),
        KeyType::WebOrigins { .. } | KeyType::Proxies { .. } => "a list of strings".to_owned(),
        KeyType::JwtKeys => "a list of tables".to_owned(),
        KeyType::Path { .. } | KeyType::Listen { .. } => String::new(),
    }
}

fn toml_text(value: &RawValue) -> String {
    match value {
        RawValue::Int(number) => number.to_string(),
        RawValue::Bool(flag) => flag.to_string(),
        RawValue::Str(text) => quoted(text),
        RawValue::List(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        RawValue::Table(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name} = {}", toml_text(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        RawValue::Other(name) => quoted(name),
    }
}

/// A TOML basic string (TOML 1.0, String).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
