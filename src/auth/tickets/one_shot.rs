//! One-shot tickets: in memory, used up by their first successful use.
//!
//! * A ticket lives for [`ONE_SHOT_MS`] in this process's memory. Of two concurrent uses one succeeds,
//!   because removing it from the map is the use.
//! * They are limited for each user or key, for each organization, and in total.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::ticket::{Ticket, TicketError};
use crate::auth::rights::principal::Principal;
use crate::auth::secret::Secret;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Lifetime of a one-shot ticket, in milliseconds.
pub const ONE_SHOT_MS: u64 = 30_000;
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
const PREFIX: &str = "nwt1_";

/// The handle for using up a one-shot ticket.
#[derive(Debug, Clone, Copy)]
pub(in crate::auth) struct SpendHandle(TicketDigest);

type TicketDigest = [u8; 32];

/// The unused one-shot tickets. They are found by digest, so the time of a lookup reveals nothing about a
/// ticket.
#[derive(Debug, Default)]
pub(in crate::auth) struct OneShotTickets(Mutex<UnspentTickets>);

#[derive(Debug, Default)]
struct UnspentTickets {
    tickets: HashMap<TicketDigest, OneShotTicket>,
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
    by_subject: HashMap<Box<str>, VecDeque<TicketDigest>>,
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
        let text = format!("{PREFIX}{}", BASE64.encode(bytes));
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

    pub(super) fn find(&self, text: &str, now_ms: u64) -> Option<(SpendHandle, Arc<Principal>)> {
        let digest = digest_of(text);
        let unspent = self.0.lock();
        let found = unspent.tickets.get(&digest).filter(|ticket| now_ms < ticket.until_ms)?;
        Some((SpendHandle(digest), Arc::clone(&found.principal)))
    }

    /// Uses up the ticket. Returns false if another request was first.
    pub(in crate::auth) fn spend(&self, SpendHandle(digest): SpendHandle) -> bool {
        self.0.lock().remove(&digest)
    }
}

impl UnspentTickets {
    fn remove(&mut self, digest: &TicketDigest) -> bool {
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
        let expired: Vec<TicketDigest> = expired.collect();
        for digest in &expired {
            self.remove(digest);
        }
    }
}

fn digest_of(text: &str) -> TicketDigest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}
