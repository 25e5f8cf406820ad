//! One entry as it lies in the arena, and what it is compared with.
//!
//! A record is written once, before anybody else knows its address, and never again. Both ordered
//! structures point to records; neither copies them. Called by `list`, `tree` and their front.
#![expect(unsafe_code, reason = "records are read by address")]

use std::cmp;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use base::{InternalKey, KeyKind, SequenceNumber};

use crate::arena::Arena;

/// What records in an arena are aligned to.
pub(crate) const RECORD_ALIGN: usize = align_of::<RecordHeader>();

/// In front of the bytes of the key, which those of the value follow.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RecordHeader {
    /// Sequence and kind: `seq << 8 | kind`.
    trailer: u64,
    key_len: u32,
    value_len: u32,
}

/// An entry that lives as long as the arena it is borrowed from.
///
/// INVARIANT: `header` is initialised and followed by `key_len + value_len` initialised bytes of
/// the same allocation; none of them changes during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    header: NonNull<RecordHeader>,
    arena: PhantomData<&'a Arena>,
}

// SAFETY: it is a shared reference to bytes that never change.
unsafe impl Send for Record<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Record<'_> {}

impl<'a> Record<'a> {
    /// Copies an entry into `arena`.
    ///
    /// # Panics
    /// If key or value are longer than 4 GiB.
    #[inline]
    pub(crate) fn store(arena: &'a Arena, key: InternalKey<'_>, value: &[u8]) -> Self {
        let (key_bytes, header_bytes) = (key.user_key, size_of::<RecordHeader>());
        let header = RecordHeader {
            trailer: key.trailer(),
            key_len: u32::try_from(key_bytes.len()).expect("keys are bounded at the door"),
            value_len: u32::try_from(value.len()).expect("values are bounded at the door"),
        };
        let start = arena.allocate(header_bytes + key_bytes.len() + value.len());
        let place = start.cast::<RecordHeader>();
        // SAFETY: `allocate` gave room for it that nobody else has, aligned to `RECORD_ALIGN`.
        unsafe { place.write(header) };
        // SAFETY: the room goes on behind the header.
        let key_at = unsafe { start.add(header_bytes) };
        // SAFETY: and has `key_bytes.len()` bytes for the key.
        unsafe { ptr::copy_nonoverlapping(key_bytes.as_ptr(), key_at.as_ptr(), key_bytes.len()) };
        // SAFETY: it goes on behind the key.
        let value_at = unsafe { key_at.add(key_bytes.len()) };
        // SAFETY: and has `value.len()` bytes for the value.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), value_at.as_ptr(), value.len()) };
        Self {
            header: place,
            arena: PhantomData,
        }
    }

    /// The record at an address that [`Record::address`] gave.
    ///
    /// # Safety
    /// - `header` is such an address.
    /// - It came through a Release and Acquire pair from the thread that stored the record.
    /// - The arena outlives `'a`.
    #[inline]
    pub(crate) unsafe fn at(header: NonNull<RecordHeader>) -> Self {
        Self {
            header,
            arena: PhantomData,
        }
    }

    /// Where it lies: different for every record.
    #[inline]
    pub(crate) fn address(self) -> NonNull<RecordHeader> {
        self.header
    }

    #[inline]
    fn header(self) -> &'a RecordHeader {
        // SAFETY: by the invariant of the type it is initialised and does not change during `'a`.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn body(self) -> NonNull<u8> {
        // SAFETY: the bytes behind the header are of the same allocation, by the invariant.
        unsafe { self.header.add(1) }.cast()
    }

    #[inline]
    pub(crate) fn trailer(self) -> u64 {
        self.header().trailer
    }

    #[inline]
    pub(crate) fn user_key(self) -> &'a [u8] {
        let len = self.header().key_len as usize;
        // SAFETY: by the invariant of the type the key starts here, and does not change.
        unsafe { slice::from_raw_parts(self.body().as_ptr(), len) }
    }

    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        let header = self.header();
        // SAFETY: by the invariant of the type the value follows the key.
        let start = unsafe { self.body().add(header.key_len as usize) };
        // SAFETY: and is this long, and does not change.
        unsafe { slice::from_raw_parts(start.as_ptr(), header.value_len as usize) }
    }

    #[inline]
    pub(crate) fn seq(self) -> SequenceNumber {
        SequenceNumber::new(self.trailer() >> 8).expect("8 of 64 bits were shifted out")
    }

    #[inline]
    pub(crate) fn kind(self) -> KeyKind {
        let [kind, ..] = self.trailer().to_le_bytes();
        KeyKind::from_u8(kind).expect("it was a kind when it was stored")
    }

    #[inline]
    pub(crate) fn key(self) -> InternalKey<'a> {
        InternalKey::new(self.user_key(), self.seq(), self.kind())
    }
}

/// The first sixteen bytes of a key, padded with zeros, as a number that sorts as the bytes do.
#[inline]
pub(crate) fn wide_head(key: &[u8]) -> u128 {
    if let Some(first) = key.first_chunk::<16>() {
        u128::from_be_bytes(*first)
    } else {
        let mut bytes = [0; 16];
        bytes[..key.len()].copy_from_slice(key);
        u128::from_be_bytes(bytes)
    }
}

/// A place between records: no record is equal to it, each sorts before or behind.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) head: u128,
    pub(crate) user_key: &'a [u8],
    /// A sequence number and, below it, 0 or all ones: neither is a kind.
    trailer: u64,
}

impl<'a> Target<'a> {
    /// Before every record of `user_key` at or below `seq`.
    #[inline]
    pub(crate) fn before(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self {
            head: wide_head(user_key),
            user_key,
            trailer: seq.get() << 8 | 0xff,
        }
    }

    /// Behind every record of `user_key` at or above `seq`.
    #[inline]
    pub(crate) fn behind(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self {
            trailer: seq.get() << 8,
            ..Self::before(user_key, seq)
        }
    }

    /// Whether `record`, whose first sixteen bytes are those of the target, sorts before it.
    #[inline]
    pub(crate) fn is_behind_tied(&self, record: Record<'_>) -> bool {
        match record.user_key().cmp(self.user_key) {
            cmp::Ordering::Equal => record.trailer() > self.trailer,
            decided => decided.is_lt(),
        }
    }
}
