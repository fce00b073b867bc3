//! An event stream over a plain socket. Its parser keeps what standard ones discard: which fields an event
//! had, its comments, and its bytes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// A builder for a stream request.
#[derive(Clone, Debug)]
pub(crate) struct SseRequest {
    to: SocketAddr,
    path: String,
    version: &'static str,
    headers: Vec<(String, String)>,
}

impl SseRequest {
    pub(crate) fn new(to: SocketAddr, path: &str) -> SseRequest {
        let headers = vec![("accept".into(), "text/event-stream".into())];
        SseRequest { to, path: path.into(), version: "HTTP/1.1", headers }
    }

    /// Replaces the header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> SseRequest {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Removes the header.
    pub(crate) fn without(mut self, name: &str) -> SseRequest {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn key(self, credential: &str) -> SseRequest {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    /// Sets the cursor to resume after.
    pub(crate) fn last_event_id(self, id: &str) -> SseRequest {
        self.header("last-event-id", id)
    }

    pub(crate) fn http10(mut self) -> SseRequest {
        self.version = "HTTP/1.0";
        self
    }

    /// The head of the request, as it is sent.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("GET {} {}\r\nhost: {}\r\n", self.path, self.version, self.to);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    /// Sends the request and reads the head of any response.
    pub(crate) async fn ask(self) -> Sse {
        let stream = TcpStream::connect(self.to).await.unwrap();
        self.ask_on(stream).await
    }

    /// As `ask`, over a connected socket.
    pub(crate) async fn ask_on(self, mut stream: TcpStream) -> Sse {
        stream.write_all(self.head().as_bytes()).await.unwrap();
        Sse::read_head(stream, Vec::new()).await
    }

    /// Opens a stream, which must be granted.
    #[track_caller]
    pub(crate) fn open(self) -> impl Future<Output = Sse> {
        let at = std::panic::Location::caller();
        async move {
            let path = self.path.clone();
            let mut sse = self.ask().await;
            if sse.status != 200 {
                let rest = sse.rest().await;
                panic!("{path}: {} {rest} ({at})", sse.head);
            }
            sse
        }
    }
}

/// One block between blank lines, or one comment line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The `event` field, if there was one.
    pub(crate) name: Option<String>,
    /// The `id` field, if there was one.
    pub(crate) id: Option<String>,
    /// `data` lines joined by LF, if there were any.
    pub(crate) data: Option<String>,
    /// The `retry` field, if there was one.
    pub(crate) retry: Option<String>,
    /// The comment without its colon. If set, all other fields are `None`.
    pub(crate) comment: Option<String>,
    /// Every line as it arrived, without line ends.
    pub(crate) lines: Vec<String>,
}

impl Block {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data in {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that this is a control frame with this name. Returns its data.
    #[track_caller]
    pub(crate) fn named(&self, name: &str) -> Value {
        assert_eq!(self.name.as_deref(), Some(name), "{self:?}");
        self.json()
    }

    /// Checks that this is an event (unnamed, and its id is the event's own). Returns its data.
    #[track_caller]
    pub(crate) fn event(&self) -> Value {
        assert_eq!(self.name, None, "{self:?}");
        let json = self.json();
        assert_eq!(json["id"].as_str(), self.id.as_deref(), "{self:?}");
        json
    }
}

/// A strict parser of a chunked body (RFC 9112 §7.1).
#[derive(Default)]
struct Chunks {
    /// Received bytes that are not yet a whole chunk.
    raw: Vec<u8>,
    /// The complete chunks, in order.
    whole: Vec<String>,
    /// Whether the last chunk has arrived.
    ended: bool,
}

impl Chunks {
    /// Moves the bytes of complete chunks to `out`.
    fn unpack(&mut self, out: &mut Vec<u8>) {
        while !self.ended {
            let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") else { return };
            let digits = std::str::from_utf8(&self.raw[..line]).unwrap();
            let length =
                usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("a chunk's head: {digits:?}"));
            let end = line + 2 + length;
            if self.raw.len() < end + 2 {
                return;
            }
            assert_eq!(&self.raw[end..end + 2], b"\r\n", "the end of a chunk");
            self.ended = length == 0;
            let bytes = &self.raw[line + 2..end];
            out.extend_from_slice(bytes);
            self.whole.push(String::from_utf8(bytes.to_vec()).unwrap());
            self.raw.drain(..end + 2);
        }
        assert!(self.raw.is_empty(), "bytes after the last chunk: {:?}", self.raw);
    }
}

/// A response whose head is read and whose body may be a stream.
pub(crate) struct Sse {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    stream: TcpStream,
    /// Received body bytes, without chunk framing, that are not parsed yet.
    buffer: Vec<u8>,
    /// The chunk parser, if the body is chunked.
    chunks: Option<Chunks>,
    /// The id that a client would reconnect with.
    pub(crate) last_event_id: String,
}

impl Sse {
    /// Reads a response head from a socket. `buffer` holds bytes that were read from it before.
    pub(crate) async fn read_head(mut stream: TcpStream, mut buffer: Vec<u8>) -> Sse {
        let end = within("a response head", async {
            loop {
                if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    return at;
                }
                let n = stream.read_buf(&mut buffer).await.unwrap();
                assert_ne!(n, 0, "the answer broke off: {}", String::from_utf8_lossy(&buffer));
            }
        })
        .await;
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        buffer.drain(..end + 4);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut sse = Sse { status, head, stream, buffer, chunks: None, last_event_id: String::new() };
        if sse.header("transfer-encoding") == Some("chunked") {
            let raw = std::mem::take(&mut sse.buffer);
            let mut chunks = Chunks { raw, ..Chunks::default() };
            chunks.unpack(&mut sse.buffer);
            sse.chunks = Some(chunks);
        }
        sse
    }

    /// Reads more of the body. Returns false at its end.
    async fn read_more(&mut self) -> bool {
        let Some(chunks) = &mut self.chunks else {
            return matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..));
        };
        if chunks.ended || !matches!(self.stream.read_buf(&mut chunks.raw).await, Ok(1..)) {
            return false;
        }
        chunks.unpack(&mut self.buffer);
        true
    }

    /// Whether the body ended with its last chunk and was not cut off.
    pub(crate) fn ended_whole(&self) -> bool {
        self.chunks.as_ref().is_some_and(|chunks| chunks.ended)
    }

    /// The chunks received so far, as they were framed.
    pub(crate) fn chunks(&self) -> &[String] {
        self.chunks.as_ref().map_or(&[], |chunks| &chunks.whole)
    }

    /// A header of the response.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The socket, without the parser.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Reads everything until the peer ends the connection.
    pub(crate) async fn rest(&mut self) -> String {
        within("the end of an answer", async { while self.read_more().await {} }).await;
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// Reads a body of `content-length` bytes. The connection stays usable.
    pub(crate) async fn body(&mut self) -> String {
        let length: usize = self.header("content-length").unwrap().parse().unwrap();
        within("a body", async {
            while self.buffer.len() < length {
                assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0);
            }
        })
        .await;
        String::from_utf8(self.buffer.drain(..length).collect()).unwrap()
    }

    /// Reads the head of the next response on the same connection.
    pub(crate) async fn next_answer(self) -> Sse {
        Sse::read_head(self.stream, self.buffer).await
    }

    /// The next block or comment of any kind; `None` at the end.
    #[track_caller]
    pub(crate) fn next_block(&mut self) -> impl Future<Output = Option<Block>> {
        within("the next event", async {
            let mut block = Block::default();
            loop {
                let line = self.line().await?;
                if line.is_empty() {
                    if block.lines.is_empty() {
                        continue;
                    }
                    if let Some(id) = &block.id {
                        self.last_event_id.clone_from(id);
                    }
                    return Some(block);
                }
                let (field, value) = line.split_once(':').unwrap_or((line.as_str(), ""));
                let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                match field {
                    "" => {
                        assert!(block.lines.is_empty(), "a comment inside an event: {block:?} {line:?}");
                        return Some(Block { comment: Some(value), lines: vec![line], ..Block::default() });
                    }
                    "event" => block.name = Some(value),
                    "id" => block.id = Some(value),
                    "retry" => block.retry = Some(value),
                    "data" => {
                        let data = block.data.get_or_insert_default();
                        if block.lines.iter().any(|line| line.starts_with("data")) {
                            data.push('\n');
                        }
                        data.push_str(&value);
                    }
                    other => panic!("a field {other:?} in an event stream: {line:?}"),
                }
                block.lines.push(line);
            }
        })
    }

    /// The next block with data that is not a keep-alive.
    #[track_caller]
    pub(crate) fn next(&mut self) -> impl Future<Output = Block> {
        let at = std::panic::Location::caller();
        async move {
            loop {
                let Some(block) = self.next_block().await else { panic!("the stream ended ({at})") };
                if block.data.is_some() && block.name.as_deref() != Some("heartbeat") {
                    return block;
                }
            }
        }
    }

    /// The next block, which must be an event and not a control frame.
    #[track_caller]
    pub(crate) fn next_event(&mut self) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let block = self.next().await;
            assert!(block.name.is_none(), "{block:?} ({at})");
            block.event()
        }
    }

    /// The next `count` events.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            events.push(self.next_event().await);
        }
        events
    }

    /// One line with any of the three line ends. `None` at the end of the stream.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                let cr = self.buffer[at] == b'\r';
                // A CR may be followed by an LF, which only the next byte shows.
                if !cr || at + 1 < self.buffer.len() {
                    let end = if cr && self.buffer[at + 1] == b'\n' { at + 2 } else { at + 1 };
                    let line = String::from_utf8(self.buffer[..at].to_vec()).expect("UTF-8");
                    self.buffer.drain(..end);
                    return Some(line);
                }
            }
            if !self.read_more().await {
                return None;
            }
        }
    }
}
