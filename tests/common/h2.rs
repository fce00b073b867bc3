//! HTTP/2 written by hand, for peers that no client library would act as: raw frames, and no automatic window
//! updates.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Daemon, within};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A WINDOW_UPDATE of `bytes`. `stream` 0 is the connection.
pub(crate) fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A header block: every field literal, never indexed, without Huffman coding.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        // An integer with a 7-bit prefix (RFC 7541 §5.1).
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(rest as u8);
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend_from_slice(text.as_bytes());
    };
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// A connection whose preface and SETTINGS are sent.
pub(crate) struct H2 {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
    next_stream: u32,
}

impl H2 {
    /// Opens a connection whose stream windows are `window` bytes.
    pub(crate) async fn open(daemon: &Daemon, window: u32) -> H2 {
        H2::over(TcpStream::connect(daemon.addr()).await.unwrap(), window).await
    }

    pub(crate) async fn over(mut socket: TcpStream, window: u32) -> H2 {
        let mut settings = 4_u16.to_be_bytes().to_vec(); // SETTINGS_INITIAL_WINDOW_SIZE
        settings.extend_from_slice(&window.to_be_bytes());
        socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).await.unwrap();
        H2 { socket, buffer: Vec::new(), next_stream: 1 }
    }

    /// Sends bytes. An error of a closed connection is ignored.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Sends a request. Its stream stays open for a body unless `whole` is set.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        whole: bool,
    ) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
        fields.extend_from_slice(more);
        let flags = END_HEADERS | if whole { END_STREAM } else { 0 };
        self.send(&frame(HEADERS, flags, stream, &block(&fields))).await;
        stream
    }

    /// Sends a `GET` with an API key.
    pub(crate) async fn get(&mut self, path: &str, key: &str) -> u32 {
        let credential = format!("Bearer {key}");
        self.request("GET", path, &[("authorization", &credential)], true).await
    }

    /// The next frame; `None` if the peer ended or reset the connection. SETTINGS and PING are acknowledged.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buffer.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let rest = self.buffer.split_off(9 + length);
                    let whole = std::mem::replace(&mut self.buffer, rest);
                    let stream = u32::from_be_bytes([whole[5] & 0x7f, whole[6], whole[7], whole[8]]);
                    let payload = whole[9..].to_vec();
                    let (kind, flags) = (whole[3], whole[4]);
                    if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
                        let echoed = if kind == PING { &payload[..] } else { &[] };
                        self.send(&frame(kind, ACK, 0, echoed)).await;
                    }
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut some = [0; 16 * 1024];
            match within("a frame", self.socket.read(&mut some)).await {
                Ok(n @ 1..) => self.buffer.extend_from_slice(&some[..n]),
                _ => return None,
            }
        }
    }

    /// Reads frames up to the next of this kind and returns that one. Fails if the connection ends.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame =
                self.next().await.unwrap_or_else(|| panic!("the connection ended before frame {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// All frames until the peer ends the connection.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }
}
