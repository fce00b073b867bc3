//! Reading resources: rows, pages of lists, and searches.

use super::store::Store;
use crate::ids::TenantId;
use crate::store::engine::Engine;
use crate::store::format::keys::Table;
use crate::store::lists::{ListPage, ListQuery, PageRead, SLICE};
use crate::store::log::log_read::ReadError;
use crate::store::rows::{get_row, row_key};
use crate::store::search::{Hits, Search, SearchQuery};

impl Store {
    /// A row; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn row(&self, tenant: TenantId, table: Table, id: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let tail = row_key(table, id);
        self.run(tenant, move |engine| get_row(engine, tenant, &tail)).await
    }

    /// Rows by their ids, in that order; `None` for each that does not exist.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn rows(
        &self,
        tenant: TenantId,
        table: Table,
        ids: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let read = move |engine: &Engine| {
            ids.iter().map(|id| get_row(engine, tenant, &row_key(table, id))).collect()
        };
        self.run(tenant, read).await
    }

    /// A page of a list, with the rows of `table`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(
        &self,
        tenant: TenantId,
        table: Table,
        query: ListQuery,
    ) -> Result<ListPage, ReadError> {
        let mut page = PageRead::new(tenant, table, query);
        if page.is_long() {
            return self.run_long(tenant, move |engine| page.read_slice(engine, SLICE)).await;
        }
        let whole = move |engine: &Engine| loop {
            if let Some(page) = page.read_slice(engine, usize::MAX)? {
                return Ok(page);
            }
        };
        self.run(tenant, whole).await
    }

    /// The best documents, and how many were found.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn search(&self, tenant: TenantId, query: SearchQuery) -> Result<Hits, ReadError> {
        let mut search = Search::new(tenant, query);
        self.run_long(tenant, move |engine| search.step(engine)).await
    }
}
