//! `stats`: prints the statistics of a running daemon.

use http::Method;
use nervewire_client::Request;
use serde_json::Value;

use super::exit::CliError;
use super::output;
use super::remote_args::RemoteArgs;
use super::rest::Rest;

pub(super) fn run(remote: &RemoteArgs) -> Result<(), CliError> {
    let stats = Rest::of(remote)?.data(&Request::new(Method::GET, "/api/v1/stats"))?;
    if remote.json {
        return output::line(&stats.to_string());
    }
    let mut lines = Vec::new();
    flatten("", &stats, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    output::line(&lines.join("\n"))
}

/// Adds a line `a.b  1` for each leaf.
fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{}", output::plain(name)), value, lines);
            }
        }
        Value::String(text) => lines.push((prefix.to_owned(), output::plain(text))),
        other => lines.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_numbers_get_dotted_names() {
        let mut lines = Vec::new();
        flatten("", &json!({"a": {"b": 1, "c": "x"}, "d": null}), &mut lines);
        let lines: Vec<_> = lines.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(lines, [("a.b", "1"), ("a.c", "x"), ("d", "null")]);
    }
}
