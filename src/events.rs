//! What happened: told to the listener of [`Options::on_event`](crate::Options::on_event).

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};

use base::{Error, Level, SequenceNumber};

use crate::throttle::ThrottleCause;

/// Something that happened inside a database.
///
/// The listener runs on the thread where it happened, and a slow one slows that thread: background
/// work, or a writer. It may read the database and ask for its health and stats. A write, `flush`,
/// `sync`, `compact_range` or `close` would wait for the very thread it is called on: inside a
/// listener they return `InvalidArgument`. It must not drop the last handle. A listener that panics
/// is not called again; the database goes on. What happens during a call of the listener, on the
/// same thread, is not told.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use siltstone::{Event, Options};
/// let flushed = Arc::new(AtomicU64::new(0));
/// let seen = Arc::clone(&flushed);
/// let listener = move |event: &Event| {
///     if let Event::Flushed { entry_count, .. } = event {
///         seen.fetch_add(*entry_count, Ordering::Relaxed);
///     }
/// };
/// let db = Options::new().on_event(Arc::new(listener)).open(dir.path())?;
/// db.put("key", "value")?;
/// db.flush()?;
/// assert_eq!(flushed.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Recovery has read so much of the log.
    RecoveryProgress {
        /// Bytes of the log read so far.
        read_bytes: u64,
        /// Bytes of the log in all.
        total_bytes: u64,
    },
    /// The log ended in a record that was not whole, and recovery cut it there.
    LogTailDropped {
        /// The segment.
        path: PathBuf,
        /// Where the log now ends, in bytes.
        offset: u64,
        /// How much followed.
        bytes: u64,
    },
    /// The database is open.
    Recovered {
        /// Everything up to here is visible.
        last_seq: SequenceNumber,
        /// Operations replayed from the log into memtables.
        replayed_count: u64,
    },
    /// A keyspace was created, and is kept whatever happens.
    KeyspaceCreated {
        /// Its name.
        keyspace: String,
    },
    /// A keyspace was dropped: nothing but snapshots from before reads it any more.
    KeyspaceDropped {
        /// The name it had.
        keyspace: String,
    },
    /// A flush begins to write sealed memtables.
    FlushBegan {
        /// The name of the keyspace.
        keyspace: String,
        /// Numbers flushes and compactions since the database was opened, from 1.
        job: u64,
        /// Memtables it takes.
        memtable_count: u64,
        /// What they take in memory, in bytes.
        input_bytes: u64,
    },
    /// Sealed memtables became tables of level 0.
    Flushed {
        /// The name of the keyspace.
        keyspace: String,
        /// As when it began.
        job: u64,
        /// Entries written.
        entry_count: u64,
        /// Bytes written.
        written_bytes: u64,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// A compaction begins. One that fails is followed by [`Event::BackgroundError`], if the
    /// background ran it, and no `Compacted`.
    CompactionBegan {
        /// The name of the keyspace.
        keyspace: String,
        /// Numbers flushes and compactions since the database was opened, from 1.
        job: u64,
        /// Where its inputs are.
        input_level: Level,
        /// Where its outputs will be.
        output_level: Level,
        /// Tables it takes, those of the output level included.
        table_count: u64,
        /// Their size in bytes.
        input_bytes: u64,
        /// Whether tables only change level, without a byte rewritten.
        is_move: bool,
    },
    /// A compaction ended.
    Compacted {
        /// The name of the keyspace.
        keyspace: String,
        /// As when it began.
        job: u64,
        /// Where its inputs were.
        input_level: Level,
        /// Where its outputs are.
        output_level: Level,
        /// Whether tables only changed level, without a byte rewritten.
        is_move: bool,
        /// Bytes read.
        read_bytes: u64,
        /// Bytes written.
        written_bytes: u64,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// A flush or a compaction wrote a table; the tree does not know it yet.
    TableCreated {
        /// The name of the keyspace.
        keyspace: String,
        /// Which flush or compaction.
        job: u64,
        /// The file.
        path: PathBuf,
        /// The level it is made for.
        level: Level,
        /// Its size.
        bytes: u64,
    },
    /// A table or a segment of the log that nothing needs any more was unlinked.
    FileDeleted {
        /// The file.
        path: PathBuf,
    },
    /// The log goes on in a new segment; the one before is sealed.
    SegmentCreated {
        /// Its place in the log, from 0.
        ordinal: u64,
    },
    /// Writes to a keyspace are slowed down, because flush or compaction is behind. By the memory
    /// of memtables those to all keyspaces are.
    ThrottleBegan {
        /// The name of the keyspace; for memory, that of one whose write found it.
        keyspace: String,
        /// What is behind.
        cause: ThrottleCause,
    },
    /// Writes to it are no longer slowed down. Noticed by the next write.
    ThrottleEnded {
        /// The name of the keyspace, as when it began.
        keyspace: String,
        /// What was behind last.
        cause: ThrottleCause,
    },
    /// Writers wait for flush or compaction: the first of them begins to.
    StallBegan {
        /// The name of the keyspace it writes to.
        keyspace: String,
        /// What is behind.
        cause: ThrottleCause,
    },
    /// No writer waits any longer.
    StallEnded {
        /// How long the last of them waited.
        micros: u64,
    },
    /// A background job failed; it will be tried again.
    BackgroundError {
        /// Why.
        error: Error,
    },
    /// No write is accepted any more until the database is opened again.
    Poisoned {
        /// Why.
        error: Error,
    },
}

type ListenerFn = dyn Fn(&Event) + Send + Sync;

thread_local! {
    /// Whether this thread is inside a listener.
    static IS_TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside a listener: it may hold a lock that a write would need.
#[inline]
pub(crate) fn is_telling() -> bool {
    IS_TELLING.get()
}

/// Who is told.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Told>>);

struct Told {
    listener: Arc<ListenerFn>,
    /// It has panicked and is not called any more.
    is_broken: AtomicBool,
}

impl Listener {
    pub(crate) fn new(listener: Arc<ListenerFn>) -> Self {
        Self(Some(Arc::new(Told {
            listener,
            is_broken: AtomicBool::new(false),
        })))
    }

    /// Tells of an event, which is only made if somebody listens.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(told) = &self.0
            && !told.is_broken.load(Ordering::Relaxed)
            && !IS_TELLING.replace(true)
        {
            let event = event();
            // The listener is the host program's. What it left half done is its own as well.
            let result = catch_unwind(AssertUnwindSafe(|| (told.listener)(&event)));
            IS_TELLING.set(false);
            if result.is_err() {
                told.is_broken.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Listener"
        } else {
            "nobody"
        })
    }
}
