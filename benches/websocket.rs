//! Measures WebSocket framing: headers, unmasking, and reading a whole message from a buffer, beside
//! tungstenite.
//!
//! `message`: the bytes are copied as by a `read`, then one text message is decoded and its UTF-8 checked.
//! tungstenite's unmasking is private, so the baseline of `unmask` is the byte-wise rule of RFC 6455 §5.3.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::io::{self, Cursor, Read, Write};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::frame::ws;
use nervewire::frame::ws_decode::{Decoder, Limits, unmask};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

const MASK: [u8; 4] = [1, 2, 3, 4];
const SIZES: [usize; 4] = [16, 256, 4_096, 65_536];

/// Returns a client's text frame.
fn masked(len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    ws::text(&"x".repeat(len), &mut wire);
    let head = wire.len() - len;
    wire[1] |= 0x80;
    wire.splice(head..head, MASK);
    unmask(&mut wire[head + 4..], MASK);
    wire
}

/// A peer that sends the same frame forever.
struct Again {
    wire: Vec<u8>,
    at: usize,
}

impl Read for Again {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.wire[self.at..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.at = (self.at + len) % self.wire.len();
        Ok(len)
    }
}

impl Write for Again {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket header");
    group.throughput(Throughput::Elements(1));
    for len in [100usize, 1_000, 100_000] {
        group.bench_function(BenchmarkId::new("write", len), |b| {
            let mut out = [0; ws::MAX_HEADER];
            b.iter(|| ws::text_header(std::hint::black_box(len), &mut out).len());
        });
        group.bench_function(BenchmarkId::new("write, tungstenite", len), |b| {
            let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            let mut out = [0; ws::MAX_HEADER];
            b.iter(|| header.format(std::hint::black_box(len as u64), &mut &mut out[..]));
        });
        // Only a header. Our decoder keeps the meaning of the payload bytes in its state; tungstenite's
        // parser returns it.
        let wire = &masked(len)[..if len < 126 {
            6
        } else if len < 65_536 {
            8
        } else {
            14
        }];
        group.bench_function(BenchmarkId::new("read, tungstenite", len), |b| {
            b.iter(|| FrameHeader::parse(&mut Cursor::new(wire)).expect("valid"));
        });
    }
    // The shortest message is only a header.
    let wire = masked(0);
    group.bench_function(BenchmarkId::new("read", 0), |b| {
        let (mut decoder, limits) = (Decoder::default(), Limits::client(1 << 20));
        let mut buf = wire.clone();
        b.iter(|| decoder.next(std::hint::black_box(&mut buf), &limits).expect("valid").used);
    });
    group.finish();
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket");
    for len in SIZES {
        group.throughput(Throughput::Bytes(len as u64));
        let (wire, limits) = (masked(len), Limits::client(1 << 20));
        group.bench_function(BenchmarkId::new("message", len), |b| {
            let (mut decoder, mut buf) = (Decoder::default(), vec![0; wire.len()]);
            b.iter(|| {
                buf.copy_from_slice(&wire);
                decoder.next(&mut buf, &limits).expect("valid").used
            });
        });
        group.bench_function(BenchmarkId::new("message, tungstenite", len), |b| {
            let mut peer =
                WebSocket::from_raw_socket(Again { wire: wire.clone(), at: 0 }, Role::Server, None);
            b.iter(|| peer.read().expect("valid").len());
        });
        group.bench_function(BenchmarkId::new("message in two reads", len), |b| {
            let mut decoder = Decoder::default();
            b.iter_batched_ref(
                || wire.clone(),
                |wire| {
                    let (first, second) = wire.split_at_mut(len / 2);
                    decoder.next(first, &limits).expect("valid");
                    decoder.next(second, &limits).expect("valid").used
                },
                BatchSize::SmallInput,
            );
        });
        let mut payload = vec![7; len];
        group.bench_function(BenchmarkId::new("unmask", len), |b| b.iter(|| unmask(&mut payload, MASK)));
        group.bench_function(BenchmarkId::new("unmask, byte by byte", len), |b| {
            b.iter(|| {
                let masks = MASK.iter().cycle();
                payload.iter_mut().zip(masks).for_each(|(byte, mask)| *byte ^= mask);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(200)).measurement_time(std::time::Duration::from_millis(700));
    targets = headers, messages
}
criterion_main!(benches);
