//! One sorted run of a view as a cursor: an enum, so that a step costs no virtual call.

use base::cursor::Cursor;
use base::{InternalKey, Result, Slice};
use compaction::LevelCursor;
use memtable::MemtableCursor;

#[expect(
    clippy::large_enum_variant,
    reason = "a box more for each level costs a cursor more than the room it saves"
)]
pub(super) enum RunCursor {
    Memtable(MemtableCursor),
    Level(LevelCursor),
}

macro_rules! each_run {
    ($self:ident, $cursor:ident => $call:expr) => {
        match $self {
            RunCursor::Memtable($cursor) => $call,
            RunCursor::Level($cursor) => $call,
        }
    };
}

impl Cursor for RunCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        each_run!(self, cursor => cursor.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        each_run!(self, cursor => cursor.seek_to_last())
    }

    #[inline]
    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        each_run!(self, cursor => cursor.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        each_run!(self, cursor => cursor.seek_for_prev(target))
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        each_run!(self, cursor => cursor.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        each_run!(self, cursor => cursor.prev())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        each_run!(self, cursor => cursor.is_valid())
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        each_run!(self, cursor => cursor.key())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        each_run!(self, cursor => cursor.value())
    }

    fn value_slice(&self) -> Slice {
        each_run!(self, cursor => cursor.value_slice())
    }
}
