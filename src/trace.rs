//! Spans and events for the crate `tracing`, if the feature of that name is on.
//!
//! Without the feature everything here is empty and gone after inlining. With it, a span that no
//! subscriber wants costs the load of a static. Whoever works opens a span with what it works on,
//! keeps it while it works, and says in the end what it got done. Called by the floors above only;
//! knows nothing of them.

#![cfg_attr(
    not(feature = "tracing"),
    expect(unused_variables, clippy::unused_self, reason = "nothing is told")
)]

use std::path::Path;

use base::{Error, Level};

use crate::throttle::{ThrottleCause, Throttled};

/// Work that is going on; ends when it is dropped, on the thread that began it.
#[derive(Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    entered: tracing::span::EnteredSpan,
}

/// A span of this crate. Fields that are known only in the end are declared as empty.
macro_rules! span {
    ($level:ident, $name:literal, $($fields:tt)*) => {
        Span {
            #[cfg(feature = "tracing")]
            entered: tracing::span!(
                target: "siltstone",
                tracing::Level::$level,
                $name,
                $($fields)*
                bytes = tracing::field::Empty,
                micros = tracing::field::Empty,
            )
            .entered(),
        }
    };
}

/// What a compaction works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobTrace<'a> {
    pub(crate) keyspace: &'a str,
    /// As events number it.
    pub(crate) job: u64,
    pub(crate) input_level: Level,
    /// The level of what it makes.
    pub(crate) level: Level,
    pub(crate) input_bytes: u64,
}

impl Span {
    /// A commit of so many operations, the first keyspace that it writes to, and to how many.
    #[inline]
    pub(crate) fn commit(op_count: u32, keyspace: &str, keyspace_count: usize) -> Self {
        span!(DEBUG, "commit", op_count, keyspace, keyspace_count,)
    }

    /// Memtables become tables of level 0.
    pub(crate) fn flush(keyspace: &str, job: u64, input_bytes: u64) -> Self {
        span!(INFO, "flush", keyspace, job, level = 0, input_bytes,)
    }

    /// Tables become tables of another level.
    pub(crate) fn compaction(trace: JobTrace<'_>) -> Self {
        let JobTrace {
            keyspace,
            job,
            input_bytes,
            input_level,
            level,
        } = trace;
        span!(
            INFO,
            "compaction",
            keyspace,
            job,
            input_level = input_level.index(),
            level = level.index(),
            input_bytes,
        )
    }

    /// Everything from the lock of the directory to an open database.
    pub(crate) fn recovery(dir: &Path) -> Self {
        span!(INFO, "recovery", dir = %dir.display(),)
    }

    /// A compaction of a range that somebody asked for and waits for.
    pub(crate) fn compact_range(keyspace: &str) -> Self {
        span!(INFO, "compact_range", keyspace,)
    }

    /// Memtables are flushed, workers end, the log is sealed.
    pub(crate) fn close() -> Self {
        span!(INFO, "close",)
    }

    /// Whether a subscriber wants to know. To be asked before something is measured for it alone.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        #[cfg(feature = "tracing")]
        return !self.entered.is_disabled();
        #[cfg(not(feature = "tracing"))]
        false
    }

    /// Says what was written, and how long it took.
    pub(crate) fn record(&self, bytes: u64, micros: u64) {
        #[cfg(feature = "tracing")]
        self.entered.record("bytes", bytes);
        self.record_micros(micros);
    }

    /// Says how long it took.
    pub(crate) fn record_micros(&self, micros: u64) {
        #[cfg(feature = "tracing")]
        self.entered.record("micros", micros);
    }
}

/// A writer to `keyspace` waited until the background had got on.
pub(crate) fn stalled(keyspace: &str, throttled: Throttled) {
    let Throttled { cause, micros } = throttled;
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "siltstone", keyspace, cause = %cause, micros, "writes stalled");
}

/// Writes to `keyspace` come to be slowed down, or are not any more.
pub(crate) fn throttled(keyspace: &str, cause: Option<ThrottleCause>) {
    #[cfg(feature = "tracing")]
    if let Some(cause) = cause {
        tracing::info!(target: "siltstone", keyspace, cause = %cause, "writes slowed down");
    } else {
        tracing::info!(target: "siltstone", keyspace, "writes no longer slowed down");
    }
}

/// A job failed and will be tried again.
pub(crate) fn background_failed(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "siltstone", error = %error, "background job failed");
}

/// No write is accepted any more.
pub(crate) fn poisoned(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "siltstone", error = %error, "closed for writes");
}
