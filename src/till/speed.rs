//! How fast one kind of background work gets on.

use super::as_f64;

/// What is believed before anything was measured, in bytes a second; it weighs as much as one
/// memtable.
const FIRST_BYTES_PER_SECOND: f64 = 64e6;
/// Work longer ago than what so many memtables take hardly counts.
const MEMORY_MEMTABLES: f64 = 16.0;
/// Nor does work longer ago than this, in microseconds of work.
const MEMORY_MICROS_MAX: f64 = 8e6;
/// A background that seems to stand still is believed to do at least this.
const BYTES_PER_SECOND_MIN: f64 = 64e3;

/// Bytes over the time in which somebody worked, the last work counting most.
///
/// A job under way counts as soon as it takes longer than expected: as if it ended right now. So
/// writers are slowed while a job drags on, not after it.
#[derive(Debug)]
pub(super) struct Speed {
    bytes: f64,
    micros: f64,
    /// Time up to here was counted.
    counted_micros: u64,
    /// What a memtable takes.
    memtable_bytes: f64,
    /// Under way; as many as there are threads at most.
    running: Vec<Running>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    id: u64,
    began_micros: u64,
    bytes: f64,
}

impl Speed {
    pub(super) fn new(memtable_bytes: u64) -> Self {
        let memtable_bytes = as_f64(memtable_bytes.max(1));
        Self {
            bytes: memtable_bytes,
            micros: memtable_bytes / FIRST_BYTES_PER_SECOND * 1e6,
            counted_micros: 0,
            memtable_bytes,
            running: Vec::new(),
            next_id: 0,
        }
    }

    /// Takes in that a job began which should get `bytes` done.
    pub(super) fn begin(&mut self, now_micros: u64, bytes: u64) -> u64 {
        self.next_id += 1;
        self.running.push(Running {
            id: self.next_id,
            began_micros: now_micros,
            bytes: as_f64(bytes),
        });
        self.next_id
    }

    /// Takes in that a job got `bytes` done.
    pub(super) fn finish(&mut self, id: u64, now_micros: u64, bytes: u64) {
        let Some(job) = self.remove(id) else {
            return;
        };
        // Of jobs side by side each moment is counted once.
        let from = job.began_micros.max(self.counted_micros);
        let micros = as_f64(now_micros.saturating_sub(from));
        self.counted_micros = self.counted_micros.max(now_micros);
        let memory = self.memtable_bytes * MEMORY_MEMTABLES / self.measured() * 1e6;
        let memory = memory.min(MEMORY_MICROS_MAX);
        let kept = memory / (memory + micros);
        self.bytes = self.bytes * kept + as_f64(bytes);
        self.micros = self.micros * kept + micros;
    }

    /// Takes in that a job got nothing done.
    pub(super) fn abandon(&mut self, id: u64) {
        self.remove(id);
    }

    fn remove(&mut self, id: u64) -> Option<Running> {
        let at = self.running.iter().position(|job| job.id == id)?;
        Some(self.running.swap_remove(at))
    }

    /// What finished jobs got done, in bytes a second.
    pub(super) fn measured(&self) -> f64 {
        (self.bytes / self.micros * 1e6).max(BYTES_PER_SECOND_MIN)
    }

    /// The same, with those under way that take longer than they should.
    pub(super) fn by(&self, now_micros: u64) -> f64 {
        let first = self.running.iter().map(|job| job.began_micros).min();
        let Some(first) = first else {
            return self.measured();
        };
        let from = first.max(self.counted_micros);
        let micros = as_f64(now_micros.saturating_sub(from));
        let bytes: f64 = self.running.iter().map(|job| job.bytes).sum();
        let dragging = (self.bytes + bytes) / (self.micros + micros) * 1e6;
        self.measured().min(dragging).max(BYTES_PER_SECOND_MIN)
    }
}
