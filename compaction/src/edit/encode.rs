//! Writes version edits, in the one form that `decode` accepts.

use base::coding::{put_bytes, put_field, put_varint, put_varint_field};
use base::{KeyspaceId, OwnedKey};

use super::tag::{self, keyspace, table};
use super::{KEYSPACE_EDITS_MAX, KeyspaceCreated, KeyspaceEdit, VersionEdit};
use crate::levels::TableMeta;

/// More than the fixed part of any edit or keyspace edit takes.
const FIXED_BYTES_MAX: usize = 256;

pub(super) fn edit(edit: &VersionEdit) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(id) = edit.database_id {
        put_field(&mut out, tag::DATABASE_ID, &id.to_le_bytes());
    }
    if let Some(seed) = edit.hash_seed {
        put_field(&mut out, tag::HASH_SEED, &seed.to_le_bytes());
    }
    put_number(&mut out, tag::EPOCH, edit.epoch);
    put_number(
        &mut out,
        tag::NEXT_FILE_NUMBER,
        edit.next_file_number.map(|number| number.0),
    );
    put_number(
        &mut out,
        tag::LAST_SEQ,
        edit.last_seq.map(base::SequenceNumber::get),
    );
    put_number(
        &mut out,
        tag::LOG_FLOOR,
        edit.log_floor.map(|number| number.0),
    );
    if let Some((ordinal, offset)) = edit.log_durable_upto {
        let mut content = Vec::new();
        put_varint(&mut content, ordinal);
        put_varint(&mut content, offset);
        put_field(&mut out, tag::LOG_DURABLE_UPTO, &content);
    }
    if let Some(clean) = edit.clean_close {
        put_field(&mut out, tag::CLEAN_CLOSE, &[u8::from(clean)]);
    }
    if let Some(branch) = edit.branch_id {
        put_field(&mut out, tag::BRANCH_ID, &branch.to_le_bytes());
    }
    let mut content = Vec::new();
    for keyspace in &edit.keyspaces {
        content.clear();
        put_keyspace(&mut content, keyspace);
        put_field(&mut out, tag::KEYSPACE, &content);
    }
    put_number(
        &mut out,
        tag::FLUSHED_FLOOR,
        edit.flushed_floor.map(base::SequenceNumber::get),
    );
    put_number(
        &mut out,
        tag::NEXT_KEYSPACE_ID,
        edit.next_keyspace_id.map(|id| u64::from(id.0)),
    );
    out
}

fn put_number(out: &mut Vec<u8>, tag: u32, value: Option<u64>) {
    if let Some(value) = value {
        put_varint_field(out, tag, value);
    }
}

fn put_keyspace(out: &mut Vec<u8>, edit: &KeyspaceEdit) {
    put_varint_field(out, keyspace::ID, u64::from(edit.id.0));
    let mut content = Vec::new();
    if let Some(KeyspaceCreated {
        name,
        order,
        options,
    }) = &edit.created
    {
        content.push(*order);
        put_bytes(&mut content, name);
        content.extend_from_slice(options);
        put_field(out, keyspace::CREATED, &content);
    }
    put_number(
        out,
        keyspace::DROPPED_AT,
        edit.dropped_at.map(base::SequenceNumber::get),
    );
    put_number(
        out,
        keyspace::FLUSHED_UPTO,
        edit.flushed_upto.map(base::SequenceNumber::get),
    );
    for (level, number) in &edit.removed {
        content.clear();
        content.push(level.as_u8());
        put_varint(&mut content, number.0);
        put_field(out, keyspace::REMOVED, &content);
    }
    for (level, meta) in &edit.added {
        content.clear();
        content.push(level.as_u8());
        put_table(&mut content, meta);
        put_field(out, keyspace::ADDED, &content);
    }
}

fn put_table(out: &mut Vec<u8>, meta: &TableMeta) {
    let non_zero = |value: u64| (value != 0).then_some(value);
    put_varint_field(out, table::NUMBER, meta.number.0);
    put_field(out, table::FILE_ID, &meta.file_id.to_le_bytes());
    put_varint_field(out, table::FILE_BYTES, meta.file_bytes);
    put_varint_field(out, table::ENTRY_COUNT, meta.entry_count);
    put_number(out, table::TOMBSTONE_COUNT, non_zero(meta.tombstone_count));
    put_number(out, table::RAW_BYTES, non_zero(meta.raw_bytes));
    put_key(out, table::SMALLEST, &meta.smallest);
    put_key(out, table::LARGEST, &meta.largest);
    if meta.largest_exclusive {
        put_field(out, table::LARGEST_EXCLUSIVE, &[]);
    }
    put_varint_field(out, table::SEQ_SMALLEST, meta.seq_smallest.get());
    put_varint_field(out, table::SEQ_LARGEST, meta.seq_largest.get());
    put_number(
        out,
        table::GLOBAL_SEQ,
        meta.global_seq.map(base::SequenceNumber::get),
    );
    if meta.location != 0 {
        put_field(out, table::LOCATION, &[meta.location]);
    }
    if meta.compression != 0 {
        put_field(out, table::COMPRESSION, &[meta.compression]);
    }
    put_number(out, table::CREATED_MICROS, non_zero(meta.created_micros));
    put_number(out, table::HIDDEN_COUNT, non_zero(meta.hidden_count));
}

fn put_key(out: &mut Vec<u8>, tag: u32, key: &OwnedKey) {
    put_varint(out, u64::from(tag));
    put_varint(out, key.user_key.len() as u64 + 8);
    // Kind in the first byte, the sequence in the other seven.
    out.extend_from_slice(&key.as_internal().trailer().to_le_bytes());
    out.extend_from_slice(&key.user_key);
}

/// Fills parts one after the other; the first takes the counters along.
struct Splitter {
    done: Vec<VersionEdit>,
    part: VersionEdit,
    bytes: usize,
    bytes_max: usize,
}

impl Splitter {
    /// Makes room for `bytes` more, in a new part if need be. Returns whether it began one.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.bytes + bytes <= self.bytes_max && self.part.keyspaces.len() < KEYSPACE_EDITS_MAX {
            self.bytes += bytes;
            return false;
        }
        let full = std::mem::take(&mut self.part);
        self.done.push(full);
        self.bytes = FIXED_BYTES_MAX + bytes;
        true
    }

    /// The same for something that belongs to keyspace `id`, which goes on in a new part.
    fn make_room_in(&mut self, id: KeyspaceId, bytes: usize) {
        if self.make_room(bytes) {
            self.bytes += FIXED_BYTES_MAX;
            self.part.keyspaces.push(KeyspaceEdit::new(id));
        }
    }

    fn last(&mut self) -> &mut KeyspaceEdit {
        self.part
            .keyspaces
            .last_mut()
            .expect("a keyspace was begun")
    }

    fn take(&mut self, mut keyspace: KeyspaceEdit) {
        let removed = std::mem::take(&mut keyspace.removed);
        let added = std::mem::take(&mut keyspace.added);
        let created = keyspace.created.as_ref();
        let own = created.map_or(0, |created| created.name.len() + created.options.len());
        let id = keyspace.id;
        self.make_room(FIXED_BYTES_MAX + own);
        self.part.keyspaces.push(keyspace);
        for gone in removed {
            self.make_room_in(id, 16);
            self.last().removed.push(gone);
        }
        for (level, meta) in added {
            let keys = meta.smallest.user_key.len() + meta.largest.user_key.len();
            self.make_room_in(id, FIXED_BYTES_MAX + keys);
            self.last().added.push((level, meta));
        }
    }
}

pub(super) fn split(mut edit: VersionEdit, bytes_max: usize) -> Vec<VersionEdit> {
    let keyspaces = std::mem::take(&mut edit.keyspaces);
    let mut splitter = Splitter {
        done: Vec::new(),
        part: edit,
        bytes: FIXED_BYTES_MAX,
        bytes_max,
    };
    for keyspace in keyspaces {
        splitter.take(keyspace);
    }
    let Splitter { mut done, part, .. } = splitter;
    done.push(part);
    done
}
