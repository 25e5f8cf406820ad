//! The options of one keyspace, and the setters that they share with those of the database.

use std::fmt;

use base::Result;
use memtable::MemtableStructure;
use sstable::{Compression, FilterPolicy};

use crate::tuning::KeyspaceSettings;

/// Setters for fields of what the method `$place` gives.
macro_rules! setters {
    ($place:ident; $($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        $(
            $(#[doc = $doc])+
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$place().$name = $name;
                self
            }
        )+
    };
}
pub(super) use setters;

/// The setters of what each keyspace has for itself.
macro_rules! keyspace_setters {
    ($place:ident) => {
        setters! {
            $place;

            /// How large a memtable grows before it is sealed and flushed. Default: 64 MiB.
            ///
            /// Larger ones mean fewer, larger tables in level 0 and less write amplification, more
            /// memory, and a longer recovery. From 4 KiB to 64 GiB.
            memtable_bytes_max: usize,

            /// How many sealed memtables may wait for a flush before writers wait. Default: 2.
            ///
            /// From 1 to 64. Memory for memtables is bounded by `memtable_bytes_max` times this
            /// plus 2.
            sealed_memtable_count_max: usize,

            /// What keeps the entries of a memtable in order. Default: [`MemtableStructure::Tree`].
            ///
            /// The tree takes random inserts nearly twice as fast and less memory; the skip list is
            /// the plain structure that it is tested against.
            memtable_structure: MemtableStructure,

            /// How large tables become, in bytes. Default: 64 MiB. From 4 KiB to 16 GiB.
            ///
            /// Smaller ones make compactions finer and files more numerous.
            table_bytes_target: u64,

            /// How large a data block of an uncompressed table becomes, in bytes. Default: 4096.
            ///
            /// What a read from disk loads and checks; larger ones compress better. From 64 bytes
            /// to 4 MiB; one larger entry gets a block of its own.
            block_bytes_target: usize,

            /// How large a data block of a compressed table becomes before compression, in bytes.
            /// Default: 8192.
            ///
            /// Larger ones shrink more, and every read that misses the block cache unpacks a whole
            /// one. From 64 bytes to 4 MiB.
            compressed_block_bytes_target: usize,

            /// How large the level below level 0 should be, in bytes. Default: 256 MiB. From 4
            /// KiB.
            ///
            /// About what one compaction of level 0 brings. The last level is as large as the data,
            /// each above it `level_fan_out` times smaller; level 0 goes to the one nearest to this
            /// size. So much in level 0 is compacted too.
            level_base_bytes: u64,

            /// How many times larger each level is than the one above. Default: 10. From 2 to
            /// 100.
            ///
            /// Smaller: less write amplification a level, more levels.
            level_fan_out: u64,

            /// At what depth level 0 is compacted. Default: 4. From 1 to 1000.
            ///
            /// So many tables lie on top of one another there, and a read may have to look at each.
            /// Tables side by side count as one.
            level0_table_count_trigger: usize,

            /// At what depth of level 0 writers wait for compaction. Default: 20.
            ///
            /// More than `level0_table_count_trigger`, up to 10,000.
            level0_table_count_max: usize,

            /// Compression of all tables but the bottommost. Default: none.
            ///
            /// They are few, are rewritten soon and are read first.
            compression: Compression,

            /// Compression by level, from 0 on; beyond its end holds `compression`. Default: empty.
            ///
            /// Whatever it says, the bottommost level is compressed as `bottom_compression` says.
            compression_per_level: Vec<Compression>,

            /// Compression of the bottommost tables, which hold most of the data. Default: zstd at
            /// level 1.
            ///
            /// A read finds a compressed block in the block cache, or unpacks it first. Tables that
            /// reach the bottom with another compression are rewritten instead of moved; a memtable
            /// that overlaps nothing in the tree is flushed as the bottom is stored, so that keys
            /// written in order are written once. Figures: benches/BUDGET.md.
            bottom_compression: Compression,

            /// How long the dictionary of a compressed table may be, in bytes; 0 for none. Default:
            /// 4096.
            ///
            /// Trained on the first blocks of each table, for blocks of up to 16 KiB: they become
            /// as small as blocks of twice their length, and are unpacked in half the time. Costs
            /// an open table some 30 KiB once a compressed block is read. At most 65,536.
            dictionary_bytes_max: usize,

            /// The filter of each table. Default: blocked, 10 bits a key.
            ///
            /// Spares a read of an absent key the search of the table. From 1 to 32 bits a key.
            filter: FilterPolicy,
        }
    };
}
pub(super) use keyspace_setters;

/// How a keyspace is made. Every option has a sound default; all are checked when it is created.
///
/// They are kept with the keyspace, so that nobody has to say them again. Those of the keyspace
/// `default` are set by [`Options`](crate::Options), whenever the database is opened.
///
/// # Examples
/// ```
/// use siltstone::{Compression, KeyspaceOptions};
/// let options = KeyspaceOptions::new()
///     .memtable_bytes_max(1 << 20)
///     .bottom_compression(Compression::Zstd { level: 3 });
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
pub struct KeyspaceOptions {
    settings: KeyspaceSettings,
}

impl fmt::Debug for KeyspaceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl KeyspaceOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    keyspace_setters!(settings_mut);

    /// The bytes that [`KeyspaceOptions::decode`] reads, as MANIFEST keeps them: for tools that
    /// make the same keyspace in another database.
    ///
    /// # Examples
    /// ```
    /// use siltstone::KeyspaceOptions;
    /// let bytes = KeyspaceOptions::new().level_fan_out(4).encode();
    /// assert_eq!(KeyspaceOptions::decode(&bytes)?.encode(), bytes);
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        self.settings.encode()
    }

    /// Reads what [`KeyspaceOptions::encode`] has written, in this version or an earlier one: what
    /// that did not know has its default.
    ///
    /// # Errors
    /// `Corruption` if the bytes are no options or say what is out of range, `Unsupported` if a
    /// newer version wrote them.
    ///
    /// # Examples
    /// ```
    /// use siltstone::{ErrorKind, KeyspaceOptions};
    /// let error = KeyspaceOptions::decode(b"something else").expect_err("no options");
    /// assert_eq!(error.kind(), ErrorKind::Corruption);
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let settings = KeyspaceSettings::decode(bytes)?;
        Ok(Self { settings })
    }

    pub(crate) fn of(settings: &KeyspaceSettings) -> Self {
        let settings = settings.clone();
        Self { settings }
    }

    pub(crate) fn settings(&self) -> &KeyspaceSettings {
        &self.settings
    }

    fn settings_mut(&mut self) -> &mut KeyspaceSettings {
        &mut self.settings
    }
}
