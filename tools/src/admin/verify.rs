//! `verify`: every checksum, order, bound and count of MANIFEST, tables and log.
//!
//! Reads the files without opening the database and without mappings; goes on behind damage, so
//! that one run names every damaged block of a table and every damaged stretch of the log. What the
//! disk does not give back is damage too.

use std::collections::HashSet;
use std::sync::Arc;

use base::error::{Error, ErrorKind, Result};
use base::fs::FileSystem;
use base::{FileKind, KeyKind, Level};
use compaction::Table;
use indicatif::{ProgressBar, ProgressStyle};
use log::Ending;
use serde_json::json;
use sstable::VerifyReport;

use super::args::{Global, OnlyDirectory};
use super::directory::{Directory, State};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::wal::{check_log, dropped_remark};
use crate::read_only_fs::ReadOnlyFs;
use crate::text::{bytes_for_people, counted, escape};
use crate::trailer::check_parts;

/// What was read, and what was found.
#[derive(Default)]
struct Findings {
    damage: Vec<Error>,
    remarks: Vec<String>,
    edit_count: u64,
    table_count: u64,
    table_bytes: u64,
    entry_count: u64,
    segment_count: u64,
    log_bytes: u64,
    record_count: u64,
    /// Not everything was looked at.
    is_cut: bool,
}

impl Findings {
    /// Notes damage; any other error ends the run.
    fn note(&mut self, error: Error) -> Outcome<()> {
        if !error.is_corruption() && error.kind() != ErrorKind::Io {
            return Err(error.into());
        }
        self.damage.push(error);
        Ok(())
    }
}

pub(crate) fn run(args: &OnlyDirectory, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    run_until(&Interrupt::listen(), args, global, output)
}

pub(crate) fn run_until(
    interrupt: &Interrupt,
    args: &OnlyDirectory,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let fs = Arc::new(ReadOnlyFs::new());
    run_on(fs, interrupt, args, global, output)
}

/// The database lies on `fs`.
pub(crate) fn run_on(
    fs: Arc<dyn FileSystem>,
    interrupt: &Interrupt,
    args: &OnlyDirectory,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let directory = Directory::open_on(fs, &args.db)?;
    let _lock = directory.lock()?;
    let mut findings = Findings::default();
    match directory.state() {
        Ok(state) => {
            let checked = check(&directory, &state, global, interrupt, &mut findings);
            findings.is_cut = checked.is_err();
            // Whatever ended it: what was found so far is worth as much as ever.
            print(&findings, output)?;
            checked?;
        }
        Err(error) => {
            // Without it nothing says which files count.
            findings.note(error)?;
            print(&findings, output)?;
        }
    }
    match findings.damage.len() {
        0 => Ok(()),
        1 => Err(Failure::Damage("the database is damaged".to_owned())),
        count => Err(Failure::Damage(format!(
            "the database is damaged in {count} places"
        ))),
    }
}

fn check(
    directory: &Directory,
    state: &State,
    global: &Global,
    interrupt: &Interrupt,
    findings: &mut Findings,
) -> Outcome<()> {
    check_manifest(state, findings);
    check_names(directory, state, findings);
    check_tables(directory, state, global, interrupt, findings)?;
    check_segments(directory, state, findings)
}

fn check_manifest(state: &State, findings: &mut Findings) {
    findings.edit_count = state.edit_count;
    if let Ending::Torn { offset } = state.ending {
        findings.remarks.push(format!(
            "MANIFEST-{} ends in a record that is not whole, at {offset}; an open will drop it",
            state.manifest
        ));
    }
}

/// Files that nothing names are no damage: an open removes those of ours.
fn check_names(directory: &Directory, state: &State, findings: &mut Findings) {
    let named: Vec<_> = tables(state).map(|(_, table)| table.meta.number).collect();
    for number in directory.numbers(FileKind::Table) {
        if !named.contains(&number) {
            let name = FileKind::Table.file_name(number);
            findings.remarks.push(format!("{name} is not in the tree"));
        }
    }
    for name in &directory.foreign {
        let name = escape(name.as_bytes());
        findings
            .remarks
            .push(format!("{name} is no file of a database"));
    }
}

fn tables(state: &State) -> impl Iterator<Item = (Level, &Arc<Table>)> {
    let keyspaces = state.keyspaces.values();
    keyspaces.flat_map(|keyspace| keyspace.version.tables())
}

fn check_tables(
    directory: &Directory,
    state: &State,
    global: &Global,
    interrupt: &Interrupt,
    findings: &mut Findings,
) -> Outcome<()> {
    let total = tables(state).map(|(_, table)| table.meta.file_bytes).sum();
    let bar = if global.quiet {
        ProgressBar::hidden()
    } else {
        let style = "{bar:40} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {eta} left";
        let style = ProgressStyle::with_template(style).expect("the template is sound");
        ProgressBar::new(total).with_style(style)
    };
    for (_, table) in tables(state) {
        if let Err(failure) = interrupt.check("not everything was checked") {
            bar.finish_and_clear();
            return Err(failure);
        }
        match check_table(table) {
            Ok(report) => {
                findings.table_count += 1;
                findings.table_bytes += table.meta.file_bytes;
                findings.entry_count += report.entry_count;
            }
            Err(error) => {
                let noted = everything_wrong(directory, table, error, interrupt, findings);
                noted.inspect_err(|_| bar.finish_and_clear())?;
            }
        }
        bar.inc(table.meta.file_bytes);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Notes what is wrong with a table of which `first` is: it and every other block that is damaged,
/// where there is an index to find them by.
fn everything_wrong(
    directory: &Directory,
    table: &Table,
    first: Error,
    interrupt: &Interrupt,
    findings: &mut Findings,
) -> Outcome<()> {
    let path = directory.file(FileKind::Table, table.meta.number);
    let file = directory.fs.open_untrusted(&path);
    let (Ok(reader), Ok(file)) = (table.handle().reader(), file) else {
        return findings.note(first);
    };
    let (mut found, mut end) = (Vec::new(), Ok(()));
    for checked in check_parts(&reader, &*file) {
        found.extend(checked.err());
        end = interrupt.check("not everything was checked");
        if end.is_err() {
            break;
        }
    }
    table.handle().close();
    // Of what the disk does not give back, they tell which part it is.
    let is_told = found
        .iter()
        .any(|part| first.kind() == ErrorKind::Io || part.offset() == first.offset());
    if !is_told {
        findings.note(first)?;
    }
    found.into_iter().try_for_each(|part| findings.note(part))?;
    end
}

/// Checks a table by itself, and against what the tree says of it.
fn check_table(table: &Table) -> Result<VerifyReport> {
    let meta = &table.meta;
    let reader = table.handle().reader()?;
    let report = reader.verify()?;
    let properties = reader.properties()?;
    let differs = |what: &str| {
        let message = format!("the table is not what MANIFEST says: {what}");
        Err(Error::corruption(reader.path(), 0, message))
    };
    let [_, tombstone_count, ..] = report.count_by_kind;
    debug_assert_eq!(KeyKind::Delete.as_u8(), 1);
    if reader.file_bytes() != meta.file_bytes {
        return differs("length");
    }
    if report.entry_count != meta.entry_count || tombstone_count != meta.tombstone_count {
        return differs("counts");
    }
    if properties.smallest != meta.smallest || properties.largest != meta.largest {
        return differs("bounds");
    }
    if (properties.seq_smallest, properties.seq_largest) != (meta.seq_smallest, meta.seq_largest) {
        return differs("sequence numbers");
    }
    table.handle().close();
    Ok(report)
}

fn check_segments(directory: &Directory, state: &State, findings: &mut Findings) -> Outcome<()> {
    let report = check_log(directory, state)?;
    findings.segment_count = report.segments.len() as u64;
    findings.log_bytes = report.bytes;
    findings.record_count = report.record_count;
    // What is read twice may be told twice.
    let mut told = HashSet::new();
    for error in report.damage {
        if told.insert(error.to_string()) {
            findings.note(error)?;
        }
    }
    let dropped = report.dropped.as_ref().map(dropped_remark);
    findings.remarks.extend(dropped);
    Ok(())
}

fn print(findings: &Findings, output: &mut Output<'_>) -> Outcome<()> {
    if output.json {
        let damage: Vec<_> = findings
            .damage
            .iter()
            .map(|error| {
                json!({
                    "file": error.path().map(|path| path.display().to_string()),
                    "offset": error.offset(),
                    "message": error.to_string(),
                })
            })
            .collect();
        return output.document(&json!({
            "damage": damage,
            "remarks": findings.remarks,
            "edits": findings.edit_count,
            "tables": findings.table_count,
            "table_bytes": findings.table_bytes,
            "entries": findings.entry_count,
            "segments": findings.segment_count,
            "log_bytes": findings.log_bytes,
            "records": findings.record_count,
            "complete": !findings.is_cut,
        }));
    }
    for error in &findings.damage {
        output.line(&format!("damage: {error}"))?;
    }
    for remark in &findings.remarks {
        output.line(&format!("remark: {remark}"))?;
    }
    output.line(&format!(
        "{} ({}, {}), {} of the log ({}, {}), {} of MANIFEST",
        counted(findings.table_count, "table"),
        bytes_for_people(findings.table_bytes),
        counted(findings.entry_count, "entry"),
        counted(findings.segment_count, "segment"),
        bytes_for_people(findings.log_bytes),
        counted(findings.record_count, "record"),
        counted(findings.edit_count, "edit"),
    ))?;
    if findings.damage.is_empty() {
        let so_far = if findings.is_cut { " so far" } else { "" };
        output.line(&format!("no damage found{so_far}"))?;
    }
    Ok(())
}
