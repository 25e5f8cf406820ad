//! The bytes of the stats file.
//!
//! ```text
//!  0       8        12       16            16 + n   20 + n
//!  +-------+--------+--------+-------------+--------+
//!  | magic | version| n      | body        | CRC-32 |
//!  +-------+--------+--------+-------------+--------+
//! ```
//!
//! Numbers are little-endian; the checksum covers all before it; this stays so in every version.
//! The body is tagged fields, those that are 0 or empty left out; groups in it are tagged fields
//! again (see `fields`). A number may be no larger than `NUMBER_MAX`, so that no sum of what a
//! stranger wrote overflows. An unknown tag from `FIRST_SKIPPABLE_TAG` up is skipped; another one,
//! or another version, is refused.

#![deny(clippy::indexing_slicing)]

use base::checksum::Crc;
use base::coding::{FIRST_SKIPPABLE_TAG, Fields, Reader, put_field, put_varint_field};
use base::{Error, ErrorKind, Result};

use super::Contents;
use super::fields::{
    Group, put_group, put_pin, put_totals, put_wait, put_written, take_group, take_pin,
    take_totals, take_wait, take_written,
};
use crate::stats::{Gathered, Stats};

const MAGIC: [u8; 8] = *b"siltstat";
/// Of what is written, and the newest that is read.
pub(super) const VERSION: u32 = 1;
const HEADER_LEN: usize = 16;
const TRAILER_LEN: usize = 4;
/// More than this version ever writes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Keyspaces that are told one by one.
pub(super) const KEYSPACE_COUNT_MAX: usize = 256;
/// Of numbers. No counter of bytes, operations or microseconds comes near it.
pub(super) const NUMBER_MAX: u64 = 1 << 56;
/// Of what is wrong, in bytes.
const TROUBLE_LEN_MAX: usize = 1024;

/// Tags of the body. Part of the format: append only.
mod tag {
    pub(super) const ENGINE_VERSION: u32 = 1;
    pub(super) const PROCESS_ID: u32 = 2;
    pub(super) const OPENED_MICROS: u32 = 3;
    pub(super) const WRITTEN_MICROS: u32 = 4;
    pub(super) const UP_MICROS: u32 = 5;
    pub(super) const INTERVAL_MICROS: u32 = 6;
    pub(super) const TROUBLE: u32 = 7;
    pub(super) const KEYSPACE_COUNT: u32 = 8;
    pub(super) const TOTALS: u32 = 9;
    /// What all keyspaces are together.
    pub(super) const ALL: u32 = 10;
    /// One keyspace; again for each of them.
    pub(super) const KEYSPACE: u32 = 11;
    /// Waits of one cause; again for each of them.
    pub(super) const WAIT: u32 = 12;
    /// Pins of one kind; again for each of them.
    pub(super) const PIN: u32 = 13;
    pub(super) const LOG: u32 = 14;
    pub(super) const MANIFEST: u32 = 15;
    pub(super) const STATS_FILE: u32 = 16;
    /// By the fixed number of its kind.
    pub(super) const TROUBLE_KIND: u32 = 17;
}

/// The bytes that [`decode`] reads.
pub(super) fn encode(contents: &Contents) -> Vec<u8> {
    let body = encode_body(contents);
    let len = u32::try_from(body.len()).expect("a few hundred kilobytes at most");
    let mut out = Vec::with_capacity(HEADER_LEN + body.len() + TRAILER_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&body);
    let crc = Crc::plain().and(&out).finish();
    out.extend_from_slice(&crc.to_le_bytes());
    assert!(out.len() as u64 <= FILE_BYTES_MAX, "readers refuse more");
    out
}

fn encode_body(contents: &Contents) -> Vec<u8> {
    let Gathered { stats, counts, .. } = &contents.found;
    let mut out = Vec::new();
    put_field(
        &mut out,
        tag::ENGINE_VERSION,
        contents.engine_version.as_bytes(),
    );
    let numbers = [
        (tag::PROCESS_ID, u64::from(contents.process_id)),
        (tag::OPENED_MICROS, contents.opened_micros),
        (tag::WRITTEN_MICROS, contents.written_micros),
        (tag::UP_MICROS, contents.up_micros),
        (tag::INTERVAL_MICROS, contents.interval_micros),
        (tag::KEYSPACE_COUNT, contents.keyspace_count),
    ];
    for (tag, number) in numbers {
        put_varint_field(&mut out, tag, number.min(NUMBER_MAX));
    }
    if let Some(trouble) = &contents.trouble {
        let end = (0..=TROUBLE_LEN_MAX.min(trouble.len()))
            .rev()
            .find(|at| trouble.is_char_boundary(*at))
            .unwrap_or(0);
        let shown = trouble.as_bytes().get(..end).unwrap_or_default();
        put_field(&mut out, tag::TROUBLE, shown);
    }
    if let Some(kind) = contents.trouble_kind {
        put_varint_field(&mut out, tag::TROUBLE_KIND, u64::from(kind.code()));
    }
    put_field(&mut out, tag::TOTALS, &put_totals(stats));
    let all = Group::all(stats, counts);
    put_field(&mut out, tag::ALL, &put_group(&all));
    for at in largest(stats) {
        let own = contents.found.counts_by_keyspace.get(at);
        if let (Some(keyspace), Some(own)) = (stats.keyspaces.get(at), own) {
            let group = Group::of(keyspace, own);
            put_field(&mut out, tag::KEYSPACE, &put_group(&group));
        }
    }
    for wait in &stats.waits {
        put_field(&mut out, tag::WAIT, &put_wait(wait));
    }
    for (place, pin) in (1..).zip(&stats.pins) {
        put_field(&mut out, tag::PIN, &put_pin(place, pin));
    }
    for (tag, written) in [
        (tag::LOG, contents.found.log),
        (tag::MANIFEST, contents.found.manifest),
        (tag::STATS_FILE, contents.found.stats_file),
    ] {
        put_field(&mut out, tag, &put_written(written));
    }
    out
}

/// Which keyspaces are told, in their order: `default`, which is the first, and those that hold or
/// were written most.
fn largest(stats: &Stats) -> Vec<usize> {
    let weight = |at: &usize| {
        stats.keyspaces.get(*at).map_or(0, |keyspace| {
            let held: u64 = keyspace.levels.iter().map(|level| level.bytes).sum();
            held + keyspace.memtable_bytes + keyspace.user_bytes_written
        })
    };
    let mut chosen: Vec<usize> = (0..stats.keyspaces.len()).collect();
    if chosen.len() > KEYSPACE_COUNT_MAX {
        chosen.sort_by_key(|at| (*at != 0, std::cmp::Reverse(weight(at))));
        chosen.truncate(KEYSPACE_COUNT_MAX);
        chosen.sort_unstable();
    }
    chosen
}

/// Reads the bytes of a stats file, which may be anything. Takes no more memory than a few times
/// their length.
pub(super) fn decode(bytes: &[u8]) -> Result<Contents> {
    let body = check(bytes)?;
    let mut contents = Contents::default();
    for field in Fields::new(body) {
        let (tag, content) = field.map_err(|_| malformed(0))?;
        take(&mut contents, tag, content)?;
    }
    Ok(contents)
}

/// The body, once magic, length, checksum and version are right. In this order: what is around the
/// body is the same in every version, and what is damaged must not pass for newer.
fn check(bytes: &[u8]) -> Result<&[u8]> {
    let damaged = |message: &str| Error::new(ErrorKind::Corruption, message);
    let reader = &mut Reader::new(bytes);
    if reader.bytes(MAGIC.len()) != Ok(&MAGIC[..]) {
        return Err(damaged("no stats file of a database"));
    }
    let short = |_| damaged("the stats file ends early").with_value("len", bytes.len());
    let version = reader.u32().map_err(short)?;
    let len = reader.u32().map_err(short)?;
    let body = reader
        .bytes(usize::try_from(len).unwrap_or(usize::MAX))
        .map_err(short)?;
    let stored = reader.u32().map_err(short)?;
    let covered = bytes.get(..HEADER_LEN + body.len()).unwrap_or_default();
    let computed = Crc::plain().and(covered).finish();
    if stored != computed {
        return Err(damaged("checksum mismatch in the stats file")
            .with_value("stored", format!("{stored:08x}"))
            .with_value("computed", format!("{computed:08x}")));
    }
    if !reader.is_empty() {
        return Err(damaged("bytes behind the end of the stats file"));
    }
    if version != VERSION {
        let message = "a stats file of another version";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .with_value("found", version)
            .with_value("supported", VERSION));
    }
    Ok(body)
}

fn take(contents: &mut Contents, tag: u32, content: &[u8]) -> Result<()> {
    let found = &mut contents.found;
    match tag {
        tag::ENGINE_VERSION => contents.engine_version = text(tag, content)?,
        tag::PROCESS_ID => {
            contents.process_id =
                u32::try_from(number(tag, content)?).map_err(|_| malformed(tag))?;
        }
        tag::OPENED_MICROS => contents.opened_micros = number(tag, content)?,
        tag::WRITTEN_MICROS => contents.written_micros = number(tag, content)?,
        tag::UP_MICROS => contents.up_micros = number(tag, content)?,
        tag::INTERVAL_MICROS => contents.interval_micros = number(tag, content)?,
        tag::TROUBLE => contents.trouble = Some(text(tag, content)?),
        tag::TROUBLE_KIND => {
            let code = u8::try_from(number(tag, content)?).map_err(|_| malformed(tag))?;
            let kind = ErrorKind::from_code(code);
            contents.trouble_kind = Some(kind.ok_or_else(|| malformed(tag))?);
        }
        tag::KEYSPACE_COUNT => contents.keyspace_count = number(tag, content)?,
        tag::TOTALS => take_totals(&mut found.stats, content)?,
        tag::ALL => {
            let group = take_group(content)?;
            found.stats.levels = group.levels;
            found.stats.throttle = group.throttle;
            found.counts = group.counts;
        }
        tag::KEYSPACE if found.stats.keyspaces.len() < KEYSPACE_COUNT_MAX => {
            let group = take_group(content)?;
            found.counts_by_keyspace.push(group.counts.clone());
            found.stats.keyspaces.push(group.into());
        }
        tag::KEYSPACE => return Err(malformed(tag)),
        tag::WAIT => take_wait(&mut found.stats.waits, content)?,
        tag::PIN => take_pin(&mut found.stats.pins, content)?,
        tag::LOG => found.log = take_written(content)?,
        tag::MANIFEST => found.manifest = take_written(content)?,
        tag::STATS_FILE => found.stats_file = take_written(content)?,
        FIRST_SKIPPABLE_TAG.. => {}
        _ => return Err(unknown(tag)),
    }
    Ok(())
}

/// One number and nothing behind it.
pub(super) fn number(tag: u32, content: &[u8]) -> Result<u64> {
    let reader = &mut Reader::new(content);
    match reader.varint() {
        Ok(number) if number <= NUMBER_MAX && reader.is_empty() => Ok(number),
        _ => Err(malformed(tag)),
    }
}

pub(super) fn text(tag: u32, content: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(content).map_err(|_| malformed(tag))?;
    Ok(text.to_owned())
}

pub(super) fn malformed(tag: u32) -> Error {
    Error::new(ErrorKind::Corruption, "the stats file is malformed").with_value("tag", tag)
}

pub(super) fn unknown(tag: u32) -> Error {
    let message = "the stats file has a field of a newer version";
    Error::new(ErrorKind::Unsupported, message).with_value("tag", tag)
}
