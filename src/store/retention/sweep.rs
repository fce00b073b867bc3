//! The sweep: removes in small batches, between commits, erased tenants, events of erased users, and
//! revocations of expired tokens.
//!
//! * An erasure has a row of its own until its last batch, so it resumes after a restart.
//! * It removes a tenant's rows kind by kind, the log first, and never its organization row.
//! * For users it removes the events that were in the log when their turn came, value by value; the values
//!   stay. Pending users of one tenant are done in one pass.
//! * A user's erasure row is removed only when every piece of the log was read or was removed. While a piece
//!   cannot be read or is damaged, the erasure is tried again, after a pause that doubles up to
//!   [`LAST_PAUSE_MS`].

use std::collections::VecDeque;

use crate::ids::TenantId;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::{DeletedUsers, LogEntry, piece};
use crate::store::rows::records::{self, RevokedToken};
use crate::store::stats::Stats;

/// Rows removed in one batch; of the log a quarter of that, because its rows are large.
const ROWS_AT_ONCE: usize = 256;
/// Values of the log that are searched for a user's events at once, 1 MiB at most. It bounds how long a
/// commit waits.
const VALUES_AT_ONCE: usize = 16;
/// Limit on the users of one pass through a log: their erasure rows are removed in one batch at its end.
const USERS_AT_ONCE: usize = 1_024;
/// First and last pause before an erasure that met an unreadable piece is tried again, in milliseconds. Each
/// attempt reads the whole log.
const FIRST_PAUSE_MS: u64 = 60 * 1000;
const LAST_PAUSE_MS: u64 = 60 * 60 * 1000;
/// How often expired revocations are removed, in milliseconds.
const REVOKED_EVERY_MS: u64 = 10 * 60 * 1000;

/// The pending removals. Owned by the committer.
#[derive(Default)]
pub(crate) struct Sweeper {
    erasing: VecDeque<TenantId>,
    /// Each user of [`KeyKind::EraseUser`] is either here or in `postponed`.
    users: VecDeque<UserErasure>,
    /// Erasures that met an unreadable piece, and when they are tried again, Unix milliseconds.
    postponed: Vec<(u64, UserErasure)>,
    /// When revocations were last checked, Unix milliseconds.
    revoked_ms: u64,
}

struct UserErasure {
    tenant: TenantId,
    users: DeletedUsers,
    /// The key in the log where the pass continues; `None` if it has not started.
    from: Option<Vec<u8>>,
    /// Whether a piece of the log could not be read.
    is_incomplete: bool,
    /// The pause before this attempt, in milliseconds; 0 for the first.
    pause_ms: u64,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SweepOutcome {
    /// It removed something, or there was nothing to do.
    Partial,
    /// It removed the last of a tenant.
    Tenant(TenantId),
    /// It removed events of users, and the log shrank by this many bytes.
    Events(TenantId, u64),
    /// It removed the last events of users.
    User(TenantId),
    /// It removed the last events of users that could be read. The next attempt comes after this many
    /// milliseconds.
    Postponed(TenantId, u64),
}

impl Sweeper {
    /// Loads the erasures that a restart interrupted.
    pub(crate) fn load(engine: &Engine) -> Result<Sweeper, EngineError> {
        let mut sweep = Sweeper::default();
        for row in engine.range(&[KeyKind::Erase as u8], &[KeyKind::Erase as u8 + 1]) {
            if let Ok((_, tenant, _)) = keys::parse(&row?.0) {
                sweep.erasing.push_back(tenant);
            }
        }
        for row in engine.range(&[KeyKind::EraseUser as u8], &[KeyKind::EraseUser as u8 + 1]) {
            if let Ok((_, tenant, user)) = keys::parse(&row?.0) {
                sweep.erase_user(tenant, &String::from_utf8_lossy(user));
            }
        }
        Ok(sweep)
    }

    /// Adds a user whose erasure has been committed.
    pub(crate) fn erase_user(&mut self, tenant: TenantId, user: &str) {
        let may_join = |erasure: &&mut UserErasure| {
            erasure.tenant == tenant && erasure.from.is_none() && erasure.users.len() < USERS_AT_ONCE
        };
        match self.users.iter_mut().find(may_join) {
            Some(erasure) => drop(erasure.users.add(user)),
            None => {
                let mut users = DeletedUsers::default();
                users.add(user);
                let (from, is_incomplete, pause_ms) = (None, false, 0);
                self.users.push_back(UserErasure { tenant, users, from, is_incomplete, pause_ms });
            }
        }
    }

    /// Adds a tenant whose erasure has been committed.
    pub(crate) fn erase(&mut self, tenant: TenantId) {
        self.erasing.push_back(tenant);
    }

    /// The users whose erasure is not finished.
    pub(crate) fn erasing_users(&self) -> Vec<(TenantId, String)> {
        let users = self.users.iter().chain(self.postponed.iter().map(|(_, erasure)| erasure));
        users.flat_map(|it| it.users.subs().map(|user| (it.tenant, user.to_owned()))).collect()
    }

    /// The tenants whose erasure is not finished.
    pub(crate) fn erasing(&self) -> Vec<TenantId> {
        self.erasing.iter().copied().collect()
    }

    /// Number of unfinished erasures.
    pub(crate) fn entries(&self) -> usize {
        let users = self.users.iter().map(|erasure| erasure.users.len()).sum::<usize>();
        self.erasing.len() + users + self.postponed()
    }

    /// Number of erasures that wait for another attempt.
    pub(crate) fn postponed(&self) -> usize {
        self.postponed.iter().map(|(_, erasure)| erasure.users.len()).sum()
    }

    /// Returns true if an erasure is active. Postponed ones are not.
    pub(crate) fn is_busy(&self) -> bool {
        !self.erasing.is_empty() || !self.users.is_empty()
    }

    /// Removes the next batch of the first erasure. Calls `shrunk` with the tenant and the number of bytes
    /// that its log loses; `shrunk` returns the counters row to write with the batch.
    pub(crate) fn step(
        &mut self,
        engine: &Engine,
        stats: &Stats,
        now_ms: u64,
        shrunk: impl FnOnce(TenantId, u64) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<SweepOutcome, EngineError> {
        let due = self.postponed.extract_if(.., |(at_ms, _)| *at_ms <= now_ms);
        self.users.extend(due.map(|(_, erasure)| erasure));
        match (self.erasing.front(), self.users.front_mut()) {
            (Some(&tenant), _) => self.step_tenant(engine, tenant),
            (None, Some(erasure)) => {
                let outcome = erasure.step(engine, stats, shrunk)?;
                if let SweepOutcome::User(_) | SweepOutcome::Postponed(..) = outcome
                    && let Some(ended) = self.users.pop_front()
                    && let SweepOutcome::Postponed(_, pause_ms) = outcome
                {
                    self.postpone(ended, pause_ms, now_ms);
                }
                Ok(outcome)
            }
            (None, None) => Ok(SweepOutcome::Partial),
        }
    }

    /// Schedules another attempt of an erasure after `pause_ms`, together with one of the same tenant that
    /// already waits, so that few attempts read the log.
    fn postpone(&mut self, ended: UserErasure, pause_ms: u64, now_ms: u64) {
        let may_join = |(_, waiting): &&mut (u64, UserErasure)| {
            waiting.tenant == ended.tenant && waiting.users.len() + ended.users.len() <= USERS_AT_ONCE
        };
        match self.postponed.iter_mut().find(may_join) {
            Some((_, waiting)) => {
                for user in ended.users.subs() {
                    waiting.users.add(user);
                }
            }
            None => {
                let anew = UserErasure { from: None, is_incomplete: false, pause_ms, ..ended };
                self.postponed.push((now_ms.saturating_add(pause_ms), anew));
            }
        }
    }

    fn step_tenant(&mut self, engine: &Engine, tenant: TenantId) -> Result<SweepOutcome, EngineError> {
        let mut batch = Batch::default();
        for kind in KeyKind::OF_TENANT {
            let at_once = if kind == KeyKind::Log { ROWS_AT_ONCE / 4 } else { ROWS_AT_ONCE };
            let rows = engine.range(&keys::key(kind, tenant, &[]), &keys::after(kind, tenant));
            for row in rows.take(at_once) {
                let (key, value) = row?;
                match LogEntry::read(&value) {
                    Ok(entry) if kind == KeyKind::Log => batch.delete_piece(&key, &entry),
                    _ => batch.delete(&key),
                }
            }
            if batch.bytes > 0 {
                engine.apply(batch)?;
                return Ok(SweepOutcome::Partial);
            }
        }
        batch.delete(&keys::key(KeyKind::Erase, tenant, &[]));
        engine.apply(batch)?;
        self.erasing.pop_front();
        self.users.retain(|erasure| erasure.tenant != tenant);
        self.postponed.retain(|(_, erasure)| erasure.tenant != tenant);
        Ok(SweepOutcome::Tenant(tenant))
    }

    /// Removes revocations of tokens that have expired.
    pub(crate) fn revocations(&mut self, engine: &Engine, now_ms: u64) -> Result<(), EngineError> {
        if now_ms < self.revoked_ms.saturating_add(REVOKED_EVERY_MS) {
            return Ok(());
        }
        self.revoked_ms = now_ms;
        let expired: Vec<_> =
            records::all::<RevokedToken>(engine)?.into_iter().filter(|row| row.expires_ms < now_ms).collect();
        for rows in expired.chunks(ROWS_AT_ONCE) {
            let mut batch = Batch::default();
            for row in rows {
                batch.delete(&keys::key(KeyKind::Revoked, row.tenant, row.jti.as_bytes()));
            }
            engine.apply(batch)?;
        }
        Ok(())
    }
}

impl UserErasure {
    /// Rewrites the next values without the users' events. A value that cannot be read is skipped and leaves
    /// the erasure incomplete.
    fn step(
        &mut self,
        engine: &Engine,
        stats: &Stats,
        shrunk: impl FnOnce(TenantId, u64) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<SweepOutcome, EngineError> {
        let (mut batch, mut freed, mut looked) = (Batch::default(), 0, 0);
        let from = self.from.get_or_insert_with(|| keys::key(KeyKind::Log, self.tenant, &[]));
        for row in engine.range(&from.clone(), &keys::after(KeyKind::Log, self.tenant)).take(VALUES_AT_ONCE) {
            let (key, value) = row?;
            *from = [&key[..], &[0]].concat(); // the first key after this one
            looked += 1;
            let (Ok((_, first)), Ok(entry)) = (keys::parse_log(&key), LogEntry::read(&value)) else {
                continue;
            };
            let piece = match engine.piece(&entry.piece) {
                Err(EngineError::Damaged(damage)) => {
                    self.is_incomplete = true;
                    let (events, name) =
                        ((first, entry.head.last(first)), || records::name_of(engine, self.tenant));
                    stats.damaged.note(self.tenant, events, &damage, name);
                    continue;
                }
                // One bad sector must not stop commits, now or after every restart.
                Err(error @ (EngineError::Engine(_) | EngineError::Disk(_))) => {
                    self.is_incomplete = true;
                    tracing::error!(tenant = self.tenant.0, ?first, %error, "a piece of the log cannot be read, so nothing can be erased from it yet");
                    continue;
                }
                read => read?,
            };
            match piece::without_users(&piece, &self.users) {
                Ok(Some(without)) => {
                    freed += piece.len().saturating_sub(without.len()) as u64;
                    batch.replace_piece(key.to_vec(), &entry, without, entry.head);
                }
                Ok(None) => {}
                Err(error) => {
                    self.is_incomplete = true;
                    tracing::error!(tenant = self.tenant.0, ?first, %error, "a piece of the log cannot be decoded, so nothing can be erased from it yet");
                }
            }
        }
        let outcome = match looked {
            0 if self.is_incomplete => {
                let pause_ms = (self.pause_ms * 2).clamp(FIRST_PAUSE_MS, LAST_PAUSE_MS);
                SweepOutcome::Postponed(self.tenant, pause_ms)
            }
            0 => {
                for user in self.users.subs() {
                    batch.delete(&keys::key(KeyKind::EraseUser, self.tenant, user.as_bytes()));
                }
                SweepOutcome::User(self.tenant)
            }
            _ => SweepOutcome::Events(self.tenant, freed),
        };
        if freed > 0
            && let Some(row) = shrunk(self.tenant, freed)?
        {
            batch.put(keys::key(KeyKind::Counters, self.tenant, &[]), row);
        }
        if batch.bytes > 0 {
            engine.apply(batch)?;
        }
        Ok(outcome)
    }
}
