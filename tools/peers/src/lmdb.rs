//! LMDB, a B-tree in a mapped file, through the crate with its C sources.
//!
//! Without a sync a commit is written to the file by `pwrite`: the operating system has it when
//! the call returns, as for the others. A power cut could then damage the whole file, which it
//! cannot do to the log-structured ones; there is no setting in between.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};

use base::Result;
use lmdb_master_sys as ffi;
use tools::bench::engine::{
    Commit, Direction, Engine, EngineName, Entries, Session, Setup, Tuning,
};

use crate::{failed, settings};

/// How far the mapping may grow: address space, not memory.
const MAP_BYTES: usize = 256 << 30;
/// Permissions of the files.
const MODE: ffi::mdb_mode_t = 0o644;

/// An open environment and its one tree.
pub(crate) struct Lmdb {
    env: NonNull<ffi::MDB_env>,
    dbi: ffi::MDB_dbi,
    settings: Vec<(String, String)>,
}

// SAFETY: LMDB says that an environment may be used from many threads; transactions stay within
// the sessions, one of which belongs to one thread.
unsafe impl Sync for Lmdb {}

/// What one thread works with: a read transaction that is reset and renewed, as LMDB advises.
pub(crate) struct LmdbSession<'a> {
    lmdb: &'a Lmdb,
    reader: Option<Reader>,
    /// Reader and cursor that stay where they are between calls.
    kept: Option<(Cursor, Reader)>,
}

/// Turns a code of LMDB into a result.
#[inline]
fn check(code: i32) -> Result<()> {
    if code == ffi::MDB_SUCCESS {
        return Ok(());
    }
    // SAFETY: takes a number.
    let text = unsafe { ffi::mdb_strerror(code) };
    // SAFETY: a string of the library or of the system, alive until the next call in this thread.
    let text = unsafe { CStr::from_ptr(text) };
    Err(failed(EngineName::Lmdb, &text.to_string_lossy()))
}

fn val(bytes: &[u8]) -> ffi::MDB_val {
    ffi::MDB_val {
        mv_size: bytes.len(),
        // The library only reads through it.
        mv_data: bytes.as_ptr().cast_mut().cast(),
    }
}

const fn no_val() -> ffi::MDB_val {
    ffi::MDB_val {
        mv_size: 0,
        mv_data: ptr::null_mut(),
    }
}

/// The bytes of a value that LMDB set.
///
/// # Safety
/// - `val` was set by a successful call in a transaction that lives, unchanged, for `'a`.
#[inline]
unsafe fn bytes<'a>(val: &ffi::MDB_val) -> &'a [u8] {
    // SAFETY: LMDB sets it to bytes of its mapping that stay until the transaction ends.
    unsafe { std::slice::from_raw_parts(val.mv_data.cast(), val.mv_size) }
}

impl Engine for Lmdb {
    type Session<'a> = LmdbSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let path = CString::new(setup.dir.as_os_str().as_bytes())
            .map_err(|_| failed(EngineName::Lmdb, &"a path with a zero byte"))?;
        let mut flags = ffi::MDB_NOTLS;
        if setup.commit == Commit::Os {
            flags |= ffi::MDB_NOSYNC;
        }
        let mut writes = "pwrite";
        if setup.tuning == Tuning::Best {
            flags |= ffi::MDB_WRITEMAP;
            writes = "through the mapping (MDB_WRITEMAP)";
        }
        let mut env = ptr::null_mut();
        // SAFETY: sets the pointer to a new environment, which this owns from here on.
        check(unsafe { ffi::mdb_env_create(&raw mut env) })?;
        let mut lmdb = Self {
            env: NonNull::new(env).expect("set by a successful call"),
            dbi: 0,
            settings: settings(&[
                ("version", version()),
                (
                    "a write returns",
                    match setup.commit {
                        Commit::Os => "when the operating system has it (MDB_NOSYNC)".to_owned(),
                        Commit::Disk => "after the sync of its commit (its default)".to_owned(),
                    },
                ),
                ("writes", writes.to_owned()),
                ("cache", "the operating system's".to_owned()),
                (
                    "reads",
                    "one transaction a thread, renewed for each get and cursor".to_owned(),
                ),
            ]),
        };
        // SAFETY: a new environment that is not open yet, as it must be.
        check(unsafe { ffi::mdb_env_set_mapsize(env, MAP_BYTES) })?;
        // SAFETY: a new environment; the path is alive during the call. After a failure it may
        // only be closed, which is what dropping does.
        check(unsafe { ffi::mdb_env_open(env, path.as_ptr(), flags, MODE) })?;
        let txn = lmdb.begin(0)?;
        let dbi = &raw mut lmdb.dbi;
        // SAFETY: the transaction is alive, and null names the unnamed tree.
        check(unsafe { ffi::mdb_dbi_open(txn, ptr::null(), 0, dbi) })?;
        // SAFETY: alive until here, and never used again.
        check(unsafe { ffi::mdb_txn_commit(txn) })?;
        Ok(lmdb)
    }

    fn session(&self) -> Result<LmdbSession<'_>> {
        Ok(LmdbSession {
            lmdb: self,
            reader: None,
            kept: None,
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        Err(failed(EngineName::Lmdb, &"it has no compaction in place"))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        // SAFETY: made by `open`; sessions, and so transactions, are gone by their lifetimes.
        unsafe { ffi::mdb_env_close(self.env.as_ptr()) };
    }
}

fn version() -> String {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: fills three numbers.
    unsafe { ffi::mdb_version(&raw mut major, &raw mut minor, &raw mut patch) };
    format!("{major}.{minor}.{patch}")
}

impl Lmdb {
    fn begin(&self, flags: u32) -> Result<*mut ffi::MDB_txn> {
        let mut txn = ptr::null_mut();
        let env = self.env.as_ptr();
        // SAFETY: the environment is open, and null means that there is no parent.
        check(unsafe { ffi::mdb_txn_begin(env, ptr::null_mut(), flags, &raw mut txn) })?;
        Ok(txn)
    }

    /// Puts `entries` in one transaction.
    fn put_all<'e>(&self, entries: impl Iterator<Item = (&'e [u8], &'e [u8])>) -> Result<()> {
        let txn = self.begin(0)?;
        for (key, value) in entries {
            let (mut key, mut value) = (val(key), val(value));
            // SAFETY: the transaction is alive; key and value are copied by the call.
            let code = unsafe { ffi::mdb_put(txn, self.dbi, &raw mut key, &raw mut value, 0) };
            if let Err(error) = check(code) {
                // SAFETY: alive until here, and never used again.
                unsafe { ffi::mdb_txn_abort(txn) };
                return Err(error);
            }
        }
        // SAFETY: alive until here, and never used again.
        check(unsafe { ffi::mdb_txn_commit(txn) })
    }
}

/// A read transaction of one thread.
struct Reader {
    txn: NonNull<ffi::MDB_txn>,
}

impl Reader {
    /// A new one, at the newest state.
    fn new(lmdb: &Lmdb) -> Result<Self> {
        let txn = lmdb.begin(ffi::MDB_RDONLY)?;
        Ok(Self {
            txn: NonNull::new(txn).expect("set by a successful call"),
        })
    }

    /// Lets its state go, and takes the newest.
    #[inline]
    fn renew(&mut self) -> Result<()> {
        // SAFETY: alive, and nothing that it lent is in use, through `&mut`.
        unsafe { ffi::mdb_txn_reset(self.txn.as_ptr()) };
        // SAFETY: just reset.
        check(unsafe { ffi::mdb_txn_renew(self.txn.as_ptr()) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: begun by `new`, ended once; cursors on it are gone before.
        unsafe { ffi::mdb_txn_abort(self.txn.as_ptr()) };
    }
}

/// A cursor of a [`Reader`] that lives longer.
struct Cursor {
    raw: NonNull<ffi::MDB_cursor>,
}

impl Cursor {
    fn new(lmdb: &Lmdb, reader: &Reader) -> Result<Self> {
        let mut raw = ptr::null_mut();
        let txn = reader.txn.as_ptr();
        // SAFETY: the transaction is alive; whoever calls keeps it longer than the cursor.
        check(unsafe { ffi::mdb_cursor_open(txn, lmdb.dbi, &raw mut raw) })?;
        Ok(Self {
            raw: NonNull::new(raw).expect("set by a successful call"),
        })
    }

    /// Moves to the entry that `first` says, then on by `next` as long as `with` wants more.
    #[inline]
    fn walk(
        &mut self,
        from: &[u8],
        first: ffi::MDB_cursor_op,
        next: ffi::MDB_cursor_op,
        mut with: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let (mut key, mut value) = (val(from), no_val());
        let mut operation = first;
        loop {
            let cursor = self.raw.as_ptr();
            // SAFETY: cursor and transaction are alive; `from` is only read.
            let code =
                unsafe { ffi::mdb_cursor_get(cursor, &raw mut key, &raw mut value, operation) };
            if code == ffi::MDB_NOTFOUND {
                return Ok(());
            }
            check(code)?;
            // SAFETY: set by the call above; the transaction does not end in this loop.
            let shown_key = unsafe { bytes(&key) };
            // SAFETY: as for the key.
            let shown_value = unsafe { bytes(&value) };
            if !with(shown_key, shown_value) {
                return Ok(());
            }
            operation = next;
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: made by `new`, closed once, before its transaction ends.
        unsafe { ffi::mdb_cursor_close(self.raw.as_ptr()) };
    }
}

impl LmdbSession<'_> {
    /// The thread's reader, at the newest state.
    #[inline]
    fn reader(&mut self) -> Result<&mut Reader> {
        match &mut self.reader {
            Some(reader) => reader.renew()?,
            none => *none = Some(Reader::new(self.lmdb)?),
        }
        Ok(self.reader.as_mut().expect("just made or renewed"))
    }
}

impl Session for LmdbSession<'_> {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.lmdb.put_all(std::iter::once((key, value)))
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        self.lmdb.put_all(entries.iter())
    }

    #[inline]
    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        let dbi = self.lmdb.dbi;
        let txn = self.reader()?.txn.as_ptr();
        let (mut key, mut value) = (val(key), no_val());
        // SAFETY: the transaction is alive and at a state; the key is only read.
        let code = unsafe { ffi::mdb_get(txn, dbi, &raw mut key, &raw mut value) };
        if code == ffi::MDB_NOTFOUND {
            return Ok(false);
        }
        check(code)?;
        // SAFETY: set by the call above; the reader is not renewed before this returns.
        with(unsafe { bytes(&value) });
        Ok(true)
    }

    #[inline]
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let lmdb = self.lmdb;
        let reader = self.reader()?;
        let mut cursor = Cursor::new(lmdb, reader)?;
        cursor.walk(key, ffi::MDB_SET_RANGE, ffi::MDB_NEXT, with)
    }

    #[inline]
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        if self.kept.is_none() {
            let reader = Reader::new(self.lmdb)?;
            self.kept = Some((Cursor::new(self.lmdb, &reader)?, reader));
        }
        let (cursor, _) = self.kept.as_mut().expect("just made");
        cursor.walk(key, ffi::MDB_SET_RANGE, ffi::MDB_NEXT, with)
    }

    fn scan(&mut self, direction: Direction, with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let lmdb = self.lmdb;
        let reader = self.reader()?;
        let mut cursor = Cursor::new(lmdb, reader)?;
        match direction {
            Direction::Forward => cursor.walk(&[], ffi::MDB_FIRST, ffi::MDB_NEXT, with),
            Direction::Backward => cursor.walk(&[], ffi::MDB_LAST, ffi::MDB_PREV, with),
        }
    }
}
