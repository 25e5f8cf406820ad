//! What the tests of this crate share: tables that exist on paper, numbers that look random.

use std::path::PathBuf;

use base::fs::sim::SimFs;
pub(crate) use base::random::Random;
use base::sync::{Arc, Mutex};
use base::{FileNumber, KeyKind, Level, OwnedKey, SequenceNumber};
use sstable::{ReadMode, ReaderOptions, TableCache, TableHandle, Verify};

use crate::edit::KeyspaceEdit;
use crate::levels::{Reaper, Table, TableMeta, Version};

mod bed;

pub(crate) use bed::{Bed, files_in};

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
