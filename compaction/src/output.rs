//! Cuts a stream of entries into tables, and takes the files away again if the job fails.
//!
//! A cut is made only between user keys: two tables of a level must not share one.

use std::path::PathBuf;

use base::error::Result;
use base::fs::FileSystem;
use base::sync::atomic::{AtomicBool, Ordering};
use base::sync::{Arc, Mutex};
use base::{FileKind, FileNumber, InternalKey, Level};
use sstable::{CreationReason, TableSummary, TableWriter};

use crate::job::JobContext;
use crate::levels::{Table, TableMeta};
use crate::policy::grandparent_bytes_max;

/// The files that a job has made. Dropped without [`CreatedFiles::keep`] it removes them, so that
/// an error, a cancelled job or a panic leaves nothing behind.
pub(crate) struct CreatedFiles<'a> {
    fs: &'a dyn FileSystem,
    paths: Mutex<Vec<PathBuf>>,
    keep: AtomicBool,
}

impl<'a> CreatedFiles<'a> {
    pub(crate) fn new(fs: &'a dyn FileSystem) -> Self {
        Self {
            fs,
            paths: Mutex::new(Vec::new()),
            keep: AtomicBool::new(false),
        }
    }

    fn add(&self, path: PathBuf) {
        self.paths.lock().push(path);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.lock().is_empty()
    }

    /// The job has succeeded.
    pub(crate) fn keep(&self) {
        // Relaxed: set and read by the thread that owns this.
        self.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for CreatedFiles<'_> {
    fn drop(&mut self) {
        if self.keep.load(Ordering::Relaxed) {
            return;
        }
        for path in self.paths.lock().drain(..) {
            // The job has failed already, and says why. What stays is an orphan, which the next
            // recovery removes.
            let _ = self.fs.remove_file(&path);
        }
    }
}

/// Where and how one run of outputs is cut.
pub(crate) struct OutputRules<'a> {
    pub(crate) level: Level,
    pub(crate) reason: CreationReason,
    /// A table is finished once it is this long.
    pub(crate) bytes_target: u64,
    /// Tables two levels below the inputs, in key order, from the start of the range on.
    pub(crate) grandparents: &'a [Arc<Table>],
}

struct OpenTable {
    number: FileNumber,
    writer: TableWriter,
    /// Grandparents that ended since this table began, and their bytes.
    crossed: u64,
    crossed_bytes: u64,
}

/// Takes entries in key order and writes as many tables as needed.
pub(crate) struct Outputs<'a> {
    context: &'a JobContext,
    files: &'a CreatedFiles<'a>,
    rules: OutputRules<'a>,
    /// The grandparents before this one end before the current key.
    grandparent: usize,
    open: Option<OpenTable>,
    finished: Vec<TableMeta>,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(
        context: &'a JobContext,
        files: &'a CreatedFiles<'a>,
        rules: OutputRules<'a>,
    ) -> Self {
        Self {
            context,
            files,
            rules,
            grandparent: 0,
            open: None,
            finished: Vec::new(),
        }
    }

    /// Says that all further entries are of `user_key` or later ones. Here, and only here, a table
    /// may be cut.
    #[inline]
    pub(crate) fn begin_key(&mut self, user_key: &[u8]) -> Result<()> {
        let crossed = self.cross_grandparents(user_key);
        let Some(open) = &self.open else {
            return Ok(());
        };
        let bytes = open.writer.file_bytes_estimate();
        if bytes >= self.rules.bytes_target || (crossed && self.is_good_boundary(open, bytes)) {
            return self.finish_table();
        }
        Ok(())
    }

    /// Whether grandparents end between the key before and this one.
    #[inline]
    fn cross_grandparents(&mut self, user_key: &[u8]) -> bool {
        let mut crossed = false;
        while let Some(table) = self.rules.grandparents.get(self.grandparent)
            && table.meta.ends_before_key(user_key)
        {
            self.grandparent += 1;
            crossed = true;
            if let Some(open) = &mut self.open {
                open.crossed += 1;
                open.crossed_bytes = open.crossed_bytes.saturating_add(table.meta.file_bytes);
            }
        }
        crossed
    }

    /// A table that ends where a grandparent does, not in the middle of one, drags one table less
    /// along when it is compacted in turn. Worth it from half of the target size on, later if
    /// boundaries are many. (The thresholds are RocksDB's, which measured 12 % fewer bytes
    /// written.)
    fn is_good_boundary(&self, open: &OpenTable, bytes: u64) -> bool {
        let target = self.rules.bytes_target;
        let percent = 50 + open.crossed.saturating_mul(5).min(40);
        bytes >= target / 100 * percent || open.crossed_bytes >= grandparent_bytes_max(target)
    }

    /// Writes one entry of the key that was begun.
    #[inline]
    pub(crate) fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(create(self.context, self.files, &self.rules)?),
        };
        open.writer.add(key, value)
    }

    #[cold]
    fn finish_table(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            let entry_count = open.writer.entry_count();
            let summary = open.writer.finish()?;
            assert!(
                summary.properties.entry_count == entry_count,
                "a table has another number of entries than were added"
            );
            self.finished.push(meta_of(open.number, summary));
        }
        Ok(())
    }

    /// Finishes the last table. All that are returned are synced, their names are not.
    pub(crate) fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.finish_table()?;
        Ok(self.finished)
    }
}

#[cold]
fn create(
    context: &JobContext,
    files: &CreatedFiles<'_>,
    rules: &OutputRules<'_>,
) -> Result<OpenTable> {
    let number = (context.numbers)();
    let mut options = (context.table_options)(rules.level, rules.reason);
    options.level = rules.level;
    options.reason = rules.reason;
    options.created_micros = context.clock.now_micros();
    let path = FileKind::Table.path(&context.dir, number);
    // Registered first: a failed creation may have left the name.
    files.add(path.clone());
    let writer = TableWriter::create(&*context.fs, &path, options)?;
    Ok(OpenTable {
        number,
        writer,
        crossed: 0,
        crossed_bytes: 0,
    })
}

fn meta_of(number: FileNumber, summary: TableSummary) -> TableMeta {
    let TableSummary {
        file_id,
        file_bytes,
        smallest,
        largest,
        properties,
    } = summary;
    TableMeta {
        number,
        file_id,
        file_bytes,
        entry_count: properties.entry_count,
        tombstone_count: properties.tombstone_count(),
        raw_bytes: properties
            .raw_key_bytes
            .saturating_add(properties.raw_value_bytes),
        smallest,
        largest,
        largest_exclusive: false,
        seq_smallest: properties.seq_smallest,
        seq_largest: properties.seq_largest,
        global_seq: None,
        location: 0,
        compression: properties.compression.as_u8(),
        created_micros: properties.created_micros,
        hidden_count: properties.entry_count - properties.user_key_count,
    }
}
