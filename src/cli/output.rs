//! The output of commands: results on standard output, the rest on standard error. A closed pipe is not an
//! error.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

use super::exit::{CliError, Exit};

/// Writes `text` and a newline to standard output and flushes.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output and flushes.
pub(super) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::StdoutClosed),
        Err(error) => {
            Err(CliError::new(Exit::Failed, format!("cannot write to standard output: {error}"), ""))
        }
    }
}

/// Writes one line to standard error. A write error is ignored.
pub(super) fn print_note(text: &str) {
    let _ = writeln!(io::stderr(), "nervewire: {text}");
}

/// Prints the error and its hint on standard error.
pub(super) fn report_failure(error: &CliError) {
    if let CliError::Reported { message, hint, .. } = error {
        print_note(&plain(message));
        if !hint.is_empty() {
            print_note(hint);
        }
    }
}

/// Returns `text` without characters that would move a terminal's cursor or change its state, except
/// newlines. Publishers must not be able to control the reader's terminal.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns a number with its noun: `1 row`, `2 rows`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Formats rows of JSON objects as a table with a header line. A missing value or null is `-`.
pub(super) fn table(columns: &[&str], rows: &[Value]) -> String {
    let cell = |row: &Value, column: &str| match row.get(column) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(&text.replace('\n', " ")),
        Some(Value::Array(items)) => {
            let items: Vec<String> =
                items.iter().map(|item| item.as_str().map_or(item.to_string(), Into::into)).collect();
            plain(&items.join(","))
        }
        Some(other) => other.to_string(),
    };
    let mut lines: Vec<Vec<String>> =
        vec![columns.iter().map(|column| column.to_ascii_uppercase()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            lines.iter().filter_map(|line| line.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let render = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(render).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_lines_up_and_shows_what_is_missing() {
        let rows = [json!({"id": "a", "scopes": ["x", "y"]}), json!({"id": "longer", "scopes": null})];
        assert_eq!(table(&["id", "scopes"], &rows), "ID      SCOPES\na       x,y\nlonger  -");
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\r\n"), "a\\u{1b}[2Jb\\u{9b}c\\u{d}\n");
    }
}
