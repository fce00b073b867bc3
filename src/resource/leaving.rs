//! What deleted users leave behind, erased soon after: messages, memories and core memory that are theirs.
//!
//! * That somebody is leaving is written in the commit that deletes them and stays until nothing of theirs is left, so a crash
//!   delays the erasing and loses nothing of it.
//! * It is done in small commits, [`CHANGES_AT_ONCE`] changes a call: the committer has others to serve.
//! * Their logged events are the store's to erase ([`Rows::erase_user`]), and from that commit on it takes nothing in their name:
//!   whoever finds nothing left here has found the last of it.

use serde::{Deserialize, Serialize};

use super::blocks::Block;
use super::memories::{self, Memory};
use super::messages::{self, Message};
use super::record::{self, Page, Position, Record};
use super::{ResourceError, lock_of, next_number};
use crate::auth::Actor;
use crate::ids::TenantId;
use crate::store::{Group, List, Rows, Table};
use crate::tenant::Tenants;

/// Changes of rows that one call makes, and users that it looks at as one of them: some seconds of commits, beside others'.
pub const CHANGES_AT_ONCE: usize = 50_000;
/// Records that are read at once.
const READ: usize = 100;
/// Changes after which a commit is not added to: a memory is many rows.
const CHANGES: usize = 2_000;
/// They belong to no tenant's data: a tenant's own rows go with it.
const NOWHERE: TenantId = TenantId(0);

/// A deleted user of whom something may be left.
#[derive(Serialize, Deserialize)]
pub(super) struct Leaving {
    id: String,
    number: u64,
    tenant: u64,
    sub: String,
}

impl Record for Leaving {
    /// The users' table, where tenant 0 has no users.
    const TABLE: Table = Table::Users;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        vec![Group::new(List::UserErasures, &[])]
    }
}

impl Leaving {
    /// Puts the rows that have all of a user's erased.
    pub(super) fn begins(
        rows: &mut Rows,
        tenant: TenantId,
        sub: &str,
        now_ms: u64,
    ) -> Result<(), ResourceError> {
        let id = format!("{:016x}-{sub}", tenant.0);
        let leaving = Leaving { id, number: next_number(now_ms), tenant: tenant.0, sub: sub.to_owned() };
        record::put(rows, NOWHERE, None, &leaving)
    }
}

/// Erases what users left who were deleted, those first who left first; to be called about once a minute.
///
/// # Errors
/// [`ResourceError`]: what was due is due again next time.
pub async fn erase(tenants: &Tenants) -> Result<(), ResourceError> {
    let mut left = CHANGES_AT_ONCE;
    let mut page = Page { from: Position::Offset(0), descending: false, limit: READ };
    loop {
        let (leavers, next) =
            record::list::<Leaving>(tenants.store(), NOWHERE, Group::new(List::UserErasures, &[]), &page)
                .await?;
        for leaver in &leavers {
            if !all_of(tenants, leaver, &mut left).await? {
                return Ok(());
            }
            let mut rows = Rows::new();
            record::remove(&mut rows, NOWHERE, leaver);
            write(tenants, rows).await?;
            if let Some(tenant) = tenants.get(TenantId(leaver.tenant)) {
                tenants.forget_frames(&tenant); // what was refused while the deletion was on its way
            }
            left = left.saturating_sub(1);
        }
        match next {
            Some(position) if left > 0 => page.from = position,
            _ => return Ok(()),
        }
    }
}

/// Erases the records of a user; whether none is left.
async fn all_of(tenants: &Tenants, leaver: &Leaving, left: &mut usize) -> Result<bool, ResourceError> {
    let (tenant, sub) = (TenantId(leaver.tenant), &leaver.sub);
    Ok(rows_of::<Message>(tenants, tenant, Message::of_user(sub), left).await?
        && rows_of::<Block>(tenants, tenant, Block::of_user(sub), left).await?
        && rows_of::<Memory>(tenants, tenant, Memory::of_user(sub), left).await?)
}

/// Something that users leave behind.
trait Left: Record {
    /// What whoever changes it locks.
    fn lock(&self) -> [u8; 32];
    /// Puts the rows that leave nothing of it.
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        record::remove(rows, tenant, self);
    }
}

impl Left for Message {
    fn lock(&self) -> [u8; 32] {
        lock_of(messages::KIND, &self.id)
    }
}

impl Left for Block {
    fn lock(&self) -> [u8; 32] {
        self.whose().lock()
    }
}

impl Left for Memory {
    fn lock(&self) -> [u8; 32] {
        lock_of(memories::KIND, &self.id)
    }
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        memories::remove(rows, tenant, self);
    }
}

/// Erases records of a group, about `left` changes; whether none is left. They are locked and read again: whoever changes one
/// at the same time comes before or after, and leaves nothing beside it.
async fn rows_of<R: Left>(
    tenants: &Tenants,
    tenant: TenantId,
    group: Group,
    left: &mut usize,
) -> Result<bool, ResourceError> {
    while *left > 0 {
        let page = Page { from: Position::Offset(0), descending: false, limit: READ };
        let (found, _) = record::list::<R>(tenants.store(), tenant, group, &page).await?;
        if found.is_empty() {
            return Ok(true);
        }
        // All at once, in their order: one after the other might wait for who waits for us.
        let alone = tenants.alone(tenant, found.iter().map(Left::lock).collect()).await;
        let mut rows = Rows::new();
        rows.hold(alone.clone());
        for one in &found {
            if let Some(now) = record::get::<R>(tenants.store(), tenant, one.id()).await? {
                now.remove(&mut rows, tenant);
            }
            if rows.len() >= CHANGES {
                *left = left.saturating_sub(rows.len());
                write(tenants, std::mem::take(&mut rows)).await?;
                rows.hold(alone.clone());
            }
        }
        *left = left.saturating_sub(rows.len());
        write(tenants, rows).await?;
    }
    Ok(false)
}

async fn write(tenants: &Tenants, rows: Rows) -> Result<(), ResourceError> {
    Ok(tenants.write(Actor::daemon(), rows).await?)
}
