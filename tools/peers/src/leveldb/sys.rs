//! The C interface of LevelDB, as declared in its `leveldb/c.h`, and owners of what it hands out.
//!
//! Every object is owned by one value here, which frees it. LevelDB says that databases and
//! options may be used from many threads at once, iterators and batches from one.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use base::Result;
use tools::bench::engine::Commit;

macro_rules! opaque {
    ($($name:ident)+) => {
        $(
            #[repr(C)]
            struct $name {
                _private: [u8; 0],
            }
        )+
    };
}

opaque!(RawDb RawOptions RawReadOptions RawWriteOptions RawBatch RawIter RawCache RawFilter);

unsafe extern "C" {
    fn leveldb_open(
        options: *const RawOptions,
        name: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut RawDb;
    fn leveldb_close(db: *mut RawDb);
    fn leveldb_put(
        db: *mut RawDb,
        options: *const RawWriteOptions,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
        error: *mut *mut c_char,
    );
    fn leveldb_write(
        db: *mut RawDb,
        options: *const RawWriteOptions,
        batch: *mut RawBatch,
        error: *mut *mut c_char,
    );
    fn leveldb_get(
        db: *mut RawDb,
        options: *const RawReadOptions,
        key: *const c_char,
        key_len: usize,
        value_len: *mut usize,
        error: *mut *mut c_char,
    ) -> *mut c_char;
    fn leveldb_create_iterator(db: *mut RawDb, options: *const RawReadOptions) -> *mut RawIter;
    fn leveldb_compact_range(
        db: *mut RawDb,
        start: *const c_char,
        start_len: usize,
        limit: *const c_char,
        limit_len: usize,
    );
    fn leveldb_iter_destroy(iter: *mut RawIter);
    fn leveldb_iter_valid(iter: *const RawIter) -> u8;
    fn leveldb_iter_seek_to_first(iter: *mut RawIter);
    fn leveldb_iter_seek_to_last(iter: *mut RawIter);
    fn leveldb_iter_seek(iter: *mut RawIter, key: *const c_char, key_len: usize);
    fn leveldb_iter_next(iter: *mut RawIter);
    fn leveldb_iter_prev(iter: *mut RawIter);
    fn leveldb_iter_key(iter: *const RawIter, len: *mut usize) -> *const c_char;
    fn leveldb_iter_value(iter: *const RawIter, len: *mut usize) -> *const c_char;
    fn leveldb_iter_get_error(iter: *const RawIter, error: *mut *mut c_char);
    fn leveldb_writebatch_create() -> *mut RawBatch;
    fn leveldb_writebatch_destroy(batch: *mut RawBatch);
    fn leveldb_writebatch_clear(batch: *mut RawBatch);
    fn leveldb_writebatch_put(
        batch: *mut RawBatch,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
    );
    fn leveldb_options_create() -> *mut RawOptions;
    fn leveldb_options_destroy(options: *mut RawOptions);
    fn leveldb_options_set_filter_policy(options: *mut RawOptions, filter: *mut RawFilter);
    fn leveldb_options_set_create_if_missing(options: *mut RawOptions, flag: u8);
    fn leveldb_options_set_write_buffer_size(options: *mut RawOptions, bytes: usize);
    fn leveldb_options_set_max_open_files(options: *mut RawOptions, count: c_int);
    fn leveldb_options_set_cache(options: *mut RawOptions, cache: *mut RawCache);
    fn leveldb_options_set_max_file_size(options: *mut RawOptions, bytes: usize);
    fn leveldb_options_set_compression(options: *mut RawOptions, kind: c_int);
    fn leveldb_filterpolicy_create_bloom(bits_per_key: c_int) -> *mut RawFilter;
    fn leveldb_filterpolicy_destroy(filter: *mut RawFilter);
    fn leveldb_cache_create_lru(bytes: usize) -> *mut RawCache;
    fn leveldb_cache_destroy(cache: *mut RawCache);
    fn leveldb_readoptions_create() -> *mut RawReadOptions;
    fn leveldb_readoptions_destroy(options: *mut RawReadOptions);
    fn leveldb_writeoptions_create() -> *mut RawWriteOptions;
    fn leveldb_writeoptions_destroy(options: *mut RawWriteOptions);
    fn leveldb_writeoptions_set_sync(options: *mut RawWriteOptions, flag: u8);
    fn leveldb_free(pointer: *mut c_void);
    fn leveldb_major_version() -> c_int;
    fn leveldb_minor_version() -> c_int;
}

/// `leveldb_no_compression`.
const NO_COMPRESSION: c_int = 0;

/// What a constructor of the library returned; they end the process when memory runs out.
fn made<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).expect("the library's constructors return no null")
}

fn chars(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

/// The error of a call that was given `message` to fill; nothing if it left it null.
#[inline]
fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the library sets its error to a string of its own that ends in a zero byte.
    let text = unsafe { CStr::from_ptr(message) };
    let text = text.to_string_lossy().into_owned();
    // SAFETY: the string came from the library's malloc, and `text` is a copy.
    unsafe { leveldb_free(message.cast()) };
    Err(super::error(&text))
}

/// The version of the library.
pub(super) fn version() -> (i32, i32) {
    // SAFETY: takes nothing and touches nothing.
    let major = unsafe { leveldb_major_version() };
    // SAFETY: as above.
    let minor = unsafe { leveldb_minor_version() };
    (major, minor)
}

/// How a database is opened, with the cache and filter that it uses.
pub(super) struct Options {
    raw: NonNull<RawOptions>,
    cache: Option<NonNull<RawCache>>,
    filter: Option<NonNull<RawFilter>>,
}

impl Options {
    pub(super) fn new() -> Self {
        Self {
            // SAFETY: takes nothing; the result is freed once, when this is dropped.
            raw: made(unsafe { leveldb_options_create() }),
            cache: None,
            filter: None,
        }
    }

    pub(super) fn set_create_if_missing(&mut self) {
        // SAFETY: `raw` is alive until this is dropped.
        unsafe { leveldb_options_set_create_if_missing(self.raw.as_ptr(), 1) };
    }

    pub(super) fn set_write_buffer_bytes(&mut self, bytes: usize) {
        // SAFETY: `raw` is alive until this is dropped.
        unsafe { leveldb_options_set_write_buffer_size(self.raw.as_ptr(), bytes) };
    }

    pub(super) fn set_open_files_max(&mut self, count: i32) {
        // SAFETY: `raw` is alive until this is dropped.
        unsafe { leveldb_options_set_max_open_files(self.raw.as_ptr(), count) };
    }

    pub(super) fn set_table_bytes(&mut self, bytes: usize) {
        // SAFETY: `raw` is alive until this is dropped.
        unsafe { leveldb_options_set_max_file_size(self.raw.as_ptr(), bytes) };
    }

    pub(super) fn set_no_compression(&mut self) {
        // SAFETY: `raw` is alive until this is dropped.
        unsafe { leveldb_options_set_compression(self.raw.as_ptr(), NO_COMPRESSION) };
    }

    /// To be called once.
    pub(super) fn set_cache_bytes(&mut self, bytes: usize) {
        assert!(self.cache.is_none(), "one cache");
        // SAFETY: takes a number; the result is freed once, after the database.
        let cache = made(unsafe { leveldb_cache_create_lru(bytes) });
        self.cache = Some(cache);
        // SAFETY: both are alive, and the cache outlives the database, which owns these options.
        unsafe { leveldb_options_set_cache(self.raw.as_ptr(), cache.as_ptr()) };
    }

    /// To be called once; 0 for no filters.
    pub(super) fn set_filter_bits(&mut self, bits: i32) {
        assert!(self.filter.is_none(), "one filter");
        if bits == 0 {
            return;
        }
        // SAFETY: takes a number; the result is freed once, after the database.
        let filter = made(unsafe { leveldb_filterpolicy_create_bloom(bits) });
        self.filter = Some(filter);
        // SAFETY: both are alive, and the filter outlives the database, which owns these options.
        unsafe { leveldb_options_set_filter_policy(self.raw.as_ptr(), filter.as_ptr()) };
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else frees it. The database is closed already.
        unsafe { leveldb_options_destroy(self.raw.as_ptr()) };
        if let Some(cache) = self.cache {
            // SAFETY: made by `set_cache_bytes`; the database that used it is closed.
            unsafe { leveldb_cache_destroy(cache.as_ptr()) };
        }
        if let Some(filter) = self.filter {
            // SAFETY: made by `set_filter_bits`; the database that used it is closed.
            unsafe { leveldb_filterpolicy_destroy(filter.as_ptr()) };
        }
    }
}

/// How reads are made: by default.
pub(super) struct ReadOptions(NonNull<RawReadOptions>);

// SAFETY: never changed after `new`; the library only reads it.
unsafe impl Sync for ReadOptions {}

impl ReadOptions {
    pub(super) fn new() -> Self {
        // SAFETY: takes nothing; the result is freed once, when this is dropped.
        Self(made(unsafe { leveldb_readoptions_create() }))
    }
}

impl Drop for ReadOptions {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else frees it.
        unsafe { leveldb_readoptions_destroy(self.0.as_ptr()) };
    }
}

/// How writes are made.
pub(super) struct WriteOptions(NonNull<RawWriteOptions>);

// SAFETY: never changed after `new`; the library only reads it.
unsafe impl Sync for WriteOptions {}

impl WriteOptions {
    pub(super) fn new(commit: Commit) -> Self {
        // SAFETY: takes nothing; the result is freed once, when this is dropped.
        let raw = made(unsafe { leveldb_writeoptions_create() });
        let is_synced = u8::from(commit == Commit::Disk);
        // SAFETY: just made.
        unsafe { leveldb_writeoptions_set_sync(raw.as_ptr(), is_synced) };
        Self(raw)
    }
}

impl Drop for WriteOptions {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else frees it.
        unsafe { leveldb_writeoptions_destroy(self.0.as_ptr()) };
    }
}

/// Writes that are made together.
pub(super) struct Batch(NonNull<RawBatch>);

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: takes nothing; the result is freed once, when this is dropped.
        Self(made(unsafe { leveldb_writebatch_create() }))
    }

    pub(super) fn clear(&mut self) {
        // SAFETY: alive, and ours alone through `&mut`.
        unsafe { leveldb_writebatch_clear(self.0.as_ptr()) };
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let batch = self.0.as_ptr();
        // SAFETY: alive, and ours alone through `&mut`; key and value are copied by the call.
        unsafe {
            leveldb_writebatch_put(batch, chars(key), key.len(), chars(value), value.len());
        };
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else frees it.
        unsafe { leveldb_writebatch_destroy(self.0.as_ptr()) };
    }
}

/// An open database.
pub(super) struct Db {
    raw: NonNull<RawDb>,
    /// Its cache and filter are in use until it is closed.
    _options: Options,
}

// SAFETY: the library says that a database may be used from many threads without a lock.
unsafe impl Sync for Db {}

impl Db {
    pub(super) fn open(options: Options, path: &CString) -> Result<Self> {
        let mut error = ptr::null_mut();
        // SAFETY: options and path are alive during the call; the error is null as it asks for.
        let raw = unsafe { leveldb_open(options.raw.as_ptr(), path.as_ptr(), &raw mut error) };
        check(error)?;
        Ok(Self {
            raw: made(raw),
            _options: options,
        })
    }

    #[inline]
    pub(super) fn put(&self, options: &WriteOptions, key: &[u8], value: &[u8]) -> Result<()> {
        let mut error = ptr::null_mut();
        // SAFETY: database and options are alive; key and value are copied by the call.
        unsafe {
            leveldb_put(
                self.raw.as_ptr(),
                options.0.as_ptr(),
                chars(key),
                key.len(),
                chars(value),
                value.len(),
                &raw mut error,
            );
        };
        check(error)
    }

    pub(super) fn write(&self, options: &WriteOptions, batch: &mut Batch) -> Result<()> {
        let mut error = ptr::null_mut();
        let (db, options, batch) = (self.raw.as_ptr(), options.0.as_ptr(), batch.0.as_ptr());
        // SAFETY: all three are alive, the batch is ours alone through `&mut`.
        unsafe { leveldb_write(db, options, batch, &raw mut error) };
        check(error)
    }

    #[inline]
    pub(super) fn get(
        &self,
        options: &ReadOptions,
        key: &[u8],
        mut with: impl FnMut(&[u8]),
    ) -> Result<bool> {
        let mut error = ptr::null_mut();
        let mut len = 0;
        // SAFETY: database and options are alive; the key is only read during the call.
        let value = unsafe {
            leveldb_get(
                self.raw.as_ptr(),
                options.0.as_ptr(),
                chars(key),
                key.len(),
                &raw mut len,
                &raw mut error,
            )
        };
        check(error)?;
        if value.is_null() {
            return Ok(false);
        }
        // SAFETY: the library made an array of this length, which is ours until it is freed below.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) };
        with(bytes);
        // SAFETY: it came from the library's malloc, and `bytes` is not used any more.
        unsafe { leveldb_free(value.cast()) };
        Ok(true)
    }

    pub(super) fn cursor<'a>(&'a self, options: &'a ReadOptions) -> Iter<'a> {
        // SAFETY: both are alive, and by its lifetime the iterator goes before them.
        let raw = unsafe { leveldb_create_iterator(self.raw.as_ptr(), options.0.as_ptr()) };
        Iter {
            raw: made(raw),
            home: PhantomData,
        }
    }

    /// Compacts everything, after a flush of the memtable.
    pub(super) fn compact(&self) {
        let none = ptr::null();
        // SAFETY: the database is alive; null stands for an open end of the range.
        unsafe { leveldb_compact_range(self.raw.as_ptr(), none, 0, none, 0) };
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once; iterators are gone by their lifetimes.
        unsafe { leveldb_close(self.raw.as_ptr()) };
    }
}

/// A place in the state of a database at one moment.
pub(super) struct Iter<'a> {
    raw: NonNull<RawIter>,
    home: PhantomData<&'a Db>,
}

impl Iter<'_> {
    pub(super) fn seek_to_first(&mut self) {
        // SAFETY: alive, and ours alone through `&mut`.
        unsafe { leveldb_iter_seek_to_first(self.raw.as_ptr()) };
    }

    pub(super) fn seek_to_last(&mut self) {
        // SAFETY: alive, and ours alone through `&mut`.
        unsafe { leveldb_iter_seek_to_last(self.raw.as_ptr()) };
    }

    pub(super) fn seek(&mut self, key: &[u8]) {
        // SAFETY: alive, and ours alone through `&mut`; the key is only read during the call.
        unsafe { leveldb_iter_seek(self.raw.as_ptr(), chars(key), key.len()) };
    }

    /// To be called on an entry only.
    #[inline]
    pub(super) fn next(&mut self) {
        debug_assert!(self.is_valid());
        // SAFETY: alive, ours alone through `&mut`, and on an entry, as it must be.
        unsafe { leveldb_iter_next(self.raw.as_ptr()) };
    }

    /// To be called on an entry only.
    #[inline]
    pub(super) fn prev(&mut self) {
        debug_assert!(self.is_valid());
        // SAFETY: alive, ours alone through `&mut`, and on an entry, as it must be.
        unsafe { leveldb_iter_prev(self.raw.as_ptr()) };
    }

    #[inline]
    fn is_valid(&self) -> bool {
        // SAFETY: alive.
        let flag = unsafe { leveldb_iter_valid(self.raw.as_ptr()) };
        flag != 0
    }

    /// Where it stands; `None` behind the end.
    #[inline]
    pub(super) fn entry(&self) -> Option<(&[u8], &[u8])> {
        if !self.is_valid() {
            return None;
        }
        let (mut key_len, mut value_len) = (0, 0);
        // SAFETY: alive and on an entry.
        let key = unsafe { leveldb_iter_key(self.raw.as_ptr(), &raw mut key_len) };
        // SAFETY: alive and on an entry.
        let value = unsafe { leveldb_iter_value(self.raw.as_ptr(), &raw mut value_len) };
        // SAFETY: the library keeps these bytes until the iterator moves, which needs `&mut`.
        let key = unsafe { std::slice::from_raw_parts(key.cast(), key_len) };
        // SAFETY: as for the key.
        let value = unsafe { std::slice::from_raw_parts(value.cast(), value_len) };
        Some((key, value))
    }

    /// What went wrong on the way, if anything did.
    pub(super) fn status(&self) -> Result<()> {
        let mut error = ptr::null_mut();
        // SAFETY: alive; the error is null as it asks for.
        unsafe { leveldb_iter_get_error(self.raw.as_ptr(), &raw mut error) };
        check(error)
    }
}

impl Drop for Iter<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `Db::cursor`, and nobody else frees it.
        unsafe { leveldb_iter_destroy(self.raw.as_ptr()) };
    }
}
