//! Creates or deletes many memories in one write. All valid items go into one commit, in order; the others
//! are reported.
//!
//! * An error of one item belongs to that item; an error of the store belongs to the whole request.
//! * One write is limited to [`ROWS`], because the store does nothing else while it is committed.

use std::collections::HashSet;

use super::super::list_resource::{self, ListResource, Operation};
use super::super::{Caller, ResourceError};
use super::{Memory, NewMemory, WORDS};
use crate::auth::{Authorized, WriteAsUser};
use crate::event::Event;
use crate::store::Rows;
use crate::tenant::publish::CommitWaiter;

/// Maximum of items in a batch.
pub const ITEMS: usize = 100;
/// Maximum of rows that one batch writes. Items beyond it are refused and must be sent again. All other
/// commits wait while a batch is written.
pub const ROWS: usize = 8_000;

// The largest memory fits into one batch: its words in four groups, its versions, its list index entries.
const _: () = assert!(4 * WORDS + 2 * super::VERSIONS as usize + 16 < ROWS);

/// The result of a batch.
#[derive(Default)]
pub struct BatchOutcome {
    /// Ids of the memories that were created or deleted, in the order of the request.
    pub done: Vec<String>,
    /// The items that failed.
    pub failed: Vec<FailedItem>,
}

/// An item that was not created or deleted.
pub struct FailedItem {
    /// Index of the item, from 0.
    pub index: usize,
    /// Id of the item, if it had one.
    pub id: Option<String>,
    /// Why it failed.
    pub error: ResourceError,
}

/// What a batch has to write so far.
#[derive(Default)]
struct BatchWrites {
    rows: Rows,
    memories: Vec<Memory>,
    outcome: BatchOutcome,
}

impl BatchWrites {
    fn add(&mut self, memory: Memory, rows: Rows) -> Result<(), ResourceError> {
        if self.rows.len() + rows.len() > ROWS {
            return Err(ResourceError::BatchFull);
        }
        self.rows.extend(rows);
        self.outcome.done.push(memory.id.clone());
        self.memories.push(memory);
        Ok(())
    }

    /// Notes the error of one item. An error of the whole request is returned.
    fn fail(&mut self, index: usize, id: Option<String>, error: ResourceError) -> Result<(), ResourceError> {
        match error {
            ResourceError::Publish(_) | ResourceError::Read(_) => Err(error),
            error => {
                self.outcome.failed.push(FailedItem { index, id, error });
                Ok(())
            }
        }
    }

    async fn commit<N: CommitWaiter>(
        self,
        caller: &Caller<'_, N>,
        right: &Authorized<WriteAsUser>,
        operation: Operation,
        response_rows: impl FnOnce(&BatchOutcome) -> Rows,
    ) -> Result<BatchOutcome, ResourceError> {
        let mut rows = response_rows(&self.outcome);
        rows.extend(self.rows);
        let events: Vec<Event<'_>> = self.memories.iter().map(|memory| memory.as_event(operation)).collect();
        if !(rows.is_empty() && events.is_empty()) {
            caller.commit(right, rows, &events).await?;
        }
        Ok(self.outcome)
    }
}

/// Creates memories. An item that could not even be parsed is given as its error. `response_rows` returns
/// rows to add to the commit.
///
/// # Errors
/// [`ResourceError`] of the whole request. Nothing was created then, unless the commit failed.
pub async fn create<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteAsUser>,
    items: Vec<Result<NewMemory, ResourceError>>,
    response_rows: impl FnOnce(&BatchOutcome) -> Rows,
) -> Result<BatchOutcome, ResourceError> {
    let (mut written, mut is_full) = (BatchWrites::default(), false);
    for (index, item) in items.into_iter().enumerate() {
        if is_full {
            written.fail(index, None, ResourceError::BatchFull)?; // not parsed: parsing is most of the work
            continue;
        }
        let created = async {
            let memory = Memory::build(caller, right, item?).await?;
            let mut rows = Rows::new();
            Memory::put(&mut rows, caller.tenant.id(), None, &memory, Operation::Create)?;
            written.add(memory, rows)
        };
        if let Err(error) = created.await {
            is_full = matches!(error, ResourceError::BatchFull);
            written.fail(index, None, error)?;
        }
        tokio::task::yield_now().await; // splitting a long text takes a while, and other tasks can run here
    }
    written.commit(caller, right, Operation::Create, response_rows).await
}

/// Deletes memories by their ids. `response_rows` returns rows to add to the commit.
///
/// # Errors
/// [`ResourceError`] of the whole request. Nothing was deleted then, unless the commit failed.
pub async fn delete<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteAsUser>,
    ids: Vec<String>,
    response_rows: impl FnOnce(&BatchOutcome) -> Rows,
) -> Result<BatchOutcome, ResourceError> {
    let locks = ids.iter().map(|id| Memory::lock(id)).collect();
    let guard = caller.tenants.lock_keys(caller.tenant.id(), locks).await;
    let mut written = BatchWrites::default();
    let mut gone = HashSet::new();
    for (index, id) in ids.into_iter().enumerate() {
        let deleted = async {
            if gone.contains(&id) {
                return Err(ResourceError::NotFound); // an earlier item of this batch has deleted it
            }
            let memory: Memory = list_resource::get(caller, &id).await?;
            memory.check_write(right)?;
            let mut rows = Rows::new();
            memory.remove(&mut rows, caller.tenant.id());
            written.add(memory, rows)
        };
        match deleted.await {
            Ok(()) => drop(gone.insert(id)),
            Err(error) => written.fail(index, Some(id), error)?,
        }
    }
    written.rows.hold_until_commit(guard);
    written.commit(caller, right, Operation::Delete, response_rows).await
}
