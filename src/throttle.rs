//! How fast writes may come: a pure function of how far behind flush and compaction are.
//!
//! Reads no clock, holds nothing, waits for nothing: `till` keeps what it is asked with, `stall`
//! acts on the answer. The plot in `throttling.svg` is drawn from [`rate`] itself.

use std::fmt;

/// Why writes are slowed down or wait.
///
#[doc = include_str!("throttling.svg")]
///
/// # Examples
/// ```
/// use siltstone::ThrottleCause;
/// assert_eq!(ThrottleCause::Level0.to_string(), "level 0 waits to be compacted");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThrottleCause {
    /// Memtables are filled faster than they are flushed.
    Memtables,
    /// The memtables of all keyspaces together come near to what they may take.
    Memory,
    /// Level 0 grows faster than it is compacted.
    Level0,
    /// The deeper levels have outgrown their targets.
    Debt,
}

impl ThrottleCause {
    pub(crate) const ALL: [Self; 4] = [Self::Memtables, Self::Memory, Self::Level0, Self::Debt];
    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ThrottleCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memtables => "memtables wait to be flushed",
            Self::Memory => "memtables take too much memory",
            Self::Level0 => "level 0 waits to be compacted",
            Self::Debt => "levels have outgrown their targets",
        })
    }
}

/// What a write paid for flush and compaction being behind.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let commit = db.put("key", "value")?;
/// if let Some(throttled) = commit.throttled() {
///     eprintln!("{}: {} us", throttled.cause, throttled.micros);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throttled {
    /// What was behind, the longest of them if several were.
    pub cause: ThrottleCause,
    /// How long the write waited for it, in microseconds.
    pub micros: u64,
}

/// How far behind the background is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Inputs {
    /// Sealed memtables, and how full the active one is as a fraction.
    pub(crate) memtable_depth: f64,
    /// What the memtables of all keyspaces hold, while some of it is about to be given back.
    pub(crate) memory_bytes: f64,
    /// Tables that a read of level 0 may have to look at.
    pub(crate) level0_depth: f64,
    /// What levels from 1 on hold beyond their targets.
    pub(crate) debt_bytes: f64,
    /// What flushes get done, as measured, in bytes a second.
    pub(crate) flush_speed: f64,
    /// What compactions take out of level 0, as measured, in bytes a second.
    pub(crate) compaction_speed: f64,
}

/// Where slowing begins and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) memtable_depth: Span,
    pub(crate) memory_bytes: Span,
    pub(crate) level0_depth: Span,
    /// Debt never stops writes: at `end` they come as fast as compaction gets on, beyond it slower
    /// in proportion.
    pub(crate) debt_bytes: Span,
}

impl Limits {
    /// Nothing is limited.
    pub(crate) const NONE: Self = Self {
        memtable_depth: Span::NEVER,
        memory_bytes: Span::NEVER,
        level0_depth: Span::NEVER,
        debt_bytes: Span::NEVER,
    };
}

/// Between `begin` and `end` writes are slowed down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) begin: f64,
    pub(crate) end: f64,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// As fast as they come.
    Free,
    /// So many bytes a second.
    Slow(Pace),
    /// Nothing until the background has got on.
    Stop(ThrottleCause),
}

/// A speed and what it is due to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) bytes_per_second: f64,
    pub(crate) cause: ThrottleCause,
}

/// However far behind, short of a stop writes get this part of the background's speed.
const SHARE_MIN: f64 = 1.0 / 64.0;

/// The allowed speed of writes.
///
/// Each of the four inputs has a span. With `p` as the part of it that is used up, writes get
/// `(1 - p) / p` times the speed at which the background removes just that: unlimited where the
/// span begins, exactly the background's own speed in the middle, next to nothing at the end. So
/// writers that are too fast for the background meet it in the middle of the span and stay there,
/// whatever its speed is, as long as what they write at a time is worth no more than the longest
/// wait of the `till`; larger values go further into the span. The slowest of the four counts.
/// Continuous and monotone: further behind is never faster, a faster background never slower.
pub(crate) fn rate(inputs: &Inputs, limits: &Limits) -> Verdict {
    let bounded = [
        (
            ThrottleCause::Memtables,
            inputs.memtable_depth,
            limits.memtable_depth,
            inputs.flush_speed,
        ),
        (
            ThrottleCause::Memory,
            inputs.memory_bytes,
            limits.memory_bytes,
            inputs.flush_speed,
        ),
        (
            ThrottleCause::Level0,
            inputs.level0_depth,
            limits.level0_depth,
            inputs.compaction_speed,
        ),
    ];
    let mut slowest: Option<Pace> = None;
    let mut offer = |cause, bytes_per_second: f64| {
        if slowest.is_none_or(|pace| bytes_per_second < pace.bytes_per_second) {
            slowest = Some(Pace {
                bytes_per_second,
                cause,
            });
        }
    };
    for (cause, value, span, speed) in bounded {
        let used = span.used(value);
        if used >= 1.0 {
            return Verdict::Stop(cause);
        }
        if used > 0.0 {
            offer(cause, speed * ((1.0 - used) / used).max(SHARE_MIN));
        }
    }
    let used = limits.debt_bytes.used(inputs.debt_bytes);
    if used > 0.0 {
        offer(
            ThrottleCause::Debt,
            inputs.compaction_speed * used.recip().max(SHARE_MIN),
        );
    }
    slowest.map_or(Verdict::Free, Verdict::Slow)
}

impl Verdict {
    /// What holds writes back, if anything does.
    pub(crate) fn cause(self) -> Option<ThrottleCause> {
        match self {
            Self::Free => None,
            Self::Slow(pace) => Some(pace.cause),
            Self::Stop(cause) => Some(cause),
        }
    }
}

impl Span {
    /// For what is not limited.
    pub(crate) const NEVER: Self = Self {
        begin: f64::MAX / 2.0,
        end: f64::MAX,
    };

    /// Which part of the span `value` has used up; above 1 beyond its end.
    fn used(self, value: f64) -> f64 {
        ((value - self.begin) / (self.end - self.begin)).max(0.0)
    }
}

#[cfg(test)]
mod tests;
