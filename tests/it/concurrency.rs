//! Real threads on a real file system: writers, readers and scanners beside flush and compaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use siltstone::{Db, Durability, Options, WriteBatch, WriteOptions};

use crate::support::{PrintOnPanic, Rng, Setup, rounds, tagged};

/// Small enough that everything happens, on the machine's own files, threads and clock.
fn open(seed: u64) -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options: Options = Setup::of_seed(seed)
        .options()
        .memtable_bytes_max(16 << 10)
        .table_bytes_target(16 << 10)
        .log_segment_bytes(16 << 10)
        .compaction_threads(2)
        .sync_interval(Some(std::time::Duration::from_millis(3)));
    let db = options.open(dir.path()).expect("a new database");
    (dir, db)
}

/// Ends the others when one fails, so that the test ends too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    for seed in 0..3 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let (_dir, db) = open(seed);
        let stop = AtomicBool::new(false);
        let keys: Vec<String> = (0..8).map(|index| format!("key{index}")).collect();
        thread::scope(|scope| {
            let writer = |id: u64| {
                let (db, keys) = (&db, &keys);
                move || {
                    for round in 0..400 {
                        let value = tagged(id << 32 | round, 100);
                        let mut batch = WriteBatch::new();
                        for key in keys {
                            batch.put(key, &value);
                        }
                        db.write(&batch).expect("a batch");
                    }
                }
            };
            let reader = |seed: u64| {
                let (db, keys, stop) = (&db, &keys, &stop);
                move || {
                    let mut rng = Rng::new(seed);
                    while !stop.load(Ordering::SeqCst) {
                        check_all_equal(db, keys, &mut rng);
                    }
                }
            };
            for id in 0..2 {
                scope.spawn(reader(id));
            }
            let _stop = StopOnDrop(&stop);
            let writers: Vec<_> = (0..2).map(|id| scope.spawn(writer(id))).collect();
            for index in 0..5 {
                db.flush().expect("a flush");
                if index % 2 == 0 {
                    db.compact_range(..).expect("a compaction");
                }
            }
            for writer in writers {
                writer.join().expect("a writer");
            }
        });
        db.close().expect("a clean close");
    }
}

fn check_all_equal(db: &Db, keys: &[String], rng: &mut Rng) {
    let values: Vec<Option<Vec<u8>>> = match rng.below(4) {
        0 => {
            let found = db.multi_get(keys).expect("multi_get");
            found
                .into_iter()
                .map(|value| value.map(base::Slice::into_vec))
                .collect()
        }
        1 => {
            let snapshot = db.snapshot().expect("a snapshot");
            let get = |key: &String| snapshot.get(key).expect("a get").map(base::Slice::into_vec);
            keys.iter().map(get).collect()
        }
        direction => {
            let mut iterator = db.iter().expect("an iterator");
            let mut next = || match direction {
                2 => iterator.next(),
                _ => iterator.next_back(),
            };
            let found: Vec<_> = std::iter::from_fn(&mut next)
                .map(|item| Some(item.expect("a step").1.into_vec()))
                .collect();
            assert!(
                found.is_empty() || found.len() == keys.len(),
                "{} keys",
                found.len()
            );
            found
        }
    };
    assert!(
        values.windows(2).all(|pair| pair[0] == pair[1]),
        "half a batch is visible"
    );
}

const ACCOUNT_COUNT: usize = 20;
const START: u64 = 1000;

fn balance(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
}

#[test]
fn money_is_neither_made_nor_lost() {
    for seed in 0..2 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let (dir, db) = open(seed + 3);
        let account = |index: usize| format!("account{index:02}");
        let mut batch = WriteBatch::new();
        for index in 0..ACCOUNT_COUNT {
            batch.put(account(index), tagged(START, 64));
        }
        db.write(&batch).expect("a batch");
        let stop = AtomicBool::new(false);
        let scans = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // Once at least, however late this thread gets its turn.
                    loop {
                        let is_last = stop.load(Ordering::SeqCst);
                        check_sum(&db);
                        scans.fetch_add(1, Ordering::SeqCst);
                        if is_last {
                            break;
                        }
                    }
                });
            }
            let _stop = StopOnDrop(&stop);
            // One teller: there are no transactions in this version.
            let mut rng = Rng::new(seed);
            for round in 0..1500 {
                let (from, to) = (rng.below(ACCOUNT_COUNT), rng.below(ACCOUNT_COUNT));
                if from == to {
                    continue;
                }
                let of =
                    |index| balance(&db.get(account(index)).expect("a get").expect("it is there"));
                let sum = (of(from), of(to));
                let amount = sum.0.min(rng.next() % 100);
                let mut batch = WriteBatch::new();
                batch.put(account(from), tagged(sum.0 - amount, 64));
                batch.put(account(to), tagged(sum.1 + amount, 64));
                let disk = rng.chance(2);
                let durability = if disk {
                    Durability::Disk
                } else {
                    Durability::Os
                };
                let options = WriteOptions::new().durability(durability);
                db.write_with(&batch, &options).expect("a batch");
                if round % 300 == 299 {
                    db.compact_range(..).expect("a compaction");
                }
            }
        });
        assert!(scans.load(Ordering::SeqCst) > 0);
        drop(db);
        let db = Setup::of_seed(seed)
            .options()
            .open(dir.path())
            .expect("a reopen");
        check_sum(&db);
    }
}

fn check_sum(db: &Db) {
    let items = db
        .prefix("account")
        .expect("an iterator")
        .map(|item| item.expect("a step"));
    let balances: Vec<u64> = items.map(|(_, value)| balance(&value)).collect();
    assert_eq!(balances.len(), ACCOUNT_COUNT);
    assert_eq!(balances.iter().sum::<u64>(), START * ACCOUNT_COUNT as u64);
}

#[test]
fn one_sync_serves_many_writers() {
    let (_dir, db) = open(1);
    let thread_count = 8;
    let write_count = 25;
    thread::scope(|scope| {
        for id in 0..thread_count {
            let db = &db;
            scope.spawn(move || {
                let disk = WriteOptions::new().durability(Durability::Disk);
                let mut last = None;
                for index in 0..write_count {
                    let commit = db
                        .put_with(format!("{id}/{index}"), "x", &disk)
                        .expect("a put");
                    assert!(commit.is_durable());
                    assert!(
                        last < Some(commit.seq()),
                        "a writer's own commits are in order"
                    );
                    last = Some(commit.seq());
                    let found = db.get(format!("{id}/{index}")).expect("a get");
                    assert_eq!(
                        found.as_deref(),
                        Some(&b"x"[..]),
                        "a writer reads its own writes"
                    );
                }
            });
        }
    });
    assert_eq!(
        db.iter().expect("an iterator").count(),
        thread_count * write_count
    );
    let stats = db.stats();
    assert_eq!(stats.user_write_count, (thread_count * write_count) as u64);
    db.close().expect("a clean close");
}

#[test]
fn readers_go_on_while_others_close_and_open() {
    for seed in 0..2 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let (dir, first) = open(seed);
        first.put("key", "value").expect("a put");
        let mut db = first;
        for round in 0..6 {
            let reader = db.clone();
            let handle = thread::spawn(move || {
                let mut count = 0;
                loop {
                    match reader.get("key") {
                        Ok(found) => assert_eq!(found.as_deref(), Some(&b"value"[..])),
                        Err(error) => {
                            assert_eq!(error.kind(), siltstone::ErrorKind::Closed, "{error}");
                            return count;
                        }
                    }
                    for item in reader.iter().into_iter().flatten().flatten() {
                        assert!(item.0.starts_with(b"k"));
                    }
                    count += 1;
                }
            });
            for index in 0..200_u64 {
                db.put(format!("k{index}"), tagged(index + round, 100))
                    .expect("a put");
            }
            db.close().expect("a clean close");
            handle.join().expect("a reader");
            db = Setup::of_seed(seed + round)
                .options()
                .open(dir.path())
                .expect("a reopen");
        }
    }
}
