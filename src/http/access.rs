//! Access: what a route demands of its caller before its handler runs.
//!
//! Each type here can stand in the column `access` of the route table (`routes.rs`). The handler of a row takes what the row's type
//! grants, so no handler runs without its check.

use std::marker::PhantomData;

use crate::auth::{Authorized, Right, Subscribe, Use};
use crate::outcome::Refusal;

use super::exchange::Exchange;

/// A demand on the caller of a route.
pub(super) trait Access {
    /// What the handler gets as proof.
    type Granted;

    /// One of these scopes is needed, and the second list besides; empty where any valid credential is enough. `None`: no credential
    /// is needed.
    fn scopes() -> Option<Vec<&'static str>>;

    /// Checks the caller of `x`.
    ///
    /// # Errors
    /// 401, 403, 429; 503 where the route writes and the daemon does not serve.
    fn check(x: &Exchange) -> Result<Self::Granted, Refusal>;
}

/// No credential is needed.
pub(super) enum Public {}

impl Access for Public {
    type Granted = ();

    fn scopes() -> Option<Vec<&'static str>> {
        None
    }

    fn check(_: &Exchange) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The right `R`.
pub(super) struct Needs<R>(PhantomData<R>);

impl<R: Right> Access for Needs<R> {
    type Granted = Authorized<R>;

    fn scopes() -> Option<Vec<&'static str>> {
        Some(R::ANY_OF.names())
    }

    fn check(x: &Exchange) -> Result<Authorized<R>, Refusal> {
        x.authorized()
    }
}

/// The right `R`, to change something. Refused before the body is read while the daemon does not serve.
pub(super) struct Writes<R>(PhantomData<R>);

impl<R: Right> Access for Writes<R> {
    type Granted = Authorized<R>;

    fn scopes() -> Option<Vec<&'static str>> {
        Some(R::ANY_OF.names())
    }

    fn check(x: &Exchange) -> Result<Authorized<R>, Refusal> {
        x.shared().serving()?;
        x.authorized()
    }
}

/// [`Writes`], for an answer that shows more than what was written: the caller must hold the right to read as well.
pub(super) struct WritesAndReads<R>(PhantomData<R>);

impl<R: Right> Access for WritesAndReads<R> {
    type Granted = Authorized<R>;

    fn scopes() -> Option<Vec<&'static str>> {
        Some(R::ANY_OF.names())
    }

    fn check(x: &Exchange) -> Result<Authorized<R>, Refusal> {
        let right = Writes::<R>::check(x)?;
        right.principal().authorize::<Subscribe>()?;
        Ok(right)
    }
}

/// The right to read history, which a ticket for reconnecting gives as well.
pub(super) enum ReadsHistory {}

impl Access for ReadsHistory {
    type Granted = Authorized<Subscribe>;

    fn scopes() -> Option<Vec<&'static str>> {
        Some(Subscribe::ANY_OF.names())
    }

    fn check(x: &Exchange) -> Result<Authorized<Subscribe>, Refusal> {
        Ok(x.principal(Use::Stream)?.authorize()?)
    }
}

/// The handler checks the right `R` itself, because something of the protocol is refused before credentials are looked at: a request
/// that is no WebSocket upgrade (426), or that does not accept an event stream (406).
pub(super) struct ByHandler<R>(PhantomData<R>);

impl<R: Right> Access for ByHandler<R> {
    type Granted = ();

    fn scopes() -> Option<Vec<&'static str>> {
        Some(R::ANY_OF.names())
    }

    fn check(_: &Exchange) -> Result<(), Refusal> {
        Ok(())
    }
}
