//! The point read: memtables newest first, then one table of each sub-level of level 0, newest
//! first, then one table a level.

use base::sync::Arc;
use base::{HashSeed, KeyHash, KeyKind, Level, Result, SequenceNumber, Slice};
use compaction::Table;
use memtable::{Memtable, MemtableHit};
use sstable::{BlockSearch, TableHit, TableReader};

use crate::ledger::{KeyspaceLedger, Tally};
use crate::superversion::Superversion;

mod group;
pub(crate) use group::run_group;

/// A value where it lies.
pub(crate) enum Found<'a> {
    Memtable(&'a Arc<Memtable>, &'a MemtableHit<'a>),
    Table(&'a Arc<TableReader>, &'a TableHit<'a>),
}

impl Found<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Memtable(_, hit) => hit.value,
            Self::Table(_, hit) => hit.value(),
        }
    }

    /// The value without copying it, unless it is short.
    #[inline]
    pub(crate) fn pin(&self) -> Slice {
        match self {
            Self::Memtable(memtable, hit) => memtable.pin(hit),
            Self::Table(reader, hit) => hit.pin(reader),
        }
    }
}

/// One point read in a pinned view.
pub(crate) struct Lookup<'a> {
    pub(crate) view: &'a Superversion,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    pub(crate) hash_seed: HashSeed,
    pub(crate) seq: SequenceNumber,
    pub(crate) ledger: &'a KeyspaceLedger,
}

impl Lookup<'_> {
    /// Hands the value that is visible at `seq` to `found`, or returns `None` if there is none.
    ///
    /// # Errors
    /// If a table cannot be read or is damaged: never taken for "not there".
    #[inline]
    pub(crate) fn run<R>(&self, found: impl FnOnce(Found<'_>) -> R) -> Result<Option<R>> {
        if let Some((memtable, hit)) = self.in_memtables() {
            let is_put = self.note_in_memtable(memtable, &hit);
            return Ok(is_put.then(|| found(Found::Memtable(memtable, &hit))));
        }
        self.in_tables(found)
    }

    #[inline]
    fn in_memtables(&self) -> Option<(&Arc<Memtable>, MemtableHit<'_>)> {
        let sealed = self.view.sealed.iter().map(|sealed| &sealed.memtable);
        std::iter::once(&self.view.active)
            .chain(sealed)
            .find_map(|memtable| {
                memtable
                    .get(self.key, self.hash, self.seq)
                    .map(|hit| (memtable, hit))
            })
    }

    /// Counts what a memtable had; returns whether it is a value.
    #[inline]
    fn note_in_memtable(&self, memtable: &Arc<Memtable>, hit: &MemtableHit<'_>) -> bool {
        let is_put = hit.kind == KeyKind::Put;
        let is_active = Arc::ptr_eq(memtable, &self.view.active);
        self.ledger.tally().add_in_memtable(is_active, is_put);
        is_put
    }

    /// The tables whose range holds the key, newest first: at most one a run.
    #[inline]
    fn candidates(&self) -> impl Iterator<Item = (Level, &Arc<Table>)> {
        let runs = self.view.version.runs().iter();
        runs.filter_map(|(level, run)| {
            let table = run.find(self.key)?;
            // Only level 0 has tables that are mostly too new; a look at others costs a miss.
            let is_too_new = *level == Level::ZERO && table.meta.seq_smallest > self.seq;
            (!is_too_new).then_some((*level, table))
        })
    }

    /// A table from elsewhere may have been hashed under another seed.
    #[inline]
    fn hash_for(&self, reader: &TableReader) -> KeyHash {
        if reader.hash_seed() == self.hash_seed {
            self.hash
        } else {
            reader.hash_seed().hash(self.key)
        }
    }

    #[inline]
    fn in_tables<R>(&self, found: impl FnOnce(Found<'_>) -> R) -> Result<Option<R>> {
        self.in_candidates(self.candidates(), found)
    }

    /// Looks at the candidates behind the first `done_count`.
    fn in_tables_behind<R>(
        &self,
        done_count: usize,
        found: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        self.in_candidates(self.candidates().skip(done_count), found)
    }

    #[inline]
    fn in_candidates<'c, R>(
        &self,
        candidates: impl Iterator<Item = (Level, &'c Arc<Table>)>,
        found: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        let tally = self.ledger.tally();
        for (level, table) in candidates {
            let reader = table.handle().guard()?;
            match self.in_table(level, table, &reader, tally)? {
                None => {}
                Some(BlockSearch::Absent(block)) => {
                    tally.add_vain(level, reader.has_filter(), Some(block));
                }
                Some(BlockSearch::Found(hit)) => {
                    let is_put = note_in_table(tally, level, &hit);
                    return Ok(is_put.then(|| found(Found::Table(&reader, &hit))));
                }
            }
        }
        tally.add_absent();
        Ok(None)
    }

    /// Searches the block of `table` in which the key must be; counts, and returns `None`, if there
    /// is no such block.
    #[inline]
    fn in_table<'r>(
        &self,
        level: Level,
        table: &Table,
        reader: &'r TableReader,
        tally: Tally<'_>,
    ) -> Result<Option<BlockSearch<'r>>> {
        debug_assert!(
            table.meta.global_seq.is_none(),
            "no table is ingested in this version"
        );
        if !reader.passes_filter(self.hash_for(reader))? {
            tally.add_denied(level);
            return Ok(None);
        }
        let Some(place) = reader.locate(self.key, self.seq)? else {
            tally.add_vain(level, reader.has_filter(), None);
            return Ok(None);
        };
        reader.get_in(place, self.key, self.seq).map(Some)
    }
}

/// Counts what a table had; returns whether it is a value.
#[inline]
fn note_in_table(tally: Tally<'_>, level: Level, hit: &TableHit<'_>) -> bool {
    let is_put = hit.kind == KeyKind::Put;
    if is_put {
        tally.add_hit(level, hit.block);
    } else {
        tally.add_tombstone(level, hit.block);
    }
    is_put
}
