//! Reading tables past damaged blocks, and merging what they hold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

use base::cursor::Cursor;
use base::error::{Error, Result};
use base::fs::{Access, File, FileSystem, Mapping};
use base::sync::Arc;
use base::{FileNumber, InternalKey, KeyKind, KeyspaceId, SequenceNumber};
use siltstone::{Db, Keyspace, WriteBatch};
use sstable::{ReadMode, ReaderOptions, ScanMode, TableCursor, TableReader, Verify};

use super::super::failure::Outcome;
use super::super::interrupt::Interrupt;
use super::{Loss, Plan, Report, Source, TableFile};

/// How long batches are.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A table that has to be read into memory as a whole may be this long.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Opens the table at `path`, if need be without its filter.
///
/// # Errors
/// `Corruption` if footer or index is damaged.
pub(super) fn open(fs: &dyn FileSystem, path: &Path) -> Result<Arc<TableReader>> {
    let file = fs.open_untrusted(path)?;
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        verify: Verify::Always,
        ..ReaderOptions::default()
    };
    let is_small = file.len()? <= MEMORY_BYTES_MAX;
    match TableReader::open(Arc::clone(&file), &options, None, 0) {
        Err(error) if error.is_corruption() && is_small => {
            // In this mode nothing is read before it is needed, and a filter never is.
            let options = ReaderOptions {
                mode: ReadMode::Mapped,
                verify: Verify::Once,
                ..ReaderOptions::default()
            };
            TableReader::open(Arc::new(InMemory(file)), &options, None, 0)
        }
        opened => opened,
    }
}

/// A file that is "mapped" by reading it: it may change or end under a real mapping.
#[derive(Debug)]
struct InMemory(Arc<dyn File>);

impl File for InMemory {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, len: u64) -> Result<bool> {
        self.0.reserve(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.0.start_writeback(offset, len);
    }

    fn map(&self, _access: Access) -> Result<Mapping> {
        let len = usize::try_from(self.0.len()?)
            .map_err(|_| Error::invalid_argument("file too large").with_path(self.path()))?;
        let mut bytes = vec![0; len];
        self.0.read_exact_at(0, &mut bytes)?;
        Ok(Mapping::from_memory(Arc::from(bytes)))
    }
}

/// Which keyspace a table belongs to, and what it is.
///
/// # Errors
/// `Corruption` if it cannot be read at all.
pub(super) fn describe(
    fs: &dyn FileSystem,
    number: FileNumber,
    path: &Path,
) -> Result<(KeyspaceId, TableFile)> {
    let properties = open(fs, path)?.properties()?;
    let table = TableFile {
        number,
        path: path.to_owned(),
        smallest: properties.smallest.user_key.clone(),
        largest: properties.largest.user_key.clone(),
    };
    Ok((properties.keyspace, table))
}

/// Writes what the tables of `source` hold to `keyspace`: of each key the newest entry.
pub(super) fn tables(
    db: &Db,
    keyspace: &Keyspace,
    plan: &Plan,
    source: &Source,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Outcome<()> {
    let mut heap: BinaryHeap<Reverse<Head>> = BinaryHeap::new();
    let mut runs: Vec<Option<Run>> = Vec::new();
    for (index, table) in source.tables.iter().enumerate() {
        runs.push(None);
        heap.push(Reverse(Head::unopened(index, table)));
    }
    let fs = &*plan.directory.fs;
    let mut writer = Writer::new(db, keyspace);
    let mut last: Option<Vec<u8>> = None;
    while let Some(Reverse(head)) = heap.pop() {
        interrupt.check("the repair is not complete")?;
        let table = &source.tables[head.index];
        let run = &mut runs[head.index];
        if run.is_none() {
            *run = Run::start(fs, table, report);
        } else if let (Some(run), Some(kind)) = (run.as_mut(), head.kind) {
            if last.as_ref() != Some(&head.key) {
                if kind == KeyKind::Put.as_u8() {
                    writer.put(&head.key, run.cursor.value())?;
                    report.table_entry_count += 1;
                }
                last = Some(head.key);
            }
            run.advance(report);
        }
        match run.as_ref().and_then(|run| run.head(head.index, table)) {
            Some(head) => heap.push(Reverse(head)),
            // Its file is not needed any more.
            None => *run = None,
        }
    }
    writer.write()
}

/// Puts entries into the new database, many at a time.
struct Writer<'a> {
    db: &'a Db,
    keyspace: &'a Keyspace,
    batch: WriteBatch,
    /// A batch grows no longer, unless by its first entry: that may be as long as any can be.
    bytes_max: usize,
}

impl<'a> Writer<'a> {
    fn new(db: &'a Db, keyspace: &'a Keyspace) -> Self {
        Self {
            db,
            keyspace,
            batch: WriteBatch::new(),
            bytes_max: BATCH_BYTES_MAX,
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Outcome<()> {
        if self.batch.bytes() + key.len() + value.len() > self.bytes_max {
            self.write()?;
        }
        self.batch.put_in(self.keyspace, key, value);
        Ok(())
    }

    fn write(&mut self) -> Outcome<()> {
        if !self.batch.is_empty() {
            self.db.write(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

/// Where one table stands in the merge. Ordered by key, newest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    key: Vec<u8>,
    seq: Reverse<SequenceNumber>,
    /// Of entries whose numbers were zeroed, the one in the younger file.
    number: Reverse<u64>,
    index: usize,
    /// Its kind; `None` for a table that is to be opened now.
    kind: Option<u8>,
}

impl Head {
    fn unopened(index: usize, table: &TableFile) -> Self {
        Self {
            key: table.smallest.clone(),
            seq: Reverse(SequenceNumber::MAX),
            number: Reverse(table.number.0),
            index,
            kind: None,
        }
    }
}

/// Reads one table from front to back, past damage.
struct Run {
    cursor: TableCursor,
    path: PathBuf,
    is_valid: bool,
    /// The block that it stands in; `None` before the first.
    block: Option<usize>,
    /// The last key that could be read.
    last: Vec<u8>,
    /// The last that there should be.
    largest: Vec<u8>,
}

impl Run {
    /// Opens `table` at its first readable entry; `None` if nothing of it can be read.
    fn start(fs: &dyn FileSystem, table: &TableFile, report: &mut Report) -> Option<Self> {
        let whole = |error: &Error| {
            let mut loss = Loss::of(error, &table.path);
            loss.keys = Some((table.smallest.clone(), table.largest.clone()));
            loss
        };
        let reader = match open(fs, &table.path) {
            Ok(reader) => reader,
            Err(error) => {
                report.losses.push(whole(&error));
                return None;
            }
        };
        report.table_count += 1;
        let mut run = Self {
            cursor: reader.cursor(ScanMode::Ordinary),
            path: table.path.clone(),
            is_valid: false,
            block: None,
            last: table.smallest.clone(),
            largest: table.largest.clone(),
        };
        let moved = run.cursor.seek_to_first();
        run.settle(moved, report);
        Some(run)
    }

    /// Goes to the next entry that can be read.
    fn advance(&mut self, report: &mut Report) {
        let moved = self.cursor.next();
        self.settle(moved, report);
    }

    fn head(&self, index: usize, table: &TableFile) -> Option<Head> {
        let key = self.is_valid.then(|| self.cursor.key())?;
        Some(Head {
            key: key.user_key.to_vec(),
            seq: Reverse(key.seq),
            number: Reverse(table.number.0),
            index,
            kind: Some(key.kind.as_u8()),
        })
    }

    /// Takes note of where a step led, and goes past what is damaged.
    fn settle(&mut self, moved: Result<bool>, report: &mut Report) {
        match moved {
            Ok(is_valid) => self.arrived(is_valid),
            Err(error) => self.pass_damage(&error, report),
        }
    }

    fn arrived(&mut self, is_valid: bool) {
        self.is_valid = is_valid;
        if !is_valid {
            return;
        }
        self.last.clear();
        self.last.extend_from_slice(self.cursor.key().user_key);
        let offset = self.cursor.block_offset();
        let reader = Arc::clone(self.cursor.reader());
        let mut at = self.block.unwrap_or(0);
        while reader
            .block_info(at)
            .is_ok_and(|info| info.handle.offset < offset)
        {
            at += 1;
        }
        self.block = Some(at);
    }

    /// Goes to the first block behind the damage; says what lies between.
    fn pass_damage(&mut self, error: &Error, report: &mut Report) {
        self.is_valid = false;
        let reader = Arc::clone(self.cursor.reader());
        let mut loss = Loss::of(error, &self.path);
        // The block that could not be entered; if it was in the current one, the rest of that.
        let mut at = self.block.map_or(0, |block| block + 1);
        if let Some(block) = self.block
            && reader.block_info(block).ok().map(|info| info.handle.offset) == error.offset()
        {
            at = block;
        }
        let from = self.last.clone();
        let mut bytes = 0;
        let mut upto = self.largest.clone();
        loop {
            let Ok(info) = reader.block_info(at) else {
                // No index any more, or no block.
                break;
            };
            bytes += u64::from(info.handle.len);
            at += 1;
            if at >= reader.block_count() {
                break;
            }
            let (separator, seq) = (info.separator, info.separator_seq);
            let mut key = separator.clone();
            let target = if seq == SequenceNumber::ZERO {
                key.push(0);
                InternalKey::seek_to(&key, SequenceNumber::MAX)
            } else {
                InternalKey::seek_to(&key, seq.before())
            };
            // What lies behind it may be damaged too.
            if let Ok(is_valid) = self.cursor.seek(target) {
                upto = separator;
                self.block = Some(at);
                self.arrived(is_valid);
                break;
            }
        }
        loss.bytes = (bytes > 0).then_some(bytes);
        loss.keys = Some((from, upto));
        report.losses.push(loss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_gets_a_batch_of_its_own() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path().join("db")).expect("a new database");
        let keyspace = db.keyspace("default").expect("it is always there");
        let mut writer = Writer::new(&db, &keyspace);
        writer.bytes_max = 100;
        let mut counts = Vec::new();
        for (key, len) in (0..7u8).zip([30, 30, 60, 500, 10, 10, 10]) {
            writer.put(&[key], &vec![b'v'; len]).expect("put");
            counts.push(writer.batch.len());
        }
        writer.write().expect("written");
        assert_eq!(counts, [1, 2, 1, 1, 1, 2, 3]);
        assert_eq!(db.iter().expect("a scan").count(), 7);
        db.close().expect("closed");
    }
}
