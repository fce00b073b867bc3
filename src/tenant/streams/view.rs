//! What a reader sees of a stream: its state and its text, as far as they are committed.

use std::sync::Arc;

use super::state::{Stream, StreamState};
use crate::ids::Sequence;
use crate::store::{Checkpoint, ReadError, Store, StreamText, Table};
use crate::tenant::{Tenant, Tenants};

/// A stream at one moment.
#[derive(Debug)]
pub struct StreamView {
    /// The state, with what is known now.
    pub stream: Stream,
    /// How much of the text is in segments on disk.
    segments: u32,
    /// The chunks after the segments that are visible.
    tail: StreamText,
}

/// What memory knows of an open stream.
#[derive(Debug)]
pub(in crate::tenant) struct InMemory {
    checkpoint: Checkpoint,
    generation: u32,
    tail: StreamText,
}

impl Tenants {
    /// Returns a stream as it is now; `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stream(&self, tenant: &Arc<Tenant>, id: &str) -> Result<Option<StreamView>, ReadError> {
        let (mut views, _) = self.streams(tenant, &[id]).await?;
        Ok(views.pop().flatten())
    }

    /// Returns several streams at one moment, and the position up to which their events are in them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn streams(
        &self,
        tenant: &Arc<Tenant>,
        ids: &[&str],
    ) -> Result<(Vec<Option<StreamView>>, Sequence), ReadError> {
        loop {
            self.load_streams(tenant).await?;
            let Some((in_memory, visible)) = self.look(tenant, ids) else { continue };
            let rows = self.stored_streams(tenant, ids).await?;
            // A stream that ended between the look into memory and the read of its row is looked at again, so
            // that all are seen at one moment.
            if rows.iter().flatten().any(|row| row.end().is_some_and(|end| end > visible)) {
                continue;
            }
            let views =
                rows.into_iter().zip(in_memory).map(|(row, memory)| Some(StreamView::new(row?, memory)));
            return Ok((views.collect(), visible));
        }
    }

    /// Returns what memory knows of streams, and the visible end of the log at this moment; `None` if the
    /// store was opened again since the streams were read.
    pub(in crate::tenant) fn look(
        &self,
        tenant: &Tenant,
        ids: &[&str],
    ) -> Option<(Vec<Option<InMemory>>, Sequence)> {
        let side = tenant.write.lock();
        if !side.streams.is_loaded {
            return None;
        }
        let visible = tenant.last_visible();
        let known = |id: &&str| {
            side.streams.get(id).map(|stream| InMemory {
                checkpoint: stream.row.checkpoint,
                generation: stream.row.generation,
                tail: visible_part(&stream.tail, visible),
            })
        };
        Some((ids.iter().map(known).collect(), visible))
    }

    /// Reads the row of a stream; `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(in crate::tenant) async fn stored_stream(
        &self,
        tenant: &Tenant,
        id: &str,
    ) -> Result<Option<Stream>, ReadError> {
        Ok(self.stored_streams(tenant, &[id]).await?.pop().flatten())
    }

    /// Reads the rows of streams.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(in crate::tenant) async fn stored_streams(
        &self,
        tenant: &Tenant,
        ids: &[&str],
    ) -> Result<Vec<Option<Stream>>, ReadError> {
        let known = |id: &&&str| !id.is_empty() && id.len() <= crate::event::ID_BYTES;
        let asked: Vec<String> = ids.iter().filter(known).map(|id| (*id).to_owned()).collect();
        let mut rows = self.store.rows(tenant.id, Table::Streams, asked).await?.into_iter();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let row = if known(&id) { rows.next().flatten() } else { None };
            found.push(row.map(|row| read(&row)).transpose()?);
        }
        Ok(found)
    }
}

/// Parses the row of a stream.
pub(in crate::tenant) fn read(row: &[u8]) -> Result<Stream, ReadError> {
    serde_json::from_slice(row).map_err(|error| {
        tracing::error!(%error, "a stored stream cannot be read");
        ReadError::Failed
    })
}

fn visible_part(tail: &StreamText, visible: Sequence) -> StreamText {
    if tail.last().is_none_or(|last| last <= visible) {
        return tail.clone();
    }
    let mut part = StreamText::from_index(tail.first_index());
    for chunk in tail.chunks().take_while(|chunk| chunk.sequence <= visible) {
        part.push(chunk.sequence, tail.received_ms(), chunk.text, chunk.part);
    }
    part
}

impl StreamView {
    fn new(mut stream: Stream, memory: Option<InMemory>) -> StreamView {
        match memory {
            // The row is newer than memory if the end came in between.
            Some(memory) if stream.state == StreamState::Open => {
                stream.generation = memory.generation;
                stream.next_index = memory.tail.next_index();
                stream.text_bytes = memory.checkpoint.text_bytes + memory.tail.text_bytes() as u64;
                StreamView { segments: memory.checkpoint.segments, tail: memory.tail, stream }
            }
            _ => {
                let tail = StreamText::from_index(stream.next_index);
                StreamView { segments: stream.segments, tail, stream }
            }
        }
    }

    /// Returns the chunks after a position: at least one and about `most` bytes of text, unless there are no
    /// more; and whether these are all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn text_after(
        &self,
        store: &Store,
        tenant: &Tenant,
        position: Sequence,
        most: usize,
    ) -> Result<(StreamText, bool), ReadError> {
        let id = &self.stream.request_id;
        let (mut text, complete) = match self.segments {
            0 => (None, true),
            count => {
                let (text, complete) = store.text_after(tenant.id, id, count, position, most).await?;
                (Some(text).filter(|text| !text.is_empty()), complete)
            }
        };
        if !complete {
            return Ok((text.unwrap_or_default(), false));
        }
        let mut bytes = text.as_ref().map_or(0, StreamText::text_bytes);
        for chunk in self.tail.after(position) {
            if bytes > 0 && bytes + chunk.text.len() > most {
                return Ok((text.unwrap_or_default(), false));
            }
            bytes += chunk.text.len();
            let text = text.get_or_insert_with(|| StreamText::from_index(chunk.index));
            text.push(chunk.sequence, self.tail.received_ms(), chunk.text, chunk.part);
        }
        Ok((text.unwrap_or_else(|| StreamText::from_index(self.stream.next_index)), true))
    }

    /// Returns all chunks in order, piece by piece, to `take`, until it returns false.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_all(
        &self,
        store: &Store,
        tenant: &Tenant,
        mut take: impl FnMut(&StreamText) -> bool,
    ) -> Result<(), ReadError> {
        let mut position = Sequence::ZERO;
        loop {
            let (text, complete) = self.text_after(store, tenant, position, super::page::PAGE_TEXT).await?;
            position = text.last().unwrap_or(position);
            if !take(&text) || complete {
                return Ok(());
            }
        }
    }
}
