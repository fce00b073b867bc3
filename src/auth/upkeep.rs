//! What is written without anyone asking: last uses of keys, and revocations and ends of tokens that have outlived them.
//!
//! * Authenticating writes nothing; it notes a key at most once a minute, and this stores the notes in one commit.

use std::sync::atomic::Ordering;

use super::Auth;
use super::admin::AdminError;
use super::records::Write;
use crate::ids::TenantId;
use crate::store::Rows;

/// Most writes of each sort in one commit; more waits for the next call.
pub(super) const UPKEEP_WRITES: usize = 1_000;

impl Auth {
    /// Stores last uses and forgets revocations whose tokens have expired; to be called about once a minute.
    ///
    /// # Errors
    /// [`AdminError::Records`]: what was due is due again next time.
    pub async fn maintain(&self) -> Result<(), AdminError> {
        let _changing = self.changing.lock().await;
        let now_ms = self.clock.now_ms();
        let used: Vec<_> = self.used.lock().iter().take(UPKEEP_WRITES).cloned().collect();
        let mut writes: Vec<Write> = self.directory.read(|table| {
            let key = |(tenant, id): &(TenantId, String)| {
                let key = table.by_tenant.get(tenant)?.keys.get(id)?;
                key.last_used_ms.load(Ordering::Relaxed).ne(&0).then(|| Write::PutKey(key.current()))
            };
            let over = table.by_tenant.iter().flat_map(|(tenant, entry)| {
                let over = entry.revoked.iter().filter(|(_, until)| until.is_some_and(|end| end <= now_ms));
                over.map(|(jti, _)| Write::ForgetRevocation(*tenant, jti.clone()))
            });
            let ended = table.by_tenant.iter().flat_map(|(tenant, entry)| {
                entry.outlived(now_ms).map(|sub| Write::ForgetEnd(*tenant, sub.to_owned()))
            });
            let forgotten = over.take(UPKEEP_WRITES).chain(ended.take(UPKEEP_WRITES));
            used.iter().filter_map(key).chain(forgotten).collect()
        });
        if !writes.is_empty() {
            self.records.commit(writes.clone(), Rows::new()).await.map_err(AdminError::Records)?;
        }
        let mut pending = self.used.lock();
        pending.retain(|key| !used.contains(key));
        // Memory has the uses already, and maybe newer ones.
        writes.retain(|write| !matches!(write, Write::PutKey(_)));
        self.directory.apply(writes);
        Ok(())
    }
}
