//! `get`, `put`, `delete` and `scan`.

use std::ffi::OsStr;
use std::io::Read;

use serde_json::{Value, json};
use siltstone::{Cursor, Keyspace, WriteBatch};

use super::args::{Delete, Get, Global, Put, Scan};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::session::{Access, bytes_of, keyspace_of, with_database};
use crate::text::from_hex;

/// What `put` reads from standard input at most: no value is larger.
const VALUE_BYTES_MAX: u64 = 2 << 30;

pub(crate) fn get(args: &Get, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let key = bytes_of(&args.key, global)?;
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let Some(value) = keyspace_of(db, &args.keyspace)?.get(&key)? else {
            let key = output.one_line(&key);
            return Err(Failure::trouble(format!("there is no such key: {key}")));
        };
        if output.json {
            output.entry(&key, Some(&value))
        } else if args.raw {
            output.raw(&value)
        } else {
            output.value(&value)
        }
    })
}

pub(crate) fn put(args: &Put, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let key = bytes_of(&args.key, global)?;
    let value = value_of(&args.value, global)?;
    let access = Access::write(&args.writing);
    let commit = with_database(&args.db, &args.open, access, global, |db| {
        Ok(keyspace_of(db, &args.keyspace)?.put(&key, &value)?)
    })?;
    if output.json {
        output.document(&json!({ "seq": commit.seq().get() }))?;
    }
    Ok(())
}

fn value_of(argument: &OsStr, global: &Global) -> Outcome<Vec<u8>> {
    if argument != "-" {
        return bytes_of(argument, global);
    }
    let mut value = Vec::new();
    let mut input = std::io::stdin().lock().take(VALUE_BYTES_MAX);
    input
        .read_to_end(&mut value)
        .map_err(|error| Failure::trouble(format!("reading standard input failed: {error}")))?;
    if !global.hex {
        return Ok(value);
    }
    let text = std::str::from_utf8(&value).unwrap_or("?").trim();
    from_hex(text).map_err(|reason| Failure::trouble(format!("--hex: {reason}")))
}

pub(crate) fn delete(args: &Delete, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let keys = args.keys.iter().map(|key| bytes_of(key, global));
    let keys = keys.collect::<Outcome<Vec<_>>>()?;
    let access = Access::write(&args.writing);
    let commit = with_database(&args.db, &args.open, access, global, |db| {
        let keyspace = keyspace_of(db, &args.keyspace)?;
        let mut batch = WriteBatch::new();
        for key in &keys {
            batch.delete_in(&keyspace, key);
        }
        Ok(db.write(&batch)?)
    })?;
    if output.json {
        let document = json!({ "seq": commit.seq().get(), "deleted": keys.len() });
        output.document(&document)?;
    }
    Ok(())
}

pub(crate) fn scan(args: &Scan, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let range = Range::new(args, global)?;
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let keyspace = keyspace_of(db, &args.keyspace)?;
        let count = range.walk(&keyspace, args, |key, value| {
            if args.count {
                return Ok(());
            }
            output.entry(key, (!args.keys_only).then_some(value))
        })?;
        match (args.count, output.json) {
            (false, _) => Ok(()),
            (true, false) => output.line(&count.to_string()),
            (true, true) => output.document(&json!({ "count": Value::from(count) })),
        }
    })
}

/// From a key, to before another; `None` for no end.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Range {
    fn new(args: &Scan, global: &Global) -> Outcome<Self> {
        let bytes = |argument: &Option<_>| {
            let argument: Option<&std::ffi::OsString> = argument.as_ref();
            argument
                .map(|argument| bytes_of(argument, global))
                .transpose()
        };
        let prefix = bytes(&args.prefix)?.unwrap_or_default();
        let from = bytes(&args.from)?.unwrap_or_default();
        let to = bytes(&args.to)?;
        Ok(Self::within(prefix, from, to))
    }

    /// The keys that start with `prefix` and lie at or behind `from` and before `to`.
    fn within(prefix: Vec<u8>, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        let prefix_end = behind_prefix(&prefix);
        Self {
            from: from.max(prefix),
            to: match (to, prefix_end) {
                (Some(to), Some(end)) => Some(to.min(end)),
                (to, end) => to.or(end),
            },
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        *key >= *self.from && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Visits the entries in the order and number that `args` ask for; returns how many.
    fn walk(
        &self,
        keyspace: &Keyspace,
        args: &Scan,
        mut visit: impl FnMut(&[u8], &[u8]) -> Outcome<()>,
    ) -> Outcome<u64> {
        let limit = args.limit.unwrap_or(u64::MAX);
        let mut cursor = keyspace.cursor()?;
        let mut count = 0;
        if limit == 0 {
            return Ok(0);
        }
        let mut is_valid = if args.reverse {
            self.seek_to_end(&mut cursor)?
        } else {
            cursor.seek(&self.from)?
        };
        while is_valid && self.holds(cursor.key()) {
            visit(cursor.key(), cursor.value())?;
            count += 1;
            if count == limit {
                break;
            }
            is_valid = if args.reverse {
                cursor.prev()?
            } else {
                cursor.next()?
            };
        }
        Ok(count)
    }

    /// Moves to the last key before `to`.
    fn seek_to_end(&self, cursor: &mut Cursor) -> Outcome<bool> {
        let Some(to) = &self.to else {
            return Ok(cursor.seek_to_last()?);
        };
        let is_valid = cursor.seek_for_prev(to)?;
        if is_valid && cursor.key() == &**to {
            return Ok(cursor.prev()?);
        }
        Ok(is_valid)
    }
}

/// The first key behind all that start with `prefix`, or `None` if there is none.
fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_all_its_bounds_leave() {
        let range = |prefix: &str, from: &str, to: Option<&str>| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            Range::within(bytes(prefix), bytes(from), to.map(bytes))
        };
        assert!(range("", "", None).holds(b""));
        assert!(range("ab", "", None).holds(b"ab\xff"));
        assert!(!range("ab", "", None).holds(b"ac"));
        assert!(!range("ab", "abc", None).holds(b"ab"));
        assert!(range("ab", "a", Some("abd")).holds(b"abc"));
        assert!(!range("ab", "a", Some("abd")).holds(b"abd"));
        assert!(!range("", "b", Some("a")).holds(b"a"));
    }

    #[test]
    fn a_prefix_of_highest_bytes_has_no_end() {
        assert_eq!(behind_prefix(b"\xff\xff"), None);
        assert_eq!(behind_prefix(b""), None);
        assert_eq!(behind_prefix(b"a\xff"), Some(b"b".to_vec()));
    }
}
