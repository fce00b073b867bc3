//! Reads a stream from its start and prints its text as it comes. The exit code says how the stream ended.

use std::io::IsTerminal as _;

use nervewire_client::{Client, ClientError, Status, StreamEnd, StreamItem, StreamState, StreamText};
use serde_json::json;

use super::super::args::StreamArgs;
use super::super::exit::{CliError, Exit};
use super::super::output;
use super::not_completed;

/// Where the text goes.
#[derive(Clone, Copy)]
enum Format {
    /// To a person: control characters are escaped.
    Terminal,
    /// To a file or a program: the exact text.
    Raw,
    /// One line of JSON for each piece, and one for the end.
    Json,
}

pub(super) async fn read(client: &Client, request_id: &str, args: &StreamArgs) -> Result<(), CliError> {
    let format = match args.remote.json {
        true => Format::Json,
        false if std::io::stdout().is_terminal() => Format::Terminal,
        false => Format::Raw,
    };
    let mut reader = client.read_stream(request_id).fail_if_unreachable();
    if args.all_parts {
        reader = reader.all_parts();
    }
    if let Some(cursor) = &args.after {
        reader = reader.after(cursor);
    }
    while let Some(item) = reader.next().await {
        match item {
            Ok(StreamItem::Text(piece)) => print(&piece, format)?,
            Ok(StreamItem::Status(Status::Lost { error, retry_in })) => {
                note_lost(&error, retry_in.as_secs_f64())
            }
            Ok(StreamItem::End(end)) => return ended(end, format),
            Ok(_) => {}
            Err(error) => {
                if let Some(cursor) = reader.cursor() {
                    output::print_note(&format!("continue with --after {}", output::plain(cursor)));
                }
                return Err(error.into());
            }
        }
    }
    Ok(())
}

fn print(piece: &StreamText, format: Format) -> Result<(), CliError> {
    match format {
        Format::Raw => output::raw(piece.text.as_bytes()),
        Format::Terminal => output::raw(for_terminal(&piece.text).as_bytes()),
        Format::Json => {
            let mut line = json!({ "text": piece.text });
            if let Some(part) = &piece.part {
                line["part"] = json!(part);
            }
            output::line(&line.to_string())
        }
    }
}

/// Escapes control characters but for newlines and tabs, which are usual in text of models and harmless.
fn for_terminal(text: &str) -> String {
    text.split('\t').map(output::plain).collect::<Vec<_>>().join("\t")
}

fn note_lost(error: &ClientError, seconds: f64) {
    output::print_note(&output::plain(&format!("{error}; reconnecting in {seconds:.1} s")));
}

fn ended(end: StreamEnd, format: Format) -> Result<(), CliError> {
    match format {
        Format::Json => output::line(&json!(end).to_string())?,
        // So that the prompt begins on a new line.
        Format::Terminal => output::line("")?,
        Format::Raw => {}
    }
    match end.state {
        StreamState::Completed => Ok(()),
        StreamState::Cancelled => {
            Err(not_completed(Exit::StreamCancelled, "the stream was cancelled", end.error))
        }
        StreamState::Abandoned => {
            let what = "the stream was abandoned";
            Err(not_completed(Exit::StreamAbandoned, what, end.error))
        }
        _ => Err(not_completed(Exit::StreamFailed, "the stream failed", end.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_stream_cannot_control_the_terminal() {
        assert_eq!(for_terminal("a\tb\n\x1b[2J\rc"), "a\tb\n\\u{1b}[2J\\u{d}c");
    }
}
