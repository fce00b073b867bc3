//! The resources of one kind: create, get, list, update and delete work the same way for all kinds
//! (protocol §9).
//!
//! * A kind of resource is a type with a path ([`Resource`]). Each further operation is a trait.
//! * Reads, and creation with a key, are repeated after lost connections, 429 and 503. Changes and deletions
//!   are not.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

use http::{Method, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::url::{encode, path_with_query};
use crate::{Client, ClientError, Request, Response};

/// Rows of a page that [`RowStream`] requests: the maximum that the daemon returns.
const PAGE_ROWS: u64 = 100;

/// A kind of resource.
pub trait Resource: DeserializeOwned {
    /// The path of the resources, e.g. `/api/v1/agents`.
    const PATH: &'static str;
    /// The selector of a list; `()` if there is none.
    type Filter: ListFilter;
}

/// A kind of resource that clients can create.
pub trait Create: Resource {
    /// The fields of a new one.
    type NewBody: Serialize;
    /// The body of the response, usually the resource.
    type Created: DeserializeOwned;
}

/// A kind of resource that clients can change.
pub trait Update: Resource {
    /// The fields to change; absent fields stay as they are.
    type Patch: Serialize;
}

/// A selector of a list.
pub trait ListFilter: Default {
    /// Query parameters and their unescaped values.
    fn pairs(&self) -> Vec<(&'static str, String)>;
}

impl ListFilter for () {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Selects one page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions<Q = ()> {
    /// The selector.
    pub filter: Q,
    /// Maximum number of rows, 1–100; the daemon's default is 50.
    pub limit: Option<u64>,
    /// The `next_cursor` of the previous page; `None`: the first page.
    pub cursor: Option<String>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
}

impl<Q: ListFilter> ListOptions<Q> {
    /// Returns the request for the page of the list at `base`.
    pub(crate) fn request(&self, base: &str) -> Request {
        let mut pairs = self.filter.pairs();
        pairs.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        pairs.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        pairs.extend(self.ascending.then(|| ("order", "asc".to_owned())));
        let pairs = pairs.into_iter().map(|(name, value)| (name, encode(&value)));
        Request::new(Method::GET, path_with_query(base, pairs))
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// The cursor of the next page; `None`: this is the last page.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A resource and its version, which a change may require.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// The resource.
    pub value: T,
    /// The version from `ETag`; `None` without one: for kinds that never change. In a response that was
    /// stored for an idempotency key it is the version at creation; the resource may have changed since then.
    pub version: Option<u64>,
}

/// The resources of one kind; see [`Client::resource`].
pub struct Collection<'a, T> {
    pub(crate) client: &'a Client,
    kind: PhantomData<fn() -> T>,
}

impl<T: Resource> fmt::Debug for Collection<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::PATH)
    }
}

impl Client {
    /// Returns the resources of a kind.
    pub fn resource<T: Resource>(&self) -> Collection<'_, T> {
        Collection { client: self, kind: PhantomData }
    }
}

impl<'a, T: Resource> Collection<'a, T> {
    /// Gets one by its id.
    ///
    /// # Errors
    /// [`ClientError`]; 404 also for a resource that the caller may not see.
    pub async fn get(&self, id: &str) -> Result<Versioned<T>, ClientError> {
        versioned(self.client.send_retrying(&Request::new(Method::GET, self.at(id))).await?)
    }

    /// Gets a page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, list: &ListOptions<T::Filter>) -> Result<Page<T>, ClientError> {
        self.client.send_retrying(&list.request(T::PATH)).await?.decode()
    }

    /// Lists all rows, newest first. Pages are read as needed.
    pub fn all(&self, filter: T::Filter) -> RowStream<'a, T> {
        let list = ListOptions { filter, limit: Some(PAGE_ROWS), cursor: None, ascending: false };
        RowStream {
            collection: Collection { client: self.client, kind: PhantomData },
            next: Some(list),
            page: VecDeque::new(),
        }
    }

    /// Deletes one. If `version` is set, deletes it only if it still has that version.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn delete(&self, id: &str, version: Option<u64>) -> Result<(), ClientError> {
        let request = if_match(Request::new(Method::DELETE, self.at(id)), version);
        self.client.send(&request).await?.error_for_status()?;
        Ok(())
    }

    /// Returns the path of one.
    pub(crate) fn at(&self, id: &str) -> String {
        format!("{}/{}", T::PATH, encode(id))
    }
}

impl<T: Create> Collection<'_, T> {
    /// Creates one. The request is sent once: after a lost connection it may have been created or not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create(&self, new: &T::NewBody) -> Result<Versioned<T::Created>, ClientError> {
        versioned(
            self.client.send(&Request::new(Method::POST, T::PATH).json(new)?).await?.error_for_status()?,
        )
    }

    /// Creates one, once for this key within 24 hours, however often it is called and sent.
    ///
    /// # Errors
    /// [`ClientError`]; 409 if the key was used for something else.
    pub async fn create_once(
        &self,
        key: &str,
        new: &T::NewBody,
    ) -> Result<Versioned<T::Created>, ClientError> {
        let request = Request::new(Method::POST, T::PATH).json(new)?.idempotency_key(key);
        versioned(self.client.send_retrying(&request).await?)
    }
}

impl<T: Update> Collection<'_, T> {
    /// Changes one. If `version` is set, changes it only if it still has that version.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn update(
        &self,
        id: &str,
        version: Option<u64>,
        change: &T::Patch,
    ) -> Result<Versioned<T>, ClientError> {
        let request = if_match(Request::new(Method::PUT, self.at(id)).json(change)?, version);
        versioned(self.client.send(&request).await?.error_for_status()?)
    }
}

impl Client {
    pub(crate) async fn send_retrying(&self, request: &Request) -> Result<Response, ClientError> {
        self.send_with_retries(request, |_, _| ()).await
    }
}

/// The rows of a list, across its pages.
pub struct RowStream<'a, T: Resource> {
    collection: Collection<'a, T>,
    /// The page to read next; `None`: there is none.
    next: Option<ListOptions<T::Filter>>,
    /// The rows of at most one page that are not returned yet.
    page: VecDeque<T>,
}

impl<T: Resource> RowStream<'_, T> {
    /// Returns the next row; `None` at the end and after an error.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            if let Some(row) = self.page.pop_front() {
                return Some(Ok(row));
            }
            let list = self.next.as_mut()?;
            let page = match self.collection.list(list).await {
                Ok(page) => page,
                Err(error) => {
                    self.next = None;
                    return Some(Err(error));
                }
            };
            // A cursor that is its own next cursor would cause an endless loop.
            match page.next_cursor.filter(|next| !next.is_empty() && list.cursor.as_ref() != Some(next)) {
                Some(next) => list.cursor = Some(next),
                None => self.next = None,
            }
            self.page = page.data.into();
        }
    }

    /// Returns the remaining rows, up to `max`. The limit stops a long list from filling this process's
    /// memory.
    ///
    /// # Errors
    /// The first error.
    pub async fn take(mut self, max: usize) -> Result<Vec<T>, ClientError> {
        let mut rows = Vec::new();
        while rows.len() < max
            && let Some(row) = self.next().await
        {
            rows.push(row?);
        }
        Ok(rows)
    }
}

pub(crate) fn if_match(request: Request, version: Option<u64>) -> Request {
    match version {
        Some(version) => request.header(header::IF_MATCH, format!("\"{version}\"")),
        None => request,
    }
}

pub(crate) fn versioned<T: DeserializeOwned>(response: Response) -> Result<Versioned<T>, ClientError> {
    let tag = response.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let version = tag.and_then(|tag| tag.trim_matches('"').parse().ok());
    Ok(Versioned { value: response.decode_data()?, version })
}
