//! What goes for good, in small batches between commits: erased tenants, events of erased users, and revocations whose tokens
//! have expired.
//!
//! * An erasure is a row of its own until its last batch, so a restart resumes it.
//! * It takes a tenant's rows kind by kind, the log first, and never its organization row.
//! * Of users it takes the events that were in the log when their turn came, value by value; the values stay. Those of one tenant
//!   who wait are taken in one pass.

use std::collections::VecDeque;

use super::engine::{Batch, Engine, EngineError};
use super::keys::{self, Kind};
use super::log_entry::LogEntry;
use super::pack;
use super::records::{self, Revoked};
use super::tombstones::Users;
use crate::ids::TenantId;

/// Rows removed in one batch; of the log a quarter, since its rows are large.
const ROWS_AT_ONCE: usize = 256;
/// Values of the log looked through for a user's events at once, 1 MiB at most: bounds how long a commit waits.
const VALUES_AT_ONCE: usize = 16;
/// Most users taken in one pass through a log: their rows go in one batch at its end.
const USERS_AT_ONCE: usize = 1_024;
/// How often expired revocations are looked for, milliseconds.
const REVOKED_EVERY_MS: u64 = 10 * 60 * 1000;

/// What is still to be removed. Owned by the committer.
#[derive(Default)]
pub(super) struct Sweep {
    erasing: VecDeque<TenantId>,
    /// Each user of [`Kind::EraseUser`] is in one of them.
    users: VecDeque<UserErasure>,
    /// Users whose erasure met a piece that could not be read: their rows stay, and the next opening tries again.
    postponed: usize,
    /// When revocations were last looked through, Unix milliseconds.
    revoked_ms: u64,
}

struct UserErasure {
    tenant: TenantId,
    users: Users,
    /// The key of the log from which on is still to be looked through; `None`: it has not begun.
    from: Option<Vec<u8>>,
    /// The disk did not give a piece of the log.
    is_incomplete: bool,
}

/// What a step has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// Something, or there was nothing to do.
    Some,
    /// The last of a tenant.
    Tenant(TenantId),
    /// Events of users; this many bytes less are kept.
    Events(TenantId, u64),
    /// The last events of users.
    User(TenantId),
    /// The last events of users that could be read; the rest is erased after the next opening.
    Postponed(TenantId),
}

impl Sweep {
    /// Finds the erasures a restart interrupted.
    pub(super) fn load(engine: &Engine) -> Result<Sweep, EngineError> {
        let mut sweep = Sweep::default();
        for row in engine.range(&[Kind::Erase as u8], &[Kind::Erase as u8 + 1]) {
            if let Ok((_, tenant, _)) = keys::parse(&row?.0) {
                sweep.erasing.push_back(tenant);
            }
        }
        for row in engine.range(&[Kind::EraseUser as u8], &[Kind::EraseUser as u8 + 1]) {
            if let Ok((_, tenant, user)) = keys::parse(&row?.0) {
                sweep.erase_user(tenant, &String::from_utf8_lossy(user));
            }
        }
        Ok(sweep)
    }

    /// Adds a user whose erasure has been committed.
    pub(super) fn erase_user(&mut self, tenant: TenantId, user: &str) {
        let may_join = |erasure: &&mut UserErasure| {
            erasure.tenant == tenant && erasure.from.is_none() && erasure.users.len() < USERS_AT_ONCE
        };
        match self.users.iter_mut().find(may_join) {
            Some(erasure) => drop(erasure.users.add(user)),
            None => {
                let mut users = Users::default();
                users.add(user);
                self.users.push_back(UserErasure { tenant, users, from: None, is_incomplete: false });
            }
        }
    }

    /// Adds a tenant whose erasure has been committed.
    pub(super) fn erase(&mut self, tenant: TenantId) {
        self.erasing.push_back(tenant);
    }

    /// The users whose erasure is not finished.
    pub(super) fn erasing_users(&self) -> Vec<(TenantId, String)> {
        let users = self.users.iter();
        users.flat_map(|it| it.users.subs().map(|user| (it.tenant, user.to_owned()))).collect()
    }

    /// The tenants whose erasure is not finished.
    pub(super) fn erasing(&self) -> Vec<TenantId> {
        self.erasing.iter().copied().collect()
    }

    /// Erasures that are not finished.
    pub(super) fn entries(&self) -> usize {
        let users = self.users.iter().map(|erasure| erasure.users.len()).sum::<usize>();
        self.erasing.len() + users + self.postponed
    }

    /// Whether an erasure is going on.
    pub(super) fn is_busy(&self) -> bool {
        !self.erasing.is_empty() || !self.users.is_empty()
    }

    /// Removes the next batch of the first erasure. `shrunk` is told whose log loses how many bytes, and answers the counters
    /// row that goes with it.
    pub(super) fn step(
        &mut self,
        engine: &Engine,
        shrunk: impl FnOnce(TenantId, u64) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<Swept, EngineError> {
        match (self.erasing.front(), self.users.front_mut()) {
            (Some(&tenant), _) => self.step_tenant(engine, tenant),
            (None, Some(erasure)) => {
                let swept = erasure.step(engine, shrunk)?;
                if let Swept::Postponed(_) = swept {
                    self.postponed += erasure.users.len();
                }
                if let Swept::User(_) | Swept::Postponed(_) = swept {
                    self.users.pop_front();
                }
                Ok(swept)
            }
            (None, None) => Ok(Swept::Some),
        }
    }

    fn step_tenant(&mut self, engine: &Engine, tenant: TenantId) -> Result<Swept, EngineError> {
        let mut batch = Batch::default();
        for kind in Kind::OF_TENANT {
            let at_once = if kind == Kind::Log { ROWS_AT_ONCE / 4 } else { ROWS_AT_ONCE };
            let rows = engine.range(&keys::key(kind, tenant, &[]), &keys::after(kind, tenant));
            for row in rows.take(at_once) {
                let (key, value) = row?;
                match LogEntry::read(&value) {
                    Ok(entry) if kind == Kind::Log => batch.delete_piece(&key, &entry),
                    _ => batch.delete(&key),
                }
            }
            if batch.bytes > 0 {
                engine.apply(batch)?;
                return Ok(Swept::Some);
            }
        }
        batch.delete(&keys::key(Kind::Erase, tenant, &[]));
        engine.apply(batch)?;
        self.erasing.pop_front();
        self.users.retain(|erasure| erasure.tenant != tenant);
        Ok(Swept::Tenant(tenant))
    }

    /// Removes revocations of tokens that have expired by themselves.
    pub(super) fn revocations(&mut self, engine: &Engine, now_ms: u64) -> Result<(), EngineError> {
        if now_ms < self.revoked_ms.saturating_add(REVOKED_EVERY_MS) {
            return Ok(());
        }
        self.revoked_ms = now_ms;
        let expired: Vec<_> =
            records::all::<Revoked>(engine)?.into_iter().filter(|row| row.expires_ms < now_ms).collect();
        for rows in expired.chunks(ROWS_AT_ONCE) {
            let mut batch = Batch::default();
            for row in rows {
                batch.delete(&keys::key(Kind::Revoked, row.tenant, row.jti.as_bytes()));
            }
            engine.apply(batch)?;
        }
        Ok(())
    }
}

impl UserErasure {
    /// Rewrites the next values without the users' events. A damaged one is passed over: nothing can be told apart in it.
    fn step(
        &mut self,
        engine: &Engine,
        shrunk: impl FnOnce(TenantId, u64) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<Swept, EngineError> {
        let (mut batch, mut freed, mut looked) = (Batch::default(), 0, 0);
        let from = self.from.get_or_insert_with(|| keys::key(Kind::Log, self.tenant, &[]));
        for row in engine.range(&from.clone(), &keys::after(Kind::Log, self.tenant)).take(VALUES_AT_ONCE) {
            let (key, value) = row?;
            *from = [&key[..], &[0]].concat(); // the first key after this one
            looked += 1;
            let (Ok((_, first)), Ok(entry)) = (keys::parse_log(&key), LogEntry::read(&value)) else {
                continue;
            };
            let piece = match engine.piece(&entry.piece) {
                Err(EngineError::Engine(error)) => {
                    tracing::error!(tenant = self.tenant.0, ?first, %error, "no events can be erased from a piece of the log");
                    continue;
                }
                // One bad sector must not make the store read-only, and again after every restart.
                Err(EngineError::Disk(error)) => {
                    self.is_incomplete = true;
                    tracing::error!(tenant = self.tenant.0, ?first, %error, "a piece of the log cannot be read; its events are erased with the next start, if it can be read then");
                    continue;
                }
                read => read?,
            };
            match pack::without_users(&piece, &self.users) {
                Ok(Some(without)) => {
                    freed += piece.len().saturating_sub(without.len()) as u64;
                    batch.replace_piece(key.to_vec(), &entry, without, entry.head);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(tenant = self.tenant.0, ?first, %error, "no events can be erased from a log value");
                }
            }
        }
        let swept = match looked {
            0 if self.is_incomplete => Swept::Postponed(self.tenant),
            0 => {
                for user in self.users.subs() {
                    batch.delete(&keys::key(Kind::EraseUser, self.tenant, user.as_bytes()));
                }
                Swept::User(self.tenant)
            }
            _ => Swept::Events(self.tenant, freed),
        };
        if freed > 0
            && let Some(row) = shrunk(self.tenant, freed)?
        {
            batch.put(keys::key(Kind::Counters, self.tenant, &[]), row);
        }
        if batch.bytes > 0 {
            engine.apply(batch)?;
        }
        Ok(swept)
    }
}

#[cfg(test)]
#[path = "sweep_fault_tests.rs"]
mod fault_tests;
