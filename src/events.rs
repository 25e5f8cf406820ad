//! What happened: told to the listener of [`Options::on_event`](crate::Options::on_event).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Error, Level, SequenceNumber};

use crate::throttle::ThrottleCause;

/// Something that happened inside a database.
///
/// The listener runs on the thread where it happened, with no lock held that a read or write needs;
/// it must not call the database, and a slow one slows background work.
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
    /// Sealed memtables became a table of level 0.
    Flushed {
        /// Entries written.
        entry_count: u64,
        /// Bytes written.
        written_bytes: u64,
    },
    /// A compaction ended.
    Compacted {
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
    },
    /// Writes to a keyspace are slowed down, because flush or compaction is behind.
    ThrottleBegan {
        /// The name of the keyspace.
        keyspace: String,
        /// What is behind.
        cause: ThrottleCause,
    },
    /// Writes to it are no longer slowed down. Noticed by the next write.
    ThrottleEnded {
        /// The name of the keyspace.
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

/// Who is told.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<ListenerFn>>);

impl Listener {
    pub(crate) fn new(listener: Arc<ListenerFn>) -> Self {
        Self(Some(listener))
    }

    /// Tells of an event, which is only made if somebody listens.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.0 {
            listener(&event());
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
