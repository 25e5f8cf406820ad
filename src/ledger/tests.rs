use sstable::{BlockSource, SearchedBlock};

use super::*;
use base::Level;

#[test]
fn counts_of_more_threads_than_slots_add_up() {
    let database = Arc::new(Ledger::new());
    let ledger = database.keyspace();
    // Twice, so that slots are handed on; 40 at once, so that some must share.
    for _ in 0..2 {
        let together = std::sync::Barrier::new(40);
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    ledger.tally().add_absent();
                    together.wait();
                    (0..999).for_each(|_| ledger.tally().add_absent());
                });
            }
        });
    }
    assert_eq!(ledger.counts().get_count(), 80_000);
    assert_eq!(ledger.counts().hit_count(), 0);
}

#[test]
fn a_get_is_counted_where_it_ended_and_at_every_table_it_asked() {
    let database = Arc::new(Ledger::new());
    let ledger = database.keyspace();
    let level = Level::new(3).expect("there is one");
    let tally = ledger.tally();
    let block = |source| SearchedBlock {
        source,
        stored_bytes: 100,
    };
    tally.add_denied(Level::ZERO);
    tally.add_vain(level, true, Some(block(BlockSource::Uncached)));
    tally.add_vain(level, false, None);
    tally.add_hit(level, block(BlockSource::Missed));
    tally.add_hit(level, block(BlockSource::Cached));
    tally.add_hit(Level::ZERO, block(BlockSource::Mapped));
    tally.add_tombstone(level, block(BlockSource::Cached));
    tally.add_in_memtable(false, true);
    tally.add_in_memtable(true, true);
    tally.add_in_memtable(true, true);
    tally.add_in_memtable(true, false);
    let counts = ledger.counts();
    assert_eq!((counts.get_count(), counts.hit_count()), (8, 6));
    assert_eq!((counts.active_hit_count, counts.sealed_hit_count), (2, 1));
    assert_eq!(counts.tombstone_count, 2);
    assert_eq!(counts.levels[0].filter_negatives, 1);
    assert_eq!(
        (counts.levels[0].hit_count, counts.levels[0].searched),
        (1, 1)
    );
    let deep = &counts.levels[3];
    assert_eq!((deep.hit_count, deep.searched), (2, 5));
    assert_eq!((deep.filter_false_positives, deep.filter_negatives), (1, 0));
    assert_eq!((counts.data_blocks, counts.cache_hits), (5, 2));
    assert_eq!((counts.loaded_blocks, counts.cache_misses), (2, 1));
    assert_eq!(counts.read_bytes, 300, "cached blocks are not read");
}

#[test]
fn what_a_dropped_keyspace_has_cost_stays_in_the_books() {
    let database = Arc::new(Ledger::new());
    let ledger = database.keyspace();
    ledger.add_write(10, 2);
    ledger.add_flush([5000, 1].into_iter());
    ledger.add_compaction(Level::ZERO, 7, [4096].into_iter());
    // Somebody still reads it: what is counted then is not lost either.
    assert_eq!(database.total().user_bytes, 10);
    ledger.tally().add_absent();
    ledger.add_arrival(Level::ZERO, 5);
    drop(ledger);
    let dropped = database.total();
    assert_eq!(dropped.get_count(), 1);
    assert_eq!(database.total().get_count(), 1, "counted once");
    assert_eq!((dropped.user_bytes, dropped.user_write_count), (10, 2));
    let flush = Written {
        payload_bytes: 5001,
        page_bytes: 3 * 4096,
    };
    assert_eq!((dropped.flush, dropped.flush_count), (flush, 1));
    assert_eq!(dropped.compaction().page_bytes, 4096);
    assert_eq!(dropped.levels[0].arrived_bytes, 5);
}

#[test]
fn a_synced_page_that_is_written_again_counts_again() {
    let written = Written::synced(100, 200);
    assert_eq!((written.payload_bytes, written.page_bytes), (100, 4096));
    assert_eq!(Written::synced(4000, 4200).page_bytes, 8192);
    assert_eq!(Written::synced(4096, 8192).page_bytes, 4096);
}

#[test]
fn books_of_keyspaces_that_came_and_went_are_closed() {
    let database = Arc::new(Ledger::new());
    let kept: Vec<_> = (0..100).map(|_| database.keyspace()).collect();
    for _ in 0..10_000 {
        database.keyspace().tally().add_absent();
    }
    for ledger in &kept {
        ledger.tally().add_absent();
    }
    let open_count = database.books.lock().open.len();
    assert!(open_count <= 2 * kept.len() + CLOSE_AT_MIN, "{open_count}");
    assert_eq!(database.total().get_count(), 10_100);
    assert_eq!(database.books.lock().open.len(), kept.len());
}
