//! The file of a backup that holds the rows of the state.
//!
//! * `ff NWROWS\n ‖ version u32`, then blocks: `length u32 ‖ rows u32 ‖ CRC-32C u32 ‖ rows`. The checksum
//!   covers all of the block but itself. A row is `length of the key u16 ‖ length of the value u32 ‖ key ‖
//!   value`. A block of length 0 is the end. Numbers are little endian.
//! * Keys are strictly increasing, so a repeated or moved block or row is detected.
//! * This module does not know what rows mean.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::files::private_file;
use crate::store::journal::crc;

const MAGIC: [u8; 8] = *b"\xffNWROWS\n";
const VERSION: u32 = 1;
/// Bytes of rows at which a block is closed.
const BLOCK: usize = 256 << 10;
/// Largest block that is read, in bytes: one closed late by the largest row, with a margin.
const BLOCK_MOST: usize = 1 << 20;

/// Receives a key and its value.
pub(super) type TakeRow<'t> = dyn FnMut(&[u8], &[u8]) -> Result<(), BackupError> + 't;

/// Writes the file.
pub(super) struct Writer {
    out: BufWriter<File>,
    block: Vec<u8>,
    in_block: u32,
    /// Rows written so far.
    pub(super) rows: u64,
}

impl Writer {
    pub(super) fn create(path: &Path) -> io::Result<Writer> {
        let mut out = BufWriter::new(private_file(path)?);
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        Ok(Writer { out, block: Vec::with_capacity(BLOCK), in_block: 0, rows: 0 })
    }

    /// Adds a row. Its key must be greater than all earlier ones.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidData);
        self.block.extend(u16::try_from(key.len()).map_err(too_long)?.to_le_bytes());
        self.block.extend(u32::try_from(value.len()).map_err(too_long)?.to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        (self.in_block, self.rows) = (self.in_block + 1, self.rows + 1);
        if self.block.len() >= BLOCK { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.block.len()).unwrap_or(u32::MAX); // at most BLOCK and one row
        let mut head = [len.to_le_bytes(), self.in_block.to_le_bytes()].concat();
        let sum = crc(&[&head[..], &self.block].concat());
        head.extend(sum.to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.in_block = 0;
        Ok(())
    }

    /// Ends the file, which is durable on return. Returns the number of rows.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.in_block > 0 {
            self.close_block()?;
        }
        self.close_block()?; // the empty block
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.rows)
    }
}

/// Reads and checks the file.
pub(super) struct Reader {
    input: BufReader<File>,
    path: PathBuf,
    last: Vec<u8>,
    rows: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader, BackupError> {
        let input = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                BackupError::Damaged { file: path.to_owned(), what: "it is gone".into() }
            }
            _ => BackupError::io(path, &error),
        })?;
        let input = BufReader::new(input);
        let mut reader = Reader { input, path: path.to_owned(), last: Vec::new(), rows: 0 };
        let head: [u8; 12] = reader.array()?;
        match head.strip_prefix(&MAGIC) {
            Some(version) if version == VERSION.to_le_bytes() => Ok(reader),
            Some(_) => Err(reader.damaged("it is of another version")),
            None => Err(reader.damaged("it is not a file of rows")),
        }
    }

    /// Passes every row to `take`. Returns their number.
    pub(super) fn read(mut self, take: &mut TakeRow<'_>) -> Result<u64, BackupError> {
        loop {
            let head: [u8; 12] = self.array()?;
            let number = |at: usize| {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(&head[at..at + 4]);
                u32::from_le_bytes(bytes)
            };
            let (len, rows, sum) = (number(0) as usize, number(4), number(8));
            if len > BLOCK_MOST {
                return Err(self.damaged("a block is too long"));
            }
            let mut block = vec![0; len];
            self.fill(&mut block)?;
            if crc(&[&head[..8], &block].concat()) != sum {
                return Err(self.damaged("the checksum of a block does not match"));
            }
            if len == 0 {
                let mut rest = [0];
                return match self.input.read(&mut rest) {
                    Ok(0) => Ok(self.rows),
                    _ => Err(self.damaged("there is data after its end")),
                };
            }
            let mut rest = &block[..];
            for _ in 0..rows {
                let Some((key, value)) = row(&mut rest) else {
                    return Err(self.damaged("a row cannot be read"));
                };
                if self.rows > 0 && *key <= *self.last {
                    return Err(self.damaged("a row is out of order"));
                }
                take(key, value)?;
                key.clone_into(&mut self.last);
                self.rows += 1;
            }
            if !rest.is_empty() {
                return Err(self.damaged("a row cannot be read"));
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it is cut off")),
            Err(error) => Err(BackupError::io(&self.path, &error)),
        }
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged { file: self.path.clone(), what: format!("{what}, after row {}", self.rows) }
    }
}

fn row<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (key_len, after) = rest.split_first_chunk()?;
    let (value_len, after) = after.split_first_chunk()?;
    let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
    *rest = after;
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and its value.
    type Pair = (Vec<u8>, Vec<u8>);

    fn rows(path: &Path) -> Result<Vec<Pair>, BackupError> {
        let mut found = Vec::new();
        let take = &mut |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        Reader::open(path)?.read(take)?;
        Ok(found)
    }

    #[test]
    fn a_rows_file_round_trips_and_every_damaged_byte_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rows");
        let written: Vec<_> = (0..40_u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; n as usize])).collect();
        let mut writer = Writer::create(&path).expect("made");
        for (key, value) in &written {
            writer.add(key, value).expect("added");
        }
        assert_eq!(writer.finish().expect("written"), 40);
        assert_eq!(rows(&path).expect("sound"), written);
        let bytes = std::fs::read(&path).expect("read");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).expect("written");
            assert!(rows(&path).is_err(), "flipped at {at}");
            std::fs::write(&path, &bytes[..at]).expect("written");
            assert!(rows(&path).is_err(), "cut to {at}");
        }
        std::fs::write(&path, [&bytes[..], &[0]].concat()).expect("written");
        assert!(rows(&path).is_err(), "longer");
    }
}
