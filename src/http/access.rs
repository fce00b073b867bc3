//! Access: what a route requires of its caller before its handler runs.
//!
//! Each type here can be used in the column `access` of the route table (`routes.rs`). The handler of a route
//! takes the value that the type grants, so no handler runs without its check.

use std::marker::PhantomData;

use crate::auth::{Authorized, CredentialUse, Right, ScopeSet};
use crate::error_response::ErrorResponse;

use super::request::ApiRequest;

pub(super) use crate::auth::{
    Authenticated, Manage, Mint, Operate, Publish, Subscribe, WriteAsUser, WriteOwned,
};

/// A requirement on the caller of a route.
pub(super) trait Access {
    /// The proof that the handler receives.
    type Granted;

    /// One of these scopes is required. An empty set means that any valid credential is enough; `None` means
    /// that no credential is required.
    const SCOPES: Option<ScopeSet>;

    /// Checks the caller of the request.
    ///
    /// # Errors
    /// 401, 403, 429; 503 if the route writes and the daemon is not ready.
    fn check(request: &ApiRequest) -> Result<Self::Granted, ErrorResponse>;
}

/// No credential is required.
pub(super) enum Public {}

impl Access for Public {
    type Granted = ();
    const SCOPES: Option<ScopeSet> = None;

    fn check(_: &ApiRequest) -> Result<(), ErrorResponse> {
        Ok(())
    }
}

/// The right `R` is required.
pub(super) struct Needs<R>(PhantomData<R>);

impl<R: Right> Access for Needs<R> {
    type Granted = Authorized<R>;
    const SCOPES: Option<ScopeSet> = Some(R::ANY_OF);

    fn check(request: &ApiRequest) -> Result<Authorized<R>, ErrorResponse> {
        request.authorized()
    }
}

/// The right `R` is required in order to change something. The request is refused before its body is read
/// while the daemon is not ready.
pub(super) struct Writes<R>(PhantomData<R>);

impl<R: Right> Access for Writes<R> {
    type Granted = Authorized<R>;
    const SCOPES: Option<ScopeSet> = Some(R::ANY_OF);

    fn check(request: &ApiRequest) -> Result<Authorized<R>, ErrorResponse> {
        request.shared().serving()?;
        request.authorized()
    }
}

/// Like [`Writes`], for a response that shows more than what was written: the caller must also have the right
/// to read.
pub(super) struct WritesAndReads<R>(PhantomData<R>);

impl<R: Right> Access for WritesAndReads<R> {
    type Granted = Authorized<R>;
    const SCOPES: Option<ScopeSet> = Some(R::ANY_OF);

    fn check(request: &ApiRequest) -> Result<Authorized<R>, ErrorResponse> {
        let right = Writes::<R>::check(request)?;
        right.principal().authorize::<Subscribe>()?;
        Ok(right)
    }
}

/// The right to read history is required. A reconnect ticket grants it too.
pub(super) enum ReadsHistory {}

impl Access for ReadsHistory {
    type Granted = Authorized<Subscribe>;
    const SCOPES: Option<ScopeSet> = Some(Subscribe::ANY_OF);

    fn check(request: &ApiRequest) -> Result<Authorized<Subscribe>, ErrorResponse> {
        Ok(request.principal(CredentialUse::Stream)?.authorize()?)
    }
}

/// The handler checks the right `R` itself, because the protocol refuses some requests before it checks
/// credentials: a request that is not a WebSocket upgrade (426), or one that does not accept an event stream
/// (406).
pub(super) struct ByHandler<R>(PhantomData<R>);

impl<R: Right> Access for ByHandler<R> {
    type Granted = ();
    const SCOPES: Option<ScopeSet> = Some(R::ANY_OF);

    fn check(_: &ApiRequest) -> Result<(), ErrorResponse> {
        Ok(())
    }
}
