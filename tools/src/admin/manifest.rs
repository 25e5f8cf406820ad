//! `manifest dump` and `keyspaces`: what MANIFEST says.

use base::Level;
use compaction::{KeyspaceEdit, TableMeta, VersionEdit};
use log::{Ending, RecordKind};
use serde_json::{Map, Value, json};

use super::args::{Global, OnlyDirectory};
use super::directory::{Directory, ManifestRecord};
use super::failure::Outcome;
use super::output::{Columns, Output};
use super::records::put_bytes;
use crate::say::say;
use crate::text::{bytes_for_people, count_for_people, counted, time_of_micros};

pub(crate) fn dump(args: &OnlyDirectory, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let directory = Directory::open(&args.db)?;
    let mut manifest = directory.manifest()?;
    let header = manifest.segment.header();
    if output.json {
        let document = json!({
            "manifest": manifest.number.0,
            "database_id": format!("{:032x}", header.database_id),
            "epoch": header.epoch,
        });
        output.document(&document)?;
    } else {
        output.line(&format!(
            "MANIFEST-{} of database {:032x}, epoch {}",
            manifest.number, header.database_id, header.epoch
        ))?;
    }
    while let Some(record) = manifest.next()? {
        if output.json {
            let document = edit_document(&record, output);
            output.document(&document)?;
        } else {
            print_edit(&record, output)?;
        }
    }
    if let Ending::Torn { offset } = manifest.ending()?
        && !global.quiet
    {
        say(format_args!(
            "remark: MANIFEST ends in a record that is not whole, at {offset}"
        ));
    }
    Ok(())
}

fn print_edit(record: &ManifestRecord, output: &mut Output<'_>) -> Outcome<()> {
    let part = match record.meta.kind {
        RecordKind::EditPart => ", more of it follows",
        _ => "",
    };
    output.line(&format!(
        "edit at {}, {}{part}",
        record.position.offset,
        time_of_micros(record.meta.commit_micros)
    ))?;
    for (name, value) in facts(&record.edit) {
        output.line(&format!("  {name} {value}"))?;
    }
    for keyspace in &record.edit.keyspaces {
        print_keyspace_edit(keyspace, output)?;
    }
    Ok(())
}

fn print_keyspace_edit(edit: &KeyspaceEdit, output: &mut Output<'_>) -> Outcome<()> {
    output.line(&format!("  keyspace {}", edit.id))?;
    if let Some(created) = &edit.created {
        let name = output.one_line(&created.name);
        output.line(&format!("    created as {name}"))?;
    }
    if let Some(seq) = edit.dropped_at {
        output.line(&format!("    dropped at {seq}"))?;
    }
    if let Some(seq) = edit.flushed_upto {
        output.line(&format!("    flushed up to {seq}"))?;
    }
    for (level, number) in &edit.removed {
        output.line(&format!("    - {level} {number}"))?;
    }
    for (level, meta) in &edit.added {
        let smallest = output.one_line(&meta.smallest.user_key);
        let largest = output.one_line(&meta.largest.user_key);
        output.line(&format!(
            "    + {level} {} {} {} [{smallest} .. {largest}] seq {}..{}",
            meta.number,
            bytes_for_people(meta.file_bytes),
            counted(meta.entry_count, "entry"),
            meta.seq_smallest,
            meta.seq_largest,
        ))?;
    }
    Ok(())
}

/// The fields of an edit that are no keyspaces, by name.
fn facts(edit: &VersionEdit) -> Vec<(&'static str, String)> {
    let durable = edit
        .log_durable_upto
        .map(|(ordinal, offset)| format!("{ordinal}:{offset}"));
    let fields = [
        (
            "database id",
            edit.database_id.map(|id| format!("{id:032x}")),
        ),
        (
            "hash seed",
            edit.hash_seed.map(|seed| format!("{seed:016x}")),
        ),
        ("epoch", edit.epoch.map(|epoch| epoch.to_string())),
        ("branch id", edit.branch_id.map(|id| format!("{id:016x}"))),
        (
            "next file",
            edit.next_file_number.map(|number| number.to_string()),
        ),
        ("last sequence", edit.last_seq.map(|seq| seq.to_string())),
        ("log floor", edit.log_floor.map(|number| number.to_string())),
        ("log durable up to", durable),
        (
            "clean close",
            edit.clean_close.map(|clean| clean.to_string()),
        ),
        (
            "flushed floor",
            edit.flushed_floor.map(|seq| seq.to_string()),
        ),
        (
            "next keyspace",
            edit.next_keyspace_id.map(|id| id.to_string()),
        ),
    ];
    let present = fields.into_iter();
    present
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn edit_document(record: &ManifestRecord, output: &Output<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("offset".to_owned(), record.position.offset.into());
    fields.insert("commit_micros".to_owned(), record.meta.commit_micros.into());
    let is_part = record.meta.kind == RecordKind::EditPart;
    fields.insert("more_follows".to_owned(), is_part.into());
    for (name, value) in facts(&record.edit) {
        fields.insert(name.replace(' ', "_"), value.into());
    }
    let keyspaces = record.edit.keyspaces.iter();
    let keyspaces: Vec<Value> = keyspaces
        .map(|edit| keyspace_document(edit, output))
        .collect();
    fields.insert("keyspaces".to_owned(), keyspaces.into());
    Value::Object(fields)
}

fn keyspace_document(edit: &KeyspaceEdit, output: &Output<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), edit.id.0.into());
    if let Some(created) = &edit.created {
        put_bytes(&mut fields, "name", &created.name, output.encoding);
    }
    if let Some(seq) = edit.dropped_at {
        fields.insert("dropped_at".to_owned(), seq.get().into());
    }
    if let Some(seq) = edit.flushed_upto {
        fields.insert("flushed_upto".to_owned(), seq.get().into());
    }
    let removed = edit
        .removed
        .iter()
        .map(|(level, number)| json!({ "level": level.index(), "number": number.0 }));
    fields.insert("removed".to_owned(), removed.collect());
    let added = edit.added.iter();
    let added = added.map(|(level, meta)| table_document(*level, meta, output));
    fields.insert("added".to_owned(), added.collect());
    Value::Object(fields)
}

fn table_document(level: Level, meta: &TableMeta, output: &Output<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("level".to_owned(), level.index().into());
    fields.insert("number".to_owned(), meta.number.0.into());
    fields.insert("file_bytes".to_owned(), meta.file_bytes.into());
    fields.insert("entry_count".to_owned(), meta.entry_count.into());
    fields.insert("tombstone_count".to_owned(), meta.tombstone_count.into());
    fields.insert("raw_bytes".to_owned(), meta.raw_bytes.into());
    put_bytes(
        &mut fields,
        "smallest",
        &meta.smallest.user_key,
        output.encoding,
    );
    put_bytes(
        &mut fields,
        "largest",
        &meta.largest.user_key,
        output.encoding,
    );
    fields.insert("seq_smallest".to_owned(), meta.seq_smallest.get().into());
    fields.insert("seq_largest".to_owned(), meta.seq_largest.get().into());
    fields.insert("created_micros".to_owned(), meta.created_micros.into());
    Value::Object(fields)
}

pub(crate) fn keyspaces(args: &OnlyDirectory, output: &mut Output<'_>) -> Outcome<()> {
    let state = Directory::open(&args.db)?.state()?;
    let mut columns = Columns::new(&["id", "name", "tables", "size", "entries", "flushed up to"]);
    for (id, keyspace) in &state.keyspaces {
        let mut table_count: u64 = 0;
        let mut bytes = 0;
        let mut entry_count = 0;
        for (_, table) in keyspace.version.tables() {
            table_count += 1;
            bytes += table.meta.file_bytes;
            entry_count += table.meta.entry_count;
        }
        if output.json {
            let mut fields = Map::new();
            fields.insert("id".to_owned(), id.0.into());
            put_bytes(&mut fields, "name", &keyspace.name, output.encoding);
            fields.insert("table_count".to_owned(), table_count.into());
            fields.insert("bytes".to_owned(), bytes.into());
            fields.insert("entry_count".to_owned(), entry_count.into());
            fields.insert(
                "flushed_upto".to_owned(),
                keyspace.flushed_upto.get().into(),
            );
            output.document(&Value::Object(fields))?;
            continue;
        }
        columns.row(vec![
            id.to_string(),
            output.one_line(&keyspace.name),
            count_for_people(table_count),
            bytes_for_people(bytes),
            count_for_people(entry_count),
            keyspace.flushed_upto.to_string(),
        ]);
    }
    if output.json {
        return Ok(());
    }
    columns.print(output)
}
