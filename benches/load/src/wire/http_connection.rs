//! One blocking HTTP/1.1 keep-alive connection with one request at a time. It prepares runs and serves
//! readers that page through a log, one thread each.
//!
//! Responses may have a length or be chunked. One buffer holds a whole response and is reused for all of
//! them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use memchr::memmem;
use serde_json::Value;

use super::Access;
use crate::error::BenchError;

/// Minimum number of bytes to read at once.
const READ: usize = 256 * 1_024;
/// Maximum bytes of a response's head.
const HEAD_MAX: usize = 16 * 1_024;
/// Maximum bytes of a response's body.
const BODY_MAX: usize = 64 << 20;

/// A keep-alive connection.
#[derive(Debug)]
pub struct HttpConnection {
    stream: TcpStream,
    access: Access,
    /// The received bytes, up to `filled`. The rest of the buffer is free.
    held: Vec<u8>,
    filled: usize,
    /// A chunked body, joined.
    joined: Vec<u8>,
}

/// Where a body is stored.
enum Body {
    Held { from: usize, to: usize },
    Joined,
}

impl HttpConnection {
    /// Connects. Reading fails if a response makes no progress for `patience`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn new(access: &Access, patience: Duration) -> Result<HttpConnection, BenchError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&access.addr, patience)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience))?;
            Ok(stream)
        };
        let stream = connect().map_err(BenchError::io("connect"))?;
        Ok(HttpConnection { stream, access: access.clone(), held: Vec::new(), filled: 0, joined: Vec::new() })
    }

    /// Sends `GET path` and returns the status and the body.
    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, &[u8]), BenchError> {
        self.request("GET", path, None)
    }

    /// Sends a request, with a JSON body if there is one, and returns the status and the body of the response.
    ///
    /// # Errors
    /// The connection ends, or the response is not HTTP.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, &[u8]), BenchError> {
        let Access { host, credential, .. } = &self.access;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{credential}");
        match body.map(Value::to_string) {
            None => request.push_str("\r\n"),
            Some(body) => {
                let length = body.len();
                // Writing to a String never fails.
                let _ = write!(
                    request,
                    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
        }
        self.call(request.as_bytes())
    }

    /// Sends `POST path` with a JSON body and returns the created resource.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value, BenchError> {
        let (status, answer) = self.request("POST", path, Some(body))?;
        match (status, serde_json::from_slice::<Value>(answer)) {
            (200..=299, Ok(mut made)) => Ok(made["data"].take()),
            _ => {
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
                Err(BenchError::Server(format!("POST {path}: responded {status}: {answer}")))
            }
        }
    }

    /// Sends a whole request and waits for its response. Returns the status and the body.
    pub(crate) fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8]), BenchError> {
        self.stream.write_all(request).map_err(BenchError::io("send a request"))?;
        self.filled = 0; // one request at a time, so nothing of the next response has arrived
        let (status, body) = self.answer()?;
        let body = match body {
            Body::Held { from, to } => self.held.get(from..to),
            Body::Joined => Some(self.joined.as_slice()),
        };
        Ok((status, body.unwrap_or_default()))
    }

    fn answer(&mut self) -> Result<(u16, Body), BenchError> {
        let head = loop {
            if let Some(at) = memmem::find(&self.held[..self.filled], b"\r\n\r\n") {
                break at;
            }
            if self.filled > HEAD_MAX {
                return Err(malformed());
            }
            self.read()?;
        };
        let text = std::str::from_utf8(&self.held[..head]).map_err(|_| malformed())?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
        let field = |name: &str| {
            let mut fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
            fields.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let from = head + 4;
        if field("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
            self.chunks(from)?;
            return Ok((status, Body::Joined));
        }
        let length = match field("content-length") {
            Some(length) => length.parse::<usize>().ok().filter(|length| *length <= BODY_MAX),
            None => (status == 204).then_some(0),
        };
        let to = from + length.ok_or_else(malformed)?;
        while self.filled < to {
            self.read()?;
        }
        Ok((status, Body::Held { from, to }))
    }

    /// Joins the chunks from `at` on (RFC 9112 §7.1).
    fn chunks(&mut self, mut at: usize) -> Result<(), BenchError> {
        self.joined.clear();
        loop {
            let end = self.line(at)?;
            let size = std::str::from_utf8(&self.held[at..end]).map_err(|_| malformed())?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| malformed())?;
            at = end + 2;
            if size == 0 {
                while self.line(at)? != at {
                    at = self.line(at)? + 2; // a trailer
                }
                return Ok(());
            }
            if size > BODY_MAX - self.joined.len() {
                return Err(malformed());
            }
            while self.filled < at + size + 2 {
                self.read()?;
            }
            self.joined.extend_from_slice(&self.held[at..at + size]);
            at += size + 2;
            self.held.copy_within(at..self.filled, 0);
            self.filled -= at;
            at = 0;
        }
    }

    /// Returns the end of the line that begins at `at`.
    fn line(&mut self, at: usize) -> Result<usize, BenchError> {
        loop {
            if let Some(end) = memmem::find(&self.held[at..self.filled], b"\r\n") {
                return Ok(at + end);
            }
            if self.filled - at > HEAD_MAX {
                return Err(malformed());
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), BenchError> {
        if self.held.len() < self.filled + READ {
            self.held.resize((self.filled + READ).max(self.held.len() * 2), 0);
        }
        match self.stream.read(&mut self.held[self.filled..]).map_err(BenchError::io("read an answer"))? {
            0 => Err(BenchError::Server("the connection ended in the middle of a response".into())),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

fn malformed() -> BenchError {
    BenchError::Server("a response is not HTTP, or too long".into())
}

/// Creates `count` items over several connections. `make` creates one, given its number. The results are in
/// the order of the numbers.
pub(crate) fn many<T: Send>(
    access: &Access,
    count: usize,
    patience: Duration,
    make: &(dyn Fn(&mut HttpConnection, usize) -> Result<T, BenchError> + Sync),
) -> Result<Vec<T>, BenchError> {
    /// Number of connections: enough to fill commits, too few to affect the measurement.
    const CALLERS: usize = 64;
    let callers = CALLERS.min(count.max(1));
    let share = |first: usize| {
        let mut caller = HttpConnection::new(access, patience)?;
        (first..count)
            .step_by(callers)
            .map(|at| Ok((at, make(&mut caller, at)?)))
            .collect::<Result<Vec<_>, _>>()
    };
    let shares: Vec<Result<Vec<(usize, T)>, BenchError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|first| scope.spawn(move || share(first))).collect();
        let lost = || Err(BenchError::Server("a thread of the bench ended".into()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let mut made: Vec<(usize, T)> =
        shares.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    made.sort_unstable_by_key(|(at, _)| *at);
    Ok(made.into_iter().map(|(_, it)| it).collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Starts a server that reads the head of a request for each response, and sends the response in pieces
    /// of `piece` bytes.
    fn served(answers: Vec<Vec<u8>>, piece: usize) -> Access {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            for answer in answers {
                let (mut held, mut byte) = (Vec::new(), [0]);
                while !held.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    held.push(byte[0]);
                }
                answer.chunks(piece).for_each(|piece| stream.write_all(piece).unwrap());
            }
        });
        Access { addr, host: addr.to_string(), credential: String::new() }
    }

    #[test]
    fn answers_with_a_length_and_in_chunks_are_read_whole_in_any_split() {
        let long = "x".repeat(100_000);
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{:X};ext=1\r\n{long}\r\n0\r\nT: 1\r\n\r\n",
            long.len()
        );
        let answers = || {
            vec![
                b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
                chunked.clone().into_bytes(),
                b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            ]
        };
        for piece in [1, 7, 4_096, usize::MAX] {
            let mut caller = HttpConnection::new(&served(answers(), piece), Duration::from_secs(20)).unwrap();
            assert_eq!(caller.get("/").unwrap(), (201, &b"hello"[..]), "{piece}");
            let (status, body) = caller.get("/").unwrap();
            assert_eq!((status, body.len(), &body[..5]), (200, 100_003, &b"abcxx"[..]), "{piece}");
            assert_eq!(caller.get("/").unwrap(), (204, &b""[..]), "{piece}");
            assert_eq!(caller.get("/").unwrap(), (404, &b""[..]), "{piece}");
            assert!(caller.get("/").is_err(), "it ended");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for answer in [
            "SMTP\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            let access = served(vec![answer.into()], usize::MAX);
            assert!(
                HttpConnection::new(&access, Duration::from_secs(20)).unwrap().get("/").is_err(),
                "{answer}"
            );
        }
    }
}
