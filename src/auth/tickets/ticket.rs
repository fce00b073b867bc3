//! Tickets: credentials that may be part of a URL (protocol §4).
//!
//! * A one-shot ticket lives for [`ONE_SHOT_MS`] in this process's memory and is used up by its first
//!   successful use. Of two concurrent uses one succeeds, because removing it from the map is the use.
//! * A reconnect ticket is the principal itself, encrypted (ChaCha20-Poly1305) with the daemon's own key. It
//!   is not stored, so it survives a restart: EventSource reconnects with the same URL after a `kill -9`. It
//!   is encrypted and not only signed, because others log URLs and must not read the claims.
//! * Both kinds stand for a principal with the expiry and revocation of the credential that they were made
//!   from. The principal may only read streams and history ([`ScopeSet::OF_TICKETS`]).
//! * This module does not know requests; `Auth` checks origin and use.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, error::Unspecified};
use serde::{Deserialize, Serialize};

use crate::auth::request::presented::CredentialSource;
use crate::auth::rights::principal::{CredentialId, Principal};
use crate::auth::rights::scope::ScopeSet;
use crate::auth::secret::Secret;
use crate::auth::tokens::keys::KeyDigest;
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Lifetime of a one-shot ticket, in milliseconds.
pub const ONE_SHOT_MS: u64 = 30_000;
/// Maximum lifetime of a reconnect ticket, in milliseconds.
pub const RECONNECT_MS: u64 = 3_600_000;
/// Maximum number of unused one-shot tickets of one user or API key. Beyond it, their own oldest ticket is
/// dropped, never another's.
pub const TICKETS_PER_SUBJECT: usize = 100;
/// Maximum number of unused one-shot tickets of an organization. Beyond it, no further one is made.
pub const TICKETS_PER_ORGANIZATION: usize = 10_000;
/// Maximum number of unused one-shot tickets in total (about 30 MiB). Beyond it, an organization that holds
/// more than its equal share gets no further one; a new ticket of any other replaces one of the organization
/// that holds most.
pub const TICKETS: usize = 100_000;
/// Minimum time between two searches of a full organization for its own expired tickets, in milliseconds.
const SWEEP_MS: u64 = 1_000;
/// Maximum length of a ticket, in bytes: an encrypted principal with the narrowing of the longest token.
pub(in crate::auth) const TICKET_BYTES: usize = 16 * 1024;

const ONE_SHOT_PREFIX: &str = "nwt1_";
const RECONNECT_PREFIX: &str = "nwt2_";
const SEAL_CONTEXT: &[u8] = b"nervewire reconnect ticket 1";

/// A new ticket.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The text for `?ticket=`.
    pub ticket: Secret,
    /// Expiry in Unix milliseconds.
    pub expires_at_ms: u64,
}

/// A ticket that was read but not yet accepted.
#[derive(Debug)]
pub(in crate::auth) enum OpenedTicket {
    /// It exists and is not used up yet: [`OneShotTickets::spend`] does that.
    OneShot(SpendHandle, Arc<Principal>),
    /// It is genuine and not expired.
    Reconnect { principal: Principal, origin: Option<Box<str>> },
}

/// The handle for using up a one-shot ticket.
#[derive(Debug, Clone, Copy)]
pub(in crate::auth) struct SpendHandle(Digest);

type Digest = [u8; 32];

/// Why no ticket was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum TicketError {
    /// There are no random bytes, or the principal is too long for a ticket.
    Unmakeable,
    /// There are too many unused tickets.
    Full {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
}

impl From<Unspecified> for TicketError {
    fn from(Unspecified: Unspecified) -> TicketError {
        TicketError::Unmakeable
    }
}

/// The unused one-shot tickets. They are found by digest, so the time of a lookup reveals nothing about a
/// ticket.
#[derive(Debug, Default)]
pub(in crate::auth) struct OneShotTickets(Mutex<UnspentTickets>);

#[derive(Debug, Default)]
struct UnspentTickets {
    tickets: HashMap<Digest, OneShotTicket>,
    by_tenant: HashMap<TenantId, TenantTickets>,
    /// When expired tickets of all organizations were last dropped, in Unix milliseconds.
    swept_ms: u64,
}

#[derive(Debug)]
struct OneShotTicket {
    principal: Arc<Principal>,
    /// Expiry in Unix milliseconds.
    until_ms: u64,
}

#[derive(Debug, Default)]
struct TenantTickets {
    count: usize,
    /// Tickets of each user or API key, oldest first. No queue is empty.
    by_subject: HashMap<Box<str>, VecDeque<Digest>>,
    /// When the organization's expired tickets were last dropped because it was full, in Unix milliseconds.
    swept_ms: u64,
}

impl OneShotTickets {
    pub(in crate::auth) fn make(
        &self,
        principal: &Arc<Principal>,
        now_ms: u64,
        random: &SystemRandom,
    ) -> Result<Ticket, TicketError> {
        let mut bytes = [0; 32];
        random.fill(&mut bytes)?;
        let text = format!("{ONE_SHOT_PREFIX}{}", BASE64.encode(bytes));
        let until_ms = now_ms.saturating_add(ONE_SHOT_MS).min(principal.expires_at_ms.unwrap_or(u64::MAX));
        let digest = digest_of(&text);
        let mut unspent = self.0.lock();
        unspent.make_room(principal, now_ms)?;
        let of_tenant = unspent.by_tenant.entry(principal.tenant).or_default();
        of_tenant.count += 1;
        of_tenant.by_subject.entry(principal.subject().into()).or_default().push_back(digest);
        unspent.tickets.insert(digest, OneShotTicket { principal: Arc::clone(principal), until_ms });
        Ok(Ticket { ticket: Secret::new(text), expires_at_ms: until_ms })
    }

    pub(in crate::auth) fn find(&self, text: &str, now_ms: u64) -> Option<OpenedTicket> {
        let digest = digest_of(text);
        let unspent = self.0.lock();
        let found = unspent.tickets.get(&digest).filter(|ticket| now_ms < ticket.until_ms)?;
        Some(OpenedTicket::OneShot(SpendHandle(digest), Arc::clone(&found.principal)))
    }

    /// Uses up the ticket. Returns false if another request was first.
    pub(in crate::auth) fn spend(&self, SpendHandle(digest): SpendHandle) -> bool {
        self.0.lock().remove(&digest)
    }
}

impl UnspentTickets {
    fn remove(&mut self, digest: &Digest) -> bool {
        let Some(OneShotTicket { principal, .. }) = self.tickets.remove(digest) else { return false };
        let Some(of_tenant) = self.by_tenant.get_mut(&principal.tenant) else { return true };
        of_tenant.count -= 1;
        let subject = principal.subject();
        if let Some(own) = of_tenant.by_subject.get_mut(subject.as_ref()) {
            own.retain(|other| other != digest);
            if own.is_empty() {
                of_tenant.by_subject.remove(subject.as_ref());
            }
        }
        if of_tenant.count == 0 {
            self.by_tenant.remove(&principal.tenant);
        }
        true
    }

    /// Makes room for one more ticket of `principal`.
    fn make_room(&mut self, principal: &Principal, now_ms: u64) -> Result<(), TicketError> {
        if now_ms.abs_diff(self.swept_ms) >= ONE_SHOT_MS {
            self.swept_ms = now_ms;
            self.drop_expired(now_ms, None);
        }
        let tenant = principal.tenant;
        let Some(of_tenant) = self.by_tenant.get_mut(&tenant) else { return self.make_room_for_all(0) };
        let own = of_tenant.by_subject.get(principal.subject().as_ref());
        if let Some(oldest) = own.filter(|own| own.len() >= TICKETS_PER_SUBJECT).and_then(VecDeque::front) {
            let oldest = *oldest;
            self.remove(&oldest);
            return Ok(());
        }
        if of_tenant.count >= TICKETS_PER_ORGANIZATION && now_ms.abs_diff(of_tenant.swept_ms) >= SWEEP_MS {
            of_tenant.swept_ms = now_ms;
            self.drop_expired(now_ms, Some(tenant));
        }
        let count = self.by_tenant.get(&tenant).map_or(0, |of_tenant| of_tenant.count);
        match count >= TICKETS_PER_ORGANIZATION {
            true => Err(TicketError::Full {
                what: "unspent tickets of an organization",
                max: TICKETS_PER_ORGANIZATION,
            }),
            false => self.make_room_for_all(count),
        }
    }

    /// Makes room in the total for an organization that holds `count` tickets.
    fn make_room_for_all(&mut self, count: usize) -> Result<(), TicketError> {
        if self.tickets.len() < TICKETS {
            return Ok(());
        }
        if count >= TICKETS / self.by_tenant.len().max(1) {
            return Err(TicketError::Full { what: "unspent tickets", max: TICKETS });
        }
        let fullest = self.by_tenant.values().max_by_key(|of_tenant| of_tenant.count);
        let subject = fullest.and_then(|of_tenant| of_tenant.by_subject.values().max_by_key(|own| own.len()));
        if let Some(oldest) = subject.and_then(VecDeque::front).copied() {
            self.remove(&oldest);
        }
        Ok(())
    }

    /// Drops expired tickets, of one organization or of all.
    fn drop_expired(&mut self, now_ms: u64, of: Option<TenantId>) {
        let over = |ticket: &OneShotTicket| {
            ticket.until_ms <= now_ms && of.is_none_or(|tenant| tenant == ticket.principal.tenant)
        };
        let expired = self.tickets.iter().filter(|(_, ticket)| over(ticket)).map(|(digest, _)| *digest);
        let expired: Vec<Digest> = expired.collect();
        for digest in &expired {
            self.remove(digest);
        }
    }
}

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
        let text = format!("{RECONNECT_PREFIX}{}", BASE64.encode([nonce.as_slice(), &body].concat()));
        match text.len() <= TICKET_BYTES {
            true => Ok(Ticket { ticket: Secret::new(text), expires_at_ms: until_ms }),
            false => Err(TicketError::Unmakeable),
        }
    }

    /// Returns the principal and bound origin of a genuine ticket; `Err(true)`: genuine but expired.
    fn open(&self, body: &str, now_ms: u64) -> Result<(Principal, Option<Box<str>>), bool> {
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

    /// Reads a ticket of either kind; `Err(true)`: genuine but expired.
    pub(in crate::auth) fn read(
        &self,
        text: &str,
        one_shots: &OneShotTickets,
        now_ms: u64,
    ) -> Result<OpenedTicket, bool> {
        if let Some(body) = text.strip_prefix(RECONNECT_PREFIX) {
            let (principal, origin) = self.open(body, now_ms)?;
            return Ok(OpenedTicket::Reconnect { principal, origin });
        }
        one_shots.find(text, now_ms).ok_or(false)
    }
}

fn digest_of(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}
