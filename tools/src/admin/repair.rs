//! `repair`: saves what can be read of a damaged database into a new one.
//!
//! Never writes to the damaged one. What MANIFEST says is believed as far as it can be read; where
//! it cannot, every table that is there counts, and for each key the entry with the highest
//! sequence number. What the disk does not give back counts as damage like any other. Whatever is
//! left out is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base::error::Error;
use base::fs::FileSystem;
use base::sync::Arc;
use base::{FileKind, FileNumber, KeyspaceId, SequenceNumber};
use compaction::VersionEdit;
use log::{RecordKind, SegmentReader};
use serde_json::{Map, Value, json};
use siltstone::{Db, ErrorKind, Keyspace, KeyspaceOptions};

use super::args::{Global, Repair};
use super::directory::{Directory, State, refuse_inside};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::records::{Encoding, put_bytes};
use super::stretches::{Found, Stretch, read_past_damage};
use crate::read_only_fs::{ReadOnlyFs, Reads};
use crate::text::{counted, escape};

pub(crate) mod holes;
mod replay;
mod salvage;
mod target;

use holes::Holes;
use target::Target;

const DEFAULT_KEYSPACE: &str = "default";

/// Something that is not in the new database, or may not be as it was.
#[derive(Debug, Default)]
pub(super) struct Loss {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    /// How much of the file could not be read, as far as that is known.
    pub(super) bytes: Option<u64>,
    /// The keys that lay there: behind the first, up to the second.
    pub(super) keys: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) message: String,
}

impl Loss {
    /// Of a whole file.
    pub(super) fn of(error: &Error, file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            offset: error.offset().unwrap_or(0),
            message: error.to_string(),
            ..Self::default()
        }
    }

    /// Of the records in a stretch of the log.
    fn of_stretch(stretch: &Stretch, file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            offset: stretch.offset,
            bytes: stretch.bytes(),
            keys: None,
            message: stretch.message(),
        }
    }
}

/// What was saved, and what was not.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) losses: Vec<Loss>,
    pub(super) remarks: Vec<String>,
    pub(super) table_count: u64,
    pub(super) table_entry_count: u64,
    pub(super) log_operation_count: u64,
}

/// A table that counts.
#[derive(Clone, Debug)]
pub(super) struct TableFile {
    pub(super) number: FileNumber,
    pub(super) path: PathBuf,
    pub(super) smallest: Vec<u8>,
    pub(super) largest: Vec<u8>,
}

/// One keyspace of the damaged database.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) name: String,
    /// As `KeyspaceOptions::decode` reads them; empty if nobody knows them.
    pub(super) options: Vec<u8>,
    /// What lies at or below is in tables, if MANIFEST could be read.
    pub(super) flushed_upto: SequenceNumber,
    pub(super) tables: Vec<TableFile>,
}

/// What there is to be saved.
pub(super) struct Plan {
    pub(super) directory: Directory,
    holes: Arc<Holes>,
    /// What MANIFEST says, if it can be read.
    pub(super) state: Option<State>,
    pub(super) sources: BTreeMap<KeyspaceId, Source>,
    pub(super) dropped: BTreeSet<KeyspaceId>,
}

pub(crate) fn run(args: &Repair, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    run_until(&Interrupt::listen(), args, global, output)
}

pub(crate) fn run_until(
    interrupt: &Interrupt,
    args: &Repair,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    run_on(Arc::new(ReadOnlyFs::new()), interrupt, args, global, output)
}

/// The damaged database lies on `fs`.
pub(crate) fn run_on(
    fs: Arc<dyn FileSystem>,
    interrupt: &Interrupt,
    args: &Repair,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let holes = Arc::new(Holes::default());
    let reads: Arc<dyn Reads> = Arc::clone(&holes) as _;
    let fs = Arc::new(ReadOnlyFs::read_through(fs, reads));
    let directory = Directory::open_on(fs, &args.db)?;
    let _lock = directory.lock()?;
    refuse_inside(&args.copy, &args.db)?;
    let target = Target::make(&args.copy)?;
    let mut report = Report::default();
    let plan = Plan::make(directory, Arc::clone(&holes), &mut report);
    let made = plan.and_then(|plan| make(&target, &plan, &mut report, interrupt));
    made.map_err(|failure| target.give_up(failure))?;
    holes.tell(&mut report);
    if !report.losses.is_empty() {
        let remark = "what was lost may have been newer than what is left: keys may have older \
                      values, and such as were deleted may be there again";
        report.remarks.push(remark.to_owned());
    }
    print(&report, global, output)?;
    match report.losses.len() {
        0 => Ok(()),
        count => Err(Failure::Damage(format!(
            "{} of the database could not be saved, or only in part",
            counted(count as u64, "place")
        ))),
    }
}

fn make(target: &Target, plan: &Plan, report: &mut Report, interrupt: &Interrupt) -> Outcome<()> {
    let db = target.open()?;
    let filled = fill(&db, plan, report, interrupt);
    let closed = db.close().map_err(Failure::from);
    filled.and(closed)?;
    drop(db);
    target.finish()
}

fn fill(db: &Db, plan: &Plan, report: &mut Report, interrupt: &Interrupt) -> Outcome<()> {
    let mut target = replay::Target::of(db);
    for (id, source) in &plan.sources {
        let keyspace = make_keyspace(db, &source.name, &source.options, report)?;
        let told = report.losses.len();
        salvage::tables(db, &keyspace, plan, source, report, interrupt)?;
        let lost = report.losses[told..].iter();
        let lost: Vec<_> = lost.filter_map(|loss| loss.keys.clone()).collect();
        target.keyspaces.insert(*id, keyspace);
        target.damaged.insert(*id, lost);
    }
    replay::log(target, plan, report, interrupt)
}

fn make_keyspace(db: &Db, name: &str, options: &[u8], report: &mut Report) -> Outcome<Keyspace> {
    Ok(match db.keyspace(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let options = KeyspaceOptions::decode(options).unwrap_or_else(|error| {
                let name = escape(name.as_bytes());
                let remark = format!("keyspace {name} gets default options: {error}");
                report.remarks.push(remark);
                KeyspaceOptions::new()
            });
            db.create_keyspace(name, &options)?
        }
        found => found?,
    })
}

impl Plan {
    /// Finds out what there is.
    fn make(directory: Directory, holes: Arc<Holes>, report: &mut Report) -> Outcome<Self> {
        let mut plan = Self {
            directory,
            holes,
            state: None,
            sources: BTreeMap::new(),
            dropped: BTreeSet::new(),
        };
        let state = plan.directory.state();
        // What seems to be a torn end may be any edit that was made.
        let hole = plan.holes.find(FileKind::Manifest);
        match (state, hole) {
            (Ok(state), None) => plan.take_state(state),
            (Ok(_), Some(hole)) => {
                report.losses.push(Loss {
                    file: hole.file,
                    offset: hole.offset,
                    bytes: Some(hole.end - hole.offset),
                    message: "MANIFEST cannot be read to its end".to_owned(),
                    ..Loss::default()
                });
                plan.rebuild(report);
            }
            (Err(error), _) if error.is_corruption() || error.kind() == ErrorKind::Io => {
                let path = error.path().unwrap_or(&plan.directory.path).to_owned();
                report.losses.push(Loss::of(&error, &path));
                plan.rebuild(report);
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(plan)
    }

    /// MANIFEST says it all.
    fn take_state(&mut self, state: State) {
        for (id, keyspace) in &state.keyspaces {
            let tables = keyspace.version.tables().map(|(_, table)| TableFile {
                number: table.meta.number,
                path: self.directory.file(FileKind::Table, table.meta.number),
                smallest: table.meta.smallest.user_key.clone(),
                largest: table.meta.largest.user_key.clone(),
            });
            let source = Source {
                name: String::from_utf8_lossy(&keyspace.name).into_owned(),
                options: keyspace.options.clone(),
                flushed_upto: keyspace.flushed_upto,
                tables: tables.collect(),
            };
            self.sources.insert(*id, source);
        }
        self.dropped = state.dropped.keys().copied().collect();
        self.state = Some(state);
    }

    /// Without MANIFEST: whatever tables there are, except those that its readable part removes.
    fn rebuild(&mut self, report: &mut Report) {
        let mut known = Known::default();
        known
            .names
            .insert(KeyspaceId::DEFAULT, Made::named(DEFAULT_KEYSPACE));
        let numbers: Vec<_> = self.directory.numbers(FileKind::Manifest).collect();
        for number in numbers {
            let path = self.directory.file(FileKind::Manifest, number);
            // What it says up to the damage is true; of the rest the report tells already.
            let _ = known.read(&*self.directory.fs, &path);
        }
        replay::collect_names(&self.directory, &mut known);
        known.drop_namesakes();
        self.dropped = known.dropped;
        self.sources.insert(KeyspaceId::DEFAULT, Source::default());
        let numbers: Vec<_> = self.directory.numbers(FileKind::Table).collect();
        for number in numbers {
            if known.removed.contains(&number) {
                continue;
            }
            let path = self.directory.file(FileKind::Table, number);
            match salvage::describe(&*self.directory.fs, number, &path) {
                Ok((id, _)) if self.dropped.contains(&id) => {}
                Ok((id, table)) => self.sources.entry(id).or_default().tables.push(table),
                Err(error) => report.losses.push(Loss::of(&error, &path)),
            }
        }
        for id in known.names.keys().filter(|id| !self.dropped.contains(id)) {
            self.sources.entry(*id).or_default();
        }
        self.name_sources(&known.names, report);
    }

    fn name_sources(&mut self, names: &BTreeMap<KeyspaceId, Made>, report: &mut Report) {
        let is_taken = |name: &str| names.values().any(|made| made.name == name);
        for (id, source) in &mut self.sources {
            let made = names.get(id).cloned();
            let made = made.unwrap_or_else(|| Made::unnamed(*id, is_taken, report));
            (source.name, source.options) = (made.name, made.options);
        }
    }
}

/// How a keyspace was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: String,
    pub(super) options: Vec<u8>,
}

impl Made {
    /// One of which nothing says how it was made, under a name that no other has.
    pub(super) fn unnamed(
        id: KeyspaceId,
        is_taken: impl Fn(&str) -> bool,
        report: &mut Report,
    ) -> Self {
        let mut name = format!("keyspace-{id}");
        while is_taken(&name) {
            name.push('+');
        }
        let remark = format!("nothing says what keyspace {id} was called; it is {name} now");
        report.remarks.push(remark);
        Self::named(&name)
    }

    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            options: Vec::new(),
        }
    }
}

/// What can be learned of keyspaces and tables from logs of any kind.
#[derive(Default)]
pub(super) struct Known {
    pub(super) names: BTreeMap<KeyspaceId, Made>,
    pub(super) dropped: BTreeSet<KeyspaceId>,
    removed: BTreeSet<FileNumber>,
}

impl Known {
    /// Notes what the MANIFEST at `path` says, as far as it can be read.
    fn read(&mut self, fs: &dyn FileSystem, path: &Path) -> Outcome<()> {
        let mut reader = SegmentReader::open(fs, path)?;
        read_past_damage(&mut reader, &mut |found| {
            if let Found::Record(record) = found
                && matches!(record.meta.kind, RecordKind::Edit | RecordKind::EditPart)
            {
                self.take(VersionEdit::decode(record.payload)?);
            }
            Ok(())
        })
    }

    /// No two have one name at a time: all but the youngest were dropped, where nothing says so.
    fn drop_namesakes(&mut self) {
        let mut taken = BTreeSet::new();
        for (id, made) in self.names.iter().rev() {
            if !taken.insert(&made.name) {
                self.dropped.insert(*id);
            }
        }
    }

    fn take(&mut self, edit: VersionEdit) {
        for edit in edit.keyspaces {
            if let Some(created) = &edit.created {
                let made = Made {
                    name: String::from_utf8_lossy(&created.name).into_owned(),
                    options: created.options.clone(),
                };
                self.names.insert(edit.id, made);
            }
            if edit.dropped_at.is_some() {
                self.dropped.insert(edit.id);
            }
            for (_, number) in &edit.removed {
                self.removed.insert(*number);
            }
            for (_, meta) in &edit.added {
                self.removed.remove(&meta.number);
            }
        }
    }
}

fn print(report: &Report, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    if output.json {
        let encoding = output.encoding;
        let losses: Vec<Value> = report
            .losses
            .iter()
            .map(|l| document(l, encoding))
            .collect();
        return output.document(&json!({
            "tables": report.table_count,
            "table_entries": report.table_entry_count,
            "log_operations": report.log_operation_count,
            "losses": losses,
            "remarks": report.remarks,
        }));
    }
    for loss in &report.losses {
        let keys = loss.keys.as_ref().map(|(from, upto)| {
            let (from, upto) = (output.one_line(from), output.one_line(upto));
            format!(", keys from {from} up to {upto}")
        });
        let file = escape(loss.file.as_os_str().as_bytes());
        let bytes = loss
            .bytes
            .map(|bytes| format!(", {}", counted(bytes, "byte")));
        output.line(&format!(
            "lost: {file} at {}{}{}: {}",
            loss.offset,
            bytes.unwrap_or_default(),
            keys.unwrap_or_default(),
            escape(loss.message.as_bytes()),
        ))?;
    }
    if !global.quiet {
        for remark in &report.remarks {
            output.line(&format!("remark: {remark}"))?;
        }
    }
    let whole = if report.losses.is_empty() {
        "; nothing was lost"
    } else {
        ""
    };
    output.line(&format!(
        "saved {} of {} and {} of the log{whole}",
        counted(report.table_entry_count, "entry"),
        counted(report.table_count, "table"),
        counted(report.log_operation_count, "operation"),
    ))
}

fn document(loss: &Loss, encoding: Encoding) -> Value {
    let mut fields = Map::new();
    fields.insert("file".to_owned(), loss.file.to_string_lossy().into());
    fields.insert("offset".to_owned(), loss.offset.into());
    fields.insert("bytes".to_owned(), loss.bytes.into());
    if let Some((from, upto)) = &loss.keys {
        put_bytes(&mut fields, "from", from, encoding);
        put_bytes(&mut fields, "to", upto, encoding);
    }
    fields.insert("message".to_owned(), Value::from(&*loss.message));
    Value::Object(fields)
}
