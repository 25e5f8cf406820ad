//! What a memtable says it weighs is what the process grows by. Alone in its binary, so that no
//! other test allocates meanwhile.
#![cfg(target_os = "linux")]

use std::process;
use std::sync::Arc;

use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use memtable::{Memtable, MemtableOptions};

/// Resident bytes of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "the system's own file, which no seam knows"
)]
fn resident_bytes() -> usize {
    let text = std::fs::read("/proc/self/statm").expect("Linux has it");
    let text = String::from_utf8(text).expect("it is digits");
    let pages = text.split(' ').nth(1).expect("the second number");
    let page_bytes = process::Command::new("getconf")
        .arg("PAGESIZE")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(4096);
    pages.parse::<usize>().expect("it is a number") * page_bytes
}

fn fill(entry_count: u64, value_len: usize, filter_bytes: usize) -> Arc<Memtable> {
    let memtable = Memtable::new(MemtableOptions {
        filter_bytes,
        ..MemtableOptions::default()
    });
    let value = vec![b'v'; value_len];
    for n in 1..=entry_count {
        let hash = HashSeed(3).hash(&n.to_le_bytes());
        let key = format!("{:016x}", hash.0);
        let seq = SequenceNumber::new(n).expect("small");
        memtable.insert(
            InternalKey::new(key.as_bytes(), seq, KeyKind::Put),
            hash,
            &value,
        );
    }
    memtable
}

#[test]
fn bytes_match_what_the_process_grows_by() {
    let shapes = [
        (300_000, 0, 0),
        (150_000, 100, 1 << 20),
        (2_000, 20_000, 0),
        (100, 400_000, 0),
    ];
    let mut kept = Vec::new();
    for (entry_count, value_len, filter_bytes) in shapes {
        let before = resident_bytes();
        let memtable = fill(entry_count, value_len, filter_bytes);
        let grown = resident_bytes().saturating_sub(before);
        let said = memtable.bytes();
        println!("entries={entry_count} value_len={value_len} said={said} grown={grown}");
        assert!(said * 4 > grown * 3, "said={said} grown={grown}");
        assert!(said * 3 < grown * 4, "said={said} grown={grown}");
        // Kept, so that the next shape does not grow into memory that was freed.
        kept.push(memtable);
    }
}
