//! The feature `tracing`: what a subscriber is told, and that nothing is measured for nobody.
//!
//! Alone in its binary, because the crate `tracing` keeps for each place of the code whether anyone
//! wants to be told of it, for all threads: a thread without a subscriber that comes to a place
//! first can switch it off for the others. Here one subscriber for all threads is there before any.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::SimFs;
use base::random::Random;
use siltstone::{Db, KeyspaceOptions, Options, WriteOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};

/// What was told of one span or event.
#[derive(Clone, Debug, Default)]
struct Told {
    name: String,
    fields: BTreeMap<&'static str, String>,
    /// The span in which it happened.
    parent: Option<String>,
    is_closed: bool,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Told {
    fn number(&self, field: &str) -> u64 {
        let text = self.fields.get(field);
        let text = text.unwrap_or_else(|| panic!("no {field} in {self:?}"));
        text.parse().expect("a number")
    }
}

/// Notes all that it is told up to a level.
#[derive(Clone)]
struct Notes {
    level: Level,
    next_id: Arc<AtomicU64>,
    spans: Arc<Mutex<BTreeMap<u64, Told>>>,
    events: Arc<Mutex<Vec<Told>>>,
    entered: Arc<Mutex<Vec<u64>>>,
}

impl Notes {
    fn upto(level: Level) -> Self {
        Self {
            level,
            next_id: Arc::new(AtomicU64::new(1)),
            spans: Arc::default(),
            events: Arc::default(),
            entered: Arc::default(),
        }
    }

    fn spans(&self, name: &str) -> Vec<Told> {
        let spans = self.spans.lock().expect("unbroken");
        let named = spans.values().filter(|span| span.name == name);
        named.cloned().collect()
    }

    fn parent(&self) -> Option<String> {
        let entered = self.entered.lock().expect("unbroken");
        let id = entered.last()?;
        Some(self.spans.lock().expect("unbroken")[id].name.clone())
    }
}

thread_local! {
    /// Who is told of what happens on this thread.
    static LISTENER: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// The one subscriber of this process: hands what happens on a thread to that thread's listener.
struct Router;

impl Router {
    fn tell<T>(tell: impl FnOnce(&Notes) -> T) -> T {
        LISTENER.with_borrow(|notes| tell(notes.as_ref().expect("only who listens is told")))
    }
}

impl Subscriber for Router {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LISTENER.with_borrow(|notes| notes.as_ref().is_some_and(|notes| notes.enabled(metadata)))
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        Self::tell(|notes| notes.new_span(attributes))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        Self::tell(|notes| notes.record(id, values));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        Self::tell(|notes| notes.event(event));
    }

    fn enter(&self, id: &Id) {
        Self::tell(|notes| notes.enter(id));
    }

    fn exit(&self, id: &Id) {
        Self::tell(|notes| notes.exit(id));
    }

    fn try_close(&self, id: Id) -> bool {
        Self::tell(|notes| notes.close(&id))
    }
}

/// Runs `run` with `notes` as the listener of this thread.
fn told_to<T>(notes: &Notes, run: impl FnOnce() -> T) -> T {
    static ROUTER: Once = Once::new();
    ROUTER.call_once(|| set_global_default(Router).expect("there is none yet"));
    LISTENER.set(Some(notes.clone()));
    let result = run();
    LISTENER.set(None);
    result
}

impl Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "siltstone" && *metadata.level() <= self.level
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut told = Told {
            name: attributes.metadata().name().to_owned(),
            parent: self.parent(),
            ..Told::default()
        };
        attributes.record(&mut told);
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        self.spans.lock().expect("unbroken").insert(id, told);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut spans = self.spans.lock().expect("unbroken");
        values.record(spans.get_mut(&id.into_u64()).expect("it is there"));
    }

    fn event(&self, event: &Event<'_>) {
        let mut told = Told {
            parent: self.parent(),
            ..Told::default()
        };
        event.record(&mut told);
        told.name = told.fields.remove("message").unwrap_or_default();
        self.events.lock().expect("unbroken").push(told);
    }

    fn enter(&self, id: &Id) {
        self.entered.lock().expect("unbroken").push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let left = self.entered.lock().expect("unbroken").pop();
        assert_eq!(left, Some(id.into_u64()), "spans end in order");
    }

    fn close(&self, id: &Id) -> bool {
        let mut spans = self.spans.lock().expect("unbroken");
        spans
            .get_mut(&id.into_u64())
            .expect("it is there")
            .is_closed = true;
        true
    }
}

/// A value of 60 bytes that no other number has.
fn value(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    (0..60)
        .map(|_| random.next_u64().to_le_bytes()[0])
        .collect()
}

/// A database on `fs` whose background jobs run on the thread that waits for them, of sizes at
/// which a thousand puts flush and compact.
fn open(fs: &Arc<SimFs>) -> Db {
    Options::new()
        .memtable_bytes_max(4 << 10)
        .table_bytes_target(4 << 10)
        .level0_table_count_trigger(2)
        .level_base_bytes(32 << 10)
        .level_fan_out(2)
        .sync_interval(None)
        .file_system(Arc::clone(fs) as _)
        .executor(Stepped::new(1))
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .open("/db")
        .expect("opens")
}

/// Opens, writes, compacts and closes.
fn live() -> siltstone::Stats {
    let db = open(&SimFs::new(1));
    let other = db.create_keyspace("other", &KeyspaceOptions::new());
    let other = other.expect("created");
    for number in 0..1000_u64 {
        db.put(number.to_be_bytes(), value(number)).expect("a put");
    }
    let mut batch = siltstone::WriteBatch::new();
    batch.put("a", "1").put_in(&other, "b", "2");
    db.write(&batch).expect("a batch");
    db.compact_range(..).expect("compacts");
    let stats = db.stats();
    db.close().expect("closes");
    stats
}

#[test]
fn every_commit_and_job_is_a_span_with_what_it_did() {
    let notes = Notes::upto(Level::DEBUG);
    let stats = told_to(&notes, live);
    let commits = notes.spans("commit");
    assert_eq!(commits.len(), 1001);
    assert_eq!(commits[0].fields["keyspace"], "default");
    assert_eq!(commits[0].number("bytes"), 68);
    assert_eq!(commits[0].number("op_count"), 1);
    assert_eq!(commits[1000].number("op_count"), 2);
    assert_eq!(commits[1000].number("keyspace_count"), 2);
    let bytes: u64 = commits.iter().map(|commit| commit.number("bytes")).sum();
    assert_eq!(bytes, stats.user_bytes_written);
    // The close flushes as well.
    let flushes = notes.spans("flush");
    assert!(flushes.len() as u64 >= stats.flush_count && stats.flush_count > 1);
    let compactions = notes.spans("compaction");
    let moves = stats.move_count;
    assert!(
        compactions.len() as u64 >= stats.compaction_count + moves && stats.compaction_count > 0
    );
    let written: u64 = compactions.iter().map(|span| span.number("bytes")).sum();
    assert!(written >= stats.compaction_bytes_written);
    for span in flushes.iter().chain(&compactions).chain(&commits) {
        assert!(span.is_closed, "{span:?}");
        assert!(span.fields.contains_key("micros"), "{span:?}");
        assert!(span.fields.contains_key("keyspace"), "{span:?}");
    }
    let jobs = flushes.iter().chain(&compactions);
    assert!(jobs.clone().all(|span| span.number("level") < 8));
    let asked = notes.spans("compact_range");
    assert_eq!(asked.len(), 1);
    let in_asked = jobs.filter(|span| span.parent.as_deref() == Some("compact_range"));
    assert!(in_asked.count() > 0, "what was asked for lies in its span");
    assert_eq!(notes.spans("recovery").len(), 1);
    assert_eq!(notes.spans("close").len(), 1);
    let events = notes.events.lock().expect("unbroken");
    let is_calm = |event: &Told| event.name.starts_with("writes ");
    assert!(events.iter().all(is_calm), "{events:?}");
}

#[test]
fn who_does_not_want_commits_is_not_told_of_them() {
    let notes = Notes::upto(Level::INFO);
    told_to(&notes, live);
    assert!(notes.spans("commit").is_empty());
    assert!(!notes.spans("flush").is_empty());
}

#[test]
fn stalls_and_failures_are_told_as_events() {
    let fs = SimFs::new(1);
    let notes = Notes::upto(Level::INFO);
    told_to(&notes, || {
        let db = open(&fs);
        let no_wait = WriteOptions::new().no_wait();
        let mut number = 0_u64;
        while db
            .put_with(number.to_be_bytes(), value(number), &no_wait)
            .is_ok()
        {
            number += 1;
        }
        db.put("key", "value").expect("waits for a flush");
        fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
        db.put("key", "value").expect("a put");
        db.sync().expect_err("the sync fails");
    });
    let events = notes.events.lock().expect("unbroken");
    let find = |name: &str| {
        let found = events.iter().find(|event| event.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {events:?}"))
    };
    let stall = find("writes stalled");
    assert_eq!(stall.fields["keyspace"], "default");
    assert!(stall.fields["cause"].contains("memtables"), "{stall:?}");
    find("writes slowed down");
    assert!(find("closed for writes").fields["error"].contains("injected"));
}
