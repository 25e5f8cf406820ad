//! Open, write, read, close, open again.
//!
//! ```text
//! cargo run --example quickstart
//! ```
#![forbid(unsafe_code)]

use siltstone::{Db, Durability, ErrorKind, Options, Result, WriteOptions};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("people");

    let db = Db::open(&path)?;
    write(&db)?;
    read(&db)?;

    // A directory belongs to one handle at a time; clones of it are as many as you like.
    let second = Db::open(&path).expect_err("the first handle has it");
    assert_eq!(second.kind(), ErrorKind::AlreadyOpen);

    // Flushes, so that the next open has nothing to replay. Without it nothing is lost either.
    db.close()?;

    let db = Options::new().create_if_missing(false).open(&path)?;
    assert_eq!(db.get("user/1")?.as_deref(), Some(&b"ada"[..]));
    assert_eq!(db.iter()?.count(), 2);
    db.close()?;
    println!("all is well");
    Ok(())
}

fn write(db: &Db) -> Result<()> {
    // Keys and values are bytes, and anything that is bytes will do.
    let commit = db.put("user/1", "ada")?;
    assert!(
        !commit.is_durable(),
        "it survives this process, but not yet a power cut"
    );

    let disk = WriteOptions::new().durability(Durability::Disk);
    let commit = db.put_with(b"user/2", vec![b'x'; 100], &disk)?;
    assert!(
        commit.is_durable(),
        "it survives a power cut, and so does user/1"
    );

    // Deleting what is not there is no error.
    db.put("user/3", "edsger")?;
    db.delete("user/3")?;
    db.delete("user/4")?;

    // Makes all of the above durable, for one sync.
    db.sync()
}

fn read(db: &Db) -> Result<()> {
    // The slice keeps the place where the value lies alive; nothing large is copied.
    let value = db.get("user/2")?;
    assert_eq!(value.as_deref(), Some(&[b'x'; 100][..]));

    // Shorter still: look at the value where it lies.
    assert_eq!(db.get_with("user/2", <[u8]>::len)?, Some(100));

    // Absent is `None`. Damage is an error and never looks like absence.
    assert_eq!(db.get("user/3")?, None);

    let values = db.multi_get(["user/1", "user/4"])?;
    assert!(values[0].is_some() && values[1].is_none());

    for item in db.prefix("user/")? {
        let (key, value) = item?;
        println!("{} has {} bytes", key.escape_ascii(), value.len());
    }
    Ok(())
}
