//! The feature `tracing`: what a subscriber is told, and that nothing is measured for nobody.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base::fs::fault::{Fault, FaultError, OpKind};
use siltstone::{KeyspaceOptions, WriteOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::{World, tagged};

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

impl Subscriber for Notes {
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

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

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

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans.lock().expect("unbroken");
        spans
            .get_mut(&id.into_u64())
            .expect("it is there")
            .is_closed = true;
        true
    }
}

/// Opens, writes, compacts and closes.
fn live(world: &World) -> siltstone::Stats {
    let db = world.open().expect("opens");
    let other = db.create_keyspace("other", &KeyspaceOptions::new());
    let other = other.expect("created");
    for number in 0..1000_u64 {
        db.put(number.to_be_bytes(), tagged(number, 60))
            .expect("a put");
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
    let world = World::new(1);
    let notes = Notes::upto(Level::DEBUG);
    let stats = with_default(notes.clone(), || live(&world));
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
    let world = World::new(1);
    let notes = Notes::upto(Level::INFO);
    with_default(notes.clone(), || live(&world));
    assert!(notes.spans("commit").is_empty());
    assert!(!notes.spans("flush").is_empty());
}

#[test]
fn stalls_and_failures_are_told_as_events() {
    let world = World::new(1);
    let notes = Notes::upto(Level::INFO);
    with_default(notes.clone(), || {
        let db = world.open().expect("opens");
        let no_wait = WriteOptions::new().no_wait();
        let mut number = 0_u64;
        while db
            .put_with(number.to_be_bytes(), tagged(number, 60), &no_wait)
            .is_ok()
        {
            number += 1;
        }
        db.put("key", "value").expect("waits for a flush");
        world.fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
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
