//! Watches every mutating call of a test and checks what a file system cannot know by itself: that
//! MANIFEST names only what is durable, that nothing is unlinked which the durable state still
//! needs, and that a flush is installed only over a durable log.
//!
//! It reads files as recovery would, out of copies, so that it makes no call of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::fs::fault::OpKind;
use base::fs::sim::{CrashModel, Op, SimFs};
use base::{FileKind, FileNumber, KeyspaceId, SequenceNumber, ids};
use compaction::VersionEdit;
use log::{RecordKind, SegmentReader};

/// The checker of one directory.
pub(crate) struct Order {
    dir: PathBuf,
    violation: Mutex<Option<String>>,
}

/// What a record of a segment or MANIFEST says.
pub(crate) struct ParsedRecord {
    pub(crate) kind: RecordKind,
    pub(crate) end: u64,
    pub(crate) first_seq: SequenceNumber,
    pub(crate) last_seq: SequenceNumber,
    pub(crate) commit_micros: u64,
    pub(crate) payload: Vec<u8>,
}

/// What a MANIFEST says in the end.
#[derive(Default)]
pub(crate) struct Folded {
    pub(crate) tables: BTreeSet<FileNumber>,
    flushed_upto: BTreeMap<KeyspaceId, SequenceNumber>,
    flushed_floor: SequenceNumber,
    tables_of: BTreeMap<KeyspaceId, BTreeSet<FileNumber>>,
}

impl Folded {
    /// Everything up to here is in tables or was dropped.
    fn floor(&self) -> SequenceNumber {
        let lowest = self.flushed_upto.values().min().copied();
        lowest.unwrap_or_default().max(self.flushed_floor)
    }
}

impl Order {
    /// Watches `dir` of `fs` from now on.
    pub(crate) fn watch(fs: &SimFs, dir: &Path) -> Arc<Self> {
        let order = Arc::new(Self {
            dir: dir.to_owned(),
            violation: Mutex::default(),
        });
        let watching = Arc::clone(&order);
        fs.set_observer(Some(Arc::new(move |fs, op| watching.see(fs, op))));
        order
    }

    /// Fails if a rule was broken.
    pub(crate) fn check(&self) {
        let violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*violation, None, "order of durability");
    }

    /// Notes a broken rule. The first one counts; a panic here would be caught by the background.
    fn broken(&self, message: String) {
        let mut violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violation.get_or_insert(message);
    }

    fn see(&self, fs: &SimFs, op: &Op<'_>) {
        if op.path.parent() != Some(&self.dir) {
            return;
        }
        let name = op
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        match (op.kind, FileKind::parse(name)) {
            (OpKind::Write, Some((FileKind::Manifest, _))) => self.see_edit(fs, op),
            (OpKind::Remove, Some((FileKind::Table, number))) => self.see_table_go(fs, number),
            (OpKind::Remove, Some((FileKind::Segment, number))) => {
                self.see_segment_go(fs, op.path, number);
            }
            (OpKind::Remove, Some((FileKind::Manifest, number))) => {
                self.see_manifest_go(fs, number);
            }
            _ => {}
        }
    }

    /// Rules 1 and 6b.
    fn see_edit(&self, fs: &SimFs, op: &Op<'_>) {
        let mut bytes = fs.contents(op.path).unwrap_or_default();
        let start = usize::try_from(op.offset).expect("a file in memory");
        bytes.resize(bytes.len().max(start + op.bytes.len()), 0);
        bytes[start..start + op.bytes.len()].copy_from_slice(op.bytes);
        for record in parse(op.path, &bytes) {
            if record.end <= op.offset {
                continue;
            }
            let Ok(edit) = VersionEdit::decode(&record.payload) else {
                continue;
            };
            self.check_log_durable(fs, edit.flushed_floor.or(Some(SequenceNumber::ZERO)));
            for keyspace in &edit.keyspaces {
                self.check_log_durable(fs, keyspace.dropped_at.or(Some(SequenceNumber::ZERO)));
                for (_, meta) in &keyspace.added {
                    self.check_table_durable(fs, meta.number);
                }
                if let Some(flushed_upto) = keyspace.flushed_upto {
                    self.check_log_durable(fs, Some(flushed_upto));
                }
            }
        }
    }

    fn check_table_durable(&self, fs: &SimFs, number: FileNumber) {
        let path = FileKind::Table.path(&self.dir, number);
        if !fs.is_synced(&path) {
            self.broken(format!(
                "MANIFEST names a table that is not synced number={number}"
            ));
        } else if !fs.is_name_durable(&path) {
            self.broken(format!(
                "MANIFEST names a table whose name is not durable number={number}"
            ));
        }
    }

    /// Rule 4: to be called when a commit has been acknowledged as durable.
    pub(crate) fn check_acknowledged(&self, fs: &SimFs) {
        self.check_log_durable(fs, None);
    }

    /// Fails unless every record of the log up to `upto` is durable, or durable in a copy.
    fn check_log_durable(&self, fs: &SimFs, upto: Option<SequenceNumber>) {
        let upto = upto.unwrap_or(SequenceNumber::MAX);
        let mut durable = BTreeSet::new();
        let mut live = BTreeSet::new();
        for path in segments(fs, &self.dir) {
            let bytes = fs.contents(&path).unwrap_or_default();
            collect_batches(&parse(&path, &bytes), upto, &mut live);
            if fs.is_name_durable(&path) {
                let bytes = fs.durable_contents(&path).unwrap_or_default();
                collect_batches(&parse(&path, &bytes), upto, &mut durable);
            }
        }
        if let Some(lost) = live.difference(&durable).next() {
            self.broken(format!(
                "the log is not durable as far as was promised lost={lost} promised={upto}"
            ));
        }
    }

    /// Rule 3 for tables: neither what is durable nor what may become so names it.
    fn see_table_go(&self, fs: &SimFs, number: FileNumber) {
        let durable = fs.crash_image(&CrashModel::Synced, 0);
        for (what, state) in [
            ("durable", fold(&durable, &self.dir)),
            ("live", fold(fs, &self.dir)),
        ] {
            if state.is_some_and(|state| state.tables.contains(&number)) {
                self.broken(format!(
                    "a table is unlinked that the {what} MANIFEST names {number}"
                ));
            }
        }
    }

    /// Rule 3 for segments: each record of it is flushed, or durable in another segment.
    fn see_segment_go(&self, fs: &SimFs, path: &Path, number: FileNumber) {
        let durable = fs.crash_image(&CrashModel::Synced, 0);
        let flushed = fold(&durable, &self.dir)
            .map(|state| state.floor())
            .unwrap_or_default();
        let mut elsewhere = BTreeSet::new();
        for other in segments(&durable, &self.dir)
            .iter()
            .filter(|other| *other != path)
        {
            let bytes = durable.contents(other).unwrap_or_default();
            collect_batches(&parse(other, &bytes), SequenceNumber::MAX, &mut elsewhere);
        }
        // The second name of a file whose move to `lost` was halved by a power cut.
        let lost = self
            .dir
            .join(ids::LOST)
            .join(path.file_name().unwrap_or_default());
        if let Some(bytes) = durable.contents(&lost) {
            collect_batches(&parse(&lost, &bytes), SequenceNumber::MAX, &mut elsewhere);
        }
        for record in parse(path, &fs.contents(path).unwrap_or_default()) {
            let is_needed = is_change_or_batch(record.kind) && record.last_seq > flushed;
            if is_needed && !elsewhere.contains(&record.first_seq) {
                self.broken(format!(
                    "a segment is unlinked that holds the only copy of a record number={number} \
                     seq={} flushed_upto={flushed}",
                    record.first_seq
                ));
            }
        }
    }

    fn see_manifest_go(&self, fs: &SimFs, number: FileNumber) {
        let durable = fs.crash_image(&CrashModel::Synced, 0);
        for (what, named) in [
            ("durable", current(&durable, &self.dir)),
            ("live", current(fs, &self.dir)),
        ] {
            if named == Some(number) {
                self.broken(format!(
                    "the MANIFEST that the {what} CURRENT names is unlinked"
                ));
            }
        }
    }
}

/// Whether a record has a place among the writes.
fn is_change_or_batch(kind: RecordKind) -> bool {
    use RecordKind::{Batch, KeyspaceCreate, KeyspaceDrop};
    matches!(kind, Batch | KeyspaceCreate | KeyspaceDrop)
}

fn collect_batches(
    records: &[ParsedRecord],
    upto: SequenceNumber,
    into: &mut BTreeSet<SequenceNumber>,
) {
    for record in records {
        if is_change_or_batch(record.kind) && record.first_seq <= upto {
            into.insert(record.first_seq);
        }
    }
}

/// The segments in `dir`.
pub(crate) fn segments(fs: &SimFs, dir: &Path) -> Vec<PathBuf> {
    of_kind(fs, dir, FileKind::Segment)
}

/// The files of one kind in `dir`.
pub(crate) fn of_kind(fs: &SimFs, dir: &Path, kind: FileKind) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        path.parent() == Some(dir) && FileKind::parse(name).is_some_and(|(found, _)| found == kind)
    };
    fs.paths().into_iter().filter(is_one).collect()
}

/// The records of a segment or MANIFEST, as far as they are whole.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Vec<ParsedRecord> {
    let copy = SimFs::new(0);
    let path = Path::new("/").join(path.file_name().expect("a file has a name"));
    copy.install(&path, bytes).expect("the root is there");
    let Ok(mut reader) = SegmentReader::open(&*copy, &path) else {
        return Vec::new();
    };
    let mut records = Vec::new();
    while let Ok(Some(record)) = reader.next() {
        let last = u64::from(record.meta.op_count).saturating_sub(1);
        records.push(ParsedRecord {
            kind: record.meta.kind,
            end: record.end.offset,
            first_seq: record.meta.first_seq,
            last_seq: record.meta.first_seq.plus(last),
            commit_micros: record.meta.commit_micros,
            payload: record.payload.to_vec(),
        });
    }
    records
}

/// The MANIFEST that CURRENT names.
pub(crate) fn current(fs: &SimFs, dir: &Path) -> Option<FileNumber> {
    let bytes = fs.contents(&dir.join(ids::CURRENT))?;
    let text = String::from_utf8(bytes).ok()?;
    let (kind, number) = FileKind::parse(text.split_whitespace().next()?)?;
    (kind == FileKind::Manifest).then_some(number)
}

/// What the MANIFEST that CURRENT names says.
pub(crate) fn fold(fs: &SimFs, dir: &Path) -> Option<Folded> {
    let path = FileKind::Manifest.path(dir, current(fs, dir)?);
    let mut folded = Folded::default();
    for record in parse(&path, &fs.contents(&path)?) {
        let Ok(edit) = VersionEdit::decode(&record.payload) else {
            continue;
        };
        folded.flushed_floor = folded
            .flushed_floor
            .max(edit.flushed_floor.unwrap_or_default());
        for keyspace in edit.keyspaces {
            if keyspace.dropped_at.is_some() {
                folded.flushed_upto.remove(&keyspace.id);
                folded.tables_of.remove(&keyspace.id);
                continue;
            }
            let tables = folded.tables_of.entry(keyspace.id).or_default();
            for (_, number) in &keyspace.removed {
                tables.remove(number);
            }
            tables.extend(keyspace.added.iter().map(|(_, meta)| meta.number));
            let floor = folded.flushed_upto.entry(keyspace.id).or_default();
            *floor = (*floor).max(keyspace.flushed_upto.unwrap_or_default());
        }
    }
    folded.tables = folded.tables_of.values().flatten().copied().collect();
    Some(folded)
}
