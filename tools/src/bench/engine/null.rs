//! The engine that does nothing: what a row takes with it is the cost of the driver.

use base::Result;

use super::{Direction, Engine, Entries, Session, Setup};

/// Entries that a scan is shown.
const SCANNED_COUNT: u64 = 1_000_000;

/// Forgets what is written and finds every key.
#[derive(Clone, Copy, Debug)]
pub struct Null;

/// What one thread works with.
#[derive(Clone, Copy, Debug)]
pub struct NullSession;

impl Engine for Null {
    type Session<'a> = NullSession;

    fn open(_: &Setup) -> Result<Self> {
        Ok(Self)
    }

    fn session(&self) -> Result<NullSession> {
        Ok(NullSession)
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![("version".to_owned(), "does nothing".to_owned())]
    }

    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Session for NullSession {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        std::hint::black_box((key, value));
        Ok(())
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        for entry in entries.iter() {
            std::hint::black_box(entry);
        }
        Ok(())
    }

    #[inline]
    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        with(std::hint::black_box(key));
        Ok(true)
    }

    #[inline]
    fn seek(&mut self, key: &[u8], mut with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        while with(std::hint::black_box(key), std::hint::black_box(key)) {}
        Ok(())
    }

    #[inline]
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.seek(key, with)
    }

    fn scan(&mut self, _: Direction, mut with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let entry = [0; 16];
        for _ in 0..SCANNED_COUNT {
            if !with(std::hint::black_box(&entry), std::hint::black_box(&entry)) {
                break;
            }
        }
        Ok(())
    }
}
