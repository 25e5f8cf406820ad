//! What the log holds beyond the tables, record by record, past damage where there is any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::coding::{Malformed, Reader};
use base::cursor::Cursor;
use base::error::Result;
use base::fs::OverlayFs;
use base::sync::Arc;
use base::{FileKind, InternalKey, KeyKind, KeyspaceId, SequenceNumber};
use log::{Ending, Record, RecordKind, Replay, SegmentReader};
use siltstone::{Db, Keyspace, WriteBatch};
use sstable::{ScanMode, TableReader};

use super::super::directory::Directory;
use super::super::failure::{Failure, Outcome};
use super::super::interrupt::Interrupt;
use super::super::operations::{self, Operation};
use super::super::wal;
use super::{Known, Loss, Made, Plan, Report, salvage};

/// So many tables are kept open to look for newer entries in.
const OPEN_TABLES_MAX: usize = 64;

/// The segments of the log that have a whole header, oldest first.
fn segments(directory: &Directory, report: &mut Report) -> Outcome<Vec<SegmentReader>> {
    let mut readers = Vec::new();
    for number in directory.numbers(FileKind::Segment) {
        let path = directory.file(FileKind::Segment, number);
        match SegmentReader::open(&*directory.fs, &path) {
            Ok(reader) => readers.push(reader),
            Err(error) if error.is_corruption() => report.losses.push(Loss::of(&error, &path)),
            Err(error) => return Err(error.into()),
        }
    }
    readers.sort_by_key(|reader| (reader.header().ordinal, reader.header().number));
    Ok(readers)
}

/// Notes the keyspaces that the log creates and drops, as far as it can be read.
pub(super) fn collect_names(directory: &Directory, known: &mut Known) {
    // What cannot be read is reported when it is replayed.
    let Ok(readers) = segments(directory, &mut Report::default()) else {
        return;
    };
    for mut reader in readers {
        let noted = read_past_damage(&mut reader, &mut |_| {}, &mut |record| {
            note_names(record, known);
            Ok(())
        });
        // As above.
        let _ = noted;
    }
}

fn note_names(record: &Record<'_>, known: &mut Known) {
    match record.meta.kind {
        RecordKind::KeyspaceCreate => {
            if let Ok((id, made)) = created(record.payload) {
                known.names.entry(id).or_insert(made);
            }
        }
        RecordKind::KeyspaceDrop => {
            if let Ok(id) = Reader::new(record.payload).varint_u32() {
                known.dropped.insert(KeyspaceId(id));
            }
        }
        _ => {}
    }
}

/// What the record says that creates a keyspace.
fn created(payload: &[u8]) -> std::result::Result<(KeyspaceId, Made), Malformed> {
    let mut reader = Reader::new(payload);
    let id = KeyspaceId(reader.varint_u32()?);
    let _order = reader.u8()?;
    let name = std::str::from_utf8(reader.len_bytes()?).map_err(|_| Malformed)?;
    let made = Made {
        name: name.to_owned(),
        options: reader.rest().to_vec(),
    };
    Ok((id, made))
}

/// Hands every record that can be read to `visit`, and every stretch that cannot to `lose`: where
/// it begins and, if records follow it, where it ends.
pub(super) fn read_past_damage(
    reader: &mut SegmentReader,
    lose: &mut dyn FnMut((u64, Option<u64>)),
    visit: &mut dyn FnMut(&Record<'_>) -> Outcome<()>,
) -> Outcome<()> {
    loop {
        while let Some(record) = reader.next()? {
            visit(&record)?;
        }
        match reader.ending() {
            Ending::Damaged {
                offset,
                later_offset,
                ..
            } => {
                lose((offset, Some(later_offset)));
                reader.skip_to(later_offset);
            }
            Ending::Torn { offset } => {
                lose((offset, None));
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

/// Applies what the log holds beyond the tables.
pub(super) fn log(
    db: &Db,
    keyspaces: &BTreeMap<KeyspaceId, Keyspace>,
    plan: &Plan,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Outcome<()> {
    let mut replayer = Replayer {
        db,
        keyspaces: keyspaces.clone(),
        plan,
        interrupt,
        operation_count: 0,
        open: BTreeMap::new(),
    };
    if !replayer.as_an_open_would(report)? {
        replayer.whatever_there_is(report)?;
    }
    report.log_operation_count = replayer.operation_count;
    Ok(())
}

struct Replayer<'a> {
    db: &'a Db,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    operation_count: u64,
    open: BTreeMap<PathBuf, Arc<TableReader>>,
}

impl Replayer<'_> {
    /// Replays the log if an open would accept it; returns whether it did.
    fn as_an_open_would(&mut self, report: &mut Report) -> Outcome<bool> {
        let directory = &self.plan.directory;
        let Some(state) = &self.plan.state else {
            return Ok(false);
        };
        let overlay = Arc::new(OverlayFs::new(Arc::clone(&directory.fs)));
        let prepared = match wal::recover(directory, state, &overlay) {
            Ok(prepared) => prepared,
            Err(error) if error.is_corruption() => {
                let path = error.path().unwrap_or(&directory.path).to_owned();
                report.losses.push(Loss::of(&error, &path));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let remark = prepared.dropped.as_ref().map(wal::dropped_remark);
        report.remarks.extend(remark);
        let from = SequenceNumber::ZERO;
        let mut replay = Replay::open(&*overlay, &directory.path, &prepared.segments, from)?;
        while let Some(record) = replay.next()? {
            self.apply(&record, report)?;
        }
        Ok(true)
    }

    /// Replays every record that can be read.
    fn whatever_there_is(&mut self, report: &mut Report) -> Outcome<()> {
        for mut reader in segments(&self.plan.directory, report)? {
            let path = reader.path().to_owned();
            let mut losses = Vec::new();
            let mut inner = Report::default();
            let read = read_past_damage(
                &mut reader,
                &mut |stretch| losses.push(stretch),
                &mut |record| self.apply(record, &mut inner),
            );
            match read {
                Err(Failure::Damage(message)) => report.losses.push(Loss {
                    file: path.clone(),
                    offset: reader.position().offset,
                    message,
                    ..Loss::default()
                }),
                read => read?,
            }
            report.losses.append(&mut inner.losses);
            report.remarks.append(&mut inner.remarks);
            for (offset, later) in losses {
                report.losses.push(Loss {
                    file: path.clone(),
                    offset,
                    bytes: later.map(|later| later.saturating_sub(offset)),
                    keys: None,
                    message: match later {
                        Some(_) => "records of the log cannot be read; later ones can".to_owned(),
                        None => "the log ends in a record that is not whole".to_owned(),
                    },
                });
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>, report: &mut Report) -> Outcome<()> {
        self.interrupt.check("the repair is not complete")?;
        match record.meta.kind {
            RecordKind::Batch => self.apply_batch(record, report),
            RecordKind::KeyspaceCreate => {
                if let Ok((id, made)) = created(record.payload)
                    && !self.plan.dropped.contains(&id)
                    && !self.keyspaces.contains_key(&id)
                {
                    let Made { name, options } = made;
                    let keyspace = super::make_keyspace(self.db, &name, &options, report)?;
                    self.keyspaces.insert(id, keyspace);
                }
                Ok(())
            }
            RecordKind::KeyspaceDrop => {
                if let Ok(id) = Reader::new(record.payload).varint_u32()
                    && let Some(keyspace) = self.keyspaces.remove(&KeyspaceId(id))
                {
                    self.db.drop_keyspace(keyspace.name())?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn apply_batch(&mut self, record: &Record<'_>, report: &mut Report) -> Outcome<()> {
        let mut list = Vec::new();
        let op_count = record.meta.op_count;
        let whole =
            operations::for_each(record.payload, op_count, |operation| list.push(operation));
        if whole.is_err() {
            let position = record.position;
            report.losses.push(Loss {
                file: self.plan.directory.path.clone(),
                offset: position.offset,
                message: format!("the batch at {position} of the log is malformed"),
                ..Loss::default()
            });
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        for (index, operation) in (0..).zip(list) {
            let seq = record.meta.first_seq.plus(index);
            if self.is_needed(&operation, seq)?
                && let Some(keyspace) = self.keyspaces.get(&operation.keyspace)
            {
                match operation.kind {
                    KeyKind::Put => batch.put_in(keyspace, operation.key, operation.value),
                    KeyKind::Delete => batch.delete_in(keyspace, operation.key),
                };
                self.operation_count += 1;
            }
        }
        if !batch.is_empty() {
            self.db.write(&batch)?;
        }
        Ok(())
    }

    /// Whether the tables do not have it yet, nor anything newer.
    fn is_needed(&mut self, operation: &Operation<'_>, seq: SequenceNumber) -> Outcome<bool> {
        let Some(source) = self.plan.sources.get(&operation.keyspace) else {
            return Ok(true);
        };
        if let Some(state) = &self.plan.state {
            return Ok(seq
                > source
                    .flushed_upto
                    .max(state.facts.flushed_floor.unwrap_or_default()));
        }
        for table in &source.tables {
            if operation.key < &table.smallest[..] || operation.key > &table.largest[..] {
                continue;
            }
            let reader = self.reader(&table.path)?;
            // What cannot be read is reported already.
            if newest(&reader, operation.key).is_ok_and(|found| found > Some(seq)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reader(&mut self, path: &Path) -> Outcome<Arc<TableReader>> {
        if let Some(reader) = self.open.get(path) {
            return Ok(Arc::clone(reader));
        }
        if self.open.len() >= OPEN_TABLES_MAX {
            self.open.clear();
        }
        let reader = salvage::open(&*self.plan.directory.fs, path)?;
        self.open.insert(path.to_owned(), Arc::clone(&reader));
        Ok(reader)
    }
}

/// The sequence number of the newest entry of `key` in a table.
fn newest(reader: &Arc<TableReader>, key: &[u8]) -> Result<Option<SequenceNumber>> {
    let mut cursor = reader.cursor(ScanMode::Ordinary);
    let is_valid = cursor.seek(InternalKey::seek_to(key, SequenceNumber::MAX))?;
    let is_it = is_valid && cursor.key().user_key == key;
    Ok(is_it.then(|| cursor.key().seq))
}
