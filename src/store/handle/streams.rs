//! Reading the rows of streams.

use super::store::Store;
use crate::ids::{Sequence, TenantId};
use crate::store::log::log_read::ReadError;
use crate::store::rows::stream_rows::{self, OpenStreams, StreamExpiry};
use crate::store::rows::stream_text::StreamText;

impl Store {
    /// The tenants that have streams open.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn tenants_with_open_streams(&self) -> Result<Vec<TenantId>, ReadError> {
        self.run(TenantId(0), stream_rows::tenants_with_open_streams).await
    }

    /// The streams that a tenant has open.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open_streams(&self, tenant: TenantId) -> Result<OpenStreams, ReadError> {
        self.run(tenant, move |engine| stream_rows::open_streams(engine, tenant)).await
    }

    /// The chunks of a stream's first `count` segments that are after `position`: at least one and about
    /// `most` bytes of text, unless there are no more; and whether these are all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn text_after(
        &self,
        tenant: TenantId,
        id: &str,
        count: u32,
        position: Sequence,
        most: usize,
    ) -> Result<(StreamText, bool), ReadError> {
        let id = id.to_owned();
        self.run(tenant, move |engine| stream_rows::text_after(engine, tenant, &id, count, position, most))
            .await
    }

    /// What of ended streams expires until `now_ms`, the earliest first, at most `most`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn expired_streams(&self, now_ms: u64, most: usize) -> Result<Vec<StreamExpiry>, ReadError> {
        self.run(TenantId(0), move |engine| stream_rows::due(engine, now_ms, most)).await
    }
}
