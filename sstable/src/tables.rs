//! The table cache: opens tables when they are first needed, closes those not used for long.
//!
//! A reader that is in use stays valid when its table is closed or unlinked.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use arc_swap::{ArcSwapOption, Guard};
use base::fs::FileSystem;
use base::sync::atomic::{AtomicBool, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, FileKind, FileNumber, Result};

use crate::reader::{ReadMode, ReaderOptions, TableReader};

mod fit;

/// So many tables stay open whatever they keep in memory: a read of a few runs must not open each
/// anew.
const OPEN_TABLES_MIN: usize = 8;

/// Opens the tables of one directory, and keeps at most so many open.
pub struct TableCache {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: ReaderOptions,
    /// Whether tables are mapped that are opened now. Changes only if the mode is `Auto`.
    is_mapping: AtomicBool,
    open_tables_max: usize,
    /// The open tables, in the order in which the hand of the clock passes them: a table that was
    /// used since the last pass is spared once.
    clock: Mutex<VecDeque<Weak<TableHandle>>>,
}

impl TableCache {
    /// A cache for the tables in `dir`; keeps at least one open.
    ///
    /// Bounds mappings and memory, not only descriptors: a mapped table has closed its own. What
    /// open ones keep in memory counts against the block cache; beyond half of that those not used
    /// for long are closed, down to eight. With `usize::MAX` none is ever closed for want of
    /// anything: what cannot be opened again stays open.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        options: ReaderOptions,
        open_tables_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            fs,
            dir,
            is_mapping: AtomicBool::new(options.mode != ReadMode::Positioned),
            options,
            open_tables_max: open_tables_max.max(1),
            clock: Mutex::new(VecDeque::new()),
        })
    }

    /// A handle to table `number`, which is not opened yet.
    pub fn handle(
        self: &Arc<Self>,
        number: FileNumber,
        file_id: u64,
        file_bytes: u64,
    ) -> Arc<TableHandle> {
        Arc::new_cyclic(|me| TableHandle {
            cache: Arc::clone(self),
            me: Weak::clone(me),
            number,
            file_id,
            file_bytes,
            path: FileKind::Table.path(&self.dir, number),
            open: ArcSwapOption::empty(),
            used: AtomicBool::new(false),
            opening: Mutex::new(()),
        })
    }

    /// Whether an open table stays open until its handle is dropped or closes it.
    fn keeps_all(&self) -> bool {
        self.open_tables_max == usize::MAX
    }

    /// How its tables are read.
    pub fn options(&self) -> &ReaderOptions {
        &self.options
    }

    /// Tables open now.
    pub fn open_count(&self) -> usize {
        let clock = self.clock.lock();
        clock
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|handle| handle.open.load().is_some())
            .count()
    }

    /// Enters a table that was just opened, and closes others if there are too many.
    fn opened(&self, handle: &Weak<TableHandle>) {
        // Readers, and perhaps whole handles, are dropped after the lock: that unmaps.
        let closed = {
            let mut clock = self.clock.lock();
            if clock.len() >= self.open_tables_max {
                clock.retain(|handle| handle.strong_count() > 0);
            }
            let closed = Self::close_beyond(&mut clock, self.open_tables_max - 1, self.excess());
            clock.push_back(Weak::clone(handle));
            closed
        };
        drop(closed);
    }

    /// Takes a table that was closed by itself off the clock.
    fn closed(&self, handle: &Weak<TableHandle>) {
        self.clock.lock().retain(|other| !other.ptr_eq(handle));
    }

    /// What open tables keep in memory beyond their share of the block cache.
    fn excess(&self) -> usize {
        if self.keeps_all() {
            return 0;
        }
        let excess = self.options.cache.as_ref().map_or(0, |cache| {
            cache.charged_bytes().saturating_sub(cache.bytes_max() / 2)
        });
        usize::try_from(excess).unwrap_or(usize::MAX)
    }

    /// Closes all but `keep` tables, and further ones until they have given back `excess` bytes.
    fn close_beyond(
        clock: &mut VecDeque<Weak<TableHandle>>,
        keep: usize,
        mut excess: usize,
    ) -> Vec<(Arc<TableHandle>, Option<Arc<TableReader>>)> {
        let mut closed = Vec::new();
        // Twice round finds a victim even if every table was used since.
        let mut passes = 2 * clock.len();
        let is_over =
            |count: usize, excess: usize| count > keep || excess > 0 && count >= OPEN_TABLES_MIN;
        while is_over(clock.len(), excess) && passes > 0 {
            passes -= 1;
            let Some(candidate) = clock.pop_front() else {
                break;
            };
            let Some(handle) = candidate.upgrade() else {
                continue;
            };
            // Relaxed: a mark that is seen late costs one reopening.
            if handle.used.swap(false, Ordering::Relaxed) && passes > clock.len() {
                clock.push_back(candidate);
                closed.push((handle, None));
            } else {
                let reader = handle.open.swap(None);
                let bytes = reader.as_ref().map_or(0, |reader| reader.heap_bytes());
                excess = excess.saturating_sub(bytes);
                closed.push((handle, reader));
            }
        }
        closed
    }

    /// Closes half of what is open, because the system refused to open more.
    fn close_half(&self) {
        if self.keeps_all() {
            return;
        }
        let closed = {
            let mut clock = self.clock.lock();
            let keep = clock.len() / 2;
            Self::close_beyond(&mut clock, keep, 0)
        };
        drop(closed);
    }
}

impl fmt::Debug for TableCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableCache")
            .field("dir", &self.dir)
            .field("open_tables_max", &self.open_tables_max)
            .finish_non_exhaustive()
    }
}

/// One table that can be opened. Held by the tree for as long as the table is part of it.
pub struct TableHandle {
    cache: Arc<TableCache>,
    me: Weak<Self>,
    number: FileNumber,
    file_id: u64,
    file_bytes: u64,
    path: PathBuf,
    open: ArcSwapOption<TableReader>,
    /// Whether it was asked for since the clock last passed.
    used: AtomicBool,
    /// LOCK: before the clock of the cache.
    opening: Mutex<()>,
}

impl TableHandle {
    /// The table's number.
    pub fn number(&self) -> FileNumber {
        self.number
    }

    /// The id the file must have.
    pub fn file_id(&self) -> u64 {
        self.file_id
    }

    /// The length the file must have.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open reader; opens the table if it is not open. Lock-free when it is.
    ///
    /// # Errors
    /// `Corruption` if the file is missing, of another length, or another table's; otherwise as
    /// [`TableReader::open`].
    #[inline]
    pub fn reader(&self) -> Result<Arc<TableReader>> {
        Ok(Arc::clone(&*self.guard()?))
    }

    /// As [`TableHandle::reader`], without touching the reference count that all readers share:
    /// for a get. Not to be kept long.
    ///
    /// # Errors
    /// As [`TableHandle::reader`].
    #[inline]
    pub fn guard(&self) -> Result<ReaderGuard> {
        let guard = self.open.load();
        if guard.is_some() {
            // Looked at before it is written, so that readers do not fight over the line.
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Ok(ReaderGuard(guard));
        }
        self.open()
            .map(|reader| ReaderGuard(Guard::from_inner(Some(reader))))
    }

    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        self.open.load().is_some()
    }

    /// Closes the table, if it is open; the next use opens it again.
    pub fn close(&self) {
        if let Some(reader) = self.open.swap(None) {
            self.cache.closed(&self.me);
            drop(reader);
        }
    }

    #[cold]
    fn open(&self) -> Result<Arc<TableReader>> {
        let reader = {
            let _one_at_a_time = self.opening.lock();
            if let Some(reader) = self.open.load_full() {
                return Ok(reader);
            }
            let reader = match self.open_once() {
                Err(error) if error.kind() == ErrorKind::Io => {
                    // Out of descriptors or mappings, perhaps: make room, and try once more.
                    self.cache.close_half();
                    self.open_once()?
                }
                result => result?,
            };
            self.open.store(Some(Arc::clone(&reader)));
            reader
        };
        self.cache.opened(&self.me);
        Ok(reader)
    }

    fn open_once(&self) -> Result<Arc<TableReader>> {
        let file = match self.cache.fs.open(&self.path) {
            Err(error) if error.is_not_found() => {
                return Err(error
                    .with_kind(ErrorKind::Corruption)
                    .context("table missing"));
            }
            result => result?,
        };
        let found = file.len()?;
        if found != self.file_bytes {
            return Err(Error::corruption(&self.path, 0, "table of another length")
                .with_value("expected", self.file_bytes)
                .with_value("found", found));
        }
        let options = ReaderOptions {
            mode: self.cache.mode(),
            ..self.cache.options.clone()
        };
        TableReader::open(file, &options, Some(self.file_id), self.number.0)
    }
}

impl fmt::Debug for TableHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableHandle")
            .field("number", &self.number)
            .field("is_open", &self.open.load().is_some())
            .finish_non_exhaustive()
    }
}

/// An open reader, borrowed from its handle.
pub struct ReaderGuard(Guard<Option<Arc<TableReader>>>);

impl Deref for ReaderGuard {
    type Target = Arc<TableReader>;

    #[inline]
    fn deref(&self) -> &Arc<TableReader> {
        self.0
            .as_ref()
            .expect("a guard is made over an open reader")
    }
}

impl fmt::Debug for ReaderGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests;
