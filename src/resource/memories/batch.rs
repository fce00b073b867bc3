//! Many memories in one write: those that can be made (or deleted) are, in one commit and in order; the others are told of.
//!
//! * What is wrong with one item is that item's; what is wrong with the store is the whole request's.
//! * One write is bounded by [`ROWS`], since the store does nothing else meanwhile.

use std::collections::HashSet;

use super::super::{Caller, ResourceError, lock_of};
use super::{KIND, Memory, NewMemory, WORDS};
use crate::auth::{Authorized, WriteAsUser};
use crate::event::Event;
use crate::store::Rows;
use crate::tenant::publish::Notice;

/// Most items of a batch.
pub const ITEMS: usize = 100;
/// Most rows that one batch writes; what would be over it is told to come again. Everybody's commits wait while it is written.
pub const ROWS: usize = 8_000;

// The largest memory fits by itself: its words in four groups, its versions, its places.
const _: () = assert!(4 * WORDS + 2 * super::VERSIONS as usize + 16 < ROWS);

/// What a batch came to.
#[derive(Default)]
pub struct Outcome {
    /// The ids of what was made or deleted, in the order asked for.
    pub done: Vec<String>,
    /// What was not.
    pub failed: Vec<Failed>,
}

/// An item that was not made or deleted.
pub struct Failed {
    /// Which, from 0.
    pub index: usize,
    /// Its id, where it was given one.
    pub id: Option<String>,
    /// Why.
    pub error: ResourceError,
}

/// What a batch writes so far.
#[derive(Default)]
struct Written {
    rows: Rows,
    memories: Vec<Memory>,
    outcome: Outcome,
}

impl Written {
    fn add(&mut self, memory: Memory, rows: Rows) -> Result<(), ResourceError> {
        if self.rows.len() + rows.len() > ROWS {
            return Err(ResourceError::BatchFull);
        }
        self.rows.extend(rows);
        self.outcome.done.push(memory.id.clone());
        self.memories.push(memory);
        Ok(())
    }

    /// Notes what is wrong with one item; an error of the whole comes back.
    fn fail(&mut self, index: usize, id: Option<String>, error: ResourceError) -> Result<(), ResourceError> {
        match error {
            ResourceError::Publish(_) | ResourceError::Read(_) => Err(error),
            error => {
                self.outcome.failed.push(Failed { index, id, error });
                Ok(())
            }
        }
    }

    async fn commit<N: Notice>(
        self,
        caller: &Caller<'_, N>,
        right: &Authorized<WriteAsUser>,
        operation: &'static str,
        kept: impl FnOnce(&Outcome) -> Rows,
    ) -> Result<Outcome, ResourceError> {
        let mut rows = kept(&self.outcome);
        rows.extend(self.rows);
        let events: Vec<Event<'_>> = self.memories.iter().map(|memory| memory.told(operation)).collect();
        if !(rows.is_empty() && events.is_empty()) {
            caller.commit(right, rows, &events).await?;
        }
        Ok(self.outcome)
    }
}

/// Makes memories; an item that could not even be read comes as its error. `kept` are rows that join the commit.
///
/// # Errors
/// [`ResourceError`] of the whole: nothing was made then, but for a failed commit.
pub async fn create<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteAsUser>,
    items: Vec<Result<NewMemory, ResourceError>>,
    kept: impl FnOnce(&Outcome) -> Rows,
) -> Result<Outcome, ResourceError> {
    let (mut written, mut is_full) = (Written::default(), false);
    for (index, item) in items.into_iter().enumerate() {
        if is_full {
            written.fail(index, None, ResourceError::BatchFull)?; // unread: reading is most of the work
            continue;
        }
        let made = async {
            let memory = super::made(caller, right, item?).await?;
            let mut rows = Rows::new();
            super::put(&mut rows, caller, None, &memory, "created")?;
            written.add(memory, rows)
        };
        if let Err(error) = made.await {
            is_full = matches!(error, ResourceError::BatchFull);
            written.fail(index, None, error)?;
        }
        tokio::task::yield_now().await; // reading a long text takes a while, and others have their turns here
    }
    written.commit(caller, right, "created", kept).await
}

/// Deletes memories by their ids; `kept` are rows that join the commit.
///
/// # Errors
/// [`ResourceError`] of the whole: nothing was deleted then, but for a failed commit.
pub async fn delete<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteAsUser>,
    ids: Vec<String>,
    kept: impl FnOnce(&Outcome) -> Rows,
) -> Result<Outcome, ResourceError> {
    let locks = ids.iter().map(|id| lock_of(KIND, id)).collect();
    let alone = caller.tenants.alone(caller.tenant.id(), locks).await;
    let mut written = Written::default();
    let mut gone = HashSet::new();
    for (index, id) in ids.into_iter().enumerate() {
        let deleted = async {
            if gone.contains(&id) {
                return Err(ResourceError::NotFound); // by an item before this one
            }
            let memory = super::get(caller, &id).await?;
            super::may_write(right, &memory, "deleted")?;
            let mut rows = Rows::new();
            super::remove(&mut rows, caller.tenant.id(), &memory);
            written.add(memory, rows)
        };
        match deleted.await {
            Ok(()) => drop(gone.insert(id)),
            Err(error) => written.fail(index, Some(id), error)?,
        }
    }
    written.rows.hold(alone);
    written.commit(caller, right, "deleted", kept).await
}
