//! Rows of resources: bytes under (tenant, table, id).

use super::builder::{PriorValue, Rows, TooLong};
use crate::ids::TenantId;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, Table};

const VERSION: u8 = 1;

pub(crate) fn row_key(table: Table, id: &str) -> Vec<u8> {
    [&[table as u8][..], id.as_bytes()].concat()
}

impl Rows {
    /// Creates or replaces a row.
    ///
    /// # Errors
    /// [`TooLong`] for more than 72 KiB, or for an id that is empty or longer than 256 bytes.
    pub fn put_row(&mut self, tenant: TenantId, table: Table, id: &str, row: &[u8]) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, PriorValue::Unknown)
    }
    /// Creates a row. The caller guarantees that it does not exist.
    ///
    /// # Errors
    /// As [`Rows::put_row`].
    pub fn create_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
    ) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, PriorValue::Nothing)
    }
    /// Replaces a row that holds `old` bytes, or about as many.
    ///
    /// # Errors
    /// As [`Rows::put_row`].
    pub fn replace_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
        old: usize,
    ) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, PriorValue::Value(1 + old))
    }
    fn write_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
        before: PriorValue,
    ) -> Result<(), TooLong> {
        self.put(KeyKind::Row, tenant, &row_key(table, id), [&[VERSION], row].concat(), before)
    }
    /// Deletes a row.
    pub fn delete_row(&mut self, tenant: TenantId, table: Table, id: &str) {
        self.delete(KeyKind::Row, tenant, &row_key(table, id), 1);
    }
}

/// The content of the row under a key tail; `None` if it does not exist.
pub(crate) fn get_row(
    engine: &Engine,
    tenant: TenantId,
    tail: &[u8],
) -> Result<Option<Vec<u8>>, EngineError> {
    let value = engine.row(&keys::key(KeyKind::Row, tenant, tail))?;
    value.map(|value| Ok(row_body(&value)?.to_vec())).transpose()
}

/// The content of a row's value.
pub(crate) fn row_body(value: &[u8]) -> Result<&[u8], EngineError> {
    value
        .strip_prefix(&[VERSION])
        .ok_or_else(|| EngineError::Engine("a stored row is of another version".into()))
}
