//! `connections`: lists connections and closes them.

use http::Method;
use nervewire_client::{Request, encode};
use serde_json::{Value, json};

use super::args::ConnectionsCommand;
use super::exit::CliError;
use super::output;
use super::rest::Rest;

const PATH: &str = "/api/v1/connections";

pub(super) fn run(command: ConnectionsCommand) -> Result<(), CliError> {
    match command {
        ConnectionsCommand::List(remote) => {
            let rows = Rest::of(&remote)?.list(PATH)?;
            output::line(&if remote.json {
                Value::Array(rows).to_string()
            } else {
                output::table(&columns(&rows), &rows)
            })
        }
        ConnectionsCommand::Kick { id, user, key_id, remote } => {
            let (path, who) = match (id, user, key_id) {
                (Some(id), ..) => (format!("{PATH}/{}", encode(&id)), json!({ "id": id })),
                (_, Some(user), _) => (format!("{PATH}?user={}", encode(&user)), json!({ "user": user })),
                // The grammar requires exactly one of the three.
                (.., key) => {
                    let key = key.unwrap_or_default();
                    (format!("{PATH}?key={}", encode(&key)), json!({ "key_id": key }))
                }
            };
            let answer = Rest::of(&remote)?.data(&Request::new(Method::DELETE, path))?;
            output::line(&if remote.json {
                json!({ "kicked": who, "answer": answer }).to_string()
            } else {
                "kicked".to_owned()
            })
        }
    }
}

/// Returns `id` first, then the fields that any row has. Nested fields are shown only by `--json`.
fn columns(rows: &[Value]) -> Vec<&str> {
    let mut columns = vec!["id"];
    for (name, value) in rows.iter().filter_map(Value::as_object).flatten() {
        if !value.is_object() && !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_first_and_nested_fields_are_left_out() {
        let rows = [json!({"a": 1, "id": "x", "filter": {}}), json!({"id": "y", "peer": "p"})];
        assert_eq!(columns(&rows), ["id", "a", "peer"]);
        assert_eq!(columns(&[]), ["id"]);
    }
}
