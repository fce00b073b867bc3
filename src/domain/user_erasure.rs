//! Erases the messages, memories and core memory of deleted users, soon after the deletion.
//!
//! * A row for the erasure is written in the commit that deletes the user. It stays until nothing of the user
//!   is left, so a crash delays the erasure but never loses it.
//! * It is done in small commits, with at most [`CHANGES_AT_ONCE`] changes in one call, because other writers
//!   wait for the committer.
//! * The store erases the user's logged events ([`Rows::erase_user`]). From that commit on it refuses every
//!   write in the user's name, so once no record is found here, no new one can appear.

use serde::{Deserialize, Serialize};

use super::core_memory::Block;
use super::list_resource::ListResource;
use super::memories::Memory;
use super::messages::Message;
use super::record::{self, PageRequest, PageStart, Record};
use super::streams;
use super::{ResourceError, next_number};
use crate::auth::Actor;
use crate::ids::TenantId;
use crate::store::{Group, List, Rows, Table};
use crate::tenant::Tenants;
use crate::tenant::streams::Stream;

/// Maximum of row changes in one call. A user that is looked at counts as one. This takes some seconds of
/// commits, interleaved with those of others.
pub const CHANGES_AT_ONCE: usize = 50_000;
/// Number of records that are read at once.
const READ: usize = 100;
/// Number of changes after which a commit is closed. One memory can be many rows.
const CHANGES: usize = 2_000;
/// The tenant of these rows. They do not belong to the organization's data, because an organization's own
/// rows are deleted with it.
const NOWHERE: TenantId = TenantId(0);

/// A deleted user whose data may not be completely erased.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingUserErasure {
    id: String,
    number: u64,
    tenant: u64,
    sub: String,
}

impl Record for PendingUserErasure {
    /// The users' table of tenant 0, which has no users.
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

impl PendingUserErasure {
    /// Adds the rows that start the erasure of a user's data.
    pub(super) fn begin(
        rows: &mut Rows,
        tenant: TenantId,
        sub: &str,
        now_ms: u64,
    ) -> Result<(), ResourceError> {
        let id = format!("{:016x}-{sub}", tenant.0);
        let erasure =
            PendingUserErasure { id, number: next_number(now_ms), tenant: tenant.0, sub: sub.to_owned() };
        record::put(rows, NOWHERE, None, &erasure)
    }
}

/// Erases data of deleted users, those deleted first come first. It is called about once a minute.
///
/// # Errors
/// [`ResourceError`]: the erasure is tried again in the next call.
pub async fn erase(tenants: &Tenants) -> Result<(), ResourceError> {
    let mut budget = CHANGES_AT_ONCE;
    let mut page = PageRequest { from: PageStart::Offset(0), descending: false, limit: READ };
    loop {
        let (erasures, next) = record::list::<PendingUserErasure>(
            tenants.store(),
            NOWHERE,
            Group::new(List::UserErasures, &[]),
            &page,
        )
        .await?;
        for erasure in &erasures {
            if !erase_user(tenants, erasure, &mut budget).await? {
                return Ok(());
            }
            let mut rows = Rows::new();
            record::remove(&mut rows, NOWHERE, erasure);
            write(tenants, rows).await?;
            if let Some(tenant) = tenants.get(TenantId(erasure.tenant)) {
                // removes frames that were refused while the deletion was being committed
                tenants.forget_frames(&tenant);
            }
            budget = budget.saturating_sub(1);
        }
        match next {
            Some(position) if budget > 0 => page.from = position,
            _ => return Ok(()),
        }
    }
}

/// Erases the records of a user. Returns true if none is left.
async fn erase_user(
    tenants: &Tenants,
    erasure: &PendingUserErasure,
    budget: &mut usize,
) -> Result<bool, ResourceError> {
    let (tenant, sub) = (TenantId(erasure.tenant), &erasure.sub);
    if !streams_of(tenants, tenant, sub, budget).await? {
        return Ok(false);
    }
    Ok(rows_of::<Message>(tenants, tenant, Message::of_user(sub), budget).await?
        && rows_of::<Block>(tenants, tenant, Block::of_user(sub), budget).await?
        && rows_of::<Memory>(tenants, tenant, Memory::of_user(sub), budget).await?)
}

/// Erases the streams of a user, with their text. Returns true if none is left.
async fn streams_of(
    tenants: &Tenants,
    tenant: TenantId,
    sub: &str,
    budget: &mut usize,
) -> Result<bool, ResourceError> {
    let open = tenants.open(tenant).await?;
    while *budget > 0 {
        let page = PageRequest { from: PageStart::Offset(0), descending: false, limit: READ };
        let (found, _) =
            record::list::<Stream>(tenants.store(), tenant, streams::of_user(sub), &page).await?;
        if found.is_empty() {
            return Ok(true);
        }
        for stream in &found {
            *budget = budget.saturating_sub(tenants.erase_stream(&open, &stream.request_id).await?);
        }
    }
    Ok(false)
}

/// A kind of record that belongs to users.
trait UserOwned: Record {
    /// The lock that every change of the record holds.
    fn lock(&self) -> [u8; 32];
    /// Adds the rows that delete the record completely.
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        record::remove(rows, tenant, self);
    }
}

impl UserOwned for Message {
    fn lock(&self) -> [u8; 32] {
        <Message as ListResource>::lock(&self.id)
    }
}

impl UserOwned for Block {
    fn lock(&self) -> [u8; 32] {
        self.owner().lock()
    }
}

impl UserOwned for Memory {
    fn lock(&self) -> [u8; 32] {
        <Memory as ListResource>::lock(&self.id)
    }
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        ListResource::remove(self, rows, tenant);
    }
}

/// Erases records of a group, about `budget` changes. Returns true if none is left. The records are locked
/// and read again, so a concurrent change of one comes either before or after and cannot leave anything
/// behind.
async fn rows_of<R: UserOwned>(
    tenants: &Tenants,
    tenant: TenantId,
    group: Group,
    budget: &mut usize,
) -> Result<bool, ResourceError> {
    while *budget > 0 {
        let page = PageRequest { from: PageStart::Offset(0), descending: false, limit: READ };
        let (found, _) = record::list::<R>(tenants.store(), tenant, group, &page).await?;
        if found.is_empty() {
            return Ok(true);
        }
        // All locks are acquired at once and in order. Acquiring them one after the other could deadlock with
        // another request.
        let guard = tenants.lock_keys(tenant, found.iter().map(UserOwned::lock).collect()).await;
        let mut rows = Rows::new();
        rows.hold_until_commit(guard.clone());
        for one in &found {
            if let Some(now) = record::get::<R>(tenants.store(), tenant, one.id()).await? {
                now.remove(&mut rows, tenant);
            }
            if rows.len() >= CHANGES {
                *budget = budget.saturating_sub(rows.len());
                write(tenants, std::mem::take(&mut rows)).await?;
                rows.hold_until_commit(guard.clone());
            }
        }
        *budget = budget.saturating_sub(rows.len());
        write(tenants, rows).await?;
    }
    Ok(false)
}

async fn write(tenants: &Tenants, rows: Rows) -> Result<(), ResourceError> {
    Ok(tenants.write(Actor::daemon(), rows).await?)
}
