//! `/backup` of the admin listener: begins a backup in the data directory, says how far it is, and lets it go. For an operator.
//!
//! The daemon writes into its own data directory alone. Whoever takes the backup from there needs the right to read that directory.

use http::{Method, StatusCode, Uri};
use serde_json::json;

use crate::outcome::Refusal;
use crate::store::{BackupError, StageStatus, Store};

use super::respond::Answer;

/// Answers an operator: `POST` begins (`?journal=` and `?position=`: with what came since), `GET` says how far it is, `DELETE` lets it go.
pub(super) fn answer(store: &Store, method: &Method, uri: &Uri) -> Result<Answer, Refusal> {
    match *method {
        Method::GET => Ok(status(&store.backup_status())),
        Method::POST => match store.start_backup(since(uri.query().unwrap_or_default())?) {
            Ok(()) => Ok(status(&store.backup_status())),
            Err(error @ BackupError::Busy) => Err(Refusal::conflict(error.to_string())),
            Err(error) => {
                tracing::error!(%error, "a backup could not be begun");
                Err(Refusal::unavailable("the backup could not be begun"))
            }
        },
        Method::DELETE => {
            store.drop_backup();
            Ok(Answer::empty())
        }
        _ => Err(Refusal::method("GET, POST, DELETE")),
    }
}

/// Where an earlier backup ends, if the query says so.
fn since(query: &str) -> Result<Option<(String, u64)>, Refusal> {
    let pairs = crate::query::pairs(query).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let (mut journal, mut position) = (None, None);
    for (name, value) in pairs {
        match name.as_ref() {
            "journal" => journal = Some(value.into_owned()),
            "position" => {
                let number = value.parse().map_err(|_| Refusal::bad_request("position: is not a number"))?;
                position = Some(number);
            }
            "token" | "ticket" => {}
            other => return Err(Refusal::bad_request(format!("{other}: is no parameter of this"))),
        }
    }
    match (journal, position) {
        (None, None) => Ok(None),
        (Some(journal), Some(position)) => Ok(Some((journal, position))),
        _ => Err(Refusal::bad_request("journal and position are given together")),
    }
}

fn status(status: &StageStatus) -> Answer {
    let view = match status {
        StageStatus::None => json!({"state": "none"}),
        StageStatus::Running { what, done, of } => {
            json!({"state": "running", "what": what, "done": done, "of": of})
        }
        StageStatus::Ready { dir } => json!({"state": "ready", "dir": dir}),
        StageStatus::Failed { why } => json!({"state": "failed", "why": why}),
    };
    Answer::data(StatusCode::OK, view)
}
