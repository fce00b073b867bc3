//! An event stream over a bare socket, read by a parser of its own that keeps what standard ones throw away: which fields
//! an event really had, its comments, and its bytes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// A request for a stream under construction.
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

    /// Leaves the header out.
    pub(crate) fn without(mut self, name: &str) -> SseRequest {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn key(self, credential: &str) -> SseRequest {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    /// Where to go on.
    pub(crate) fn last_event_id(self, id: &str) -> SseRequest {
        self.header("last-event-id", id)
    }

    pub(crate) fn http10(mut self) -> SseRequest {
        self.version = "HTTP/1.0";
        self
    }

    /// The request's head as it goes out.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("GET {} {}\r\nhost: {}\r\n", self.path, self.version, self.to);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    /// Asks, and reads the answer's head whatever it is.
    pub(crate) async fn ask(self) -> Sse {
        let stream = TcpStream::connect(self.to).await.unwrap();
        self.ask_on(stream).await
    }

    /// The same over a socket that is connected already.
    pub(crate) async fn ask_on(self, mut stream: TcpStream) -> Sse {
        stream.write_all(self.head().as_bytes()).await.unwrap();
        Sse::read_head(stream, Vec::new()).await
    }

    /// Asks for a stream that is granted.
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
    /// The comment, without its colon; then nothing else is set.
    pub(crate) comment: Option<String>,
    /// Every line as it came, without line ends.
    pub(crate) lines: Vec<String>,
}

impl Block {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data in {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that it is a control frame of this name; answers its data.
    #[track_caller]
    pub(crate) fn named(&self, name: &str) -> Value {
        assert_eq!(self.name.as_deref(), Some(name), "{self:?}");
        self.json()
    }

    /// Checks that it is an event (unnamed, with an id that is the event's own); answers its data.
    #[track_caller]
    pub(crate) fn event(&self) -> Value {
        assert_eq!(self.name, None, "{self:?}");
        let json = self.json();
        assert_eq!(json["id"].as_str(), self.id.as_deref(), "{self:?}");
        json
    }
}

/// A chunked body under way (RFC 9112 §7.1), strictly read.
#[derive(Default)]
struct Chunks {
    /// Received and not yet a whole chunk.
    raw: Vec<u8>,
    /// The chunks that were whole, in order.
    whole: Vec<String>,
    /// The last chunk has come.
    ended: bool,
}

impl Chunks {
    /// Moves the bytes of whole chunks to `out`.
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

/// An answer whose head is read and whose body may be a stream.
pub(crate) struct Sse {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    stream: TcpStream,
    /// Received, out of its chunks, and not yet parsed.
    buffer: Vec<u8>,
    /// The chunks of the body, if it comes in chunks.
    chunks: Option<Chunks>,
    /// The id a client would come back with.
    pub(crate) last_event_id: String,
}

impl Sse {
    /// Reads a response head from a socket; `buffer` holds what was read from it before.
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

    /// Reads more of the body; false at its end.
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

    /// Whether the body ended with its last chunk, and was not cut off.
    pub(crate) fn ended_whole(&self) -> bool {
        self.chunks.as_ref().is_some_and(|chunks| chunks.ended)
    }

    /// The chunks that came so far, each as it was framed.
    pub(crate) fn chunks(&self) -> &[String] {
        self.chunks.as_ref().map_or(&[], |chunks| &chunks.whole)
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The socket, for those who have no use for the rest.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// What else comes until the peer ends.
    pub(crate) async fn rest(&mut self) -> String {
        within("the end of an answer", async { while self.read_more().await {} }).await;
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// A body of `content-length` bytes, which leaves the connection usable.
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

    /// The head of the next answer on the same connection.
    pub(crate) async fn next_answer(self) -> Sse {
        Sse::read_head(self.stream, self.buffer).await
    }

    /// The next block or comment, whatever it is; `None` at the end.
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

    /// The next block with data that is no keep-alive.
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

    /// The next event, which must be no control frame.
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

    /// One line; any of the three line ends. `None` at the end of the stream.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                let cr = self.buffer[at] == b'\r';
                // After a CR an LF may follow, and whether it does is known only with the next byte.
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
