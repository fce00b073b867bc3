//! Reads the open streams of an organization into memory: after a start, after the store was opened again,
//! and after the organization was quiet.
//!
//! Their rows have the text up to the checkpoint; the chunks after it are read from the log once, for all
//! streams together. Every lease begins anew.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::table::OpenStream;
use crate::event::EventKind;
use crate::frame::{Frame, RoutingKey};
use crate::ids::Sequence;
use crate::store::{LogRead, OpenStreams, ReadError, key_digest};
use crate::tenant::{Tenant, Tenants};

/// What is read of a chunk in the log.
#[derive(Deserialize)]
struct LoggedChunk<'a> {
    index: u64,
    #[serde(borrow)]
    chunk: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    part: Option<&'a RawValue>,
}

impl Tenants {
    /// Reads the open streams of a tenant into memory, if they are not there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) async fn load_streams(&self, tenant: &Arc<Tenant>) -> Result<(), ReadError> {
        let lock = key_digest(&[b"load streams"]);
        let _one = self.lock_keys(tenant.id, vec![lock]).await;
        loop {
            let resets = {
                let side = tenant.write.lock();
                if side.streams.is_loaded {
                    return Ok(());
                }
                side.streams.resets
            };
            let stored = self.store.open_streams(tenant.id).await?;
            let has_any = stored.has_any;
            let streams = self.read_tails(tenant, stored).await?;
            let side = &mut *tenant.write.lock();
            if side.streams.resets != resets {
                continue; // the store was opened again meanwhile
            }
            side.streams.has_any |= has_any;
            for (id, mut stream) in streams {
                stream.wheel_s = self.leases.add(stream.lease_ends_s(), tenant.id, id.clone());
                side.streams.insert(id, stream);
            }
            side.streams.is_loaded = true;
            if !side.streams.is_empty() {
                self.note_streams(tenant);
            }
            self.count_open(side.streams.len() as isize);
            tenant.log.keep_after(side.streams.kept_after());
            return Ok(());
        }
    }

    /// Reads what follows the checkpoints from the log.
    async fn read_tails(
        &self,
        tenant: &Tenant,
        stored: OpenStreams,
    ) -> Result<HashMap<Arc<str>, OpenStream>, ReadError> {
        let now_s = self.now_s();
        let from = stored.log_from();
        let mut streams: HashMap<Arc<str>, OpenStream> = HashMap::with_capacity(stored.streams.len());
        for (id, row) in stored.streams {
            streams.insert(id.into(), OpenStream::new(row, now_s));
        }
        let Some(from) = from else { return Ok(streams) };
        let mut position = from.max(tenant.log.oldest());
        loop {
            match self.store.read_log(&tenant.log, position).await? {
                LogRead::Page(page) => {
                    for frame in page.frames() {
                        add_logged(&mut streams, frame);
                        position = frame.sequence();
                    }
                }
                LogRead::Gap { resumes_at, is_damaged } => {
                    tracing::error!(tenant = tenant.id.0, is_damaged, "text of open streams may be missing");
                    position = resumes_at;
                }
                LogRead::End { .. } => return Ok(streams),
            }
        }
    }
}

/// Adds a chunk from the log to its stream, if it is after the stream's checkpoint.
fn add_logged(streams: &mut HashMap<Arc<str>, OpenStream>, frame: &Frame) {
    let stream = match frame.key(RoutingKey::Request) {
        Some(id) if frame.kind() == EventKind::StreamChunk => streams.get_mut(id),
        _ => None,
    };
    let Some(stream) = stream.filter(|stream| stream.is_after_checkpoint(frame.sequence())) else { return };
    let Ok(chunk) = serde_json::from_slice::<LoggedChunk<'_>>(frame.json()) else { return };
    if chunk.index != stream.next_index {
        // A damaged piece of the log: what follows cannot be appended without a hole.
        tracing::error!(expected = stream.next_index, found = chunk.index, "text of a stream is missing");
        return;
    }
    stream.push(frame.sequence(), frame.received_ms(), &chunk.chunk, chunk.part.map(RawValue::get));
}

impl OpenStream {
    fn is_after_checkpoint(&self, sequence: Sequence) -> bool {
        sequence > self.row.checkpoint.sequence.max(self.row.opened_after)
    }
}
