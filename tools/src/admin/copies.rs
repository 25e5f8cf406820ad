//! `dump` and `checkpoint`: everything once more, as text or as a database.

use serde_json::{Map, Value, json};
use siltstone::Db;

use super::args::{Checkpoint, Dump, Global, InKeyspace};
use super::directory::refuse_inside;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::records::{Encoding, OPTIONS_HEX, put_bytes};
use super::session::{Access, keyspace_of, with_database};
use crate::text::{bytes_for_people, counted, to_hex};

const DEFAULT_KEYSPACE: &str = "default";

pub(crate) fn dump(args: &Dump, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let interrupt = Interrupt::listen();
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let names = names(db, args)?;
        // One moment for all.
        let snapshot = db.snapshot()?;
        for name in names {
            let wanted = InKeyspace { keyspace: name };
            let keyspace = keyspace_of(db, &wanted)?;
            let name = wanted.keyspace;
            let is_default = name == DEFAULT_KEYSPACE;
            if !is_default {
                let options = to_hex(&keyspace.options().encode());
                output.document(&json!({ "keyspace": name, OPTIONS_HEX: options }))?;
            }
            for item in snapshot.keyspace(&keyspace)?.iter()? {
                interrupt.check("the dump is not complete")?;
                let (key, value) = item?;
                let mut fields = Map::new();
                if !is_default {
                    fields.insert("keyspace".to_owned(), Value::from(&*name));
                }
                // Whatever the options say: it is to be loaded again without any.
                put_bytes(&mut fields, "key", &key, Encoding::Text);
                put_bytes(&mut fields, "value", &value, Encoding::Text);
                output.document(&Value::Object(fields))?;
            }
        }
        Ok(())
    })
}

/// What is to be dumped, the default keyspace first.
fn names(db: &Db, args: &Dump) -> Outcome<Vec<String>> {
    let mut names = if args.keyspaces.is_empty() {
        db.keyspaces()?
    } else {
        args.keyspaces.clone()
    };
    names.sort();
    names.dedup();
    names.sort_by_key(|name| name != DEFAULT_KEYSPACE);
    Ok(names)
}

pub(crate) fn checkpoint(
    args: &Checkpoint,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    checkpoint_until(&Interrupt::listen(), args, global, output)
}

pub(crate) fn checkpoint_until(
    interrupt: &Interrupt,
    args: &Checkpoint,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        refuse_inside(&args.copy, &args.db)?;
        // A copy that is complete by then stays; of one that is not, nothing does.
        let made = interrupt.during(|| close(db), || db.checkpoint(&args.copy));
        let made = made.or_else(|error| {
            interrupt.check("no copy was made")?;
            Err(Failure::from(error))
        })?;
        if output.json {
            return output.document(&json!({
                "seq": made.seq.get(),
                "table_count": made.table_count,
                "linked_bytes": made.linked_bytes,
                "copied_bytes": made.copied_bytes,
                "log_bytes": made.log_bytes,
            }));
        }
        let remark = match made.copied_bytes {
            0 => String::new(),
            bytes => format!(" ({} copied: no links here)", bytes_for_people(bytes)),
        };
        output.line(&format!(
            "a copy as of sequence number {}: {} of {}{remark}, {} of log",
            made.seq,
            counted(made.table_count, "table"),
            bytes_for_people(made.linked_bytes + made.copied_bytes),
            bytes_for_people(made.log_bytes),
        ))
    })
}

/// Ends whatever is under way in it: who asked for that is told.
pub(crate) fn close(db: &Db) {
    // It is closed once more, and then what is wrong is said.
    let _ = db.close();
}
