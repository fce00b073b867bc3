//! Tests of power cuts, ends of the process and failed syncs in any order, against a model of what was
//! promised.
//!
//! The promise: what [`Journal::sync`] confirmed always exists later, and what comes back is a prefix of what
//! was appended, in order, without anything that was refused.

use proptest::prelude::*;
use rustix::io::Errno;

use super::sim::{Fault, How, Random, Sim};
use super::*;

/// Size of a segment in bytes: a few records.
const SEGMENT: u64 = 4096;

#[derive(Debug, Clone)]
enum Op {
    /// Appends a record with a piece and a row of these lengths.
    Append(usize, usize),
    Sync,
    /// The disk refuses the next sync.
    FailedSync(Errno),
    /// The disk fails every call from the next sync on, until the process has been killed.
    FailsUntilKilled,
    /// The process ends; the kernel keeps what it wrote.
    Kill,
    /// The machine loses power; the number is the random seed for what reached the disk.
    PowerCut(u64),
    /// The state is made durable as of what is synced.
    Checkpoint,
    /// The oldest segment before the checkpoint is removed.
    Remove,
}

fn ops(lying: bool) -> impl Strategy<Value = Vec<Op>> {
    let append = (0..1500usize, 0..700usize).prop_map(|(piece, row)| Op::Append(piece, row));
    let cut = any::<u64>().prop_map(|seed| Op::PowerCut(seed | 1));
    let fail = prop_oneof![Just(Errno::IO), Just(Errno::NOSPC)].prop_map(Op::FailedSync);
    let op = prop_oneof![
        12 => append,
        5 => Just(Op::Sync),
        u32::from(!lying) => fail,
        u32::from(!lying) => Just(Op::FailsUntilKilled),
        1 => Just(Op::Kill),
        2 => cut,
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Remove),
    ];
    proptest::collection::vec(op, 1..60)
}

/// A record that was appended.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    position: Position,
    end: Position,
    piece: PieceLocation,
    bytes: Vec<u8>,
    row: Vec<u8>,
}

struct Model {
    dir: tempfile::TempDir,
    sim: Arc<Sim>,
    journal: Option<Journal>,
    written: Vec<Written>,
    /// What the last sync confirmed.
    confirmed: Position,
    checkpoint: Position,
    /// A counter that makes the bytes of records differ.
    count: u8,
}

impl Model {
    fn new() -> Model {
        let dir = temporary();
        std::fs::create_dir(dir.path().join("journal")).expect("made");
        let mut model = Model {
            dir,
            sim: Arc::default(),
            journal: None,
            written: Vec::new(),
            confirmed: Position(0),
            checkpoint: Position(0),
            count: 0,
        };
        model.open().expect("it opens");
        model
    }

    /// Opens the journal and checks what comes back.
    fn open(&mut self) -> Result<(), JournalError> {
        self.journal = None;
        let options = Options {
            dir: self.dir.path().join("journal"),
            segment_bytes: SEGMENT,
            id: None,
            end: None,
            io: self.sim.clone(),
        };
        let mut seen = Vec::new();
        let journal = Journal::open(options, self.checkpoint, &mut |record| {
            let mut written = Written {
                position: record.position,
                end: record.end,
                piece: PieceLocation { position: Position(0), len: 0, crc: 0 },
                bytes: Vec::new(),
                row: Vec::new(),
            };
            for change in record.changes() {
                match change? {
                    Change::Piece(piece) => {
                        written.piece = piece;
                        written.bytes = record.bytes(piece).expect("it is the record's").to_vec();
                    }
                    Change::Put { value, .. } => written.row = value.to_vec(),
                    other => panic!("{other:?}"),
                }
            }
            seen.push(written);
            Ok(())
        })?;
        let skipped = self.written.iter().filter(|written| written.end <= self.checkpoint).count();
        let expected = &self.written[skipped..];
        assert!(seen.len() <= expected.len() && seen[..] == expected[..seen.len()], "not a prefix of it");
        self.written.truncate(skipped + seen.len());
        assert_eq!(journal.end(), self.written.last().map_or(Position(0), |last| last.end));
        assert_eq!(journal.durable(), journal.end());
        self.journal = Some(journal);
        Ok(())
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("open")
    }

    /// Reads every piece that is not in a removed segment.
    fn check_pieces(&self) {
        let journal = self.journal();
        for written in &self.written {
            if journal.segment_of(written.position).is_some() {
                assert_eq!(journal.read(written.piece).as_ref(), Ok(&written.bytes));
            }
        }
    }

    fn run(&mut self, op: &Op) -> Result<(), JournalError> {
        match op {
            Op::Append(len, row) => {
                self.count = self.count.wrapping_add(1);
                let position = self.journal().end();
                let mut record = NewRecord::new(RecordKind::Commit, 1, position);
                let bytes = vec![self.count; *len];
                let piece = record.add_piece(bytes.clone());
                let row = vec![!self.count; *row];
                record.put(b"row", &row);
                let end = self.journal().append(&record).expect("appended");
                self.written.push(Written { position, end, piece, bytes, row });
            }
            Op::Sync => self.confirmed = self.journal().sync().expect("synced"),
            Op::FailedSync(errno) => {
                if self.journal().durable() == self.journal().end() {
                    return Ok(());
                }
                let durable = self.journal().durable();
                self.sim.set_fault(Fault::Sync(*errno));
                let error = match errno {
                    &Errno::NOSPC => JournalError::Space,
                    errno => JournalError::Disk(io::Error::from(*errno).to_string()),
                };
                let record = NewRecord::new(RecordKind::Commit, 1, durable);
                assert_eq!(self.journal().sync(), Err(error.clone()));
                assert_eq!(
                    (self.journal().append(&record), self.journal().sync()),
                    (Err(error.clone()), Err(error))
                );
                self.written.retain(|written| written.end <= durable);
                assert_eq!(self.journal().end(), durable);
                self.check_pieces();
                let kept = self.written.len();
                self.open()?;
                assert_eq!(self.written.len(), kept);
            }
            Op::FailsUntilKilled => {
                self.sim.set_fault(Fault::From(0, How::Errno(Errno::IO)));
                let refused = self.journal().durable() != self.journal().end();
                assert_eq!(self.journal().sync().is_err(), refused);
                std::mem::forget(self.journal.take()); // without a drop, nothing cuts it back
                self.sim.set_fault(Fault::None);
                self.open()?; // what was refused may come back; then it stays
                self.confirmed = self.journal().durable();
            }
            Op::Kill => {
                let kept = self.written.len();
                self.open()?;
                assert_eq!(self.written.len(), kept, "the kernel kept all of it");
                self.confirmed = self.journal().durable();
            }
            Op::PowerCut(seed) => {
                self.journal = None;
                let after = temporary();
                let dir = after.path().join("journal");
                std::fs::create_dir(&dir).expect("made");
                self.sim.cut_power(&dir, &mut Random(*seed));
                (self.sim, self.dir) = (Arc::new(Sim::over(&dir)), after);
                self.open()?;
                self.confirmed = self.journal().durable();
            }
            Op::Checkpoint => self.checkpoint = self.confirmed,
            Op::Remove => {
                let segments = self.journal().segments();
                let old = segments.iter().find(|one| one.is_sealed && one.end <= self.checkpoint);
                if let Some(old) = old {
                    self.journal().remove(old.first).expect("removed");
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn synced_records_survive_every_crash(ops in ops(false)) {
        let mut model = Model::new();
        for op in &ops {
            let confirmed = model.confirmed;
            model.run(op).expect("the disk is honest");
            assert!(model.journal().end() >= confirmed, "{op:?} lost what was confirmed");
        }
        model.check_pieces();
        model.run(&Op::Kill).expect("it opens");
        model.check_pieces();
    }

    /// A disk that reports syncs that it did not do may lose anything. Then the journal is refused, or a
    /// prefix of it comes back.
    #[test]
    fn a_disk_that_only_pretends_to_sync_adds_no_records(ops in ops(true)) {
        let mut model = Model::new();
        for op in &ops {
            model.sim.lie();
            match model.run(op) {
                Ok(()) => {}
                Err(
                    JournalError::Damaged { .. } | JournalError::Missing { .. } | JournalError::Beyond { .. }
                ) => return Ok(()),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
