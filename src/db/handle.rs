//! What all clones of a [`Db`](crate::Db) share: built out of what recovery found, and its end.

use std::cell::Cell;

use base::Result;
use base::fs::LockGuard;
use base::sync::atomic::AtomicUsize;
use base::sync::{Arc, Mutex};
use memtable::Memtable;

use crate::background::Background;
use crate::batch::WriteBatch;
use crate::commit::{Commit, CommitPath, CommitState};
use crate::events::is_telling;
use crate::options::WriteOptions;
use crate::range::KeyRange;
use crate::recovery::Opened;
use crate::registry::Targets;
use crate::reserve::SpaceReserve;
use crate::seams::Seams;
use crate::stall::Gate;
use crate::stats::Sources;
use crate::stats_file::Writer;
use crate::superversion::KeyspaceState;
use crate::sweeper::Sweeper;
use crate::trace::Span;
use crate::tree::Tree;
use crate::tuning::Settings;
use crate::view::ReadRooms;

/// Buffers of single writes up to this size are kept for the thread's next one.
const KEPT_BUFFER_BYTES_MAX: usize = 64 << 10;

/// What all clones share; its end is the end of the database.
pub(crate) struct Handle {
    pub(crate) reads: ReadRooms,
    pub(crate) commit: CommitPath,
    pub(crate) background: Arc<Background>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(crate) sources: Arc<Sources>,
    pub(super) stats_file: Option<Arc<Writer>>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
    database_id: u128,
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Handle {
    pub(crate) fn write_one(
        &self,
        keyspace: &Arc<KeyspaceState>,
        key: &[u8],
        value: Option<&[u8]>,
        options: &WriteOptions,
    ) -> Result<Commit> {
        let mut batch = WriteBatch::reusing(BUFFER.take());
        batch.add(keyspace.id, key, value);
        let durability = options.durability_or(self.commit.durability);
        let targets = Targets::One(keyspace);
        let result = self
            .commit
            .write(&batch, &targets, durability, options.patience());
        let buffer = batch.into_buffer();
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            BUFFER.set(buffer);
        }
        result
    }

    pub(super) fn write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<Commit> {
        let targets = self.commit.keyspaces.targets(batch, self.database_id())?;
        let durability = options.durability_or(self.commit.durability);
        self.commit
            .write(batch, &targets, durability, options.patience())
    }

    /// Which database it is, whatever its directory is called.
    pub(crate) fn database_id(&self) -> u128 {
        self.database_id
    }

    pub(crate) fn default_keyspace(&self) -> &Arc<KeyspaceState> {
        self.commit.keyspaces.default()
    }

    pub(crate) fn flush(&self, keyspace: &Arc<KeyspaceState>) -> Result<()> {
        self.commit.health.check_writable()?;
        match self.commit.seal(keyspace)? {
            Some(memtable) => self.background.wait_for_flush(keyspace, &memtable),
            None => Ok(()),
        }
    }

    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceState>,
        range: &impl KeyRange,
    ) -> Result<()> {
        let span = Span::compact_range(&keyspace.name);
        self.timed(&span, || {
            self.flush(keyspace)?;
            self.background
                .compact_range(keyspace, (range.start(), range.end()))
        })
    }

    /// Does `work` and says in its span how long it took.
    fn timed(&self, span: &Span, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let clock = &self.commit.gate.clock;
        let began = clock.monotonic_micros();
        let result = work();
        span.record_micros(clock.monotonic_micros().saturating_sub(began));
        result
    }

    pub(super) fn close(&self) -> Result<()> {
        if self.commit.health.is_inherited() {
            return self.commit.health.check_open();
        }
        if is_telling() {
            return self.commit.health.check_writable();
        }
        if self.commit.health.is_read_only() {
            self.finish();
            return Ok(());
        }
        let Some(sealed) = self.commit.begin_close() else {
            return Ok(());
        };
        self.timed(&Span::close(), || self.close_sealed(&sealed))
    }

    /// Flushes what was sealed for good and ends everything.
    fn close_sealed(&self, sealed: &[(Arc<KeyspaceState>, Arc<Memtable>)]) -> Result<()> {
        let mut result = self.commit.health.check_writable();
        for (keyspace, memtable) in sealed {
            if result.is_ok() {
                result = self.background.wait_for_flush(keyspace, memtable);
            }
        }
        self.background.stop();
        let log_closed = self.commit.log.close();
        result = result.and(log_closed);
        if result.is_ok() {
            self.background.retire_segments();
            let last_seq = self.commit.snapshots.visible();
            let versions = self.background.tree.versions();
            result = versions.mark_clean_close(self.commit.log.durable_upto(), last_seq);
        }
        self.finish();
        result
    }

    /// Shuts every door and lets go of the directory.
    fn finish(&self) {
        self.commit.health.close();
        self.background.tree.versions().close();
        self.commit.signals.progress.ring();
        self.commit.keyspaces.clear_all_dropped();
        self.sweeper.sweep_all();
        if let Some(file) = &self.stats_file {
            file.remove();
        }
        self.lock.lock().take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.commit.health.is_inherited() {
            // The parent's: no lock, no sync, no thread to wait for. Memory goes by itself.
            return;
        }
        if self.commit.begin_close().is_some() {
            self.background.stop();
            // As well as it can: who needs to know calls `sync` or `close`.
            let _ = self.commit.log.sync();
            self.finish();
        }
    }
}

/// Builds the rooms that act out of those that hold state.
pub(super) fn assemble(opened: Opened, settings: &Settings, seams: &Seams) -> Handle {
    let sources = sources(&opened, seams);
    let stats_file = stats_file(&opened, settings, &sources);
    let gate = Gate {
        keyspaces: Arc::clone(&opened.keyspaces),
        executor: Arc::clone(&seams.executor),
        clock: Arc::clone(&seams.clock),
        signals: Arc::clone(&opened.signals),
        health: Arc::clone(&opened.health),
        ledger: Arc::clone(&opened.ledger),
        listener: seams.listener.clone(),
        waiting: AtomicUsize::new(0),
    };
    let state = CommitState {
        next_seq: opened.next_seq,
        last_seq: opened.snapshots.visible(),
        log_end: opened.log.end(),
        is_log_switched: true,
        is_closing: false,
    };
    let reserve_bytes = settings.reserve_bytes();
    let fs = Arc::clone(&opened.rooms.fs);
    let reserve = SpaceReserve::new(fs, &opened.rooms.dir, reserve_bytes);
    if opened.is_reserve_spent {
        reserve.note_spent();
    }
    let commit = CommitPath {
        log: Arc::clone(&opened.log),
        keyspaces: opened.keyspaces,
        snapshots: Arc::clone(&opened.snapshots),
        gate,
        signals: opened.signals,
        health: Arc::clone(&opened.health),
        memtables: opened.memtables,
        hash_seed: opened.hash_seed,
        reserve,
        log_bytes_max: settings.log_bytes_max,
        value_bytes_max: settings.value_bytes_max,
        durability: settings.durability,
        state: Mutex::new(state),
    };
    let tree = Tree::new(seams, &opened.rooms, &opened.versions, opened.hash_seed);
    let database_id = opened.versions.identity().database_id;
    let sweeper = Arc::clone(&opened.rooms.sweeper);
    let background = Background::new(
        tree,
        opened.log,
        &commit,
        Arc::clone(&sweeper),
        settings,
        seams,
    );
    Handle {
        sources,
        stats_file,
        reads: ReadRooms {
            snapshots: opened.snapshots,
            health: opened.health,
            pins: Arc::clone(&opened.pins),
            hash_seed: opened.hash_seed,
        },
        commit,
        background,
        sweeper,
        lock: Mutex::new(Some(opened.lock)),
        database_id,
    }
}

/// The rooms that have numbers to tell.
fn sources(opened: &Opened, seams: &Seams) -> Arc<Sources> {
    Arc::new(Sources {
        keyspaces: Arc::clone(&opened.keyspaces),
        ledger: Arc::clone(&opened.ledger),
        snapshots: Arc::clone(&opened.snapshots),
        log: Arc::clone(&opened.log),
        versions: Arc::clone(&opened.versions),
        memory: Arc::clone(opened.memtables.memory()),
        cache: Arc::clone(&opened.cache),
        pins: Arc::clone(&opened.pins),
        clock: Arc::clone(&seams.clock),
    })
}

/// Who tells other processes of them, if that is wanted. A handle that only reads leaves the file
/// of the writer beside it alone.
fn stats_file(opened: &Opened, settings: &Settings, sources: &Arc<Sources>) -> Option<Arc<Writer>> {
    let interval = settings.stats_file_interval?;
    let (fs, dir) = (&opened.rooms.fs, &opened.rooms.dir);
    let is_wanted = !opened.health.is_read_only();
    is_wanted.then(|| Writer::new(fs, dir, interval, sources, &opened.health))
}

#[cfg(test)]
mod tests;
