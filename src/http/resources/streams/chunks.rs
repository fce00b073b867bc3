//! `POST /streams/{id}/chunks`: one chunk, an array, or NDJSON that stays open.
//!
//! * An open body is read line by line. What has come is appended in one commit, and the next bytes are read
//!   when it is on disk: a producer that is faster than the disk is slowed down by TCP.
//! * When the stream ends by others, the request is answered at once, before its body ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use utoipa::ToSchema;

use crate::auth::{Authorized, Publish};
use crate::cursor::Cursor;
use crate::error_response::ErrorResponse;
use crate::event::parse_part;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::json_error::JsonError;
use crate::http::request::parameters::{no_parameters, unescaped};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::ProducerToken;
use crate::tenant::Tenant;
use crate::tenant::admission::stream_word::{ChunkInput, StreamAnswer, StreamAuthority, StreamWord};
use crate::tenant::streams::state::{CHUNKS_AT_ONCE, LINE_BYTES, StreamEnd};
use crate::tenant::streams::{Producer, StreamError};

use super::producer_token;

/// The most bytes of lines in one commit.
const COMMIT_BYTES: usize = 256 * 1024;
/// How often a silent producer is looked at, in case that nothing has told it of the end of its stream.
const LOOK: Duration = Duration::from_secs(5);

/// A chunk to append.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewChunk)]
pub(crate) struct ChunkBody<'a> {
    /// Number of the chunk in the stream, from 0; the next one if left out. A lower one is a retry and is
    /// ignored, a higher one is refused.
    #[serde(default, deserialize_with = "crate::json_integer::optional")]
    index: Option<u64>,
    /// Text.
    #[serde(borrow)]
    #[schema(value_type = String)]
    chunk: Cow<'a, str>,
    /// Part that the chunk belongs to. Without it the chunk is text.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    part: Option<&'a RawValue>,
    /// True if the stream is complete with this chunk.
    is_final: Option<bool>,
}

/// What was appended.
#[derive(Serialize, ToSchema)]
struct AppendedChunks<'a> {
    /// Index of the next chunk.
    next_index: u64,
    /// Ids of the events, without ignored retries.
    ids: Vec<&'a str>,
    /// Always `true`: the chunks are on disk.
    durable: bool,
}

/// What was appended of an open body.
#[derive(Serialize)]
struct AppendedLines<'a> {
    next_index: u64,
    count: u64,
    last_id: Option<&'a str>,
    durable: bool,
}

/// Appends chunks to a stream: one, an array of at most 1,000 (all or nothing), or NDJSON line by line.
///
/// # Errors
/// 400, 401, 409, 413, 429, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/chunks",
    tag = "LLM streams",
    params(ProducerToken),
    request_body(content(
        (ChunkBody = "application/json"),
        (String = "application/x-ndjson"),
        (String = "application/ndjson"),
    )),
    responses((status = 200, description = "The chunks are on disk.", body = AppendedChunks), (status = 409))
)]
pub(crate) async fn append(request: &mut ApiRequest, right: Authorized<Publish>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let (id, token) = (unescaped(id)?, producer_token(request));
    let tenant = request.tenant(right.principal()).await?;
    match request.expect_type(&["application/json", "application/x-ndjson", "application/ndjson"])? {
        0 => append_json(request, &right, &tenant, &id, &token).await,
        _ => append_lines(request, &right, &tenant, &id, &token).await,
    }
}

async fn append_json(
    request: &mut ApiRequest,
    right: &Authorized<Publish>,
    tenant: &Arc<Tenant>,
    id: &str,
    token: &str,
) -> HandlerResult {
    let body = request.body().await?;
    let text = std::str::from_utf8(&body).map_err(|_| ErrorResponse::invalid("", "must be UTF-8"))?;
    let is_array = text.trim_start().starts_with('[');
    let mut batch = ChunkBatch::default();
    if is_array {
        let items: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|error| ErrorResponse::invalid("", &error.to_string()))?;
        if items.is_empty() || items.len() > CHUNKS_AT_ONCE {
            let reason = format!("must be an array of 1 to {CHUNKS_AT_ONCE} chunks");
            return Err(ErrorResponse::invalid("", &reason));
        }
        for (at, item) in items.iter().enumerate() {
            let at_item = |error| at_place(&error, at);
            let chunk = chunk_of(item.get()).map_err(at_item)?;
            if !batch.push(chunk).map_err(at_item)? {
                return Err(at_place(&BadChunk::field("index", "must follow that of the chunk before"), at));
            }
        }
    } else {
        batch.push(chunk_of(text).map_err(BadChunk::refusal)?).map_err(BadChunk::refusal)?;
    }
    request.worker.enter(right.principal().tenant, body.len()).await;
    let answer = batch.append(request, right, (tenant, id, token), None).await?;
    let ids = answer.ids.iter().map(Cursor::as_str).collect();
    Ok(ApiResponse::data(
        StatusCode::OK,
        AppendedChunks { next_index: answer.next_index, ids, durable: true },
    ))
}

async fn append_lines(
    request: &mut ApiRequest,
    right: &Authorized<Publish>,
    tenant: &Arc<Tenant>,
    id: &str,
    token: &str,
) -> HandlerResult {
    let ended = Arc::new(Notify::new());
    let notify = ended.clone();
    let producer = Producer {
        origin: request.shared().connection_id(),
        notify: Arc::new(move |_, _| notify.notify_one()),
    };
    request.begin_open_body()?;
    // The token is checked before the first line comes.
    let renew = ChunkBatch::default();
    let mut answer = renew.append(request, right, (tenant, id, token), Some(&producer)).await?;
    let mut lines = Lines::default();
    let (mut count, mut last_id, mut number) = (0, None, 0);
    loop {
        let part = tokio::select! {
            biased;
            () = ended.notified() => {
                // This finds out why, and answers so. If the producer is still the right one, it goes on.
                renew.append(request, right, (tenant, id, token), Some(&producer)).await?;
                continue;
            }
            part = request.next_part() => part?,
            () = tokio::time::sleep(LOOK) => {
                // Only one producer is told of the end, and none if the store was opened again meanwhile.
                let (shared, actor) = (request.shared(), request.shared().auth.actor(right));
                if !shared.tenants.is_producer(tenant, actor, id, token) {
                    renew.append(request, right, (tenant, id, token), Some(&producer)).await?;
                }
                continue;
            }
        };
        let is_last = part.is_none();
        lines.push(&part.unwrap_or_default(), is_last);
        request.worker.enter(right.principal().tenant, lines.unread()).await;
        let mut is_final = false;
        while !is_final {
            let (batch, taken) = lines.batch(&mut number)?;
            if batch.chunks.is_empty() {
                lines.remove(taken); // blank lines
                break;
            }
            is_final = batch.end.is_some();
            answer = batch.append(request, right, (tenant, id, token), Some(&producer)).await?;
            count += answer.ids.len() as u64;
            last_id = answer.ids.last().copied().or(last_id);
            lines.remove(taken);
        }
        request.count_body(lines.unread())?;
        if is_last || is_final {
            break;
        }
    }
    let last_id = last_id.as_ref().map(Cursor::as_str);
    let appended = AppendedLines { next_index: answer.next_index, count, last_id, durable: true };
    Ok(ApiResponse::data(StatusCode::OK, appended))
}

/// Why a chunk is not valid.
struct BadChunk {
    field: String,
    reason: String,
}

impl BadChunk {
    fn field(field: &str, reason: &str) -> BadChunk {
        BadChunk { field: field.to_owned(), reason: reason.to_owned() }
    }
    fn refusal(self) -> ErrorResponse {
        ErrorResponse::invalid(&self.field, &self.reason)
    }
}

/// The refusal of item or line `at`.
fn at_place(error: &BadChunk, at: usize) -> ErrorResponse {
    let field = if error.field.is_empty() { format!("[{at}]") } else { format!("[{at}].{}", error.field) };
    ErrorResponse::invalid(&field, &error.reason)
}

/// Parses a chunk.
fn chunk_of(text: &str) -> Result<ChunkBody<'_>, BadChunk> {
    if !text.trim_start().starts_with('{') {
        return Err(BadChunk::field("", "must be an object"));
    }
    serde_json::from_str(text).map_err(|error| {
        let JsonError { field, reason } = JsonError::explain::<ChunkBody<'_>>(text.as_bytes(), &error);
        BadChunk { field, reason }
    })
}

/// Chunks with consecutive indices, and the end after them.
#[derive(Default)]
struct ChunkBatch<'a> {
    index: Option<u64>,
    chunks: Vec<ChunkInput<'a>>,
    end: Option<StreamEnd>,
    bytes: usize,
}

impl<'a> ChunkBatch<'a> {
    /// Adds a chunk. Returns false, without adding it, if it cannot be in this batch: its index does not
    /// follow, or the batch is full.
    fn push(&mut self, chunk: ChunkBody<'a>) -> Result<bool, BadChunk> {
        let next = self.index.and_then(|first| first.checked_add(self.chunks.len() as u64));
        let follows = self.chunks.is_empty() || chunk.index.is_none() || chunk.index == next;
        if !follows || self.end.is_some() || self.chunks.len() == CHUNKS_AT_ONCE {
            return Ok(false);
        }
        let part = chunk.part.filter(|part| part.get() != "null").map(parse_part).transpose();
        let part = part.map_err(|error| BadChunk { field: error.field, reason: error.reason })?;
        if self.chunks.is_empty() {
            self.index = chunk.index;
        }
        self.bytes += chunk.chunk.len();
        self.chunks.push(ChunkInput { text: chunk.chunk, part });
        if chunk.is_final == Some(true) {
            self.end = Some(StreamEnd::completed(None, None));
        }
        Ok(true)
    }

    /// Appends the chunks and waits until they are on disk. Without any, it renews the lease.
    async fn append(
        &self,
        request: &ApiRequest,
        right: &Authorized<Publish>,
        (tenant, id, token): (&Arc<Tenant>, &str, &str),
        producer: Option<&Producer>,
    ) -> Result<StreamAnswer, StreamError> {
        let word = StreamWord {
            actor: request.shared().auth.actor(right),
            id,
            authority: StreamAuthority::Producer(token),
            index: self.index,
            chunks: &self.chunks,
            end: self.end.clone(),
            producer,
        };
        request.shared().tenants.stream_word(tenant, word, Some(&request.worker)).await
    }
}

/// The lines of an open body that were not appended yet.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Bytes of complete lines.
    complete: usize,
}

impl Lines {
    /// Adds bytes. After the last ones, what is left is a line too.
    fn push(&mut self, part: &[u8], is_last: bool) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(part);
        if let Some(end) = memchr::memrchr(b'\n', part) {
            self.complete = from + end + 1;
        }
        if is_last {
            self.complete = self.bytes.len();
        }
    }

    fn unread(&self) -> usize {
        self.bytes.len()
    }

    fn remove(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.complete -= bytes;
    }

    /// The chunks of the next lines that fit one commit, and the bytes of these lines. `number` counts lines,
    /// for the message of an error.
    fn batch(&self, number: &mut usize) -> Result<(ChunkBatch<'_>, usize), ErrorResponse> {
        let mut batch = ChunkBatch::default();
        let (mut taken, mut lines) = (0, 0);
        for line in self.bytes[..self.complete].split_inclusive(|byte| *byte == b'\n') {
            if batch.bytes >= COMMIT_BYTES {
                break;
            }
            // A line that is not valid is refused when those before it are appended.
            match push_line(&mut batch, line, *number + lines) {
                Ok(true) => {}
                Err(error) if batch.chunks.is_empty() => return Err(error),
                Ok(false) | Err(_) => break,
            }
            taken += line.len();
            lines += 1;
        }
        if batch.chunks.is_empty() && self.bytes.len() - self.complete > LINE_BYTES {
            return Err(too_long());
        }
        *number += lines;
        Ok((batch, taken))
    }
}

/// Adds a line, which is line `at` of the body. Returns false if it has to wait for the next commit.
fn push_line<'a>(batch: &mut ChunkBatch<'a>, line: &'a [u8], at: usize) -> Result<bool, ErrorResponse> {
    if line.len() > LINE_BYTES + 1 {
        return Err(too_long());
    }
    let text = std::str::from_utf8(line).map_err(|_| at_place(&BadChunk::field("", "must be UTF-8"), at))?;
    if text.trim().is_empty() {
        return Ok(true);
    }
    chunk_of(text).and_then(|chunk| batch.push(chunk)).map_err(|error| at_place(&error, at))
}

fn too_long() -> ErrorResponse {
    let message = format!("a line is longer than {LINE_BYTES} bytes");
    ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
}
