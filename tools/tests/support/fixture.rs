//! A place for databases and files, and ways to run the binary `siltstone` on them.
#![expect(clippy::disallowed_methods, reason = "what a user does from outside")]
#![allow(dead_code, reason = "each test has a use for some of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base::executor::{Executor, Stepped};
use serde_json::Value;
use siltstone::{Compression, Db, Durability, KeyspaceOptions, Options};
use tempfile::TempDir;

/// All keys and values of all keyspaces.
pub(crate) type Everything = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A place for a database, and ways to run the binary on it.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
}

/// What a run ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts `bytes` into a file of this name.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a small file");
        path
    }

    /// Runs the words of `line`; `DB` stands for the database and `@name` for a file.
    pub(crate) fn run(&self, line: &str) -> Ended {
        self.run_with_input(line, b"")
    }

    pub(crate) fn run_with_input(&self, line: &str, input: &[u8]) -> Ended {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that needs no input may have ended already.
        let _ = stdin.write_all(input);
        drop(stdin);
        Ended::of(child.wait_with_output().expect("it ends"))
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siltstone"));
        for word in line.split(' ') {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.path(name)),
                None if word == "DB" => command.arg(self.db()),
                None => command.arg(word),
            };
        }
        command
    }

    /// Runs and expects success; returns what was printed.
    #[track_caller]
    pub(crate) fn out(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}: {ended:?}");
        ended.out
    }

    /// Runs, expects success, and takes what was printed for one document.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(self.out(line).trim_end()).expect("one document")
    }

    /// A database with the keys a, b and c.
    pub(crate) fn with_abc() -> Self {
        let fixture = Self::new();
        let input = records([("a", "1"), ("b", "2"), ("c", "3")]);
        let ended = fixture.run_with_input("load DB -", input.as_bytes());
        assert_eq!(ended.code, 0, "{ended:?}");
        fixture
    }

    /// A database with several tables in two keyspaces and an empty one, binary keys, deletions,
    /// and writes that only the log has; as a kill leaves it that comes when nothing is to be done.
    pub(crate) fn killed(&self, name: &str) -> Everything {
        let live = self.path("live");
        let options = Options::new()
            .durability(Durability::Disk)
            .compression(Compression::None)
            .bottom_compression(Compression::None)
            .table_bytes_target(16 << 10);
        let still = Still::new();
        let db = still.options(options).open(&live).expect("a new database");
        let gone = db.create_keyspace("gone", &KeyspaceOptions::new());
        gone.expect("created").put("k", "v").expect("put");
        let other = db.create_keyspace("\u{fc}mlaut", &KeyspaceOptions::new());
        let other = other.expect("created");
        db.create_keyspace("void", &KeyspaceOptions::new())
            .expect("created");
        db.drop_keyspace("gone").expect("dropped");
        for n in 0..600u32 {
            let value = [&n.to_le_bytes()[..], &[b'v'; 60]].concat();
            db.put(format!("key{n:04}"), &value).expect("put");
            other.put(n.to_be_bytes(), &value).expect("put");
        }
        db.put(b"\xff\x00", b"\xfe\n").expect("put");
        db.put("", "the empty key").expect("put");
        db.compact_range(..).expect("compacted");
        other.compact_range(..).expect("compacted");
        for n in 0..50 {
            db.delete(format!("key{n:04}")).expect("deleted");
            db.put(format!("key{:04}", n + 100), "flushed later")
                .expect("put");
        }
        db.flush().expect("flushed");
        db.wait_for_compactions().expect("at rest");
        db.delete("key0599").expect("deleted");
        for n in 0..40 {
            db.put(format!("key{:04}", n + 200), format!("in the log {n}"))
                .expect("put");
            other.delete((n + 300u32).to_be_bytes()).expect("deleted");
        }
        let expected = everything(&db);
        still.copy(&live, &self.path(name));
        db.close().expect("closed");
        std::fs::remove_dir_all(live).expect("removed");
        expected
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("all output is escaped");
        Self {
            code: output.status.code().expect("it was not killed"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    #[track_caller]
    pub(crate) fn fails_with(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(message), "{self:?}");
    }
}

pub(crate) fn records<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let lines = entries
        .into_iter()
        .map(|(key, value)| format!("{{\"key\": \"{key}\", \"value\": \"{value}\"}}\n"));
    lines.collect()
}

/// What keeps an open database still while it is copied: its background works on the thread of the
/// test alone, when that waits for it. What else it would do, unlink or write meanwhile would be in
/// the copy or not by chance, or in half of the files.
pub(crate) struct Still(Arc<Stepped>);

impl Still {
    pub(crate) fn new() -> Self {
        Self(Stepped::new(1))
    }

    /// The same options, for a database that is copied.
    pub(crate) fn options(&self, options: Options) -> Options {
        let executor: Arc<dyn Executor> = Arc::clone(&self.0) as _;
        let options = options.executor(executor).sync_interval(None);
        options.idle_compaction_after(None)
    }

    /// Copies the open database at `from` once there is nothing to be done any more.
    pub(crate) fn copy(&self, from: &Path, to: &Path) {
        self.0.run_until_idle();
        copy(from, to);
    }
}

/// Copies a directory that nobody writes to.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("listed");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

pub(crate) fn everything(db: &Db) -> Everything {
    let read = |name: String| {
        let keyspace = db.keyspace(&name).expect("there");
        let items = keyspace.iter().expect("a scan").map(|item| {
            let (key, value) = item.expect("read");
            (key.to_vec(), value.to_vec())
        });
        (name, items.collect())
    };
    db.keyspaces()
        .expect("open")
        .into_iter()
        .map(read)
        .collect()
}

pub(crate) fn opened(path: &Path) -> Everything {
    let options = Options::new().create_if_missing(false);
    let db = options.open(path).expect("a database");
    let found = everything(&db);
    db.close().expect("closed");
    found
}
