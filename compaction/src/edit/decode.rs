//! Reads version edits from bytes that nobody vouches for.
//!
//! Every length is compared with what remains before it is used, nothing recurses, and what is
//! allocated is in proportion to the input.

#![deny(clippy::indexing_slicing)]

use base::coding::{FIRST_SKIPPABLE_TAG, Fields, Reader};
use base::ids::COUNT_MAX;
use base::key::KEY_BYTES_MAX;
use base::{FileNumber, KeyKind, KeyspaceId, Level, OwnedKey, SequenceNumber};

use super::tag::{self, keyspace, table};
use super::{
    EDIT_BYTES_MAX, KEYSPACE_EDITS_MAX, KeyspaceCreated, KeyspaceEdit, MalformedEdit, VersionEdit,
};
use crate::levels::TableMeta;

type Result<T> = std::result::Result<T, MalformedEdit>;

/// Walks the known fields of one scope and refuses what is not in canonical order.
struct Scope<'a> {
    fields: Fields<'a>,
    last_tag: u32,
    /// The tags of this scope that may repeat.
    repeated: &'static [u32],
}

impl<'a> Scope<'a> {
    fn new(bytes: &'a [u8], repeated: &'static [u32]) -> Self {
        Self {
            fields: Fields::new(bytes),
            last_tag: 0,
            repeated,
        }
    }

    /// The next field below the skippable tags, or `None` at the end.
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>> {
        for field in self.fields.by_ref() {
            let (tag, content) = field?;
            let may_repeat = tag >= FIRST_SKIPPABLE_TAG || self.repeated.contains(&tag);
            if tag < self.last_tag || (tag == self.last_tag && !may_repeat) {
                return Err(MalformedEdit::at("fields are not in order", tag));
            }
            self.last_tag = tag;
            if tag < FIRST_SKIPPABLE_TAG {
                return Ok(Some((tag, content)));
            }
        }
        Ok(None)
    }
}

pub(super) fn edit(bytes: &[u8]) -> Result<VersionEdit> {
    if bytes.len() > EDIT_BYTES_MAX {
        return Err(MalformedEdit::new("longer than a record can be"));
    }
    let mut edit = VersionEdit::default();
    let mut scope = Scope::new(bytes, &[tag::KEYSPACE]);
    while let Some((tag, content)) = scope.next()? {
        let mut reader = Reader::new(content);
        match tag {
            tag::DATABASE_ID => edit.database_id = Some(reader.u128()?),
            tag::HASH_SEED => edit.hash_seed = Some(reader.u64()?),
            tag::EPOCH => edit.epoch = Some(count(&mut reader)?),
            tag::NEXT_FILE_NUMBER => edit.next_file_number = Some(number(&mut reader)?),
            tag::LAST_SEQ => edit.last_seq = Some(sequence(&mut reader)?),
            tag::LOG_FLOOR => edit.log_floor = Some(number(&mut reader)?),
            tag::LOG_DURABLE_UPTO => {
                edit.log_durable_upto = Some((count(&mut reader)?, count(&mut reader)?));
            }
            tag::CLEAN_CLOSE => {
                edit.clean_close = Some(match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(MalformedEdit::at("neither 0 nor 1", tag)),
                });
            }
            tag::BRANCH_ID => edit.branch_id = Some(reader.u64()?),
            tag::KEYSPACE => {
                if edit.keyspaces.len() == KEYSPACE_EDITS_MAX {
                    return Err(MalformedEdit::at("too many keyspace edits", tag));
                }
                edit.keyspaces.push(keyspace_edit(content)?);
                continue;
            }
            tag::FLUSHED_FLOOR => edit.flushed_floor = Some(sequence(&mut reader)?),
            tag::NEXT_KEYSPACE_ID => {
                edit.next_keyspace_id = Some(keyspace_id(&mut reader)?);
            }
            _ => return Err(MalformedEdit::newer("unknown field", tag)),
        }
        finished(&reader, tag)?;
    }
    Ok(edit)
}

fn keyspace_edit(bytes: &[u8]) -> Result<KeyspaceEdit> {
    let mut scope = Scope::new(bytes, &[keyspace::REMOVED, keyspace::ADDED]);
    let mut edit = match scope.next()? {
        Some((keyspace::ID, content)) => {
            let mut reader = Reader::new(content);
            let id = keyspace_id(&mut reader)?;
            finished(&reader, keyspace::ID)?;
            KeyspaceEdit::new(id)
        }
        _ => {
            return Err(MalformedEdit::at(
                "missing field of a keyspace",
                keyspace::ID,
            ));
        }
    };
    while let Some((tag, content)) = scope.next()? {
        let mut reader = Reader::new(content);
        match tag {
            keyspace::CREATED => {
                let order = reader.u8()?;
                let name = reader.len_bytes()?;
                if name.len() > KEY_BYTES_MAX {
                    return Err(MalformedEdit::at("keyspace name too long", tag));
                }
                let options = reader.rest().to_vec();
                edit.created = Some(KeyspaceCreated {
                    name: name.to_vec(),
                    order,
                    options,
                });
                continue;
            }
            keyspace::DROPPED_AT => edit.dropped_at = Some(sequence(&mut reader)?),
            keyspace::FLUSHED_UPTO => edit.flushed_upto = Some(sequence(&mut reader)?),
            keyspace::REMOVED => edit
                .removed
                .push((level(&mut reader)?, number(&mut reader)?)),
            keyspace::ADDED => {
                let level = level(&mut reader)?;
                edit.added.push((level, table_meta(reader.rest())?));
                continue;
            }
            _ => return Err(MalformedEdit::newer("unknown field of a keyspace", tag)),
        }
        finished(&reader, tag)?;
    }
    Ok(edit)
}

/// The fields of a table that may be missing until all are read.
#[derive(Default)]
struct Partial {
    number: Option<FileNumber>,
    file_id: Option<u64>,
    file_bytes: Option<u64>,
    entry_count: Option<u64>,
    tombstone_count: u64,
    raw_bytes: u64,
    smallest: Option<OwnedKey>,
    largest: Option<OwnedKey>,
    largest_exclusive: bool,
    seq_smallest: Option<SequenceNumber>,
    seq_largest: Option<SequenceNumber>,
    global_seq: Option<SequenceNumber>,
    location: u8,
    compression: u8,
    created_micros: u64,
    hidden_count: u64,
}

fn table_meta(bytes: &[u8]) -> Result<TableMeta> {
    let mut read = Partial::default();
    let mut scope = Scope::new(bytes, &[]);
    while let Some((tag, content)) = scope.next()? {
        table_field(&mut read, tag, content)?;
    }
    let missing = |tag| MalformedEdit::at("missing field of a table", tag);
    Ok(TableMeta {
        number: read.number.ok_or(missing(table::NUMBER))?,
        file_id: read.file_id.ok_or(missing(table::FILE_ID))?,
        file_bytes: read.file_bytes.ok_or(missing(table::FILE_BYTES))?,
        entry_count: read.entry_count.ok_or(missing(table::ENTRY_COUNT))?,
        tombstone_count: read.tombstone_count,
        raw_bytes: read.raw_bytes,
        smallest: read.smallest.ok_or(missing(table::SMALLEST))?,
        largest: read.largest.ok_or(missing(table::LARGEST))?,
        largest_exclusive: read.largest_exclusive,
        seq_smallest: read.seq_smallest.ok_or(missing(table::SEQ_SMALLEST))?,
        seq_largest: read.seq_largest.ok_or(missing(table::SEQ_LARGEST))?,
        global_seq: read.global_seq,
        location: read.location,
        compression: read.compression,
        created_micros: read.created_micros,
        hidden_count: read.hidden_count,
    })
}

fn table_field(read: &mut Partial, tag: u32, content: &[u8]) -> Result<()> {
    let mut reader = Reader::new(content);
    match tag {
        table::NUMBER => read.number = Some(number(&mut reader)?),
        table::FILE_ID => read.file_id = Some(reader.u64()?),
        table::FILE_BYTES => read.file_bytes = Some(count(&mut reader)?),
        table::ENTRY_COUNT => read.entry_count = Some(count(&mut reader)?),
        table::TOMBSTONE_COUNT => read.tombstone_count = not_default(count(&mut reader)?, tag)?,
        table::RAW_BYTES => read.raw_bytes = not_default(count(&mut reader)?, tag)?,
        table::SMALLEST => {
            read.smallest = Some(key(content, tag)?);
            return Ok(());
        }
        table::LARGEST => {
            read.largest = Some(key(content, tag)?);
            return Ok(());
        }
        table::LARGEST_EXCLUSIVE => read.largest_exclusive = true,
        table::SEQ_SMALLEST => read.seq_smallest = Some(sequence(&mut reader)?),
        table::SEQ_LARGEST => read.seq_largest = Some(sequence(&mut reader)?),
        table::GLOBAL_SEQ => read.global_seq = Some(sequence(&mut reader)?),
        table::LOCATION => read.location = not_default(reader.u8()?, tag)?,
        table::COMPRESSION => read.compression = not_default(reader.u8()?, tag)?,
        table::CREATED_MICROS => read.created_micros = not_default(reader.varint()?, tag)?,
        table::HIDDEN_COUNT => read.hidden_count = not_default(count(&mut reader)?, tag)?,
        _ => return Err(MalformedEdit::newer("unknown field of a table", tag)),
    }
    finished(&reader, tag)
}

fn finished(reader: &Reader<'_>, tag: u32) -> Result<()> {
    if reader.is_empty() {
        return Ok(());
    }
    Err(MalformedEdit::at("field is longer than its content", tag))
}

fn not_default<T: PartialEq + Default>(value: T, tag: u32) -> Result<T> {
    if value == T::default() {
        return Err(MalformedEdit::at("default value written out", tag));
    }
    Ok(value)
}

fn number(reader: &mut Reader<'_>) -> Result<FileNumber> {
    Ok(FileNumber(count(reader)?))
}

fn count(reader: &mut Reader<'_>) -> Result<u64> {
    let count = reader.varint()?;
    if count > COUNT_MAX {
        return Err(MalformedEdit::new("number out of range"));
    }
    Ok(count)
}

/// The last one is never given away.
fn keyspace_id(reader: &mut Reader<'_>) -> Result<KeyspaceId> {
    match reader.varint_u32()? {
        u32::MAX => Err(MalformedEdit::new("keyspace id out of range")),
        id => Ok(KeyspaceId(id)),
    }
}

fn sequence(reader: &mut Reader<'_>) -> Result<SequenceNumber> {
    SequenceNumber::new(reader.varint()?).ok_or(MalformedEdit::new("sequence number out of range"))
}

fn level(reader: &mut Reader<'_>) -> Result<Level> {
    Level::new(reader.u8()?).ok_or(MalformedEdit::new("level out of range"))
}

fn key(content: &[u8], tag: u32) -> Result<OwnedKey> {
    let mut reader = Reader::new(content);
    let trailer = reader.u64()?;
    let kind = KeyKind::from_u8(trailer.to_le_bytes()[0])
        .ok_or(MalformedEdit::newer("unknown kind of key", tag))?;
    let seq = SequenceNumber::new(trailer >> 8)
        .ok_or(MalformedEdit::new("sequence number out of range"))?;
    let user_key = reader.rest();
    if user_key.len() > KEY_BYTES_MAX {
        return Err(MalformedEdit::at("key too long", tag));
    }
    Ok(OwnedKey {
        user_key: user_key.to_vec(),
        seq,
        kind,
    })
}
