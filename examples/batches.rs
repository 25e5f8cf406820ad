//! Batches: several operations that become visible and durable together, or not at all.
//!
//! Moves amounts between accounts while another thread adds them up: it must always find the same
//! sum.
//!
//! ```text
//! cargo run --example batches
//! ```
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use siltstone::{Db, Durability, Options, Result, WriteBatch, WriteOptions, WriteOutcome};

const ACCOUNT_COUNT: u64 = 10;
const START_BALANCE: u64 = 1000;

type AnyResult<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> AnyResult<()> {
    let dir = tempfile::tempdir()?;
    let db = Options::new().value_bytes_max(1 << 20).open(dir.path())?;

    // One batch, one record of the log: after a crash all accounts are there or none.
    let mut batch = WriteBatch::new();
    for account in 0..ACCOUNT_COUNT {
        batch.put(key(account), START_BALANCE.to_be_bytes());
    }
    let disk = WriteOptions::new().durability(Durability::Disk);
    assert!(db.write_with(&batch, &disk)?.is_durable());

    let done = AtomicBool::new(false);
    let sums = std::thread::scope(|scope| -> AnyResult<u64> {
        let reader = scope.spawn(|| watch(&db, &done));
        let moved = (0..2000).try_for_each(|n| transfer(&db, n % 10, (n * 7 + 3) % 10, n % 50));
        done.store(true, Ordering::Release);
        let sums = reader.join().map_err(|_| "the reader panicked")?;
        moved?;
        sums
    })?;
    println!("{sums} sums, all of them right");

    last_one_wins(&db, &mut batch)?;
    refused_as_a_whole(&db, &mut batch)?;
    db.close()?;
    Ok(())
}

fn key(account: u64) -> String {
    format!("account/{account:04}")
}

fn balance(bytes: &[u8]) -> AnyResult<u64> {
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

/// Moves an amount. There is one writer here; with several, the read before the write would need a
/// lock of the program's own, because version 0.1 has no transactions.
fn transfer(db: &Db, from: u64, to: u64, amount: u64) -> AnyResult<()> {
    if from == to {
        return Ok(());
    }
    let values = db.multi_get([key(from), key(to)])?;
    let [Some(source), Some(target)] = &values[..] else {
        return Err("an account is missing".into());
    };
    let (source, target) = (balance(source)?, balance(target)?);
    let Some(rest) = source.checked_sub(amount) else {
        return Ok(());
    };
    let mut batch = WriteBatch::new();
    batch
        .put(key(from), rest.to_be_bytes())
        .put(key(to), (target + amount).to_be_bytes());
    db.write(&batch)?;
    Ok(())
}

/// Adds up all balances until told to stop; returns how often.
fn watch(db: &Db, done: &AtomicBool) -> AnyResult<u64> {
    let mut count = 0;
    loop {
        let is_last = done.load(Ordering::Acquire);
        let mut sum = 0;
        // An iterator sees one moment, so half a transfer is never in it.
        for item in db.prefix("account/")? {
            sum += balance(&item?.1)?;
        }
        assert_eq!(sum, ACCOUNT_COUNT * START_BALANCE);
        count += 1;
        if is_last {
            return Ok(count);
        }
    }
}

fn last_one_wins(db: &Db, batch: &mut WriteBatch) -> Result<()> {
    // Clearing keeps the memory for the next batch.
    batch.clear();
    batch
        .put("note", "first")
        .delete("note")
        .put("note", "last");
    db.write(batch)?;
    assert_eq!(db.get("note")?.as_deref(), Some(&b"last"[..]));
    Ok(())
}

fn refused_as_a_whole(db: &Db, batch: &mut WriteBatch) -> Result<()> {
    batch.clear();
    batch
        .put("small", "fits")
        .put("large", vec![0; (1 << 20) + 1]);
    let error = db
        .write(batch)
        .expect_err("a value is longer than value_bytes_max");
    // Every failed write says whether it can still turn up after a reopen. This one cannot.
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
    assert_eq!(db.get("small")?, None);
    println!("refused: {error}");
    Ok(())
}
