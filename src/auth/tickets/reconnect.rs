//! Reconnect tickets: the principal itself, encrypted (ChaCha20-Poly1305) with the daemon's own key.
//!
//! * A ticket is not stored, so it survives a restart: EventSource reconnects with the same URL after a
//!   `kill -9`.
//! * It is encrypted and not only signed, because others log URLs and must not read the claims.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::ticket::{TICKET_BYTES, Ticket, TicketError};
use crate::auth::rights::credential::{CredentialId, CredentialSource, KeyDigest};
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::ScopeSet;
use crate::auth::secret::Secret;
use crate::filter::Narrowing;
use crate::ids::TenantId;

/// Maximum lifetime of a reconnect ticket, in milliseconds.
pub const RECONNECT_MS: u64 = 3_600_000;
/// The start of every reconnect ticket.
pub(super) const PREFIX: &str = "nwt2_";
const SEAL_CONTEXT: &[u8] = b"nervewire reconnect ticket 1";

/// Encrypts and decrypts reconnect tickets.
pub(in crate::auth) struct TicketSealer(LessSafeKey);

/// A principal as it is encrypted in a ticket.
#[derive(Serialize, Deserialize)]
struct SealedPrincipal {
    tenant: u64,
    org_id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    roles: Box<[Box<str>]>,
    scopes: u16,
    #[serde(default, skip_serializing_if = "Narrowing::is_none")]
    narrowing: Narrowing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Box<str>>,
    #[serde(default)]
    issued_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Box<str>>,
    /// Expiry of the ticket itself, in Unix milliseconds.
    until_ms: u64,
}

impl TicketSealer {
    pub(in crate::auth) fn new(key: &[u8; 32]) -> Result<TicketSealer, Unspecified> {
        Ok(TicketSealer(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?)))
    }

    pub(in crate::auth) fn make(
        &self,
        principal: &Principal,
        origin: Option<&str>,
        now_ms: u64,
        random: &SystemRandom,
    ) -> Result<Ticket, TicketError> {
        let until_ms = now_ms.saturating_add(RECONNECT_MS).min(principal.expires_at_ms.unwrap_or(u64::MAX));
        let (key_id, key, jti, issued_at_ms) = match principal.credential.clone() {
            CredentialId::Key { key_id, issued_at_ms } => (Some(key_id), None, None, issued_at_ms),
            CredentialId::Token { key, jti, issued_at_ms, .. } => (None, Some(key), jti, issued_at_ms),
            CredentialId::Local => return Err(TicketError::Unmakeable),
        };
        let sealed = SealedPrincipal {
            tenant: principal.tenant.0,
            org_id: Arc::clone(&principal.org_id),
            sub: principal.sub.clone(),
            roles: principal.roles.clone(),
            scopes: principal.scopes.bits(),
            narrowing: principal.narrowing.clone(),
            expires_at_ms: principal.expires_at_ms,
            key_id,
            key,
            jti,
            issued_at_ms,
            origin: origin.map(Into::into),
            until_ms,
        };
        let mut body = serde_json::to_vec(&sealed).map_err(|_| TicketError::Unmakeable)?;
        // Random nonces are safe for 2^32 tickets of one key: a thousand a second for 49 days. A new data
        // directory has a new key.
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(SEAL_CONTEXT), &mut body)?;
        let text = format!("{PREFIX}{}", BASE64.encode([nonce.as_slice(), &body].concat()));
        match text.len() <= TICKET_BYTES {
            true => Ok(Ticket { ticket: Secret::new(text), expires_at_ms: until_ms }),
            false => Err(TicketError::Unmakeable),
        }
    }

    /// Returns the principal and bound origin of a genuine ticket; `Err(true)`: genuine but expired.
    pub(super) fn open(&self, body: &str, now_ms: u64) -> Result<(Principal, Option<Box<str>>), bool> {
        let mut bytes = BASE64.decode(body).map_err(|_| false)?;
        let (nonce, body) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(false)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| false)?;
        let json = self.0.open_in_place(nonce, Aad::from(SEAL_CONTEXT), body).map_err(|_| false)?;
        let sealed: SealedPrincipal = serde_json::from_slice(json).map_err(|_| false)?;
        if sealed.until_ms <= now_ms {
            return Err(true);
        }
        let credential = match (sealed.key_id, sealed.key) {
            (Some(key_id), None) => CredentialId::Key { key_id, issued_at_ms: sealed.issued_at_ms },
            (None, Some(key)) => CredentialId::Token {
                key,
                jti: sealed.jti,
                issued_at_ms: sealed.issued_at_ms,
                session: false,
            },
            _ => return Err(false),
        };
        let principal = Principal {
            tenant: TenantId(sealed.tenant),
            org_id: sealed.org_id,
            sub: sealed.sub,
            roles: sealed.roles,
            scopes: ScopeSet::from_bits(sealed.scopes),
            narrowing: sealed.narrowing,
            expires_at_ms: sealed.expires_at_ms,
            credential,
            via: CredentialSource::Ticket,
        };
        Ok((principal, sealed.origin))
    }
}
