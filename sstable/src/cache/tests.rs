use std::sync::Barrier;

use base::{Error, ErrorKind};

use super::*;

fn key(n: u64) -> BlockKey {
    BlockKey {
        table: n % 7,
        offset: n * 4096,
    }
}

/// Asks for block `n` of `len` bytes.
fn ask(cache: &BlockCache, n: u64, len: usize) -> (Arc<CachedBlock>, bool) {
    cache
        .get_or_load(key(n), &Arc::default(), || Ok(vec![7; len]))
        .expect("in memory")
}

#[test]
fn it_stays_within_its_bytes_and_counts() {
    let cache = BlockCache::new(1 << 20);
    for n in 0..10_000 {
        assert!(!ask(&cache, n, 4096).1);
        assert!(cache.used_bytes() <= 1 << 20);
        assert_eq!(cache.living_bytes(), cache.used_bytes());
    }
    assert!(cache.used_bytes() > 1 << 19);
    assert_eq!((cache.hits(), cache.misses()), (0, 10_000));
    assert!(ask(&cache, 9_999, 4096).1);
    assert_eq!((cache.hits(), cache.misses()), (1, 10_000));
}

#[test]
fn a_cache_of_nothing_and_a_block_too_large_keep_nothing() {
    let none = BlockCache::new(0);
    assert!(!ask(&none, 1, 100).1);
    assert!(!ask(&none, 1, 100).1);
    let small = BlockCache::new(1000);
    assert!(!ask(&small, 2, 5000).1);
    assert!(!ask(&small, 1, 500).1);
    assert!(ask(&small, 1, 500).1);
}

#[test]
fn what_slices_pin_counts_and_pinning_ends_where_the_bound_is() {
    const BYTES_MAX: u64 = 1 << 20;
    let cache = BlockCache::new(BYTES_MAX);
    let mut pinned = Vec::new();
    let mut copied = 0;
    for n in 0..2_000 {
        let (block, _) = ask(&cache, n, 4096);
        let slice = block.slice(0, 4096);
        drop(block);
        assert_eq!(slice.len(), 4096);
        copied += u64::from(!slice.is_pinned());
        pinned.push(slice);
        // The block being read and the steps of the capacity come on top.
        let bound = BYTES_MAX + BYTES_MAX / CAPACITY_STEPS + 2 * 4300;
        assert!(
            cache.living_bytes() <= bound,
            "{n}: {}",
            cache.living_bytes()
        );
    }
    assert!(copied > 1_500 && copied < 2_000, "{copied}");
    // What was let go of is room again.
    pinned.clear();
    for n in 5_000..6_000 {
        drop(ask(&cache, n, 4096));
    }
    assert!(cache.used_bytes() > BYTES_MAX / 2, "{}", cache.used_bytes());
    assert!(cache.living_bytes() <= BYTES_MAX);
    let (block, _) = ask(&cache, 9_000, 4096);
    assert!(block.slice(0, 4096).is_pinned());
}

#[test]
fn a_short_value_is_copied_rather_than_pin_its_block() {
    let cache = BlockCache::new(1 << 20);
    let (block, _) = ask(&cache, 1, 4096);
    assert!(!block.slice(5, 511).is_pinned());
    assert!(block.slice(5, 512).is_pinned());
    assert_eq!(block.slice(4000, 96), [7; 96]);
}

#[test]
fn threads_that_miss_together_load_once() {
    const THREAD_COUNT: usize = 4;
    for round in 0..50 {
        let cache = BlockCache::new(1 << 20);
        let (loads, start) = (AtomicU64::new(0), Barrier::new(THREAD_COUNT));
        std::thread::scope(|scope| {
            for _ in 0..THREAD_COUNT {
                scope.spawn(|| {
                    start.wait();
                    let loaded = cache.get_or_load(key(round), &Arc::default(), || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(vec![7; 4096])
                    });
                    assert_eq!(loaded.expect("in memory").0.bytes(), [7; 4096]);
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_load_that_fails_leaves_its_place_to_the_next() {
    let cache = BlockCache::new(1 << 20);
    let (start, tries) = (Barrier::new(2), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                let first_fails = cache.get_or_load(key(1), &Arc::default(), || {
                    match tries.fetch_add(1, Ordering::Relaxed) {
                        0 => Err(Error::new(ErrorKind::Io, "the first read fails")),
                        _ => Ok(vec![7; 10]),
                    }
                });
                if let Err(error) = first_fails {
                    assert_eq!(error.kind(), ErrorKind::Io);
                }
            });
        }
    });
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert!(ask(&cache, 1, 10).1);
}

#[test]
fn blocks_give_way_to_what_open_tables_keep() {
    const BYTES_MAX: u64 = 1 << 20;
    let cache = BlockCache::new(BYTES_MAX);
    let fill = |from: u64| (from..from + 1_000).for_each(|n| drop(ask(&cache, n, 4096)));
    fill(0);
    let full = cache.used_bytes();
    assert!(full > BYTES_MAX / 10 * 9);
    let charge = cache.charge();
    charge.grow(200 << 10);
    charge.grow(200 << 10);
    assert_eq!(cache.charged_bytes(), 400 << 10);
    fill(1_000);
    assert!(cache.living_bytes() + cache.charged_bytes() <= BYTES_MAX);
    assert!(cache.used_bytes() > BYTES_MAX / 2, "no more than that");
    let (block, _) = ask(&cache, 2_000, 4096);
    assert!(block.slice(0, 4096).is_pinned(), "slices pin as before");
    let excessive = cache.charge();
    excessive.grow(10 << 20);
    fill(3_000);
    let least = BYTES_MAX / CAPACITY_STEPS * CAPACITY_STEPS_MIN;
    assert!((least / 2..=least).contains(&cache.used_bytes()));
    drop((charge, excessive));
    assert_eq!(cache.charged_bytes(), 0);
    fill(4_000);
    assert!(cache.used_bytes() >= full / 10 * 9);
}

/// No lock is held while a block is read, and hits share theirs: a load that takes for ever keeps
/// nobody from other blocks, whatever shard they are in.
#[test]
fn a_slow_load_keeps_nobody_from_other_blocks() {
    let cache = BlockCache::new(1 << 20);
    assert!(cache.blocks.num_shards() > 1);
    for n in 0..100 {
        ask(&cache, n, 100);
    }
    let others_done = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slow = cache.get_or_load(key(10_000), &Arc::default(), || {
                others_done.wait();
                Ok(vec![7; 100])
            });
            assert!(slow.is_ok());
        });
        for n in 0..100 {
            assert!(ask(&cache, n, 100).1);
            assert!(!ask(&cache, 100 + n, 100).1);
        }
        others_done.wait();
    });
}
