//! Verifies one credential: that it is genuine, valid now, not revoked, and allowed from its origin.
//!
//! * Nothing here waits or counts failures; `Auth::authenticate` counts them.
//! * A one-shot ticket is used up last, when nothing else can refuse the request.
//! * An unknown key id costs the same work as a wrong secret.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::presented::{self, CredentialUse, PresentedCredential, RequestContext};
use super::validity::check_valid;
use crate::auth::error::{AuthError, CredentialEnded, CredentialError, ForbiddenUse, RenewError};
use crate::auth::records::directory::ApiKeyEntry;
use crate::auth::rights::credential::{CredentialId, CredentialSource};
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::ScopeSet;
use crate::auth::tickets::one_shot::SpendHandle;
use crate::auth::tickets::open::{self, OpenedTicket};
use crate::auth::tickets::ticket::TICKET_BYTES;
use crate::auth::tokens::{jti, jwt};
use crate::auth::{Auth, api_key};

/// How old the recorded last use of a key may be, in milliseconds.
const LAST_USE_MS: u64 = 60_000;

impl Auth {
    /// Finds the credential in a request. `query` is without `?`.
    #[must_use]
    pub fn present<'a>(&self, headers: &'a http::HeaderMap, query: &'a str) -> PresentedCredential<'a> {
        presented::present(headers, query, self.token_in_query)
    }

    /// Authenticates a credential and returns its principal. Success uses up a one-shot ticket.
    ///
    /// # Errors
    /// 401 (also without any credential), 403 for a valid credential with a disallowed origin or use, 429 if
    /// the address has had too many failures. A valid credential is never refused because of failures.
    pub fn authenticate(
        &self,
        presented: &PresentedCredential<'_>,
        cx: &RequestContext<'_>,
    ) -> Result<Arc<Principal>, AuthError> {
        let now_ms = self.clock.now_ms();
        self.verify(presented, cx, now_ms).map_err(|error| self.count_failure(error, cx.peer, now_ms))
    }

    /// Returns the principal with which a live connection continues after presenting `token` (a JWT or an API
    /// key).
    ///
    /// # Errors
    /// [`RenewError::Refused`]: the old principal stays. [`RenewError::ChangedIdentity`]: the connection must
    /// be closed.
    pub fn renew(
        &self,
        current: &Principal,
        token: &str,
        peer: Option<std::net::IpAddr>,
    ) -> Result<Arc<Principal>, RenewError> {
        let now_ms = self.clock.now_ms();
        let new = self.bearer(token, CredentialSource::Bearer, now_ms);
        let new = new.map_err(|refusal| {
            RenewError::Refused(self.count_failure(AuthError::Unauthorized(refusal), peer, now_ms))
        })?;
        match new.tenant == current.tenant && new.sub == current.sub {
            true => Ok(Arc::new(new)),
            false => Err(RenewError::ChangedIdentity),
        }
    }

    fn count_failure(&self, error: AuthError, peer: Option<std::net::IpAddr>, now_ms: u64) -> AuthError {
        match error {
            AuthError::Unauthorized(refusal) if refusal != CredentialError::Absent => {
                match self.failures.count(peer, now_ms) {
                    Ok(()) => error,
                    Err(retry_after) => AuthError::TooManyFailures { retry_after },
                }
            }
            _ => error,
        }
    }

    fn verify(
        &self,
        presented: &PresentedCredential<'_>,
        cx: &RequestContext<'_>,
        now_ms: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let (via, text) = presented.0.as_ref().ok_or(AuthError::Unauthorized(CredentialError::Absent))?;
        let text = text.as_deref().ok_or(AuthError::Unauthorized(CredentialError::Malformed))?;
        let (principal, spend) = match via {
            CredentialSource::Ticket => self.ticket_bearer(text, cx, now_ms)?,
            CredentialSource::ApiKeyHeader => {
                (Arc::new(self.api_key(text, *via, now_ms).map_err(AuthError::Unauthorized)?), None)
            }
            CredentialSource::Bearer | CredentialSource::Query | CredentialSource::Cookie => {
                (Arc::new(self.bearer(text, *via, now_ms).map_err(AuthError::Unauthorized)?), None)
            }
        };
        self.check_origin(*via, cx).map_err(AuthError::Forbidden)?;
        match spend {
            Some(spend) if !self.one_shots.spend(spend) => {
                Err(AuthError::Unauthorized(CredentialError::Ticket))
            }
            _ => Ok(principal),
        }
    }

    fn check_origin(&self, via: CredentialSource, cx: &RequestContext<'_>) -> Result<(), ForbiddenUse> {
        let websocket = cx.use_ == CredentialUse::WebSocket;
        let foreign_page = websocket && cx.origin.is_some_and(|origin| !self.origins.allows(origin, cx.host));
        let forged = via == CredentialSource::Cookie
            && !self.origins.allows_cookie(cx.method, websocket, cx.origin, cx.host);
        match foreign_page || forged {
            true => Err(ForbiddenUse::Origin),
            false => Ok(()),
        }
    }

    fn bearer(&self, text: &str, via: CredentialSource, now_ms: u64) -> Result<Principal, CredentialError> {
        match text.starts_with(api_key::PREFIX) {
            true => self.api_key(text, via, now_ms),
            false => self.token(text, via, now_ms),
        }
    }

    fn api_key(&self, text: &str, via: CredentialSource, now_ms: u64) -> Result<Principal, CredentialError> {
        let (id, secret) = api_key::split(text).ok_or(CredentialError::Malformed)?;
        let found = self.directory.read(|table| {
            table.key(id).map(|(entry, key)| (Arc::clone(&entry.organization), Arc::clone(key)))
        });
        if !api_key::matches(secret, found.as_ref().map(|(_, key)| &key.row.digest)) {
            return Err(CredentialError::NotGenuine);
        }
        let (organization, key) = found.ok_or(CredentialError::NotGenuine)?;
        if key.row.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(CredentialError::Expired);
        }
        self.record_use(&key, now_ms);
        Ok(Principal {
            tenant: organization.tenant,
            org_id: organization.id.as_str().into(),
            sub: None,
            roles: Box::default(),
            scopes: key.row.scopes,
            narrowing: key.row.narrowing.clone(),
            expires_at_ms: key.row.expires_at_ms,
            credential: CredentialId::Key { key_id: key.row.id.as_str().into(), issued_at_ms: 0 },
            via,
        })
    }

    fn token(&self, text: &str, via: CredentialSource, now_ms: u64) -> Result<Principal, CredentialError> {
        let keys = Arc::clone(&self.keys.read());
        let (claims, key) = jwt::verify(text, &keys, now_ms)?;
        if !key.allows_organization(&claims.org_id) {
            return Err(CredentialError::Organization);
        }
        self.directory.read(|table| {
            let entry = table.by_org_id(&claims.org_id).ok_or(CredentialError::Organization)?;
            // A token that was minted here for a deleted organization has no rights in a later organization
            // of the same name. If `iat` has whole seconds, a token of the same second may belong to either.
            let born_ms = match claims.to_the_ms {
                true => entry.organization.created_at_ms,
                false => entry.organization.created_at_ms / 1_000 * 1_000,
            };
            if key.is_own() && claims.issued_at_ms.is_none_or(|issued| issued < born_ms) {
                return Err(CredentialError::Organization);
            }
            let session = key.is_own() && claims.jti.as_deref().is_some_and(jti::is_session);
            let principal = Principal {
                tenant: entry.organization.tenant,
                org_id: entry.organization.id.as_str().into(),
                sub: Some(claims.sub),
                roles: claims.roles,
                scopes: claims.scopes,
                narrowing: claims.narrowing,
                expires_at_ms: Some(claims.expires_at_ms),
                credential: CredentialId::Token {
                    key: key.digest,
                    jti: claims.jti,
                    issued_at_ms: claims.issued_at_ms.unwrap_or(0),
                    session,
                },
                via,
            };
            check_valid(table, &keys, &principal, now_ms).map_err(refusal)?;
            Ok(principal)
        })
    }

    fn ticket_bearer(
        &self,
        text: &str,
        cx: &RequestContext<'_>,
        now_ms: u64,
    ) -> Result<(Arc<Principal>, Option<SpendHandle>), AuthError> {
        let refuse = AuthError::Unauthorized;
        if text.len() > TICKET_BYTES {
            return Err(refuse(CredentialError::TooLong));
        }
        let read = open::open(text, &self.seal, &self.one_shots, now_ms);
        let over = |over| refuse(if over { CredentialError::Expired } else { CredentialError::Ticket });
        let (principal, spend, bound) = match read.map_err(over)? {
            OpenedTicket::OneShot(spend, principal) => (principal, Some(spend), None),
            OpenedTicket::Reconnect { principal, origin } => (Arc::new(principal), None, Some(origin)),
        };
        self.still_valid(&principal).map_err(|ended| refuse(refusal(ended)))?;
        // A ticket is part of a URL, so it only opens streams and reads history. A reconnect ticket opens no
        // WebSocket either.
        if cx.use_ == CredentialUse::Rest || (bound.is_some() && cx.use_ != CredentialUse::Stream) {
            return Err(AuthError::Forbidden(ForbiddenUse::TicketUse));
        }
        if let Some(bound) = bound {
            let same_page = match (cx.origin, bound) {
                (None, _) => true,
                (Some(origin), Some(bound)) => origin.eq_ignore_ascii_case(&bound),
                // A server made the ticket for its pages, so any page that may use the daemon at all may use
                // it.
                (Some(origin), None) => self.origins.allows(origin, cx.host),
            };
            if !same_page {
                return Err(AuthError::Forbidden(ForbiddenUse::Origin));
            }
        }
        let scopes = principal.scopes.and(ScopeSet::OF_TICKETS);
        let principal = Principal { via: CredentialSource::Ticket, scopes, ..Principal::clone(&principal) };
        Ok((Arc::new(principal), spend))
    }

    fn record_use(&self, key: &ApiKeyEntry, now_ms: u64) {
        let last = key.last_used_ms.load(Ordering::Relaxed);
        let stale = last == 0 || now_ms.saturating_sub(last) >= LAST_USE_MS;
        // Relaxed: only the time is shared. If two threads store it at once, they only mark the same use
        // twice.
        if stale && key.last_used_ms.swap(now_ms, Ordering::Relaxed) == last {
            self.used.lock().insert((key.row.tenant, key.row.id.clone()));
        }
    }
}

fn refusal(ended: CredentialEnded) -> CredentialError {
    match ended {
        CredentialEnded::Expired => CredentialError::Expired,
        CredentialEnded::Revoked => CredentialError::Revoked,
        CredentialEnded::Disabled => CredentialError::Disabled,
        CredentialEnded::OrganizationDeleted => CredentialError::Organization,
    }
}
