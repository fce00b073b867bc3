//! Periodic maintenance: stores the last uses of keys, and forgets revocations and ends of tokens that have
//! expired.
//!
//! * Authentication writes nothing. It marks a key at most once a minute, and maintenance stores the marks in
//!   one commit.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::records::directory::is_expired;
use crate::auth::records::rows::RecordChange;
use crate::ids::TenantId;
use crate::store::Rows;

/// Maximum number of writes of each kind in one commit. The others wait for the next call.
pub(in crate::auth) const UPKEEP_WRITES: usize = 1_000;
/// Entries of a full table that a change searches for expired ones. This limits what a request costs however
/// much an organization keeps. Maintenance finds the others.
pub(in crate::auth) const UPKEEP_LOOKS: usize = 2_000;

impl Auth {
    /// Stores last uses and forgets revocations whose tokens have expired. Call it about once a minute.
    ///
    /// # Errors
    /// [`AdminError::Records`]: the next call tries the same work again.
    pub async fn maintain(&self) -> Result<(), AdminError> {
        let now_ms = self.forgetting.lock().now_ms(&*self.clock);
        let expired = self.expired(now_ms).await;
        let _changing = self.changing.lock().await;
        let used: Vec<_> = self.used.lock().iter().take(UPKEEP_WRITES).cloned().collect();
        let mut writes: Vec<RecordChange> = self.directory.read(|table| {
            let key = |(tenant, id): &(TenantId, String)| {
                let key = table.by_tenant.get(tenant)?.keys.get(id)?;
                key.last_used_ms.load(Ordering::Relaxed).ne(&0).then(|| RecordChange::PutKey(key.current()))
            };
            // The user's tokens may have been ended again since the mark was found.
            let still = |write: &RecordChange| match write {
                RecordChange::ForgetEnd(tenant, sub) => {
                    let since_ms = table.by_tenant.get(tenant).and_then(|entry| entry.valid_since.get(sub));
                    since_ms.is_some_and(|since_ms| is_expired(*since_ms, now_ms))
                }
                _ => true,
            };
            used.iter().filter_map(key).chain(expired.into_iter().filter(still)).collect()
        });
        if !writes.is_empty() {
            self.records.commit(writes.clone(), Rows::new()).await.map_err(AdminError::Records)?;
        }
        let mut pending = self.used.lock();
        pending.retain(|key| !used.contains(key));
        // Memory already has these uses, or newer ones.
        writes.retain(|write| !matches!(write, RecordChange::PutKey(_)));
        self.directory.apply(writes);
        Ok(())
    }

    /// Returns revocations and ends of tokens whose tokens have expired, at most [`UPKEEP_WRITES`] of each.
    /// The table is locked for a few organizations at a time.
    async fn expired(&self, now_ms: u64) -> Vec<RecordChange> {
        let (mut revocations, mut ends) = (Vec::new(), Vec::new());
        let mut after: Option<String> = None;
        loop {
            after = self.directory.read(|table| {
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut looked = 0;
                for organization in table.by_id.range::<str, _>((from, Bound::Unbounded)) {
                    let organization = organization.organization();
                    let (tenant, Some(entry)) =
                        (organization.tenant, table.by_tenant.get(&organization.tenant))
                    else {
                        continue;
                    };
                    looked += 1 + entry.revoked.len() + entry.valid_since.len();
                    let over =
                        entry.revoked.iter().filter(|(_, until)| until.is_some_and(|end| end <= now_ms));
                    let over = over.map(|(jti, _)| RecordChange::ForgetRevocation(tenant, jti.clone()));
                    revocations.extend(over.take(UPKEEP_WRITES - revocations.len()));
                    let outlived = entry.expired_ends(now_ms, "", usize::MAX);
                    let outlived = outlived.map(|sub| RecordChange::ForgetEnd(tenant, sub.to_owned()));
                    ends.extend(outlived.take(UPKEEP_WRITES - ends.len()));
                    if looked >= UPKEEP_LOOKS {
                        return Some(organization.id.clone());
                    }
                }
                None
            });
            if after.is_none() {
                revocations.append(&mut ends);
                return revocations;
            }
            tokio::task::yield_now().await;
        }
    }
}
