//! Raw bytes on the wire, for peers that no client library would act as.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http::Reply;
use super::{Daemon, within};

/// Sends bytes on a new connection and reads until the peer ends or resets it.
pub(crate) async fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let _ = stream.write_all(bytes).await; // the peer may close the connection during the write
    everything(&mut stream).await
}

/// Reads until the peer ends or resets the connection.
pub(crate) async fn everything(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _ = within("the peer's end", stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Parses the HTTP/1 responses in `text`, which all have a `content-length`.
#[track_caller]
pub(crate) fn answers(mut text: &str) -> Vec<Reply> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let value = HeaderValue::from_str(value.trim()).unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let length = headers.get("content-length").map_or(0, |n| n.to_str().unwrap().parse().unwrap());
        let body = rest.as_bytes()[..length].to_vec().into();
        found.push(Reply { status: StatusCode::from_u16(code).unwrap(), headers, body });
        text = &rest[length..];
    }
    found
}
