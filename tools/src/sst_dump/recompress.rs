//! `recompress`: how large a table would be with other codecs, levels and blocks, and how long it
//! takes to write it. Nothing is written to a disk, and no more than a block is held in memory.

use std::path::{Path, PathBuf};

use base::clock::{Clock, SystemClock};
use base::cursor::Cursor;
use base::error::ErrorKind;
use base::fs::{Access, DirEntry, File, FileSystem, LockGuard, Mapping, Status, Watch};
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{Error, Result};
use serde_json::{Value, json};
use sstable::{Compression, ScanMode, TableOptions, TableReader, TableWriter};

use super::Stop;
use super::args::Codec;
use super::commands::{Session, named};
use super::find::Table;
use super::render;
use crate::text::bytes_for_people;

/// The limit of a table's writer.
const BLOCK_BYTES_MAX: u64 = 4 << 20;
/// As long as the engine makes dictionaries unless told otherwise.
const DICTIONARY_BYTES_MAX: usize = 4 << 10;

/// One way to store a table, and what came of it.
struct Trial {
    compression: Compression,
    block_bytes: u64,
    file_bytes: u64,
    data_bytes: u64,
    micros: u64,
}

impl Trial {
    fn name(&self) -> String {
        match self.compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd { level } => format!("zstd {level}"),
        }
    }
}

impl Session<'_> {
    /// Writes `table` in every way that the command line asks for.
    pub(super) fn recompress(
        &mut self,
        table: &Table,
        reader: &Arc<TableReader>,
    ) -> std::result::Result<(), Stop> {
        let mut trials = Vec::new();
        for block_bytes in &self.command_line.block_sizes {
            for compression in self.compressions() {
                trials.push(try_it(reader, compression, *block_bytes)?);
                self.progress.reached(0);
            }
        }
        self.progress.clear();
        if self.command_line.json {
            let mut fields = named(table);
            fields.insert("file_bytes".to_owned(), reader.file_bytes().into());
            let documents: Vec<Value> = trials.iter().map(document).collect();
            fields.insert("trials".to_owned(), documents.into());
            return Ok(self.object(fields)?);
        }
        let now = bytes_for_people(reader.file_bytes());
        writeln!(self.out, "{}: {now} now", render::path(&table.path))?;
        writeln!(
            self.out,
            "  {:<9} {:>10} {:>12} {:>12} {:>8} {:>10}",
            "codec", "blocks of", "file", "data", "of now", "seconds"
        )?;
        for trial in &trials {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let (percent, seconds) = (
                100.0 * trial.file_bytes as f64 / reader.file_bytes().max(1) as f64,
                trial.micros as f64 / 1e6,
            );
            writeln!(
                self.out,
                "  {:<9} {:>10} {:>12} {:>12} {percent:>7.1}% {seconds:>10.3}",
                trial.name(),
                bytes_for_people(trial.block_bytes),
                trial.file_bytes,
                trial.data_bytes,
            )?;
        }
        Ok(())
    }

    fn compressions(&self) -> Vec<Compression> {
        let mut compressions = Vec::new();
        for codec in &self.command_line.compression_types {
            match codec {
                Codec::None => compressions.push(Compression::None),
                Codec::Zstd => {
                    let levels = self.command_line.compression_levels.iter();
                    compressions.extend(levels.map(|level| Compression::Zstd { level: *level }));
                }
            }
        }
        compressions
    }
}

fn document(trial: &Trial) -> Value {
    json!({
        "codec": trial.name(),
        "block_bytes": trial.block_bytes,
        "file_bytes": trial.file_bytes,
        "data_bytes": trial.data_bytes,
        "micros": trial.micros,
    })
}

fn try_it(reader: &Arc<TableReader>, compression: Compression, block_bytes: u64) -> Result<Trial> {
    let properties = reader.properties()?;
    let clock = SystemClock::new();
    let block_bytes_target = block_bytes.clamp(64, BLOCK_BYTES_MAX);
    let options = TableOptions {
        block_bytes_target: usize::try_from(block_bytes_target).unwrap_or(4096),
        filter: properties.filter,
        compression,
        dictionary_bytes_max: DICTIONARY_BYTES_MAX,
        hash_seed: reader.hash_seed(),
        keyspace: properties.keyspace,
        level: properties.level,
        reason: properties.reason,
        ..TableOptions::default()
    };
    let path = Path::new("nowhere.sst");
    let mut writer = TableWriter::create(&Nowhere, path, options)?;
    let mut cursor = reader.cursor(ScanMode::Bulk);
    let mut is_valid = cursor.seek_to_first()?;
    let mut last: Option<base::OwnedKey> = None;
    while is_valid {
        // The writer trusts its caller; a table of unknown origin may be in no order at all.
        let key = cursor.key();
        let follows = |last: &base::OwnedKey| {
            let order = (*last.user_key).cmp(key.user_key);
            order.is_lt() || order.is_eq() && last.seq > key.seq
        };
        if !last.as_ref().is_none_or(follows) {
            let (path, offset) = (reader.path(), cursor.block_offset());
            return Err(Error::corruption(path, offset, "entries are not in order"));
        }
        last = Some(key.into());
        writer.add(key, cursor.value())?;
        is_valid = cursor.next()?;
    }
    let summary = writer.finish()?;
    Ok(Trial {
        compression,
        block_bytes: block_bytes_target,
        file_bytes: summary.file_bytes,
        data_bytes: summary.properties.data_bytes,
        micros: clock.monotonic_micros(),
    })
}

/// Takes every byte and keeps none.
#[derive(Debug)]
struct Nowhere;

#[derive(Debug)]
struct NoFile {
    path: PathBuf,
    len: AtomicU64,
}

fn refused<T>(path: &Path) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "nothing is kept here").with_path(path))
}

impl FileSystem for Nowhere {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(NoFile {
            path: path.to_owned(),
            len: AtomicU64::new(0),
        }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        refused(path)
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        refused(path)
    }

    fn rename(&self, from: &Path, _to: &Path) -> Result<()> {
        refused(from)
    }

    fn remove_file(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        refused(path)
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        refused(dir)
    }

    fn status(&self, _path: &Path) -> Result<Option<Status>> {
        Ok(None)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        refused(path)
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        Ok(u64::MAX)
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        refused(dir)
    }

    fn random_u64(&self) -> u64 {
        1
    }
}

impl File for NoFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
        refused(&self.path)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.len.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn reserve(&self, _len: u64) -> Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn map(&self, _access: Access) -> Result<Mapping> {
        refused(&self.path)
    }
}
