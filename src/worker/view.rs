//! One tenant on one worker: its subscribers here, and how far they have been served.
//!
//! * `live_position` is the position of every live connection. It moves when a batch is finished.
//! * While a batch is in progress, `join_position` is its end: a connection that catches up becomes live there.
//! * A view exists while the worker has subscribers (or waiting readers) of the tenant.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::connection::{Connection, ReadMode};
use crate::cursor::{Cursor, CursorKey};
use crate::frame::Frame;
use crate::ids::Sequence;
use crate::index::Index;
use crate::metrics::Times;
use crate::tenant::Tenant;

use super::sockets::Token;

/// The most frames read from the ring at once: one bit each in [`Connection::mask`].
pub const BATCH_FRAMES: usize = 64;

/// The state of a tenant on a worker.
pub(crate) struct View {
    pub(crate) tenant: Arc<Tenant>,
    /// Rows of the live and behind connections, by slab slot.
    pub(crate) index: Index<u32>,
    /// Live connections were served up to this position.
    pub(crate) live_position: Sequence,
    /// The end of the batch in progress, else `live_position`: where a connection that catches up becomes live.
    pub(crate) join_position: Sequence,
    /// The batch that is being sent to live connections.
    pub(crate) batch: Option<FanoutBatch>,
    /// True while the view is on one of the worker's lists of views with new events.
    pub(crate) queued: bool,
    /// The turn in which it was last served.
    pub(crate) served: u64,
    /// Number of connections and waiting readers that keep the view.
    pub(crate) members: u32,
    /// The histogram of live delivery times.
    pub(crate) times: Arc<Times>,
    /// Wakes readers that wait for events (long-polls).
    pub(crate) new_events: Rc<Notify>,
    /// The cursor of one position, cached because all live connections get the same one.
    cursor: Option<(Sequence, Cursor)>,
}

/// Frames that are being sent to live connections.
#[derive(Default)]
pub(crate) struct FanoutBatch {
    pub(crate) frames: Vec<Arc<Frame>>,
    /// How many of the frames are marked. Nothing is sent before all are.
    pub(crate) marked: usize,
    /// The connections with a mask, in index order. They are tokens with a generation because a turn may end
    /// during the batch, and a slot may pass to another organization's connection meanwhile, with a mask of
    /// its own batch.
    pub(crate) touched: Vec<Token>,
    /// Index into `touched` of the next connection.
    pub(crate) at: usize,
    /// If set there are no frames, because the ring overtook this worker. The live connections from this slot
    /// on are still to be switched to [`ReadMode::Behind`].
    pub(crate) lapped: Option<u32>,
}

impl FanoutBatch {
    /// Returns the frames' buffer, cleared, for the next batch.
    pub(crate) fn recycle(mut self) -> Vec<Arc<Frame>> {
        self.frames.clear();
        self.frames
    }
}

impl View {
    /// Creates a view that starts at the tenant's present end. The caller must first set the worker's bit in
    /// the tenant.
    pub(crate) fn new(tenant: Arc<Tenant>) -> View {
        let live_position = tenant.last_visible();
        let times = tenant.times();
        View {
            tenant,
            times,
            index: Index::new(),
            live_position,
            join_position: live_position,
            batch: None,
            queued: false,
            served: 0,
            members: 0,
            new_events: Rc::new(Notify::new()),
            cursor: None,
        }
    }

    /// Returns the position from which `connection` could resume without loss or repetition.
    pub(crate) fn position_of(&self, connection: &Connection) -> Sequence {
        match connection.mode {
            ReadMode::Silent => self.live_position,
            ReadMode::Behind => connection.position,
            // It is behind as well, unless it has caught up at the new end.
            ReadMode::Live if self.batch.as_ref().is_some_and(|batch| batch.lapped.is_some()) => {
                self.live_position.max(connection.position)
            }
            // It is not yet served from the batch in progress.
            ReadMode::Live if connection.mask != 0 => self.live_position.max(connection.position),
            ReadMode::Live => self.marked().max(connection.position),
        }
    }

    /// Returns the position up to which frames are marked.
    fn marked(&self) -> Sequence {
        match &self.batch {
            Some(batch) if batch.marked < batch.frames.len() => {
                let last = batch.marked.checked_sub(1).and_then(|at| batch.frames.get(at));
                last.map_or(self.live_position, |frame| frame.sequence())
            }
            _ => self.join_position,
        }
    }

    /// Returns the cursor of a position.
    pub(crate) fn cursor(&mut self, cursors: &CursorKey, position: Sequence) -> Cursor {
        match self.cursor {
            Some((at, cursor)) if at == position => cursor,
            _ => {
                let cursor = cursors.encode(self.tenant.id(), position);
                self.cursor = Some((position, cursor));
                cursor
            }
        }
    }
}
