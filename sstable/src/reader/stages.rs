//! A get in stages, for whoever does many at once: each stage asks for the memory that the next one
//! reads, so that the waits of one key are spent on the others. Called by the engine's `multi_get`.
//!
//! The stages of a key: the filter is asked for and asked; the index is searched in two steps; what
//! it says of the block is asked for; the block is asked for, then searched in two steps.
#![deny(clippy::indexing_slicing)]

use base::coding::Malformed;
use base::{KeyHash, Result, SequenceNumber};

use super::{
    BlockPlace, BlockSearch, BlockSource, FilterState, SearchedBlock, TableHit, TableReader,
    data_shape,
};
use crate::block::{Aim, Shape, Spot};

/// Where in the index of a table a search goes on; good for that table and key only.
#[derive(Clone, Copy, Debug)]
pub struct BlockAim<'k>(Aim<'k>);

/// Where in a block a search goes on; good for that block and key only.
#[derive(Clone, Copy, Debug)]
pub struct BlockSpot<'k> {
    shape: Shape,
    spot: Spot<'k>,
}

impl TableReader {
    /// Asks for the cache line that [`TableReader::passes_filter`] will need.
    #[inline]
    pub fn prefetch_filter(&self, hash: KeyHash) {
        if let Some(FilterState::Ready(filter)) = self.filter.get() {
            filter.prefetch(self.filter_block(), hash);
        }
    }

    /// The first of two steps to the number of the one block in which `user_key` can be.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    #[inline]
    pub fn aim<'k>(&self, user_key: &'k [u8]) -> Result<BlockAim<'k>> {
        Ok(BlockAim(self.index()?.aim(user_key)))
    }

    /// The second step: the number of the block in which a version of the key at or below `seq` can
    /// be, if there is one.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    #[inline]
    pub fn settle(&self, aim: &BlockAim<'_>, seq: SequenceNumber) -> Result<Option<usize>> {
        let index = self.index()?;
        let at = index.settle(&aim.0, seq);
        let at = at.map_err(|Malformed| self.damaged_index())?;
        Ok((at < index.count()).then_some(at))
    }

    /// Asks for what [`TableReader::place_of`] reads of block `at`, which
    /// [`TableReader::settle`] gave.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    #[inline]
    pub fn prefetch_place(&self, at: usize) -> Result<()> {
        self.index()?.prefetch_entry(at);
        Ok(())
    }

    /// Where block `at` is: what [`TableReader::locate`] gives. Asks for its first lines, if it
    /// is mapped.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    #[inline]
    pub fn place_of(&self, at: usize) -> Result<BlockPlace> {
        let entry = self.index()?.entry(at);
        let entry = entry.map_err(|Malformed| self.damaged_index())?;
        if let Some(bytes) = self.in_place(entry) {
            Shape::prefetch(bytes);
        }
        Ok(BlockPlace { at, entry })
    }

    /// The first of two steps of [`TableReader::get_in`]: asks for the entry of `user_key`. `None`
    /// if the block is to be checked or loaded first, which `get_in` does.
    #[inline]
    pub fn spot<'k>(&self, place: BlockPlace, user_key: &'k [u8]) -> Option<BlockSpot<'k>> {
        let bytes = self.in_place(place.entry)?;
        if !self.is_trusted(place.at) {
            return None;
        }
        let shape = data_shape(bytes).ok()?;
        let spot = shape.spot(bytes, user_key)?;
        Some(BlockSpot { shape, spot })
    }

    /// The second step, in the same block.
    ///
    /// # Errors
    /// As for [`TableReader::get`].
    #[inline]
    pub fn get_at<'a>(
        &'a self,
        place: BlockPlace,
        spot: &BlockSpot<'_>,
        seq: SequenceNumber,
    ) -> Result<BlockSearch<'a>> {
        let handle = place.entry.handle;
        let bytes = self.in_place(place.entry).unwrap_or_default();
        let found = spot.shape.find_at(bytes, &spot.spot, seq);
        let found =
            found.map_err(|Malformed| self.damaged(handle.offset, "data block malformed"))?;
        Ok(match found {
            Some(entry) => BlockSearch::Found(TableHit::mapped(&entry, handle)),
            None => BlockSearch::Absent(SearchedBlock {
                source: BlockSource::Mapped,
                stored_bytes: handle.len,
            }),
        })
    }
}
