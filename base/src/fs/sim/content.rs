//! The bytes of a file, as pages that copies share until one of them is written.

use crate::sync::Arc;

pub(super) const PAGE_BYTES: usize = 4096;

type Page = Arc<[u8; PAGE_BYTES]>;

/// The bytes of a file. A clone costs one reference count, a write copies the pages it touches if
/// somebody else has them too, and pages of zeros at the end are not stored.
///
/// INVARIANT: stored bytes at and beyond `len` are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: Arc<Vec<Option<Page>>>,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether both are certainly the same bytes; found out without looking at them.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        self.len == other.len && Arc::ptr_eq(&self.pages, &other.pages)
    }

    /// The end of the last page that is stored; everything behind it is zero.
    pub(super) fn stored_end(&self) -> u64 {
        ((self.pages.len() * PAGE_BYTES) as u64).min(self.len)
    }

    /// Whether the page that holds `offset` is stored.
    pub(super) fn is_stored(&self, offset: u64) -> bool {
        let page = split(offset).0;
        self.pages.get(page).is_some_and(Option::is_some)
    }

    /// Fills `buffer` from `offset`, and returns how much there was.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = rest.min(buffer.len());
        let mut done = 0;
        while done < count {
            let (page, within) = split(offset + done as u64);
            let step = (PAGE_BYTES - within).min(count - done);
            let target = &mut buffer[done..done + step];
            match self.pages.get(page) {
                Some(Some(bytes)) => target.copy_from_slice(&bytes[within..within + step]),
                Some(None) | None => target.fill(0),
            }
            done += step;
        }
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let pages = Arc::make_mut(&mut self.pages);
        let last = split(end - 1).0;
        if pages.len() <= last {
            pages.resize(last + 1, None);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = split(offset + done as u64);
            let step = (PAGE_BYTES - within).min(bytes.len() - done);
            let page = pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + step].copy_from_slice(&bytes[done..done + step]);
            done += step;
        }
        self.len = self.len.max(end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, within) = split(len);
            let pages = Arc::make_mut(&mut self.pages);
            pages.truncate(page + usize::from(within > 0));
            if let Some(Some(bytes)) = pages.get_mut(page) {
                Arc::make_mut(bytes)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes over the pages of `newer` that hold this range, and its length, which is no shorter.
    pub(super) fn adopt(&mut self, newer: &Self, offset: u64, len: usize) {
        assert!(self.len <= newer.len, "a cut file is adopted as a whole");
        self.len = newer.len;
        if len == 0 {
            return;
        }
        let (first, last) = (split(offset).0, split(offset + len as u64 - 1).0);
        let pages = Arc::make_mut(&mut self.pages);
        if pages.len() <= last {
            pages.resize(last + 1, None);
        }
        pages[first..=last].clone_from_slice(&newer.pages[first..=last]);
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let len = usize::try_from(self.len).expect("a file that is read whole fits in memory");
        let mut bytes = vec![0; len];
        self.read(0, &mut bytes);
        bytes
    }
}

/// The page of `offset`, and where in it that is.
fn split(offset: u64) -> (usize, usize) {
    let offset = usize::try_from(offset).expect("offsets are bounded by FILE_BYTES_MAX");
    (offset / PAGE_BYTES, offset % PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn it_behaves_like_a_vector() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let (mut content, mut model) = (Content::default(), Vec::new());
            let mut copies = Vec::new();
            for _ in 0..60 {
                let at = random.index(3 * PAGE_BYTES);
                match random.below(4) {
                    0 => {
                        content.set_len(at as u64);
                        model.resize(at, 0);
                    }
                    1 => copies.push((content.clone(), model.clone())),
                    _ => {
                        let fill = random.next_u64().to_le_bytes()[0];
                        let bytes = vec![fill; random.index(2 * PAGE_BYTES)];
                        content.write(at as u64, &bytes);
                        if !bytes.is_empty() && model.len() < at + bytes.len() {
                            model.resize(at + bytes.len(), 0);
                        }
                        if !bytes.is_empty() {
                            model[at..at + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                }
                assert_eq!(content.to_vec(), model);
            }
            for (content, model) in copies {
                assert_eq!(content.to_vec(), model, "a copy changed");
            }
        }
    }

    #[test]
    fn adopting_what_was_written_makes_equal() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let (mut content, mut older) = (Content::default(), Content::default());
            for _ in 0..20 {
                let mut writes = Vec::new();
                for _ in 0..random.below(4) {
                    let at = random.below(5 * PAGE_BYTES as u64);
                    let bytes =
                        vec![random.next_u64().to_le_bytes()[0]; random.index(2 * PAGE_BYTES)];
                    content.write(at, &bytes);
                    writes.push((at, bytes.len()));
                }
                for (at, len) in writes {
                    older.adopt(&content, at, len);
                }
                assert_eq!(older.to_vec(), content.to_vec());
            }
        }
    }

    #[test]
    fn reserved_zeros_are_not_stored() {
        let mut content = Content::default();
        content.set_len(1 << 40);
        assert_eq!(content.stored_end(), 0);
        let mut buffer = [1; 16];
        assert_eq!(content.read((1 << 40) - 4, &mut buffer), 4);
        assert_eq!(&buffer[..4], [0; 4]);
    }
}
