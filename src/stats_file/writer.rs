//! Puts the stats file into the directory, again and again, on a worker of its own.
//!
//! It takes none of the locks that reads, writes, flushes or compactions wait for. Whatever goes
//! wrong is counted and forgotten: the database is none the worse for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::executor::{Step, StepFn};
use base::fs::FileSystem;
use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};
use base::{ErrorKind, Result, ids};

use super::{Contents, format};
use crate::health::{Health, HealthState};
use crate::stats::Sources;

/// Writes what `Sources` tell.
pub(crate) struct Writer {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    temporary: PathBuf,
    interval: Duration,
    sources: Arc<Sources>,
    health: Arc<HealthState>,
    /// When the database was opened: by the wall clock, and by the steady one.
    began_micros: (u64, u64),
    /// Whether a temporary file may lie there: of another process, or of an attempt that failed.
    is_untidy: AtomicBool,
}

impl Writer {
    pub(crate) fn new(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        interval: Duration,
        sources: &Arc<Sources>,
        health: &Arc<HealthState>,
    ) -> Arc<Self> {
        let clock = &sources.clock;
        Arc::new(Self {
            fs: Arc::clone(fs),
            path: dir.join(ids::STATS),
            temporary: dir.join(ids::STATS_TEMPORARY),
            interval,
            began_micros: (clock.now_micros(), clock.monotonic_micros()),
            sources: Arc::clone(sources),
            health: Arc::clone(health),
            is_untidy: AtomicBool::new(false),
        })
    }

    /// The background step that writes it at every interval.
    pub(crate) fn into_step(self: Arc<Self>) -> StepFn {
        Box::new(move || {
            if self.write().is_err() {
                self.is_untidy.store(true, Ordering::Relaxed);
                self.sources.ledger.add_stats_file_failure();
            }
            Step::IdleFor(self.interval)
        })
    }

    fn write(&self) -> Result<()> {
        if self.is_untidy.swap(false, Ordering::Relaxed) {
            // If it cannot be removed, it cannot be created anew, and that is counted.
            let _ = self.fs.remove_file(&self.temporary);
        }
        let bytes = format::encode(&self.contents());
        let file = self.fs.create(&self.temporary)?;
        file.write_at(0, &bytes)?;
        drop(file);
        self.sources.ledger.add_stats_file(bytes.len() as u64);
        // Readers see the old one or the new one. After a power cut either may be cut short, which
        // the checksum tells; nobody has a use for it then.
        self.fs.rename(&self.temporary, &self.path)
    }

    fn contents(&self) -> Contents {
        let found = self.sources.gather();
        let clock = &self.sources.clock;
        let (opened_micros, steady) = self.began_micros;
        let (trouble, trouble_kind) = match self.health.report() {
            Health::Good | Health::Closed => (None, None),
            Health::Degraded(error) => (Some(format!("degraded: {error}")), Some(error.kind())),
            Health::Poisoned(error) => (Some(error.to_string()), Some(ErrorKind::Poisoned)),
        };
        Contents {
            process_id: std::process::id(),
            engine_version: String::from(env!("CARGO_PKG_VERSION")),
            opened_micros,
            written_micros: clock.now_micros(),
            up_micros: clock.monotonic_micros().saturating_sub(steady),
            interval_micros: u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX),
            trouble,
            trouble_kind,
            keyspace_count: found.stats.keyspaces.len() as u64,
            found,
        }
    }

    /// Takes it away, once nobody writes it any more. As well as it can: the next open does too.
    pub(crate) fn remove(&self) {
        let _ = self.fs.remove_file(&self.path);
        if self.is_untidy.load(Ordering::Relaxed) {
            let _ = self.fs.remove_file(&self.temporary);
        }
    }
}
