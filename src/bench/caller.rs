//! One HTTP/1.1 connection that is kept and asked one thing after the other, blocking: for preparing a run, and for readers
//! that page through a log, a thread each.
//!
//! Answers may have a length or come in chunks. One buffer holds an answer whole and is used for all of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use memchr::memmem;
use serde_json::Value;

use super::error::BenchError;
use super::target::Access;

/// Bytes asked of the kernel at least in one read.
const READ: usize = 256 * 1_024;
/// Bytes of an answer's head.
const HEAD_MAX: usize = 16 * 1_024;
/// Bytes of an answer's body.
const BODY_MAX: usize = 64 << 20;

/// A kept connection.
#[derive(Debug)]
pub struct Caller {
    stream: TcpStream,
    access: Access,
    /// What was read; the rest of the buffer is room.
    held: Vec<u8>,
    filled: usize,
    /// A body that came in chunks, put together.
    joined: Vec<u8>,
    /// The request under way.
    request: Vec<u8>,
}

/// Where a body lies.
enum Body {
    Held { from: usize, to: usize },
    Joined,
}

impl Caller {
    /// Connects. An answer that does not go on for `patience` fails.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(access: &Access, patience: Duration) -> Result<Caller, BenchError> {
        let connect = || {
            let stream = TcpStream::connect(access.addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience))?;
            Ok(stream)
        };
        let stream = connect().map_err(BenchError::io("connect"))?;
        let (held, joined, request) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Caller { stream, access: access.clone(), held, filled: 0, joined, request })
    }

    /// `GET path`: the status and the body.
    ///
    /// # Errors
    /// No answer, or one that is no HTTP.
    pub fn get(&mut self, path: &str) -> Result<(u16, &[u8]), BenchError> {
        let Access { host, credential, .. } = &self.access;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{credential}\r\n");
        self.call(request.as_bytes())
    }

    /// `POST path` with a JSON body: what was made.
    ///
    /// # Errors
    /// As [`Caller::get`], or the daemon refuses.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, BenchError> {
        let body = body.to_string();
        let Access { host, credential, .. } = &self.access;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{credential}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, answer) = self.call(request.as_bytes())?;
        match (status, serde_json::from_slice::<Value>(answer)) {
            (200..=299, Ok(mut made)) => Ok(made["data"].take()),
            _ => {
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
                Err(BenchError::Server(format!("POST {path}: answered {status}: {answer}")))
            }
        }
    }

    /// Sends a whole request and waits for its answer: the status and the body.
    ///
    /// # Errors
    /// As [`Caller::get`].
    pub fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8]), BenchError> {
        self.request.clear();
        self.request.extend_from_slice(request);
        self.stream.write_all(&self.request).map_err(BenchError::io("send a request"))?;
        self.filled = 0; // one request at a time: nothing of the next answer can be there
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

    /// Puts the chunks from `at` on together (RFC 9112 §7.1).
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

    /// Where the line that begins at `at` ends.
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
            0 => Err(BenchError::Server("the connection ended in the middle of an answer".into())),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

fn malformed() -> BenchError {
    BenchError::Server("an answer is no HTTP, or too long".into())
}

/// Makes `count` things over several connections, each by `make` with its number; they come in the order of the numbers.
///
/// # Errors
/// The first thing that fails.
pub fn many<T: Send>(
    access: &Access,
    count: usize,
    patience: Duration,
    make: &(dyn Fn(&mut Caller, usize) -> Result<T, BenchError> + Sync),
) -> Result<Vec<T>, BenchError> {
    /// Connections: enough to fill commits, too few to be noticed as a crowd.
    const CALLERS: usize = 64;
    let callers = CALLERS.min(count.max(1));
    let share = |first: usize| {
        let mut caller = Caller::new(access, patience)?;
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

    /// A server that reads a request's head for each answer and sends it in pieces of `piece` bytes.
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
            let mut caller = Caller::new(&served(answers(), piece), Duration::from_secs(20)).unwrap();
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
            assert!(Caller::new(&access, Duration::from_secs(20)).unwrap().get("/").is_err(), "{answer}");
        }
    }
}
