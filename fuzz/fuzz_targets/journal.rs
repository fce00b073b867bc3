//! Journal files with valid checksums around hostile bytes, cut and flipped: they are either read the same
//! way every time or refused unchanged.
//!
//! Input: commands of one byte each, followed by their arguments; `run` lists them.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use nervewire::store::journal_harness::{Fields, ReadRecord, Recorder, path, read};

/// Takes the next byte, or 0 at the end.
fn byte(input: &mut &[u8]) -> u8 {
    let Some((first, rest)) = input.split_first() else { return 0 };
    *input = rest;
    *first
}

fn bytes<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::from(byte(input)).min(input.len());
    let (bytes, rest) = input.split_at(len);
    *input = rest;
    bytes
}

/// Builds the files that `input` describes. Returns them and the position to read from.
fn build(mut input: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64) {
    let input = &mut input;
    let mut files = Vec::new();
    let (mut first, mut from, mut recorder) = (0, 0, Recorder::new(0, 0));
    while !input.is_empty() {
        match byte(input) % 8 {
            // A record with arbitrary fields.
            0 => {
                let fields = Fields {
                    unsynced: u64::from(byte(input)) * 8,
                    epoch: u32::from(byte(input)),
                    kind: byte(input),
                    version: byte(input),
                    flags: u16::from(byte(input)),
                    pieces_len: u32::from(byte(input)),
                };
                let body = bytes(input);
                recorder.record(fields, body);
            }
            // A record as the daemon writes it, with arbitrary rows.
            1 => {
                let body = bytes(input);
                let fields = Fields { unsynced: 0, epoch: 1, kind: 1, version: 1, flags: 0, pieces_len: 0 };
                recorder.record(fields, body);
            }
            2 => recorder.bytes().extend_from_slice(bytes(input)),
            3 => {
                let zeros = usize::from(byte(input)) * 8;
                let len = recorder.bytes().len() + zeros;
                recorder.bytes().resize(len, 0);
            }
            4 => {
                let at = usize::from(byte(input)) * 256 + usize::from(byte(input));
                let flip = byte(input);
                if let Some(byte) = recorder.bytes().get_mut(at) {
                    *byte ^= flip;
                }
            }
            5 => {
                let less = usize::from(byte(input));
                let len = recorder.bytes().len().saturating_sub(less);
                recorder.bytes().truncate(len);
            }
            // The next segment, which rarely does not begin where this one ends.
            6 => {
                let next = recorder.position() + u64::from(byte(input) / 32) * 8;
                files.push((first, recorder.bytes().clone()));
                (first, recorder) = (next, Recorder::new(next, u32::from(byte(input) / 128)));
            }
            _ => from = recorder.position(),
        }
    }
    files.push((first, recorder.bytes().clone()));
    (files, from)
}

fn lay(dir: &Path, files: &[(u64, Vec<u8>)]) {
    let _ = fs::remove_dir_all(dir); // absent at first
    fs::create_dir_all(dir).expect("a directory");
    for (first, bytes) in files {
        fs::write(path(dir, *first), bytes).expect("written");
    }
}

/// A directory in memory, if there is one.
fn dir() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("nervewire-fuzz-journal-{}", std::process::id()))
}

/// Checks that records are contiguous, and that no record follows a change that cannot be parsed.
fn check(records: &[ReadRecord], from: u64, end: u64) {
    let mut at = from;
    for record in records {
        assert_eq!(record.position, at);
        assert!(record.end > at && record.end % 8 == 0);
        at = record.end;
        assert!(record.changes.iter().rev().skip(1).all(Option::is_some));
    }
    assert_eq!(at, end);
}

fuzz_target!(|data: &[u8]| {
    let (files, from) = build(data);
    let dir = dir();
    lay(&dir, &files);
    match read(&dir, from) {
        Ok((records, end)) => {
            check(&records, from, end);
            assert_eq!(read(&dir, from), Ok((records, end)), "what was opened once opens again");
        }
        Err(error) => {
            assert!(!error.starts_with("read again"), "{error}");
            let last = files.len() - 1;
            for (at, (first, bytes)) in files.iter().enumerate() {
                // An empty file may have been removed: a crash leaves it when a new segment is created.
                let is_blank = at == last && bytes.iter().all(|byte| *byte == 0);
                let twice = files.iter().skip(at + 1).any(|(other, _)| other == first);
                if !is_blank && !twice {
                    assert_eq!(&fs::read(path(&dir, *first)).expect("there"), bytes, "{error}");
                }
            }
        }
    }
    let _ = fs::remove_dir_all(&dir);
});
