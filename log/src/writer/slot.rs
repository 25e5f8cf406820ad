//! One record between the taking of its place and the moment at which it counts.

use std::cell::RefCell;

use base::{Error, ErrorKind, Result, SequenceNumber, WriteOutcome};

use super::{Appended, Log, LogAppend, LogConfig, State};
use crate::completion::Completed;
use crate::record::{self, Position, RecordKind, RecordMeta};
use crate::segment::{Form, Place};

/// Where less is written between two syncs, records are not written through a mapping.
const POSITIONED_BYTES: u64 = 32 << 10;

thread_local! {
    /// Where a thread puts together a record that is written in one call.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A place in the log that was taken for one record.
///
/// It is to be [filled](LogSlot::fill) and then [completed](LogSlot::complete), on any thread.
/// Dropped before that, it poisons the log: behind a hole nothing can ever be acknowledged.
#[derive(Debug)]
#[must_use = "a slot that is dropped poisons the log"]
pub struct LogSlot<'log> {
    log: &'log Log,
    ticket: u64,
    meta: RecordMeta,
    start: Position,
    end: Position,
    /// Until it was filled.
    place: Option<Place>,
    is_complete: bool,
    wants_upkeep: bool,
}

impl Log {
    /// Appends one record and hands it to the operating system: [`Log::reserve`],
    /// [`LogSlot::fill`] and [`LogSlot::complete`].
    ///
    /// Amortised cost: a checksum and one copy or positioned write; at a switch of segments two
    /// more small ones, and where no segment was prepared its creation and two syncs.
    ///
    /// # Errors
    /// With outcome `Rejected` if the next segment cannot be made: the log is as it was. With
    /// outcome `Indeterminate` if the write fails: the log takes no more appends.
    pub fn append(
        &self,
        kind: RecordKind,
        first_seq: SequenceNumber,
        op_count: u32,
        payload: &[u8],
    ) -> Result<Appended> {
        let mut slot = self.reserve(kind, first_seq, op_count, payload.len())?;
        slot.fill(payload)?;
        slot.complete()
    }

    /// Takes the place of the next record, whose payload will have `payload_len` bytes.
    ///
    /// Records lie in the order of these calls. The caller makes sure that their sequence numbers
    /// are in the same order: it calls this in its own critical section, and does everything else
    /// outside. At most 1024 slots can be open; with more, this waits for the oldest.
    ///
    /// # Errors
    /// With outcome `Rejected` if the log was closed or poisoned, or if the next segment cannot be
    /// made: the log is as it was. With outcome `Indeterminate` if the switch to it fails: the log
    /// takes no more appends.
    pub fn reserve(
        &self,
        kind: RecordKind,
        first_seq: SequenceNumber,
        op_count: u32,
        payload_len: usize,
    ) -> Result<LogSlot<'_>> {
        let framed_max = record::framed_bytes_max(payload_len);
        let unwinding = PoisonOnUnwind(self);
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        self.make_room_locked(&mut state, framed_max, first_seq)?;
        let ticket = self.next_ticket_locked(&mut state)?;
        let commit_micros = self.config.clock.now_micros().max(state.commit_micros);
        let meta = RecordMeta {
            kind,
            first_seq,
            op_count,
            commit_micros,
            durable_upto: Some(state.durable_upto),
        };
        let form = state.form(&self.config);
        let place = state.live.place(&self.config, &meta, payload_len, form);
        state.commit_micros = commit_micros;
        state.stats.appended_bytes += place.end.offset - place.start.offset;
        state.stats.payload_bytes += payload_len as u64;
        state.stats.record_count += 1;
        let wants_upkeep = state.wants_upkeep(&self.config);
        drop(unwinding);
        Ok(LogSlot {
            log: self,
            ticket,
            meta,
            start: place.start,
            end: place.end,
            place: Some(place),
            is_complete: false,
            wants_upkeep,
        })
    }
}

impl State {
    /// How the next record is written. A sync protects the pages that it writes, and so the first
    /// store after it takes a page fault: where each record is synced, or each few, a system call
    /// takes less.
    #[inline]
    fn form(&self, config: &LogConfig) -> Form {
        let is_synced_often = self.synced_bytes < POSITIONED_BYTES && {
            let (end, durable) = (self.live.writer.bytes(), self.durable_upto);
            let is_same = durable.ordinal == self.live.writer.header().ordinal;
            is_same && end.saturating_sub(durable.offset) < POSITIONED_BYTES
        };
        if is_synced_often && config.append == LogAppend::Auto {
            Form::Positioned
        } else {
            Form::Mapped
        }
    }
}

impl LogSlot<'_> {
    /// Where the record begins.
    pub fn start(&self) -> Position {
        self.start
    }

    /// Where the next one will begin.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The commit time it got, in microseconds since the Unix epoch.
    pub fn commit_micros(&self) -> u64 {
        self.meta.commit_micros
    }

    /// Whether [`Log::maintain`] has something to do since this place was taken: it is time to call
    /// it, not here.
    pub fn wants_upkeep(&self) -> bool {
        self.wants_upkeep
    }

    /// Writes the record: one copy into the mapping, or one positioned write.
    ///
    /// # Errors
    /// With outcome `Indeterminate` if the write fails, or if the log was poisoned meanwhile: it
    /// takes no more appends.
    ///
    /// # Panics
    /// If the payload has another length than was said, or if it was filled before.
    pub fn fill(&mut self, payload: &[u8]) -> Result<()> {
        let mut place = self.place.take().expect("a slot is filled once");
        let usable = self.log.sync.check();
        let written = usable.and_then(|()| {
            BUFFER.with_borrow_mut(|buffer| place.write(&self.meta, payload, buffer))
        });
        written.map_err(|error| {
            self.is_complete = true;
            self.log.poison(&error)
        })
    }

    /// Lets the record count, and returns once every record before it does too.
    ///
    /// What the caller did before this call is seen by whoever finds the record complete.
    ///
    /// # Errors
    /// With outcome `Indeterminate` if one before it failed.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn complete(mut self) -> Result<Appended> {
        self.mark_complete();
        let counts = self.log.completion.wait(self.ticket);
        counts.map_err(|error| error.with_outcome(WriteOutcome::Indeterminate))?;
        Ok(Appended {
            start: self.start,
            end: self.end,
            commit_micros: self.meta.commit_micros,
        })
    }
}

impl LogSlot<'_> {
    /// Lets the record count once every record before it does, and does not wait for that.
    pub(super) fn mark_complete(&mut self) {
        assert!(self.place.is_none(), "only a filled slot is completed");
        let upto = Completed {
            position: self.end,
            seq: self.meta.last_seq(),
        };
        self.is_complete = true;
        if self.log.completion.complete(self.ticket, upto) {
            self.log.bell.ring();
        }
    }
}

/// A panic in the middle of a reservation leaves a ticket that nobody completes.
pub(super) struct PoisonOnUnwind<'log>(pub(super) &'log Log);

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(&gave_up());
        }
    }
}

fn gave_up() -> Error {
    let message = "a writer gave up after it had taken its place in the log";
    Error::new(ErrorKind::Poisoned, message)
}

impl Drop for LogSlot<'_> {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        self.log.poison(&gave_up());
    }
}
