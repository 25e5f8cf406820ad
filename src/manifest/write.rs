//! Writing MANIFEST and CURRENT: records, full states, and which MANIFEST counts.

use base::clock::Clock;
use base::{FileKind, FileNumber, KeyspaceId, Level, Result, SequenceNumber, ids};
use compaction::{EDIT_BYTES_MAX, KeyspaceCreated, KeyspaceEdit, VersionEdit};
use log::{Anchor, Position, RecordKind, RecordMeta, SegmentHeader, SegmentWriter};

use super::{Identity, KeyspaceFacts, Rooms, current_contents};

/// A state or an edit that takes more goes into several records of about this size: keys can be
/// long, and a record that is longer than [`EDIT_BYTES_MAX`] would never be read again.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// More than a record takes beside its payload.
const FRAME_BYTES_MAX: usize = 64;

const _: () = assert!(RECORD_BYTES_MAX <= EDIT_BYTES_MAX / 4);

/// What a MANIFEST says beside keyspaces.
pub(super) struct Facts {
    pub(super) identity: Identity,
    pub(super) next_file_number: FileNumber,
    pub(super) last_seq: SequenceNumber,
    pub(super) log_durable_upto: Position,
}

/// The payloads of `edit`: one, unless it is very long.
pub(super) fn payloads(edit: VersionEdit) -> Vec<Vec<u8>> {
    let parts = edit.split(RECORD_BYTES_MAX).into_iter();
    parts.map(|part| part.encode()).collect()
}

/// At least what `payloads` take as records.
pub(super) fn framed_bytes_max(payloads: &[Vec<u8>]) -> usize {
    let framed = payloads
        .iter()
        .map(|payload| payload.len() + FRAME_BYTES_MAX);
    framed.sum()
}

fn edit_meta(kind: RecordKind, edit_count: u64, clock: &dyn Clock) -> RecordMeta {
    RecordMeta {
        kind,
        // MANIFEST numbers its own records; they have nothing to do with those of the log.
        first_seq: SequenceNumber::new(edit_count + 1).expect("edits are few"),
        op_count: 1,
        commit_micros: clock.now_micros(),
        durable_upto: None,
    }
}

/// Appends what is one edit together, however many records it takes: all but the last are parts
/// that do not count without it. The last is the caller's to sync.
///
/// INVARIANT: a record is written when all before it are on the disk. Whoever reads MANIFEST takes
/// damage before a whole record for damage to what was durable, and refuses it.
pub(super) fn append_parts(
    writer: &mut SegmentWriter,
    edit_count: u64,
    clock: &dyn Clock,
    mut payloads: impl ExactSizeIterator<Item = Vec<u8>>,
) -> Result<()> {
    while let Some(payload) = payloads.next() {
        let is_part = payloads.len() > 0;
        let kind = if is_part {
            RecordKind::EditPart
        } else {
            RecordKind::Edit
        };
        writer.append(edit_meta(kind, edit_count, clock), &payload)?;
        if is_part {
            writer.sync()?;
        }
    }
    Ok(())
}

/// Writes a MANIFEST with the whole state; durable on return, but not current.
pub(super) fn write_manifest(
    rooms: &Rooms,
    number: FileNumber,
    facts: &Facts,
    keyspaces: &KeyspaceFacts,
) -> Result<SegmentWriter> {
    let created_micros = rooms.clock.now_micros();
    let header = SegmentHeader {
        file_id: rooms.fs.random_u64(),
        database_id: facts.identity.database_id,
        epoch: facts.identity.epoch,
        number,
        ordinal: 0,
        created_micros,
        anchor: Anchor::since(created_micros),
        is_copy: false,
    };
    let path = FileKind::Manifest.path(&rooms.dir, number);
    let mut writer = SegmentWriter::create(&*rooms.fs, &path, header, 0)?;
    let parts = full_state(facts, keyspaces).into_iter();
    let payloads = parts.map(|part| part.encode());
    append_parts(&mut writer, 0, &*rooms.clock, payloads)?;
    writer.sync()?;
    rooms.fs.sync_dir(&rooms.dir)?;
    Ok(writer)
}

/// The whole state as edits; all but the last are parts that do not count without it.
pub(super) fn full_state(facts: &Facts, keyspaces: &KeyspaceFacts) -> Vec<VersionEdit> {
    let non_zero = |seq: SequenceNumber| (seq > SequenceNumber::ZERO).then_some(seq);
    let mut state = VersionEdit {
        database_id: Some(facts.identity.database_id),
        hash_seed: Some(facts.identity.hash_seed),
        epoch: Some(facts.identity.epoch),
        branch_id: Some(facts.identity.branch_id),
        next_file_number: Some(facts.next_file_number),
        last_seq: Some(facts.last_seq),
        log_durable_upto: Some((
            facts.log_durable_upto.ordinal,
            facts.log_durable_upto.offset,
        )),
        clean_close: Some(false),
        flushed_floor: non_zero(keyspaces.flushed_floor),
        next_keyspace_id: (keyspaces.next_id > 0).then_some(KeyspaceId(keyspaces.next_id)),
        ..VersionEdit::default()
    };
    for (id, record) in &keyspaces.alive {
        let mut edit = KeyspaceEdit::new(*id);
        edit.created = Some(KeyspaceCreated {
            name: record.name.clone(),
            order: record.order,
            options: record.options.clone(),
        });
        edit.flushed_upto = Some(record.flushed_upto);
        for level in Level::all() {
            // Oldest first, so that level 0 grows in the order in which it was flushed.
            let tables = record.version.level(level).iter().rev();
            let added = tables.map(|table| (level, table.meta.clone()));
            edit.added.extend(added);
        }
        state.keyspaces.push(edit);
    }
    for (id, at) in &keyspaces.dropped {
        let mut edit = KeyspaceEdit::new(*id);
        edit.dropped_at = Some(*at);
        state.keyspaces.push(edit);
    }
    state.split(RECORD_BYTES_MAX)
}

/// Writes what CURRENT will say when MANIFEST `number` is live, durably, beside it.
pub(super) fn prepare_current(rooms: &Rooms, number: FileNumber) -> Result<()> {
    let temporary = rooms.dir.join(ids::CURRENT_TEMPORARY);
    match rooms.fs.remove_file(&temporary) {
        Err(error) if !error.is_not_found() => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = rooms.fs.create(&temporary)?;
    file.write_at(0, current_contents(number).as_bytes())?;
    file.sync()?;
    // The temporary name must not be lost while the rename is kept.
    rooms.fs.sync_dir(&rooms.dir)
}

/// Makes CURRENT say what was prepared, durably. After a failure it may say either.
pub(super) fn switch_current(rooms: &Rooms) -> Result<()> {
    let temporary = rooms.dir.join(ids::CURRENT_TEMPORARY);
    rooms.fs.rename(&temporary, &rooms.dir.join(ids::CURRENT))?;
    rooms.fs.sync_dir(&rooms.dir)
}
