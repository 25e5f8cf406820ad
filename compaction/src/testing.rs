//! What the tests of this crate share: tables that exist on paper, numbers that look random.

use std::path::PathBuf;

use base::fs::sim::SimFs;
use base::sync::{Arc, Mutex};
use base::{FileNumber, KeyKind, Level, OwnedKey, SequenceNumber};
use sstable::{ReadMode, ReaderOptions, TableCache, TableHandle, Verify};

use crate::edit::KeyspaceEdit;
use crate::levels::{Reaper, Table, TableMeta, Version};

mod bed;

pub(crate) use bed::{Bed, files_in};

/// splitmix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// Starts from `seed`, or from the environment's `SEED`, and prints which.
    pub(crate) fn printed(test: &str, seed: u64) -> Self {
        let given = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(seed);
        println!("{test}: SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

pub(crate) fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

pub(crate) fn level(index: u8) -> Level {
    Level::new(index).expect("a level")
}

/// Remembers what was reaped.
#[derive(Debug, Default)]
pub(crate) struct Reaped(pub(crate) Mutex<Vec<FileNumber>>);

impl Reaper for Reaped {
    fn reap(&self, table: Arc<TableHandle>) {
        self.0.lock().push(table.number());
    }
}

/// Makes tables without files.
pub(crate) struct Paper {
    cache: Arc<TableCache>,
    pub(crate) reaped: Arc<Reaped>,
}

impl Paper {
    pub(crate) fn new() -> Self {
        let options = ReaderOptions {
            mode: ReadMode::Positioned,
            cache: None,
            verify: Verify::Once,
            pins: Arc::default(),
        };
        let cache = TableCache::new(SimFs::new(1), PathBuf::from("/db"), options, 8);
        Self {
            cache,
            reaped: Arc::default(),
        }
    }

    pub(crate) fn table(&self, meta: TableMeta) -> Arc<Table> {
        let handle = self
            .cache
            .handle(meta.number, meta.file_id, meta.file_bytes);
        Table::new(meta, handle, Arc::<Reaped>::clone(&self.reaped))
    }

    pub(crate) fn apply(
        &self,
        version: &Version,
        edit: &KeyspaceEdit,
    ) -> base::error::Result<Version> {
        version.apply(edit, &mut |meta| self.table(meta))
    }
}

/// A table of 100 bytes and 10 entries.
pub(crate) fn meta(number: u64, from: &str, to: &str, seqs: (u64, u64)) -> TableMeta {
    let key = |user_key: &str, at| OwnedKey {
        user_key: user_key.into(),
        seq: seq(at),
        kind: KeyKind::Put,
    };
    TableMeta {
        number: FileNumber(number),
        file_id: number ^ 0xabcd,
        file_bytes: 100,
        entry_count: 10,
        tombstone_count: 0,
        raw_bytes: 90,
        smallest: key(from, seqs.1),
        largest: key(to, seqs.0),
        largest_exclusive: false,
        seq_smallest: seq(seqs.0),
        seq_largest: seq(seqs.1),
        global_seq: None,
        location: 0,
        compression: 0,
        created_micros: 0,
        hidden_count: 0,
    }
}
