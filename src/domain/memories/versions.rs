//! The versions of a memory: its content after each write. The oldest are removed, and all of them when the
//! memory is deleted.

use serde::{Deserialize, Serialize};

use super::super::record::{self, Record};
use super::super::{Caller, PageRequest, PageStart, ResourceError, list_resource};
use super::{Memory, MemoryFields};
use crate::ids::TenantId;
use crate::store::{Group, List, ListEntry, Rows, Table};
use crate::tenant::publish::CommitWaiter;

/// Maximum of versions that are stored of a memory.
pub const VERSIONS: u64 = 100;

/// The content of a memory in one version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    id: String,
    memory_id: String,
    /// Number of the version, from 1.
    pub version: u64,
    /// Operation that made the version: `created` or `updated`.
    pub operation: String,
    /// Content of the memory.
    #[serde(rename = "said")]
    pub fields: MemoryFields,
    /// When the version was written, Unix milliseconds.
    pub updated_ms: u64,
}

impl Record for Version {
    const TABLE: Table = Table::MemoryVersions;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.version
    }
    fn groups(&self) -> Vec<Group> {
        vec![group(&self.memory_id)]
    }
}

fn group(memory_id: &str) -> Group {
    Group::new(List::VersionsOfMemory, &[memory_id])
}

fn id_of(memory_id: &str, version: u64) -> String {
    format!("{memory_id}/{version}")
}

/// Adds the version that `memory` is now, and removes the one that is too old because of it.
pub(super) fn put(
    rows: &mut Rows,
    tenant: TenantId,
    memory: &Memory,
    operation: &str,
) -> Result<(), ResourceError> {
    let version = Version {
        id: id_of(&memory.id, memory.version),
        memory_id: memory.id.clone(),
        version: memory.version,
        operation: operation.to_owned(),
        fields: memory.fields.clone(),
        updated_ms: memory.updated_ms,
    };
    record::put(rows, tenant, None, &version)?;
    if let Some(old) = memory.version.checked_sub(VERSIONS).filter(|old| *old > 0) {
        delete(rows, tenant, &memory.id, old);
    }
    Ok(())
}

/// Removes every version of `memory`.
pub(super) fn remove(rows: &mut Rows, tenant: TenantId, memory: &Memory) {
    let first = memory.version.saturating_sub(VERSIONS - 1).max(1);
    for version in first..=memory.version {
        delete(rows, tenant, &memory.id, version);
    }
}

fn delete(rows: &mut Rows, tenant: TenantId, memory_id: &str, version: u64) {
    let id = id_of(memory_id, version);
    rows.delete_row(tenant, Version::TABLE, &id);
    rows.delete_list_entry(tenant, &ListEntry { group: group(memory_id), number: version }, &id);
}

/// Lists the versions of a memory.
///
/// # Errors
/// [`ResourceError::NotFound`], also for a memory that the caller may not see.
pub async fn history<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    id: &str,
    page: &PageRequest,
) -> Result<(Vec<Version>, Option<PageStart>), ResourceError> {
    list_resource::get::<Memory, N>(caller, id).await?;
    record::list(caller.tenants.store(), caller.tenant.id(), group(id), page).await
}
