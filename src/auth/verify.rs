//! Verifies one credential: that it is genuine, valid now, not revoked, and allowed from its origin.
//!
//! * Nothing here waits or counts failures; `Auth::authenticate` counts them.
//! * A one-shot ticket is used up last, when nothing else can refuse the request.
//! * An unknown key id costs the same work as a wrong secret.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::directory::{Entry, Key, Table};
use super::error::{AuthError, Ended, Forbidden, Refusal};
use super::jti::Maker;
use super::keys::KeySet;
use super::principal::{Credential, Principal};
use super::request::{Presented, RequestContext, Use, Via};
use super::scope::ScopeSet;
use super::ticket::{self, Read};
use super::{API_KEY_PREFIX, Auth, api_key, jti, jwt};

/// How old the recorded last use of a key may be, in milliseconds.
const LAST_USE_MS: u64 = 60_000;

impl Auth {
    pub(super) fn judge(
        &self,
        presented: &Presented<'_>,
        cx: &RequestContext<'_>,
        now_ms: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let (via, text) = presented.0.as_ref().ok_or(AuthError::Unauthorized(Refusal::Absent))?;
        let text = text.as_deref().ok_or(AuthError::Unauthorized(Refusal::Malformed))?;
        let (principal, spend) = match via {
            Via::Ticket => self.ticket_bearer(text, cx, now_ms)?,
            Via::ApiKeyHeader => {
                (Arc::new(self.api_key(text, *via, now_ms).map_err(AuthError::Unauthorized)?), None)
            }
            Via::Bearer | Via::Query | Via::Cookie => {
                (Arc::new(self.bearer(text, *via, now_ms).map_err(AuthError::Unauthorized)?), None)
            }
        };
        self.check_origin(*via, cx).map_err(AuthError::Forbidden)?;
        match spend {
            Some(spend) if !self.one_shots.spend(spend) => Err(AuthError::Unauthorized(Refusal::Ticket)),
            _ => Ok(principal),
        }
    }

    fn check_origin(&self, via: Via, cx: &RequestContext<'_>) -> Result<(), Forbidden> {
        let websocket = cx.use_ == Use::WebSocket;
        let foreign_page = websocket && cx.origin.is_some_and(|origin| !self.origins.allows(origin, cx.host));
        let forged =
            via == Via::Cookie && !self.origins.allows_cookie(cx.method, websocket, cx.origin, cx.host);
        match foreign_page || forged {
            true => Err(Forbidden::Origin),
            false => Ok(()),
        }
    }

    pub(super) fn bearer(&self, text: &str, via: Via, now_ms: u64) -> Result<Principal, Refusal> {
        match text.starts_with(API_KEY_PREFIX) {
            true => self.api_key(text, via, now_ms),
            false => self.token(text, via, now_ms),
        }
    }

    fn api_key(&self, text: &str, via: Via, now_ms: u64) -> Result<Principal, Refusal> {
        let (id, secret) = api_key::split(text).ok_or(Refusal::Malformed)?;
        let found = self.directory.read(|table| {
            table.key(id).map(|(entry, key)| (Arc::clone(&entry.organization), Arc::clone(key)))
        });
        if !api_key::matches(secret, found.as_ref().map(|(_, key)| &key.row.digest)) {
            return Err(Refusal::NotGenuine);
        }
        let (organization, key) = found.ok_or(Refusal::NotGenuine)?;
        if key.row.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(Refusal::Expired);
        }
        self.note_use(&key, now_ms);
        Ok(Principal {
            tenant: organization.tenant,
            org_id: organization.id.as_str().into(),
            sub: None,
            roles: Box::default(),
            scopes: key.row.scopes,
            narrowing: key.row.narrowing.clone(),
            expires_at_ms: key.row.expires_at_ms,
            credential: Credential::Key { key_id: key.row.id.as_str().into(), issued_at_ms: 0 },
            via,
        })
    }

    fn token(&self, text: &str, via: Via, now_ms: u64) -> Result<Principal, Refusal> {
        let keys = Arc::clone(&self.keys.read());
        let (claims, key) = jwt::verify(text, &keys, now_ms)?;
        if !key.may_speak_for(&claims.org_id) {
            return Err(Refusal::Organization);
        }
        self.directory.read(|table| {
            let entry = table.by_org_id(&claims.org_id).ok_or(Refusal::Organization)?;
            // A token that was minted here for a deleted organization has no rights in a later organization
            // of the same name. If `iat` has whole seconds, a token of the same second may belong to either.
            let born_ms = match claims.to_the_ms {
                true => entry.organization.created_at_ms,
                false => entry.organization.created_at_ms / 1_000 * 1_000,
            };
            if key.is_own() && claims.issued_at_ms.is_none_or(|issued| issued < born_ms) {
                return Err(Refusal::Organization);
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
                credential: Credential::Token {
                    key: key.digest,
                    jti: claims.jti,
                    issued_at_ms: claims.issued_at_ms.unwrap_or(0),
                    session,
                },
                via,
            };
            holds(table, &keys, &principal, now_ms).map_err(refusal)?;
            Ok(principal)
        })
    }

    fn ticket_bearer(
        &self,
        text: &str,
        cx: &RequestContext<'_>,
        now_ms: u64,
    ) -> Result<(Arc<Principal>, Option<ticket::Spend>), AuthError> {
        let refuse = AuthError::Unauthorized;
        if text.len() > ticket::TICKET_BYTES {
            return Err(refuse(Refusal::TooLong));
        }
        let read = self.seal.read(text, &self.one_shots, now_ms);
        let over = |over| refuse(if over { Refusal::Expired } else { Refusal::Ticket });
        let (principal, spend, bound) = match read.map_err(over)? {
            Read::OneShot(spend, principal) => (principal, Some(spend), None),
            Read::Reconnect { principal, origin } => (Arc::new(principal), None, Some(origin)),
        };
        self.still_valid(&principal).map_err(|ended| refuse(refusal(ended)))?;
        // A ticket is part of a URL, so it only opens streams and reads history. A reconnect ticket opens no
        // WebSocket either.
        if cx.use_ == Use::Rest || (bound.is_some() && cx.use_ != Use::Stream) {
            return Err(AuthError::Forbidden(Forbidden::TicketUse));
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
                return Err(AuthError::Forbidden(Forbidden::Origin));
            }
        }
        let scopes = principal.scopes.and(ScopeSet::OF_TICKETS);
        let principal = Principal { via: Via::Ticket, scopes, ..Principal::clone(&principal) };
        Ok((Arc::new(principal), spend))
    }

    fn note_use(&self, key: &Key, now_ms: u64) {
        let last = key.last_used_ms.load(Ordering::Relaxed);
        let stale = last == 0 || now_ms.saturating_sub(last) >= LAST_USE_MS;
        // Relaxed: only the time is shared. If two threads store it at once, they only mark the same use
        // twice.
        if stale && key.last_used_ms.swap(now_ms, Ordering::Relaxed) == last {
            self.used.lock().insert((key.row.tenant, key.row.id.clone()));
        }
    }
}

/// Checks that a principal is still valid, and returns its organization.
pub(super) fn holds<'t>(
    table: &'t Table,
    keys: &KeySet,
    principal: &Principal,
    now_ms: u64,
) -> Result<&'t Entry, Ended> {
    let entry = table.by_tenant.get(&principal.tenant).ok_or(Ended::OrganizationDeleted)?;
    match &principal.credential {
        Credential::Key { key_id, issued_at_ms } => {
            let key = entry.keys.get(key_id.as_ref());
            if key.is_none() || entry.has_ended(principal.sub.as_deref(), *issued_at_ms) {
                return Err(Ended::Revoked);
            }
        }
        Credential::Token { key, jti, issued_at_ms, .. } => {
            let key = keys.recorded(*key).ok_or(Ended::Revoked)?;
            let revoked = jti.as_ref().is_some_and(|jti| entry.revoked.contains_key(jti.as_ref()));
            let ended = entry.has_ended(principal.sub.as_deref(), *issued_at_ms);
            let maker = jti.as_deref().filter(|_| key.is_own()).and_then(jti::maker);
            let unmade = maker.is_some_and(|maker| has_ended(table, entry, keys, &maker, *issued_at_ms));
            if revoked || ended || unmade || !key.may_speak_for(&principal.org_id) {
                return Err(Ended::Revoked);
            }
        }
        Credential::Local => return Err(Ended::Revoked),
    }
    if principal.sub.as_ref().is_some_and(|sub| entry.disabled.contains(sub.as_ref())) {
        return Err(Ended::Disabled);
    }
    match principal.expires_at_ms.is_some_and(|end| end <= now_ms) {
        true => Err(Ended::Expired),
        false => Ok(entry),
    }
}

/// Returns true if the credential that minted a token has ended: its API key was deleted, its verifying key
/// was removed, its user was disabled, or the user's tokens of that time were ended.
fn has_ended(table: &Table, entry: &Entry, keys: &KeySet, maker: &Maker<'_>, issued_at_ms: u64) -> bool {
    match maker {
        // An operator's key may mint for other organizations than its own.
        Maker::Key(id) => table.key(id).is_none(),
        Maker::Token(key, sub) => {
            let user_ended =
                |sub: &str| entry.disabled.contains(sub) || entry.has_ended(Some(sub), issued_at_ms);
            keys.recorded(*key).is_none() || sub.as_deref().is_some_and(user_ended)
        }
    }
}

fn refusal(ended: Ended) -> Refusal {
    match ended {
        Ended::Expired => Refusal::Expired,
        Ended::Revoked => Refusal::Revoked,
        Ended::Disabled => Refusal::Disabled,
        Ended::OrganizationDeleted => Refusal::Organization,
    }
}
