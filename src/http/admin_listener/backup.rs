//! `/backup` of the admin listener, for the operator: starts a backup in the data directory, reports its
//! progress, and releases it.
//!
//! The daemon writes only into its own data directory. Copying the backup from there needs read access to
//! that directory.

use http::{Method, StatusCode, Uri};
use serde_json::json;

use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::response::ApiResponse;
use crate::store::{BackupError, StageStatus, Store};

/// Handles a request of the operator. `POST` starts a backup; with `?journal=` and `?position=` it is
/// incremental from there. `GET` reports its progress, `DELETE` releases it.
pub(super) fn answer(store: &Store, method: &Method, uri: &Uri) -> HandlerResult {
    match *method {
        Method::GET => Ok(status(&store.backup_status())),
        Method::POST => match store.start_backup(since(uri.query().unwrap_or_default())?) {
            Ok(()) => Ok(status(&store.backup_status())),
            Err(error @ BackupError::Busy) => Err(ErrorResponse::conflict(error.to_string())),
            Err(error) => {
                tracing::error!(%error, "a backup could not be started");
                Err(ErrorResponse::unavailable("the backup could not be started"))
            }
        },
        Method::DELETE => {
            store.drop_backup();
            Ok(ApiResponse::empty())
        }
        _ => Err(ErrorResponse::method("GET, POST, DELETE")),
    }
}

/// The end of the earlier backup, if the query names one.
fn since(query: &str) -> Result<Option<(String, u64)>, ErrorResponse> {
    let pairs = crate::query::pairs(query).map_err(|error| ErrorResponse::bad_request(error.to_string()))?;
    let (mut journal, mut position) = (None, None);
    for (name, value) in pairs {
        match name.as_ref() {
            "journal" => journal = Some(value.into_owned()),
            "position" => {
                let number =
                    value.parse().map_err(|_| ErrorResponse::bad_request("position: must be a number"))?;
                position = Some(number);
            }
            "token" | "ticket" => {}
            other => return Err(ErrorResponse::bad_request(format!("{other}: no such parameter"))),
        }
    }
    match (journal, position) {
        (None, None) => Ok(None),
        (Some(journal), Some(position)) => Ok(Some((journal, position))),
        _ => Err(ErrorResponse::bad_request("journal and position must be given together")),
    }
}

fn status(status: &StageStatus) -> ApiResponse {
    let view = match status {
        StageStatus::None => json!({"state": "none"}),
        StageStatus::Running { what, done, of } => {
            json!({"state": "running", "what": what, "done": done, "of": of})
        }
        StageStatus::Ready { dir } => json!({"state": "ready", "dir": dir}),
        StageStatus::Failed { why } => json!({"state": "failed", "why": why}),
    };
    ApiResponse::data(StatusCode::OK, view)
}
