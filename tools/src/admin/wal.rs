//! `wal dump` and `wal verify`: the log, record by record.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock::SystemClock;
use base::error::{Error, ErrorKind, Result};
use base::fs::{FileSystem, OverlayFs};
use base::{FileKind, FileNumber, KeyKind, SequenceNumber};
use log::recovery::{DroppedTail, Prepared, RecoverConfig, prepare};
use log::{
    Ending, Follow, Position, RecordKind, RecordMeta, RecoveryMode, Replay, SegmentHeader,
    SegmentReader,
};
use serde_json::{Map, Value, json};

use super::args::{Global, OnlyDirectory, WalDump};
use super::directory::{Directory, State};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::operations;
use super::output::{Columns, Output};
use super::records::put_bytes;
use super::stretches::missed_places;
use crate::say::say;
use crate::text::{bytes_for_people, count_for_people, counted, time_of_micros};

/// How often a follower looks whether it should end.
const FOLLOW_TIMEOUT: Duration = Duration::from_millis(250);
/// Numbers for files that recovery would make lie this far above those in use.
const NUMBER_GAP: u64 = 1 << 32;
const SEGMENT_BYTES: u64 = 64 << 20;

/// A record to be printed.
struct Shown<'a> {
    meta: RecordMeta,
    position: Position,
    payload: &'a [u8],
}

pub(crate) fn dump(args: &WalDump, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let directory = Directory::open(&args.db)?;
    if args.follow {
        return follow(args, global, &directory, output);
    }
    let from = from_seq(args)?;
    let mut damage = Missed::default();
    let mut readers = segments(&directory)?;
    let newest = readers.len().saturating_sub(1);
    for (index, reader) in readers.iter_mut().enumerate() {
        match dump_segment(reader, from, args, output) {
            Ok(None) => {}
            Ok(Some(failure)) => damage.note(failure),
            Err(Failure::OutputClosed) => return damage.or(Err(Failure::OutputClosed)),
            Err(failure) => return Err(failure),
        }
        let is_missed = match reader.ending() {
            Ending::Torn { .. } if index == newest => false,
            Ending::Torn { .. } => is_needed(&directory)?,
            // Records of several threads are put into a log in use side by side.
            Ending::Damaged { .. } => index < newest || directory.lock().is_ok(),
            _ => continue,
        };
        let text = format!("{}: {}", reader.path().display(), describe(reader.ending()));
        if is_missed {
            damage.note(Failure::Damage(text));
        } else if !global.quiet {
            say(format_args!("remark: {text}"));
        }
    }
    damage.or(Ok(()))
}

/// What could not be printed because it is damaged, or could not be read.
#[derive(Default)]
struct Missed(Option<Failure>);

impl Missed {
    fn note(&mut self, failure: Failure) {
        self.0 = Some(match self.0.take() {
            Some(first) => first.and(&failure.to_string()),
            None => failure,
        });
    }

    /// `end` if nothing is missed.
    fn or(self, end: Outcome<()>) -> Outcome<()> {
        self.0.map_or(end, Err)
    }
}

/// Prints the records of a segment; returns why it could not be read to its end.
fn dump_segment(
    reader: &mut SegmentReader,
    from: SequenceNumber,
    args: &WalDump,
    output: &mut Output<'_>,
) -> Outcome<Option<Failure>> {
    loop {
        let record = match reader.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error.into())),
        };
        if record.meta.last_seq() >= from {
            let shown = Shown {
                meta: record.meta,
                position: record.position,
                payload: record.payload,
            };
            print_record(&shown, args.summary, output)?;
        }
    }
}

/// Whether an open would miss what is gone behind the end of a segment that others follow: what a
/// kill has torn and a recovery has cut off or copied is no damage.
fn is_needed(directory: &Directory) -> Outcome<bool> {
    let state = directory.state()?;
    Ok(!check_log(directory, &state)?.damage.is_empty())
}

fn from_seq(args: &WalDump) -> Outcome<SequenceNumber> {
    SequenceNumber::new(args.from_seq)
        .ok_or_else(|| Failure::trouble("--from-seq: sequence numbers have 56 bits"))
}

fn follow(
    args: &WalDump,
    global: &Global,
    directory: &Directory,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let interrupt = Interrupt::listen_in_silence();
    let from = from_seq(args)?.max(SequenceNumber::ZERO.plus(1));
    let mut follow = Follow::open(Arc::clone(&directory.fs), &directory.path, from)?;
    if !global.quiet {
        say("remark: following; Ctrl-C ends it");
    }
    while !interrupt.is_set() {
        let Some(record) = follow.next(FOLLOW_TIMEOUT)? else {
            output.flush()?;
            continue;
        };
        let shown = Shown {
            meta: record.meta,
            position: record.position,
            payload: &record.payload,
        };
        print_record(&shown, args.summary, output)?;
    }
    Ok(())
}

/// The segments of the log, oldest first. One whose header is damaged is an error.
fn segments(directory: &Directory) -> Result<Vec<SegmentReader>> {
    let mut readers = Vec::new();
    for number in directory.numbers(FileKind::Segment) {
        let path = directory.file(FileKind::Segment, number);
        readers.push(SegmentReader::open(&*directory.fs, &path)?);
    }
    readers.sort_by_key(|reader| (reader.header().ordinal, reader.header().number));
    Ok(readers)
}

fn print_record(record: &Shown<'_>, is_summary: bool, output: &mut Output<'_>) -> Outcome<()> {
    if output.json {
        let document = record_document(record, is_summary, output);
        return output.document(&document);
    }
    let RecordMeta {
        kind,
        first_seq,
        op_count,
        commit_micros,
        ..
    } = record.meta;
    let seqs = match op_count {
        0 | 1 => first_seq.to_string(),
        _ => format!("{first_seq}..{}", record.meta.last_seq()),
    };
    output.line(&format!(
        "{seqs} {kind:?} at {}, {}, {}, {}",
        record.position,
        counted(u64::from(op_count), "operation"),
        counted(record.payload.len() as u64, "byte"),
        time_of_micros(commit_micros),
    ))?;
    if is_summary || kind != RecordKind::Batch {
        return Ok(());
    }
    let mut lines = Vec::new();
    let mut seq = first_seq.get();
    let whole = operations::for_each(record.payload, op_count, |operation| {
        let key = output.one_line(operation.key);
        lines.push(match operation.kind {
            KeyKind::Put => {
                let value = output.one_line(operation.value);
                format!("  {seq} PUT {}:{key}\t{value}", operation.keyspace)
            }
            KeyKind::Delete => format!("  {seq} DEL {}:{key}", operation.keyspace),
        });
        seq += 1;
    });
    for line in lines {
        output.line(&line)?;
    }
    if whole.is_err() {
        output.line("  the rest is malformed")?;
    }
    Ok(())
}

fn record_document(record: &Shown<'_>, is_summary: bool, output: &Output<'_>) -> Value {
    let meta = record.meta;
    let mut document = json!({
        "seq": meta.first_seq.get(),
        "kind": format!("{:?}", meta.kind),
        "ordinal": record.position.ordinal,
        "offset": record.position.offset,
        "op_count": meta.op_count,
        "payload_bytes": record.payload.len(),
        "commit_micros": meta.commit_micros,
    });
    if !is_summary && meta.kind == RecordKind::Batch {
        let mut list = Vec::new();
        let whole = operations::for_each(record.payload, meta.op_count, |operation| {
            let mut fields = Map::new();
            fields.insert("kind".to_owned(), Value::from(operation.kind.to_string()));
            fields.insert("keyspace".to_owned(), Value::from(operation.keyspace.0));
            put_bytes(&mut fields, "key", operation.key, output.encoding);
            if operation.kind == KeyKind::Put {
                put_bytes(&mut fields, "value", operation.value, output.encoding);
            }
            list.push(Value::Object(fields));
        });
        document["operations"] = Value::Array(list);
        document["malformed"] = Value::from(whole.is_err());
    }
    document
}

/// One segment, read to its end.
pub(crate) struct SegmentReport {
    header: SegmentHeader,
    record_count: u64,
    op_count: u64,
    first_seq: Option<SequenceNumber>,
    last_seq: Option<SequenceNumber>,
    pub(crate) bytes: u64,
    ending: Ending,
}

/// What the log came to.
#[derive(Default)]
pub(crate) struct LogReport {
    pub(crate) segments: Vec<SegmentReport>,
    /// Of the records that an open would accept.
    pub(crate) record_count: u64,
    pub(crate) bytes: u64,
    pub(crate) last_seq: SequenceNumber,
    /// What an open would cut off: not damage, but worth a word.
    pub(crate) dropped: Option<DroppedTail>,
    pub(crate) damage: Vec<Error>,
}

pub(crate) fn verify(args: &OnlyDirectory, output: &mut Output<'_>) -> Outcome<()> {
    let directory = Directory::open(&args.db)?;
    let _lock = directory.lock()?;
    let state = directory.state()?;
    let report = check_log(&directory, &state)?;
    print_report(&report, output)?;
    match report.damage.len() {
        0 => Ok(()),
        1 => Err(Failure::Damage("the log is damaged".to_owned())),
        count => Err(Failure::Damage(format!(
            "the log is damaged in {count} places"
        ))),
    }
}

/// Reads every segment, then does in memory what an open would do, and reads what that accepts.
///
/// Damage is collected, and so is what the disk does not give back; other errors end it.
pub(crate) fn check_log(directory: &Directory, state: &State) -> Outcome<LogReport> {
    let mut report = LogReport::default();
    for number in directory.numbers(FileKind::Segment) {
        let path = directory.file(FileKind::Segment, number);
        match read_segment(directory, &path) {
            Ok(segment) => {
                report.bytes += segment.bytes;
                report.segments.push(segment);
            }
            Err(error) => report.damage.push(damage_or_failure(error)?),
        }
    }
    report
        .segments
        .sort_by_key(|segment| segment.header.ordinal);
    let overlay = Arc::new(OverlayFs::new(Arc::clone(&directory.fs)));
    let recovered = recover(directory, state, &overlay)
        .and_then(|prepared| Ok((replay(directory, &overlay, &prepared)?, prepared)));
    match recovered {
        Ok((record_count, prepared)) => {
            report.record_count = record_count;
            report.last_seq = prepared.last_seq;
            report.dropped = prepared.dropped;
        }
        Err(error) => {
            let reason = damage_or_failure(error)?;
            let places = missed_places(directory, state, &reason);
            // They tell more of a file than where its reading first came to an end.
            let is_told = |error: &Error| {
                let is_in = |place: &Error| place.path() == error.path();
                error.offset() != Some(0) && places.iter().any(is_in)
            };
            report.damage.push(reason);
            report.damage.retain(|error| !is_told(error));
            report.damage.extend(places);
        }
    }
    Ok(report)
}

fn damage_or_failure(error: Error) -> Outcome<Error> {
    if error.is_corruption() || error.kind() == ErrorKind::Io {
        Ok(error)
    } else {
        Err(error.into())
    }
}

fn read_segment(directory: &Directory, path: &Path) -> Result<SegmentReport> {
    let mut reader = SegmentReader::open(&*directory.fs, path)?;
    let mut report = SegmentReport {
        header: reader.header().clone(),
        record_count: 0,
        op_count: 0,
        first_seq: None,
        last_seq: None,
        bytes: 0,
        ending: Ending::Clean,
    };
    while let Some(record) = reader.next()? {
        report.record_count += 1;
        report.op_count += u64::from(record.meta.op_count);
        if record.meta.op_count > 0 {
            report.first_seq.get_or_insert(record.meta.first_seq);
            report.last_seq = Some(record.meta.last_seq());
        }
    }
    report.bytes = reader.position().offset;
    report.ending = reader.ending();
    Ok(report)
}

/// What an open would make of the log, without touching a file.
pub(crate) fn recover(
    directory: &Directory,
    state: &State,
    overlay: &Arc<OverlayFs>,
) -> Result<Prepared> {
    let facts = &state.facts;
    let next = facts.next_file_number.unwrap_or_default().0;
    let numbers = AtomicU64::new(next.saturating_add(NUMBER_GAP));
    prepare(&RecoverConfig {
        fs: Arc::clone(overlay) as Arc<dyn FileSystem>,
        clock: Arc::new(SystemClock::new()),
        dir: directory.path.clone(),
        mode: RecoveryMode::TornTail,
        floor: state.floor(),
        flushed_max: state.flushed_max(),
        last_seq: facts.last_seq.unwrap_or_default(),
        durable_upto: Some(state.log_durable_upto()),
        numbers: Arc::new(move || FileNumber(numbers.fetch_add(1, Ordering::Relaxed))),
        database_id: facts.database_id.unwrap_or_default(),
        epoch: facts.epoch.unwrap_or_default().saturating_add(1),
        clean: facts.clean_close == Some(true),
        segment_bytes: SEGMENT_BYTES,
        on_progress: &|_| {},
    })
}

/// Reads every record that an open would accept; returns how many.
fn replay(directory: &Directory, overlay: &Arc<OverlayFs>, prepared: &Prepared) -> Result<u64> {
    let first = SequenceNumber::ZERO;
    let mut replay = Replay::open(&**overlay, &directory.path, &prepared.segments, first)?;
    let mut count = 0;
    let mut last_seq = SequenceNumber::ZERO;
    while let Some(record) = replay.next()? {
        count += 1;
        let wrong = |message: &str| {
            let error = Error::corruption(&directory.path, record.position.offset, message);
            Err(error.with_value("segment_ordinal", record.position.ordinal))
        };
        if record.meta.kind != RecordKind::Batch {
            continue;
        }
        if record.meta.first_seq <= last_seq {
            return wrong("sequence numbers of the log do not rise");
        }
        last_seq = record.meta.last_seq();
        if operations::for_each(record.payload, record.meta.op_count, |_| {}).is_err() {
            return wrong("a record of the log holds malformed operations");
        }
    }
    Ok(count)
}

fn describe(ending: Ending) -> String {
    match ending {
        Ending::Sealed => "sealed".to_owned(),
        Ending::Clean => "open".to_owned(),
        Ending::Torn { offset } => format!("torn at {offset}"),
        Ending::Damaged {
            offset,
            later_offset,
            ..
        } => format!("damaged at {offset}, whole again at {later_offset}"),
        _ => "unknown".to_owned(),
    }
}

pub(crate) fn dropped_remark(dropped: &DroppedTail) -> String {
    format!(
        "the log ends in a record that is not whole; an open will drop {} bytes file={} offset={}",
        dropped.bytes,
        dropped.path.display(),
        dropped.offset
    )
}

fn print_report(report: &LogReport, output: &mut Output<'_>) -> Outcome<()> {
    if output.json {
        let segments: Vec<Value> = report.segments.iter().map(segment_document).collect();
        let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        return output.document(&json!({
            "segments": segments,
            "records": report.record_count,
            "last_seq": report.last_seq.get(),
            "dropped_bytes": report.dropped.as_ref().map_or(0, |dropped| dropped.bytes),
            "damage": damage,
        }));
    }
    let mut columns = Columns::new(&[
        "segment",
        "ordinal",
        "bytes",
        "records",
        "operations",
        "first",
        "last",
        "end",
    ]);
    for segment in &report.segments {
        let seq = |seq: Option<SequenceNumber>| seq.map_or("-".to_owned(), |seq| seq.to_string());
        columns.row(vec![
            segment.header.number.to_string(),
            segment.header.ordinal.to_string(),
            bytes_for_people(segment.bytes),
            count_for_people(segment.record_count),
            count_for_people(segment.op_count),
            seq(segment.first_seq),
            seq(segment.last_seq),
            describe(segment.ending),
        ]);
    }
    columns.print(output)?;
    if let Some(dropped) = &report.dropped {
        output.line(&format!("remark: {}", dropped_remark(dropped)))?;
    }
    for error in &report.damage {
        output.line(&format!("damage: {error}"))?;
    }
    if report.damage.is_empty() {
        output.line(&format!(
            "an open would accept {}, up to sequence number {}",
            counted(report.record_count, "record"),
            report.last_seq
        ))?;
    }
    Ok(())
}

fn segment_document(segment: &SegmentReport) -> Value {
    json!({
        "number": segment.header.number.0,
        "file_id": format!("{:016x}", segment.header.file_id),
        "ordinal": segment.header.ordinal,
        "epoch": segment.header.epoch,
        "bytes": segment.bytes,
        "records": segment.record_count,
        "operations": segment.op_count,
        "first_seq": segment.first_seq.map(SequenceNumber::get),
        "last_seq": segment.last_seq.map(SequenceNumber::get),
        "ending": describe(segment.ending),
    })
}
