//! Administration of a running daemon over REST, and the blocking client that the other commands share.

use http::Method;
use nervewire_client::{Client, ClientError, Endpoint, Request, Response, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::backend::{
    AdminBackend, CreatedKey, KeyInfo, MintedToken, NewKey, NewOrganization, NewToken, Organization,
};
use super::exit::{CliError, Exit, Listener};
use super::non_empty;
use super::remote_args::RemoteArgs;
use std::time::Duration;

/// The address used if none is given.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// The default address of the admin listener, for examples.
const DEFAULT_ADMIN_URL: &str = "http://127.0.0.1:8081";
/// Maximum number of pages of a list that are read: 100,000 rows, more than a person reads.
const PAGES_MAX: usize = 1_000;

/// A connection to a running daemon, with one request at a time.
pub(super) struct Rest {
    runtime: Runtime,
    client: Client,
}

/// Creates the runtime for one command.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failed, format!("cannot start: {error}"), ""))
}

/// Creates a client of the daemon at `url`, or at the default address.
pub(super) fn client(url: Option<&str>, key: Option<&str>) -> Result<Client, CliError> {
    client_of(Listener::Clients, url.unwrap_or(DEFAULT_URL), key)
}

/// A client of the listener at `url`.
fn client_of(listener: Listener, url: &str, key: Option<&str>) -> Result<Client, CliError> {
    let flag = listener.flag();
    let endpoint: Endpoint = url.parse().map_err(|error| {
        let example = match listener {
            Listener::Clients => DEFAULT_URL,
            Listener::Admin => DEFAULT_ADMIN_URL,
        };
        CliError::new(
            Exit::Usage,
            format!("{flag} {url:?}: {error}"),
            format!("for example {flag} {example}"),
        )
    })?;
    if key.is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        let hint = "give the key exactly as `key create` or `token` printed it, without quotes or newlines";
        return Err(CliError::new(
            Exit::Usage,
            "the key contains characters that are not allowed in a credential",
            hint,
        ));
    }
    let client = Client::builder(endpoint);
    Ok(key.into_iter().fold(client, |client, key| client.credential(key)).build())
}

impl Rest {
    pub(super) fn new(url: Option<&str>, key: Option<&str>) -> Result<Self, CliError> {
        Ok(Self { runtime: runtime()?, client: client(url, key)? })
    }

    /// The admin listener at `url`.
    pub(super) fn of_admin(url: &str, key: Option<&str>) -> Result<Self, CliError> {
        Ok(Self { runtime: runtime()?, client: client_of(Listener::Admin, url, key)? })
    }

    pub(super) fn of(remote: &RemoteArgs) -> Result<Self, CliError> {
        Self::new(non_empty(&remote.url), non_empty(&remote.key))
    }

    /// Sends a request and returns the body of its 2xx response.
    pub(super) fn call(&mut self, request: &Request) -> Result<Value, ClientError> {
        self.runtime.block_on(self.client.send(request))?.json()
    }

    /// Sends a request that is safe to repeat, until it has a final response. `on_retry` is called with each wait
    /// and its reason.
    pub(super) fn call_until_answered(
        &mut self,
        request: &Request,
        on_retry: impl FnMut(&ClientError, Duration),
    ) -> Result<Value, ClientError> {
        self.runtime.block_on(self.client.send_with_retries(request, on_retry)).and_then(Response::json)
    }

    /// Returns `data` of the response.
    pub(super) fn data(&mut self, request: &Request) -> Result<Value, ClientError> {
        let mut body = self.call(request)?;
        Ok(body.get_mut("data").map(Value::take).unwrap_or(body))
    }

    /// Reads all pages of a list.
    pub(super) fn list(&mut self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        for _ in 0..PAGES_MAX {
            let mark = if path.contains('?') { '&' } else { '?' };
            let from = if cursor.is_empty() { String::new() } else { format!("&cursor={}", encode(&cursor)) };
            let mut body = self.call(&Request::new(Method::GET, format!("{path}{mark}limit=100{from}")))?;
            match body.get_mut("data").map(Value::take) {
                Some(Value::Array(page)) => rows.extend(page),
                _ => return Err(ClientError::UnexpectedResponse("a list without `data`".into())),
            }
            match body.get("next_cursor").and_then(Value::as_str) {
                Some(next) if !next.is_empty() && next != cursor => next.clone_into(&mut cursor),
                _ => break,
            }
        }
        Ok(rows)
    }

    /// `org_id` is the organization that the user gave, if any.
    fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        org_id: Option<&str>,
    ) -> Result<T, CliError> {
        let made = self.data(&Request::new(Method::POST, path).json(body)?);
        typed(made.map_err(|error| organization_error(error, org_id))?)
    }

    /// Deletes in the organization `org_id`; `None` means the credential's own.
    fn delete(&mut self, collection: &str, id: &str, org_id: Option<&str>) -> Result<(), CliError> {
        let of = org_id.map_or(String::new(), |org_id| format!("?org_id={}", encode(org_id)));
        self.call(&Request::new(Method::DELETE, format!("{collection}/{}{of}", encode(id))))?;
        Ok(())
    }
}

/// If an organization was given, 404 means that it does not exist or that this credential may not access it.
fn organization_error(error: ClientError, org_id: Option<&str>) -> CliError {
    match org_id.filter(|_| error.api_error().is_some_and(|refusal| refusal.status == 404)) {
        None => error.into(),
        Some(org_id) => CliError::new(
            Exit::Failed,
            format!("{error}: there is no organization {org_id:?}, or this credential may not access it"),
            "an operator can list organizations with `nervewire org list`; without --org the credential's own is used",
        ),
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    // The text of serde's error may quote the value, which may contain a secret.
    serde_json::from_value(value)
        .map_err(|_| ClientError::UnexpectedResponse("`data` lacks fields".into()).into())
}

impl AdminBackend for Rest {
    fn create_org(&mut self, new: &NewOrganization) -> Result<Organization, CliError> {
        self.post("/api/v1/organizations", new, None)
    }

    fn list_orgs(&mut self) -> Result<Vec<Organization>, CliError> {
        self.list("/api/v1/organizations")?.into_iter().map(typed).collect()
    }

    fn delete_org(&mut self, id: &str) -> Result<(), CliError> {
        self.delete("/api/v1/organizations", id, None)
    }

    fn create_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError> {
        self.post("/api/v1/api-keys", new, new.org_id.as_deref())
    }

    fn create_operator_key(&mut self, _: &NewKey) -> Result<CreatedKey, CliError> {
        let hint = "stop the daemon and leave out --url and --key (or unset NERVEWIRE_URL and NERVEWIRE_KEY, or give --data-dir)";
        let what = "an operator key can be created only on the data directory of a stopped daemon";
        Err(CliError::new(Exit::Usage, what, hint))
    }

    /// The daemon itself refuses a deletion that would lock out its operator.
    fn warning_of_key(&mut self, _: &str) -> Option<String> {
        None
    }

    fn list_keys(&mut self, org_id: Option<&str>) -> Result<Vec<KeyInfo>, CliError> {
        let path = match org_id {
            Some(org_id) => format!("/api/v1/api-keys?org_id={}", encode(org_id)),
            None => "/api/v1/api-keys".to_owned(),
        };
        let rows = self.list(&path).map_err(|error| organization_error(error, org_id))?;
        rows.into_iter().map(typed).collect()
    }

    fn delete_key(&mut self, org_id: Option<&str>, key_id: &str) -> Result<(), CliError> {
        self.delete("/api/v1/api-keys", key_id, org_id)
    }

    fn mint_token(&mut self, new: &NewToken) -> Result<MintedToken, CliError> {
        self.post("/api/v1/tokens", new, new.org_id.as_deref())
    }

    fn revoke_token(&mut self, org_id: Option<&str>, jti: &str) -> Result<(), CliError> {
        self.delete("/api/v1/tokens", jti, org_id)
    }
}
