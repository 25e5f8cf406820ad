//! A file that lies in memory, and in no file system.

use std::path::{Path, PathBuf};

use super::{Access, File, Mapping};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

/// How long a file in memory may become.
const FILE_BYTES_MAX: usize = 2 << 30;

/// A file in memory, for layers that keep changes to themselves, and for tests.
///
/// Nothing makes it durable: a sync does nothing. A mapping is a copy, which later writes do not
/// reach.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    bytes: Mutex<Vec<u8>>,
}

impl MemoryFile {
    /// A file that holds `bytes`; `path` is what it says of itself, and nothing need lie there.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_owned(),
            bytes: Mutex::new(bytes),
        }
    }

    /// A copy of what it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }

    fn resize(&self, bytes: &mut Vec<u8>, len: u64) -> Result<()> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > FILE_BYTES_MAX {
            return Err(Error::new(ErrorKind::NoSpace, "too much for memory")
                .with_value("max", FILE_BYTES_MAX)
                .with_path(&self.path));
        }
        bytes.resize(len, 0);
        Ok(())
    }
}

impl File for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.bytes.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut whole = self.bytes.lock();
        let end = offset.saturating_add(bytes.len() as u64);
        if end > whole.len() as u64 {
            self.resize(&mut whole, end)?;
        }
        let start = usize::try_from(offset).expect("not above the end, which fits");
        whole[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.resize(&mut self.bytes.lock(), len)
    }

    fn reserve(&self, _len: u64) -> Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn map(&self, _access: Access) -> Result<Mapping> {
        Ok(Mapping::from_memory(Arc::from(&**self.bytes.lock())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_grows_without_end() {
        let file = MemoryFile::new(Path::new("a"), b"abc".to_vec());
        file.write_at(5, b"f").expect("small");
        let mapping = file.map(Access::Random).expect("a copy");
        assert_eq!(&*mapping, b"abc\0\0f");
        file.set_len(1).expect("shorter");
        assert_eq!((file.bytes(), &*mapping), (b"a".to_vec(), &b"abc\0\0f"[..]));
        let mut buffer = [7; 4];
        assert_eq!(file.read_at(1, &mut buffer).expect("at the end"), 0);
        assert_eq!(file.read_at(u64::MAX, &mut buffer).expect("behind it"), 0);
        assert_eq!(file.read_at(0, &mut buffer).expect("one byte"), 1);
        assert_eq!(buffer, [b'a', 7, 7, 7]);
        let error = file.write_at(FILE_BYTES_MAX as u64, b"f");
        assert!(error.expect_err("a byte too many").is_no_space());
        let error = file.set_len(u64::MAX).expect_err("far too many");
        assert!(error.is_no_space() && error.path() == Some(Path::new("a")));
        assert_eq!(file.len().expect("as it was"), 1);
    }
}
