//! Producers of streams for tests: single requests, and an NDJSON body that stays open.

use std::net::SocketAddr;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::http::{Call, Reply};
use super::rest::data;
use super::sse::Sse;
use super::{Daemon, within};

/// The path of a stream.
pub(crate) fn path(id: &str) -> String {
    let escaped: String = id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => (byte as char).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/api/v1/streams/{escaped}")
}

/// The part of an id that grows from event to event.
pub(crate) fn sequence(id: &str) -> [u8; 8] {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(id).unwrap();
    bytes[4..12].try_into().unwrap()
}

/// Opens a stream, or takes it over.
pub(crate) async fn open(daemon: &Daemon, key: &str, body: Value) -> Reply {
    daemon.post("/api/v1/streams").key(key).json(&body).send().await
}

/// A stream as `key` sees it.
pub(crate) async fn get(daemon: &Daemon, key: &str, id: &str) -> Reply {
    daemon.get(&path(id)).key(key).send().await
}

/// Cancels a stream.
pub(crate) async fn cancel(daemon: &Daemon, key: &str, id: &str) -> Reply {
    daemon.post(&format!("{}/cancel", path(id))).key(key).json(&json!({})).send().await
}

/// A producer, with the token that it got.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) key: String,
    pub(crate) next_index: u64,
}

impl Producer {
    fn new(key: &str, opened: &Value) -> Producer {
        Producer {
            id: opened["request_id"].as_str().unwrap().to_owned(),
            token: opened["producer_token"].as_str().unwrap().to_owned(),
            key: key.to_owned(),
            next_index: opened["next_index"].as_u64().unwrap(),
        }
    }

    /// Opens a stream for everyone in the organization of the bootstrap key.
    pub(crate) async fn open(daemon: &Daemon, id: &str) -> Producer {
        Producer::open_as(daemon, &daemon.key, json!({"request_id": id})).await
    }

    /// Opens a stream, which must be granted.
    pub(crate) async fn open_as(daemon: &Daemon, key: &str, body: Value) -> Producer {
        Producer::new(key, &data(&open(daemon, key, body).await, 201))
    }

    /// Takes a stream over, which must be granted.
    pub(crate) async fn take_over(daemon: &Daemon, key: &str, id: &str) -> Producer {
        let body = json!({"request_id": id, "takeover": true});
        Producer::new(key, &data(&open(daemon, key, body).await, 200))
    }

    /// `POST /streams/{id}/{verb}` with the token.
    pub(crate) fn call(&self, daemon: &Daemon, verb: &str) -> Call {
        let call = daemon.post(&format!("{}/{verb}", path(&self.id))).key(&self.key);
        call.header("x-producer-token", self.token.as_str())
    }

    /// Appends a chunk, or an array of them.
    pub(crate) async fn append(&self, daemon: &Daemon, body: &Value) -> Reply {
        self.call(daemon, "chunks").json(body).send().await
    }

    /// Appends texts, which must be accepted. Returns their ids.
    pub(crate) async fn say(&self, daemon: &Daemon, texts: &[&str]) -> Vec<String> {
        let chunks: Value = texts.iter().map(|text| json!({"chunk": text})).collect();
        let reply = self.append(daemon, &chunks).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.ids()
    }

    /// Finishes the stream.
    pub(crate) async fn finish(&self, daemon: &Daemon) -> Value {
        data(&self.call(daemon, "finish").json(&json!({})).send().await, 200)
    }

    /// The stream as its producer sees it.
    pub(crate) async fn get(&self, daemon: &Daemon) -> Value {
        data(&get(daemon, &self.key, &self.id).await, 200)
    }

    /// Opens an NDJSON body.
    pub(crate) async fn lines(&self, daemon: &Daemon) -> Lines {
        Lines::open(daemon.addr(), self).await
    }
}

/// An NDJSON request whose body stays open.
pub(crate) struct Lines {
    stream: TcpStream,
}

impl Lines {
    async fn open(to: SocketAddr, producer: &Producer) -> Lines {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "POST {}/chunks HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {}\r\nx-producer-token: {}\r\n\
             content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
            path(&producer.id),
            producer.key,
            producer.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Lines { stream }
    }

    /// Sends bytes in one write. An error of a closed connection is ignored.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> bool {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        within("room to send a line", self.stream.write_all(&framed)).await.is_ok()
    }

    /// Sends a line.
    pub(crate) async fn line(&mut self, line: &Value) -> bool {
        self.bytes(format!("{line}\n").as_bytes()).await
    }

    /// Sends a chunk as a line.
    pub(crate) async fn chunk(&mut self, text: &str) -> bool {
        self.line(&json!({"chunk": text})).await
    }

    /// Ends the body and reads the response.
    pub(crate) async fn end(mut self) -> Reply {
        let _ = self.stream.write_all(b"0\r\n\r\n").await;
        self.answer().await
    }

    /// Reads the response while the body is still open.
    pub(crate) async fn answer(self) -> Reply {
        let mut response = Sse::read_head(self.stream, Vec::new()).await;
        let headers = response.head.lines().skip(1).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
        });
        let headers = headers.collect();
        let status = http::StatusCode::from_u16(response.status).unwrap();
        Reply { status, headers, body: response.body().await.into() }
    }

    /// The socket, without an end of the body.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}
