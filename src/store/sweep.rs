//! What goes for good, in small batches between commits: erased tenants, and revocations whose tokens have expired.
//!
//! * An erasure is a row of its own until its last batch, so a restart resumes it.
//! * It takes a tenant's rows kind by kind, the log first, and never its organization row.

use std::collections::VecDeque;

use super::engine::{Batch, Engine, EngineError};
use super::keys::{self, Kind};
use super::records::{self, Revoked};
use crate::ids::TenantId;

/// Rows removed in one batch; of the log a quarter, since its rows are large.
const ROWS_AT_ONCE: usize = 256;
/// How often expired revocations are looked for, milliseconds.
const REVOKED_EVERY_MS: u64 = 10 * 60 * 1000;

/// What is still to be removed. Owned by the committer.
#[derive(Default)]
pub(super) struct Sweep {
    erasing: VecDeque<TenantId>,
    /// When revocations were last looked through, Unix milliseconds.
    revoked_ms: u64,
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
        Ok(sweep)
    }

    /// Adds a tenant whose erasure has been committed.
    pub(super) fn erase(&mut self, tenant: TenantId) {
        self.erasing.push_back(tenant);
    }

    /// The tenants whose erasure is not finished.
    pub(super) fn erasing(&self) -> Vec<TenantId> {
        self.erasing.iter().copied().collect()
    }

    /// Whether an erasure is going on.
    pub(super) fn is_busy(&self) -> bool {
        !self.erasing.is_empty()
    }

    /// Removes the next batch of the first erasure; the tenant, when that was its last.
    pub(super) fn step(&mut self, engine: &Engine) -> Result<Option<TenantId>, EngineError> {
        let Some(&tenant) = self.erasing.front() else { return Ok(None) };
        let mut batch = Batch::default();
        for kind in Kind::OF_TENANT {
            let at_once = if kind == Kind::Log { ROWS_AT_ONCE / 4 } else { ROWS_AT_ONCE };
            let rows = engine.range(&keys::key(kind, tenant, &[]), &keys::after(kind, tenant));
            for row in rows.take(at_once) {
                batch.delete(&row?.0);
            }
            if batch.bytes > 0 {
                engine.apply(batch)?;
                return Ok(None);
            }
        }
        batch.delete(&keys::key(Kind::Erase, tenant, &[]));
        engine.apply(batch)?;
        self.erasing.pop_front();
        Ok(Some(tenant))
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
