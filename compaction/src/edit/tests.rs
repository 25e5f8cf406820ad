use base::coding::{put_field, put_varint_field};
use base::{KeyKind, OwnedKey};

use super::*;
use crate::testing::{Random, level, meta, seq};

fn key(random: &mut Random) -> OwnedKey {
    let len = [0, 1, 7, 40][random.index(4)];
    OwnedKey {
        user_key: (0..len)
            .map(|_| random.next_u64().to_le_bytes()[0])
            .collect(),
        seq: seq(random.next_u64() >> random.below(56).max(8)),
        kind: if random.one_in(2) {
            KeyKind::Put
        } else {
            KeyKind::Delete
        },
    }
}

fn some<T>(random: &mut Random, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
    random.one_in(2).then(|| make(random))
}

fn number(random: &mut Random) -> u64 {
    random.next_u64() >> (16 + random.below(48))
}

fn table(random: &mut Random) -> TableMeta {
    TableMeta {
        number: FileNumber(number(random)),
        file_id: random.next_u64(),
        file_bytes: number(random),
        entry_count: number(random),
        tombstone_count: number(random),
        raw_bytes: some(random, number).unwrap_or(0),
        smallest: key(random),
        largest: key(random),
        largest_exclusive: random.one_in(3),
        seq_smallest: key(random).seq,
        seq_largest: key(random).seq,
        global_seq: some(random, |random| key(random).seq),
        location: u8::from(random.one_in(3)),
        compression: u8::from(random.one_in(2)),
        created_micros: some(random, number).unwrap_or(0),
        hidden_count: some(random, number).unwrap_or(0),
    }
}

fn keyspace(random: &mut Random) -> KeyspaceEdit {
    let id = u32::try_from(number(random) >> 17).expect("31 bits");
    let mut edit = KeyspaceEdit::new(KeyspaceId(id));
    edit.created = some(random, |random| KeyspaceCreated {
        name: key(random).user_key,
        order: 0,
        options: key(random).user_key,
    });
    edit.dropped_at = some(random, |random| key(random).seq);
    edit.flushed_upto = some(random, |random| key(random).seq);
    for _ in 0..random.below(4) {
        edit.removed.push((level(7), FileNumber(number(random))));
        edit.added
            .push((level(random.below(8).to_le_bytes()[0]), table(random)));
    }
    edit
}

fn random_edit(random: &mut Random) -> VersionEdit {
    VersionEdit {
        database_id: some(random, |random| u128::from(random.next_u64()) << 64 | 7),
        hash_seed: some(random, Random::next_u64),
        epoch: some(random, number),
        next_file_number: some(random, |random| FileNumber(number(random))),
        last_seq: some(random, |random| key(random).seq),
        log_floor: some(random, |random| FileNumber(number(random))),
        log_durable_upto: some(random, |random| (number(random), number(random))),
        clean_close: some(random, |random| random.one_in(2)),
        branch_id: some(random, Random::next_u64),
        keyspaces: (0..random.below(4)).map(|_| keyspace(random)).collect(),
        flushed_floor: some(random, |random| key(random).seq),
        next_keyspace_id: some(random, |random| keyspace(random).id),
    }
}

fn decoded(bytes: &[u8]) -> VersionEdit {
    VersionEdit::decode(bytes).expect("our own bytes")
}

fn flush_of_the_format_page() -> VersionEdit {
    let mut table = meta(7, "a", "b", (1, 2));
    table.file_id = 0x1122_3344_5566_7788;
    table.file_bytes = 1024;
    table.entry_count = 2;
    table.tombstone_count = 1;
    table.raw_bytes = 3;
    table.smallest.seq = seq(1);
    table.largest.seq = seq(2);
    table.largest.kind = KeyKind::Delete;
    let mut keyspace = KeyspaceEdit::new(KeyspaceId::DEFAULT);
    keyspace.flushed_upto = Some(seq(2));
    keyspace.added.push((level(0), table));
    VersionEdit {
        keyspaces: vec![keyspace],
        ..VersionEdit::default()
    }
}

#[test]
fn the_example_of_the_format_page_holds() {
    let page = include_str!("../../FORMAT.md");
    let example = page.split("```text\n").last().expect("there is an example");
    let mut bytes = Vec::new();
    for line in example.lines().take_while(|line| *line != "```") {
        let words = line.split_whitespace();
        bytes.extend(words.map_while(|word| {
            (word.len() == 2)
                .then(|| u8::from_str_radix(word, 16).ok())
                .flatten()
        }));
    }
    let edit = flush_of_the_format_page();
    assert_eq!(edit.encode(), bytes);
    assert_eq!(decoded(&bytes), edit);
}

#[test]
fn edits_round_trip() {
    let mut random = Random::printed("edit", 1);
    for _ in 0..3000 {
        let edit = random_edit(&mut random);
        assert_eq!(decoded(&edit.encode()), edit);
    }
}

/// What is accepted is canonical, so that damage cannot give an edit a second form; nothing panics.
#[test]
fn every_changed_byte_is_refused_or_means_itself() {
    let mut random = Random::printed("mutation", 2);
    let mut edits: Vec<_> = (0..30).map(|_| random_edit(&mut random)).collect();
    edits.push(flush_of_the_format_page());
    for edit in edits {
        let bytes = edit.encode();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff, bytes[at]] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                check_canonical(&changed);
            }
            check_canonical(&bytes[..at]);
        }
        let mut longer = bytes.clone();
        longer.push(0);
        check_canonical(&longer);
    }
}

fn check_canonical(bytes: &[u8]) {
    if let Ok(edit) = VersionEdit::decode(bytes) {
        let again = edit.encode();
        // A changed tag may have become one that may be skipped; nothing else may be lost.
        assert!(again == bytes || has_skippable(bytes), "{bytes:02x?}");
        assert_eq!(decoded(&again), edit);
    }
}

/// Whether a varint of three bytes or more, which a tag of 65,536 is, occurs at all.
fn has_skippable(bytes: &[u8]) -> bool {
    bytes
        .windows(3)
        .any(|three| three[0] >= 0x80 && three[1] >= 0x80)
}

#[test]
fn unknown_fields_are_refused_below_65536_and_skipped_above() {
    for (tag, known) in [
        (13, false),
        (65_535, false),
        (65_536, true),
        (u32::MAX, true),
    ] {
        let mut bytes = flush_of_the_format_page().encode();
        put_field(&mut bytes, tag, b"something new");
        match VersionEdit::decode(&bytes) {
            Ok(edit) => assert!(known && edit == flush_of_the_format_page()),
            Err(error) => {
                assert!(!known && error.kind() == ErrorKind::Unsupported);
                assert_eq!(
                    error.to_string(),
                    format!("version edit: unknown field tag={tag}")
                );
            }
        }
    }
}

#[test]
fn fields_out_of_order_twice_or_padded_are_refused() {
    let fields = |fields: &[(u32, u64)]| {
        let mut bytes = Vec::new();
        for (tag, value) in fields {
            put_varint_field(&mut bytes, *tag, *value);
        }
        VersionEdit::decode(&bytes)
    };
    assert!(fields(&[(3, 1), (4, 1)]).is_ok());
    assert!(fields(&[(4, 1), (3, 1)]).is_err());
    assert!(fields(&[(3, 1), (3, 1)]).is_err());
    assert!(fields(&[(5, 1 << 56)]).is_err());
    let mut long = Vec::new();
    put_field(&mut long, 3, &[1, 0]);
    assert!(VersionEdit::decode(&long).is_err());
}

#[test]
fn what_a_decoder_allocates_is_bounded_by_its_input() {
    let mut bytes = Vec::new();
    for _ in 0..=KEYSPACE_EDITS_MAX {
        put_field(&mut bytes, 10, &[1, 1, 0]);
    }
    let error = VersionEdit::decode(&bytes).expect_err("one keyspace edit too many");
    assert_eq!(
        error.to_string(),
        "version edit: too many keyspace edits tag=10"
    );
}

#[test]
fn parts_of_a_split_edit_are_small_and_add_up() {
    let mut random = Random::printed("split", 3);
    for _ in 0..200 {
        let mut edit = random_edit(&mut random);
        for (id, keyspace) in (0..).zip(&mut edit.keyspaces) {
            keyspace.id = KeyspaceId(id);
        }
        let bytes_max = 1 << (9 + random.below(4));
        let parts = edit.clone().split(bytes_max);
        let mut joined = VersionEdit {
            keyspaces: Vec::new(),
            ..parts[0].clone()
        };
        for part in parts {
            assert!(part.encode().len() <= bytes_max);
            for keyspace in part.keyspaces {
                match joined.keyspaces.last_mut() {
                    Some(last) if last.id == keyspace.id => {
                        last.added.extend(keyspace.added);
                        last.removed.extend(keyspace.removed);
                    }
                    _ => joined.keyspaces.push(keyspace),
                }
            }
        }
        assert_eq!(joined, edit);
    }
}
