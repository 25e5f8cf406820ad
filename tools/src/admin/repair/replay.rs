//! What the log holds beyond the tables, record by record, past damage where there is any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base::coding::{Malformed, Reader};
use base::cursor::Cursor;
use base::error::{Error, Result};
use base::fs::OverlayFs;
use base::sync::Arc;
use base::{FileKind, InternalKey, KeyKind, KeyspaceId, SequenceNumber};
use log::{Record, RecordKind, RecordMeta, Replay, SealedSegment, SegmentReader};
use siltstone::{Db, Keyspace, WriteBatch};
use sstable::{ScanMode, TableReader};

use super::super::directory::{Directory, State};
use super::super::failure::Outcome;
use super::super::interrupt::Interrupt;
use super::super::operations::{self, Operation};
use super::super::stretches::{Before, Begun, Found, flushed_ids, is_numbered, read_past_damage};
use super::super::wal;
use super::{Known, Loss, Made, Plan, Report, Source, make_keyspace, salvage};

mod again;

/// So many tables are kept open to look for newer entries in.
const OPEN_TABLES_MAX: usize = 64;

/// The segments of the log that have a whole header, oldest first.
fn segments(directory: &Directory, report: &mut Report) -> Vec<SegmentReader> {
    let mut readers = Vec::new();
    for number in directory.numbers(FileKind::Segment) {
        let path = directory.file(FileKind::Segment, number);
        match SegmentReader::open(&*directory.fs, &path) {
            Ok(reader) => readers.push(reader),
            Err(error) => report.losses.push(Loss::of(&error, &path)),
        }
    }
    readers.sort_by_key(|reader| (reader.header().ordinal, reader.header().number));
    readers
}

/// Notes the keyspaces that the log creates and drops, as far as it can be read.
pub(super) fn collect_names(directory: &Directory, known: &mut Known) {
    // What cannot be read is reported when it is replayed.
    for mut reader in segments(directory, &mut Report::default()) {
        let noted = read_past_damage(&mut reader, &mut |found| {
            if let Found::Record(record) = found {
                note_names(record, known);
            }
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

/// The first and the last key of a stretch.
type Keys = (Vec<u8>, Vec<u8>);

/// The new database with what tables gave it.
pub(super) struct Target<'a> {
    db: &'a Db,
    pub(super) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// Where tables are damaged.
    pub(super) damaged: BTreeMap<KeyspaceId, Vec<Keys>>,
}

impl<'a> Target<'a> {
    pub(super) fn of(db: &'a Db) -> Self {
        Self {
            db,
            keyspaces: BTreeMap::new(),
            damaged: BTreeMap::new(),
        }
    }
}

/// Applies what the log holds beyond the tables, or beyond what is left of them.
pub(super) fn log(
    target: Target<'_>,
    plan: &Plan,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Outcome<()> {
    let mut replayer = Replayer {
        db: target.db,
        keyspaces: target.keyspaces,
        damaged: target.damaged,
        gone: BTreeSet::new(),
        plan,
        interrupt,
        applied: Applied::default(),
        operation_count: 0,
        open: BTreeMap::new(),
    };
    if let Replayed::InPart(reason) = replayer.as_an_open_would(report)? {
        let told = report.losses.len();
        replayer.whatever_there_is(report)?;
        // It knows better what is lost, unless what is wrong cannot be read off a single file.
        let is_told = |reason: &Loss| {
            report
                .losses
                .iter()
                .skip(told)
                .any(|l| l.file == reason.file)
        };
        let reason = reason.filter(|reason| !is_told(reason));
        report.losses.extend(reason);
    }
    report.log_operation_count = replayer.operation_count;
    Ok(())
}

/// Whether the log was replayed as an open does it.
enum Replayed {
    Whole,
    /// Why it was not, unless that is known already.
    InPart(Option<Loss>),
}

struct Replayer<'a> {
    db: &'a Db,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    damaged: BTreeMap<KeyspaceId, Vec<Keys>>,
    /// Those that the log has dropped.
    gone: BTreeSet<KeyspaceId>,
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    applied: Applied,
    operation_count: u64,
    open: BTreeMap<PathBuf, Arc<TableReader>>,
}

/// What was applied already: first and last sequence numbers, side by side as one.
#[derive(Debug, Default)]
struct Applied {
    ranges: BTreeMap<SequenceNumber, SequenceNumber>,
    /// Those that no write was given: an open leaves some out unless the database was closed.
    left_out: Vec<(SequenceNumber, SequenceNumber)>,
    commit_micros: u64,
}

impl Applied {
    /// Notes the numbers of a record; returns whether it is a new one.
    ///
    /// INVARIANT: commit times never decrease. A record of later than all the others is none of
    /// them: after a torn end was cut off, its numbers are given to other commits.
    fn take(&mut self, meta: &RecordMeta) -> bool {
        let (first, last) = (meta.first_seq, meta.last_seq());
        let is_later = meta.commit_micros > self.commit_micros;
        self.commit_micros = self.commit_micros.max(meta.commit_micros);
        match self.ranges.range_mut(..=first).next_back() {
            Some((_, upto)) if first <= *upto => {
                *upto = last.max(*upto);
                return is_later;
            }
            Some((_, upto)) if first == upto.plus(1) => *upto = last,
            _ => {
                self.ranges.insert(first, last);
            }
        }
        true
    }

    /// Notes which numbers lie between the segment that has begun and the one before.
    fn leave_out(&mut self, begun: Begun) {
        if begun.last_seq < begun.first_seq.before() {
            let left_out = (begun.last_seq.plus(1), begun.first_seq.before());
            self.left_out.push(left_out);
        }
    }

    /// Says which numbers behind `floor` were given to writes, and no record has that could be
    /// read.
    fn gap_remarks(&self, floor: SequenceNumber) -> Vec<String> {
        let taken = self.ranges.iter().map(|(first, last)| (*first, *last));
        let mut spoken_for: Vec<_> = taken.chain(self.left_out.iter().copied()).collect();
        spoken_for.sort_unstable();
        let mut upto = spoken_for
            .first()
            .map_or(floor, |(first, _)| first.before());
        upto = upto.max(floor);
        let mut gaps = Vec::new();
        for (first, last) in spoken_for {
            if upto < first.before() {
                gaps.push((upto.plus(1), first.before()));
            }
            upto = upto.max(last);
        }
        let remark = |(from, upto)| {
            format!(
                "the log says nothing of the sequence numbers {from} to {upto}: of what was \
                 written then no more is there than tables have"
            )
        };
        gaps.into_iter().map(remark).collect()
    }
}

impl Replayer<'_> {
    /// Replays the log if an open would accept it, and of it what an open reads: in segments of
    /// which every record is in tables, damage costs nothing.
    fn as_an_open_would(&mut self, report: &mut Report) -> Outcome<Replayed> {
        let directory = &self.plan.directory;
        let Some(state) = &self.plan.state else {
            return Ok(Replayed::InPart(None));
        };
        let refused = |error: &Error| {
            let path = error.path().unwrap_or(&directory.path);
            Ok(Replayed::InPart(Some(Loss::of(error, path))))
        };
        let overlay = Arc::new(OverlayFs::new(Arc::clone(&directory.fs)));
        let prepared = match wal::recover(directory, state, &overlay) {
            // What the disk does not give back may look like an end that was torn.
            Ok(_) if self.plan.holes.find(FileKind::Segment).is_some() => {
                return Ok(Replayed::InPart(None));
            }
            Ok(prepared) => prepared,
            Err(error) => return refused(&error),
        };
        let again = self.put_again(&overlay, &prepared.segments, report)?;
        let end = self.replay_behind(state.floor(), &overlay, &prepared.segments, report)?;
        let remark = again.map(|again| again.remark(end.is_ok()));
        report.remarks.extend(remark);
        if let Err(error) = end {
            return refused(&error);
        }
        let remark = prepared.dropped.as_ref().map(wal::dropped_remark);
        report.remarks.extend(remark);
        Ok(Replayed::Whole)
    }

    /// Replays what the log, which an open accepts, has behind `floor`. Returns why it cannot be
    /// read, if that comes about.
    fn replay_behind(
        &mut self,
        floor: SequenceNumber,
        overlay: &Arc<OverlayFs>,
        segments: &[SealedSegment],
        report: &mut Report,
    ) -> Outcome<Result<()>> {
        let dir = &self.plan.directory.path;
        let mut replay = match Replay::open(&**overlay, dir, segments, floor.plus(1)) {
            Ok(replay) => replay,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            match replay.next() {
                Ok(None) => return Ok(Ok(())),
                Ok(Some(record)) => self.apply(&record, report)?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Replays every record that can be read.
    fn whatever_there_is(&mut self, report: &mut Report) -> Outcome<()> {
        let state = self.plan.state.as_ref();
        let floor = state.map_or(SequenceNumber::ZERO, State::floor);
        let mut readers = segments(&self.plan.directory, report);
        let flushed = flushed_ids(&mut readers, floor);
        for mut reader in readers {
            let path = reader.path().to_owned();
            let is_flushed = flushed.contains(&reader.header().file_id);
            // What could not be read since the last record that could.
            let mut pending = Vec::new();
            read_past_damage(&mut reader, &mut |found| {
                let record = match found {
                    Found::Stretch(stretch) => {
                        pending.push(Loss::of_stretch(&stretch, &path));
                        return Ok(());
                    }
                    Found::Record(record) => record,
                };
                match Before::of(record, floor) {
                    Before::Flushed => pending.clear(),
                    Before::Missed => report.losses.append(&mut pending),
                    Before::Unknown => {}
                }
                self.apply(record, report)
            })?;
            if !is_flushed {
                report.losses.append(&mut pending);
            }
        }
        report.remarks.extend(self.applied.gap_remarks(floor));
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>, report: &mut Report) -> Outcome<()> {
        self.interrupt.check("the repair is not complete")?;
        if is_numbered(record) && !self.applied.take(&record.meta) {
            // From another segment: what is copied by an open is there twice until that is done.
            return Ok(());
        }
        match record.meta.kind {
            RecordKind::Batch => self.apply_batch(record, report),
            RecordKind::Begin => {
                if let Some(begun) = Begun::of(record) {
                    self.applied.leave_out(begun);
                }
                Ok(())
            }
            RecordKind::KeyspaceCreate => {
                if let Ok((id, made)) = created(record.payload) {
                    return self.create(id, &made, report);
                }
                let what = "the record that creates a keyspace";
                report.losses.push(self.malformed(record, what));
                Ok(())
            }
            RecordKind::KeyspaceDrop => {
                if let Ok(id) = Reader::new(record.payload).varint_u32() {
                    return self.drop_keyspace(KeyspaceId(id));
                }
                let what = "the record that drops a keyspace";
                report.losses.push(self.malformed(record, what));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn malformed(&self, record: &Record<'_>, what: &str) -> Loss {
        let position = record.position;
        Loss {
            file: self.plan.directory.path.clone(),
            offset: position.offset,
            message: format!("{what} at {position} of the log is malformed"),
            ..Loss::default()
        }
    }

    /// Whether the keyspace is not there any more, and with it whatever the log holds of it.
    ///
    /// INVARIANT: of the ids that MANIFEST has given away, those that it has no keyspace for were
    /// dropped. It forgets when, and the log may still say how they were made.
    fn is_gone(&self, id: KeyspaceId) -> bool {
        let state = self.plan.state.as_ref();
        let next = state.and_then(|state| state.facts.next_keyspace_id);
        let is_of_old = next.is_some_and(|next| id < next);
        (is_of_old && !self.plan.sources.contains_key(&id))
            || self.plan.dropped.contains(&id)
            || self.gone.contains(&id)
    }

    fn create(&mut self, id: KeyspaceId, made: &Made, report: &mut Report) -> Outcome<()> {
        if self.keyspaces.contains_key(&id) || self.is_gone(id) {
            return Ok(());
        }
        let mut others = self.keyspaces.iter();
        let namesake = others.find(|(_, other)| other.name() == made.name);
        let namesake = namesake.map(|(id, _)| *id);
        if let Some(namesake) = namesake.filter(|other| *other != KeyspaceId::DEFAULT) {
            // No two have one name at a time: the older was dropped, where nothing can be read.
            if namesake > id {
                self.gone.insert(id);
                return Ok(());
            }
            self.drop_keyspace(namesake)?;
        }
        let keyspace = make_keyspace(self.db, &made.name, &made.options, report)?;
        self.keyspaces.insert(id, keyspace);
        Ok(())
    }

    fn drop_keyspace(&mut self, id: KeyspaceId) -> Outcome<()> {
        if let Some(keyspace) = self.keyspaces.remove(&id) {
            self.db.drop_keyspace(keyspace.name())?;
        }
        self.gone.insert(id);
        Ok(())
    }

    /// Where to write what the log holds of a keyspace; `None` if it is gone.
    fn target(&mut self, id: KeyspaceId, report: &mut Report) -> Outcome<Option<Keyspace>> {
        if !self.keyspaces.contains_key(&id) && !self.is_gone(id) {
            // The record that created it cannot be read. Others may be created further on.
            let mut known = Known::default();
            collect_names(&self.plan.directory, &mut known);
            let is_taken = |name: &str| {
                let mut names = known.names.values();
                names.any(|made| made.name == name)
                    || self.keyspaces.values().any(|other| other.name() == name)
            };
            let made = Made::unnamed(id, is_taken, report);
            self.create(id, &made, report)?;
        }
        Ok(self.keyspaces.get(&id).cloned())
    }

    fn apply_batch(&mut self, record: &Record<'_>, report: &mut Report) -> Outcome<()> {
        let mut list = Vec::new();
        let op_count = record.meta.op_count;
        let whole =
            operations::for_each(record.payload, op_count, |operation| list.push(operation));
        if whole.is_err() {
            report.losses.push(self.malformed(record, "the batch"));
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        for (index, operation) in (0..).zip(list) {
            let seq = record.meta.first_seq.plus(index);
            if self.is_needed(&operation, seq)
                && let Some(keyspace) = self.target(operation.keyspace, report)?
            {
                match operation.kind {
                    KeyKind::Put => batch.put_in(&keyspace, operation.key, operation.value),
                    KeyKind::Delete => batch.delete_in(&keyspace, operation.key),
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
    fn is_needed(&mut self, operation: &Operation<'_>, seq: SequenceNumber) -> bool {
        let Some(source) = self.plan.sources.get(&operation.keyspace) else {
            return true;
        };
        if let Some(state) = &self.plan.state {
            return seq > flushed_upto(source, state);
        }
        source.tables.iter().all(|table| {
            if operation.key < &table.smallest[..] || operation.key > &table.largest[..] {
                return true;
            }
            let reader = self.reader(&table.path);
            let found = reader.and_then(|reader| newest(&reader, operation.key));
            // What cannot be read is reported already.
            found.map_or(true, |found| found <= Some(seq))
        })
    }

    fn reader(&mut self, path: &Path) -> Result<Arc<TableReader>> {
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

/// Up to where MANIFEST says that tables have everything.
fn flushed_upto(source: &Source, state: &State) -> SequenceNumber {
    let floor = state.facts.flushed_floor.unwrap_or_default();
    source.flushed_upto.max(floor)
}

/// The sequence number of the newest entry of `key` in a table.
fn newest(reader: &Arc<TableReader>, key: &[u8]) -> Result<Option<SequenceNumber>> {
    let mut cursor = reader.cursor(ScanMode::Ordinary);
    let is_valid = cursor.seek(InternalKey::seek_to(key, SequenceNumber::MAX))?;
    let is_it = is_valid && cursor.key().user_key == key;
    Ok(is_it.then(|| cursor.key().seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once() {
        let seq = |seq| SequenceNumber::new(seq).expect("small");
        let mut applied = Applied::default();
        let records = [
            // In a segment, in what was copied of it, and behind damage in both.
            ((5, 3, 100), true),
            ((8, 1, 110), true),
            ((5, 3, 100), false),
            ((8, 1, 110), false),
            ((20, 2, 120), true),
            ((9, 2, 115), true),
            ((10, 1, 116), false),
            ((20, 2, 120), false),
            // The last one was cut off, and its numbers were given away again.
            ((20, 4, 130), true),
            ((24, 1, 130), true),
            ((20, 4, 130), false),
        ];
        for ((first, op_count, commit_micros), is_new) in records {
            let meta = RecordMeta {
                kind: RecordKind::Batch,
                first_seq: seq(first),
                op_count,
                commit_micros,
                durable_upto: None,
            };
            assert_eq!(applied.take(&meta), is_new, "{meta:?}");
        }
        let ranges: Vec<_> = applied.ranges.into_iter().collect();
        assert_eq!(ranges, [(seq(5), seq(10)), (seq(20), seq(24))]);
    }

    #[test]
    fn of_the_numbers_that_are_missing_those_are_told_that_were_given() {
        let seq = |seq| SequenceNumber::new(seq).expect("small");
        let pairs = |pairs: &[(u64, u64)]| -> Vec<_> {
            let pairs = pairs.iter();
            pairs
                .map(|(first, last)| (seq(*first), seq(*last)))
                .collect()
        };
        let applied = Applied {
            ranges: pairs(&[(5, 10), (1001, 1010), (3001, 3010)])
                .into_iter()
                .collect(),
            // The second segment was killed and is missing, and then one of which nothing is left.
            left_out: pairs(&[(11, 1000), (1021, 3000), (3031, 4000)]),
            commit_micros: 0,
        };
        let told = |floor, gaps: &[&str]| {
            let remarks = applied.gap_remarks(seq(floor));
            assert_eq!(remarks.len(), gaps.len(), "{remarks:?}");
            for (remark, gap) in remarks.iter().zip(gaps) {
                assert!(remark.contains(&format!("numbers {gap}:")), "{remark}");
            }
        };
        told(0, &["1011 to 1020", "3011 to 3030"]);
        told(1015, &["1016 to 1020", "3011 to 3030"]);
        told(1020, &["3011 to 3030"]);
        told(5000, &[]);
    }
}
