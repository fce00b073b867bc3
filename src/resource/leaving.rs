//! What deleted users leave behind, erased soon after: messages, memories and core memory that are theirs.
//!
//! * That somebody is leaving is written in the commit that deletes them and stays until nothing of theirs is left, so a crash
//!   delays the erasing and loses nothing of it.
//! * It is done in small commits, [`ERASED_AT_ONCE`] rows a call: the committer has others to serve.
//! * Their logged events are the store's to erase ([`Rows::erase_user`]).

use serde::{Deserialize, Serialize};

use super::blocks::Block;
use super::memories::{self, Memory};
use super::messages::Message;
use super::record::{self, Page, Position, Record};
use super::{ResourceError, next_number};
use crate::ids::TenantId;
use crate::store::{Group, Rows, Table};
use crate::tenant::Tenants;

/// Rows that one call erases: 14 million in a day of one call a minute.
pub const ERASED_AT_ONCE: usize = 10_000;
/// Rows that go in one commit.
const BATCH: usize = 100;
/// Changes after which a commit is not added to: a memory is many rows.
const CHANGES: usize = 2_000;
/// The list of those who are leaving.
const ALL: u8 = 18;
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
    const TABLE: Table = Table(5);
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        vec![Group::new(ALL, &[])]
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
    let mut left = ERASED_AT_ONCE;
    loop {
        let first = first_page(1);
        let (leaving, _) =
            record::list::<Leaving>(tenants.store(), NOWHERE, Group::new(ALL, &[]), &first).await?;
        let Some(leaving) = leaving.first() else { return Ok(()) };
        let tenant = TenantId(leaving.tenant);
        for done in [
            rows_of(tenants, tenant, Message::of_user(&leaving.sub), record::remove::<Message>, &mut left)
                .await?,
            rows_of(tenants, tenant, Block::of_user(&leaving.sub), record::remove::<Block>, &mut left)
                .await?,
            rows_of(tenants, tenant, Memory::of_user(&leaving.sub), memories::remove, &mut left).await?,
        ] {
            if !done {
                return Ok(());
            }
        }
        let mut rows = Rows::new();
        record::remove(&mut rows, NOWHERE, leaving);
        write(tenants, rows).await?;
    }
}

/// Erases up to `left` rows of a group; whether none is left.
async fn rows_of<R: Record>(
    tenants: &Tenants,
    tenant: TenantId,
    group: Group,
    remove: fn(&mut Rows, TenantId, &R),
    left: &mut usize,
) -> Result<bool, ResourceError> {
    while *left > 0 {
        let page = first_page(BATCH.min(*left));
        let (found, _) = record::list::<R>(tenants.store(), tenant, group, &page).await?;
        if found.is_empty() {
            return Ok(true);
        }
        let mut rows = Rows::new();
        for one in &found {
            remove(&mut rows, tenant, one);
            if rows.len() >= CHANGES {
                write(tenants, std::mem::take(&mut rows)).await?;
            }
        }
        write(tenants, rows).await?;
        *left -= found.len();
    }
    Ok(false)
}

async fn write(tenants: &Tenants, rows: Rows) -> Result<(), ResourceError> {
    tenants.check_writable()?;
    Ok(tenants.store().write(rows).await.map_err(crate::tenant::publish::PublishError::from)?)
}

fn first_page(limit: usize) -> Page {
    Page { from: Position::Offset(0), descending: false, limit }
}
