//! Tickets: credentials fit for a URL (protocol §4).
//!
//! * A one-shot ticket lives [`ONE_SHOT_MS`] in this process's memory and is spent at first successful use: two
//!   racing uses have one winner, because taking it out of the map is the use.
//! * A reconnect ticket is the principal itself, sealed (ChaCha20-Poly1305) with the daemon's own key. It is kept
//!   nowhere, so it survives a restart: EventSource comes back with the same URL after a `kill -9`. Sealed rather
//!   than signed, since URLs are logged by others and the claims are nobody's business.
//! * Either stands for a principal whose expiry and revocation are those of the credential it was made from.
//! * Knows no request; `Auth` asks about origin and use.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, error::Unspecified};
use serde::{Deserialize, Serialize};

use super::keys::KeyDigest;
use super::principal::{Credential, Principal};
use super::request::Via;
use super::scope::ScopeSet;
use super::secret::Secret;
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// How long a one-shot ticket lives, in milliseconds.
pub const ONE_SHOT_MS: u64 = 30_000;
/// How long a reconnect ticket lives at most, in milliseconds.
pub const RECONNECT_MS: u64 = 3_600_000;
/// Most unspent one-shot tickets of an organization; beyond it its oldest go.
pub const TICKETS_PER_ORGANIZATION: usize = 10_000;
/// Most unspent one-shot tickets of all; beyond it the oldest of the fullest organization goes (about 20 MiB).
pub const TICKETS: usize = 100_000;
/// Longest ticket read, in bytes: a sealed principal with the narrowing of the longest token.
pub(super) const TICKET_BYTES: usize = 16 * 1024;

const ONE_SHOT_PREFIX: &str = "nwt1_";
const RECONNECT_PREFIX: &str = "nwt2_";
const SEAL_CONTEXT: &[u8] = b"nervewire reconnect ticket 1";

/// A new ticket.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The text for `?ticket=`.
    pub ticket: Secret,
    /// Unix milliseconds after which it opens nothing.
    pub expires_at_ms: u64,
}

/// A ticket that was read, not yet judged.
#[derive(Debug)]
pub(super) enum Read {
    /// Found, and not spent by looking: [`OneShots::spend`] does.
    OneShot(Spend, Arc<Principal>),
    /// Genuine and within its time.
    Reconnect { principal: Principal, origin: Option<Box<str>> },
}

/// The handle for spending a one-shot ticket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spend(TenantId, Digest);

type Digest = [u8; 32];

/// The one-shot tickets not yet spent. They are found by digest, so a lookup's time tells nothing about a ticket.
#[derive(Debug, Default)]
pub(super) struct OneShots(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    count: usize,
    by_tenant: HashMap<TenantId, Own>,
    owner: HashMap<Digest, TenantId>,
}

#[derive(Debug, Default)]
struct Own {
    tickets: HashMap<Digest, Arc<Principal>>,
    /// In order of making, which is the order of expiry; spent ones are still listed until they come up.
    order: VecDeque<(u64, Digest)>,
}

impl OneShots {
    pub(super) fn make(
        &self,
        principal: &Arc<Principal>,
        now_ms: u64,
        random: &SystemRandom,
    ) -> Result<Ticket, Unspecified> {
        let mut bytes = [0; 32];
        random.fill(&mut bytes)?;
        let text = format!("{ONE_SHOT_PREFIX}{}", BASE64.encode(bytes));
        let until = now_ms.saturating_add(ONE_SHOT_MS).min(principal.expires_at_ms.unwrap_or(u64::MAX));
        let digest = digest_of(&text);
        let mut held = self.0.lock();
        held.sweep(principal.tenant, now_ms, TICKETS_PER_ORGANIZATION - 1);
        if held.count >= TICKETS {
            held.make_room(now_ms);
        }
        let own = held.by_tenant.entry(principal.tenant).or_default();
        own.tickets.insert(digest, Arc::clone(principal));
        own.order.push_back((until, digest));
        held.owner.insert(digest, principal.tenant);
        held.count += 1;
        Ok(Ticket { ticket: Secret::new(text), expires_at_ms: until })
    }

    pub(super) fn find(&self, text: &str, now_ms: u64) -> Option<Read> {
        let digest = digest_of(text);
        let mut held = self.0.lock();
        let tenant = *held.owner.get(&digest)?;
        held.sweep(tenant, now_ms, usize::MAX);
        let principal = held.by_tenant.get(&tenant)?.tickets.get(&digest)?;
        Some(Read::OneShot(Spend(tenant, digest), Arc::clone(principal)))
    }

    /// Takes the ticket; false: someone else was first.
    pub(super) fn spend(&self, Spend(tenant, digest): Spend) -> bool {
        self.0.lock().remove(tenant, &digest)
    }
}

impl Held {
    fn remove(&mut self, tenant: TenantId, digest: &Digest) -> bool {
        let Some(own) = self.by_tenant.get_mut(&tenant) else { return false };
        let there = own.tickets.remove(digest).is_some();
        if own.tickets.is_empty() {
            self.by_tenant.remove(&tenant);
        }
        self.owner.remove(digest);
        self.count -= usize::from(there);
        there
    }

    /// Drops what has expired of one organization, and its oldest until at most `keep` are listed.
    fn sweep(&mut self, tenant: TenantId, now_ms: u64, keep: usize) {
        while let Some(own) = self.by_tenant.get_mut(&tenant) {
            // Listed, not held: bounds the spent ones in the list as well.
            let full = own.order.len() > keep;
            match own.order.front() {
                Some((until, digest)) if full || *until <= now_ms || !own.tickets.contains_key(digest) => {
                    let digest = *digest;
                    own.order.pop_front();
                    self.remove(tenant, &digest);
                }
                _ => return,
            }
        }
    }

    fn make_room(&mut self, now_ms: u64) {
        let tenants: Vec<TenantId> = self.by_tenant.keys().copied().collect();
        tenants.into_iter().for_each(|tenant| self.sweep(tenant, now_ms, usize::MAX));
        if self.count < TICKETS {
            return;
        }
        let fullest = self.by_tenant.iter().max_by_key(|(_, own)| own.tickets.len());
        let Some((tenant, own)) = fullest else { return };
        let tenant = *tenant;
        if let Some((_, digest)) = own.order.iter().find(|(_, digest)| own.tickets.contains_key(digest)) {
            let digest = *digest;
            self.remove(tenant, &digest);
        }
    }
}

/// Makes and opens reconnect tickets.
pub(super) struct Seal(LessSafeKey);

/// A principal as it stands in a sealed ticket.
#[derive(Serialize, Deserialize)]
struct Sealed {
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
    /// Unix milliseconds: the ticket's own end.
    until_ms: u64,
}

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Result<Seal, Unspecified> {
        Ok(Seal(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?)))
    }

    pub(super) fn make(
        &self,
        principal: &Principal,
        origin: Option<&str>,
        now_ms: u64,
        random: &SystemRandom,
    ) -> Result<Ticket, Unspecified> {
        let until_ms = now_ms.saturating_add(RECONNECT_MS).min(principal.expires_at_ms.unwrap_or(u64::MAX));
        let (key_id, key, jti, issued_at_ms) = match principal.credential.clone() {
            Credential::Key { key_id } => (Some(key_id), None, None, 0),
            Credential::Token { key, jti, issued_at_ms } => (None, Some(key), jti, issued_at_ms),
            Credential::Local => return Err(Unspecified),
        };
        let sealed = Sealed {
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
        let mut body = serde_json::to_vec(&sealed).map_err(|_| Unspecified)?;
        // Random nonces are safe for 2^32 tickets of one key: a thousand a second for 49 days, sealed under one key
        // that a new data directory replaces.
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(SEAL_CONTEXT), &mut body)?;
        let text = format!("{RECONNECT_PREFIX}{}", BASE64.encode([nonce.as_slice(), &body].concat()));
        match text.len() <= TICKET_BYTES {
            true => Ok(Ticket { ticket: Secret::new(text), expires_at_ms: until_ms }),
            false => Err(Unspecified),
        }
    }

    /// The principal and bound origin of a genuine ticket; `Err(true)`: genuine, but over.
    fn open(&self, body: &str, now_ms: u64) -> Result<(Principal, Option<Box<str>>), bool> {
        let mut bytes = BASE64.decode(body).map_err(|_| false)?;
        let (nonce, body) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(false)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| false)?;
        let json = self.0.open_in_place(nonce, Aad::from(SEAL_CONTEXT), body).map_err(|_| false)?;
        let sealed: Sealed = serde_json::from_slice(json).map_err(|_| false)?;
        if sealed.until_ms <= now_ms {
            return Err(true);
        }
        let credential = match (sealed.key_id, sealed.key) {
            (Some(key_id), None) => Credential::Key { key_id },
            (None, Some(key)) => {
                Credential::Token { key, jti: sealed.jti, issued_at_ms: sealed.issued_at_ms }
            }
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
            via: Via::Ticket,
        };
        Ok((principal, sealed.origin))
    }

    /// Reads a ticket of either kind; `Err(true)`: genuine, but over.
    pub(super) fn read(&self, text: &str, one_shots: &OneShots, now_ms: u64) -> Result<Read, bool> {
        if let Some(body) = text.strip_prefix(RECONNECT_PREFIX) {
            let (principal, origin) = self.open(body, now_ms)?;
            return Ok(Read::Reconnect { principal, origin });
        }
        one_shots.find(text, now_ms).ok_or(false)
    }
}

fn digest_of(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}
