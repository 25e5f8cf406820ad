//! What reads of a table had to touch, for whoever counts it.

/// What gets and cursors had to touch. Plain counters: the caller adds them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReadProbe {
    /// Tables that a filter ruled out.
    pub filter_negatives: u32,
    /// Tables that a filter let pass and that had nothing to show.
    pub filter_false_positives: u32,
    /// Index blocks searched.
    pub index_blocks: u32,
    /// Data blocks searched.
    pub data_blocks: u32,
    /// Blocks that were in the cache.
    pub cache_hits: u32,
    /// Blocks that were not.
    pub cache_misses: u32,
    /// Blocks read from the file or expanded from a mapping: the rest was cached, or searched
    /// where it lies mapped.
    pub loaded_blocks: u32,
    /// Bytes of data blocks touched in a mapping or read from the file, as stored.
    pub bytes_read: u64,
}

/// Where the data block of a read was had from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// Searched where it lies mapped.
    Mapped,
    /// The cache had it.
    Cached,
    /// Read from the file or expanded from a mapping: the cache did not have it.
    Missed,
    /// The same where there is no cache.
    Uncached,
}

impl BlockSource {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// Counts from 0, in the order of their declaration.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether stored bytes were touched: all but the cached ones.
    #[inline]
    pub fn touches_stored(self) -> bool {
        self != Self::Cached
    }
}

/// A data block that a read searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchedBlock {
    /// Where it was had from.
    pub source: BlockSource,
    /// What it takes in the file, without its trailer.
    pub stored_bytes: u32,
}

impl ReadProbe {
    /// Takes in where a data block was had from. The caller has counted it before, so that one that
    /// could not be had is counted too.
    #[inline]
    pub(crate) fn note_block(&mut self, block: SearchedBlock) {
        let SearchedBlock {
            source,
            stored_bytes,
        } = block;
        let is_load = matches!(source, BlockSource::Missed | BlockSource::Uncached);
        self.cache_hits += u32::from(source == BlockSource::Cached);
        self.cache_misses += u32::from(source == BlockSource::Missed);
        self.loaded_blocks += u32::from(is_load);
        if source.touches_stored() {
            self.bytes_read += u64::from(stored_bytes);
        }
    }

    /// Takes in what somebody else had to touch.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut u32, more: u32| *sum = sum.wrapping_add(more);
        add(&mut self.filter_negatives, other.filter_negatives);
        add(
            &mut self.filter_false_positives,
            other.filter_false_positives,
        );
        add(&mut self.index_blocks, other.index_blocks);
        add(&mut self.data_blocks, other.data_blocks);
        add(&mut self.cache_hits, other.cache_hits);
        add(&mut self.cache_misses, other.cache_misses);
        add(&mut self.loaded_blocks, other.loaded_blocks);
        self.bytes_read += other.bytes_read;
    }
}
