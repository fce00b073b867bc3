//! What organizations keep besides events: rows in tables, and the orders they are listed in.
//!
//! * A row is bytes under (tenant, table, id). A place says that a row stands under a number in a group of a list (`places.rs`),
//!   so a page is a short range of keys and a look-up for each.
//! * Rows and places are written by whoever changes them, in the commit of the change: nothing here keeps them in step.

use super::Store;
use super::engine::{Engine, EngineError};
use super::keys::{self, Kind};
use super::read::ReadError;
use super::rows::{Rows, TooLong};
use super::walk::{Of, Walk};
use crate::ids::TenantId;

const VERSION: u8 = 1;
/// A table, by its number on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table(pub u8);

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of what.
    pub of: Of,
    /// Only what comes after this number and id in the order asked for.
    pub after: Option<(u64, String)>,
    /// Highest numbers first.
    pub descending: bool,
    /// How many are passed over.
    pub skip: usize,
    /// How many at most.
    pub limit: usize,
}

/// A row of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Where it stands.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// What it holds.
    pub row: Vec<u8>,
}

fn row_key(table: Table, id: &str) -> Vec<u8> {
    [&[table.0][..], id.as_bytes()].concat()
}

impl Rows {
    /// Creates or replaces a row.
    ///
    /// # Errors
    /// [`TooLong`]: over 72 KiB, or an id that is empty or over 256 bytes.
    pub fn put_row(&mut self, tenant: TenantId, table: Table, id: &str, row: &[u8]) -> Result<(), TooLong> {
        self.put(Kind::Row, tenant, &row_key(table, id), [&[VERSION], row].concat())
    }
    /// Removes a row.
    pub fn delete_row(&mut self, tenant: TenantId, table: Table, id: &str) {
        self.delete(Kind::Row, tenant, &row_key(table, id));
    }
}

impl Store {
    /// A row, `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn row(&self, tenant: TenantId, table: Table, id: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let tail = row_key(table, id);
        self.run(tenant, move |engine| get(engine, tenant, &tail)).await
    }

    /// Rows by their ids, in that order; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn rows(
        &self,
        tenant: TenantId,
        table: Table,
        ids: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let read =
            move |engine: &Engine| ids.iter().map(|id| get(engine, tenant, &row_key(table, id))).collect();
        self.run(tenant, read).await
    }

    /// A page of a group, with the rows of `table` that stand there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(&self, tenant: TenantId, table: Table, asked: Asked) -> Result<Vec<Listed>, ReadError> {
        self.run(tenant, move |engine| page(engine, tenant, table, &asked)).await
    }
}

fn get(engine: &Engine, tenant: TenantId, tail: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(value) = engine.get(&keys::key(Kind::Row, tenant, tail))? else { return Ok(None) };
    match value.strip_prefix(&[VERSION]) {
        Some(row) => Ok(Some(row.to_vec())),
        None => Err(EngineError::Engine("a stored row is of another version".into())),
    }
}

fn page(engine: &Engine, tenant: TenantId, table: Table, asked: &Asked) -> Result<Vec<Listed>, EngineError> {
    let walk = Walk { engine, tenant, descending: asked.descending };
    let found = walk.page(&asked.of, asked.after.as_ref(), asked.skip + asked.limit)?;
    let mut listed = Vec::with_capacity(asked.limit.min(found.len()));
    for (number, id) in found.into_iter().skip(asked.skip) {
        // A row that went between the two looks is no row of the page.
        if let Some(row) = get(engine, tenant, &row_key(table, &id))? {
            listed.push(Listed { number, id, row });
        }
    }
    Ok(listed)
}
