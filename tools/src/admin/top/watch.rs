//! What a series of looks adds up to: the last one, how fast things go, and what the user chose.

use std::collections::VecDeque;

use siltstone::ThrottleStats;

use super::look::{Found, Told};
use super::rates::{Counters, Flow, Rates};

/// Looks whose rates are kept for the graphs: as many as the widest terminals have columns.
const HISTORY_MAX: usize = 512;

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Leave,
    NextKeyspace,
    PreviousKeyspace,
    Pause,
    Reset,
    Help,
    /// Anything else: closes the help.
    Other,
}

/// Everything that the report and the live view show.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The database, as the user named it.
    pub(super) place: String,
    /// The last whole look.
    pub(super) seen: Option<Seen>,
    /// Why the last look found nothing, if it did.
    pub(super) trouble: Option<String>,
    /// Writes and gets a second, the oldest look first.
    pub(super) history: VecDeque<[f64; 2]>,
    /// The keyspace that is shown: 0 is all of them together.
    pub(super) chosen: usize,
    pub(super) is_paused: bool,
    pub(super) is_help: bool,
    /// Whether averages begin at a reset, and no longer where the database was opened.
    pub(super) is_reset: bool,
}

/// A look and what follows from it and those before.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) told: Told,
    pub(super) counters: Counters,
    /// Where averages begin.
    base: Counters,
    /// Since the look before, if there was one.
    pub(super) now: Option<Rates>,
    /// Since the database was opened, or the last reset.
    pub(super) average: Option<Rates>,
}

impl Watch {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }

    /// Takes in a look; nothing while paused.
    pub(super) fn take(&mut self, found: Found) {
        if self.is_paused {
            return;
        }
        match found {
            Found::Told(told) => {
                self.trouble = None;
                self.take_told(*told);
            }
            Found::Nothing(why) => self.trouble = Some(why),
        }
    }

    /// Takes in that looking failed.
    pub(super) fn take_failure(&mut self, why: String) {
        if !self.is_paused {
            self.trouble = Some(why);
        }
    }

    fn take_told(&mut self, told: Told) {
        let counters = Counters::of(&told.file);
        let known = self.seen.take();
        let known = known.filter(|seen| !seen.counters.is_of_another_opening(&counters));
        self.seen = Some(match known {
            None => {
                self.history.clear();
                self.is_reset = false;
                Seen::first(told, counters)
            }
            Some(seen) if !seen.counters.is_before(&counters) => Seen { told, ..seen },
            Some(seen) => {
                let now = Rates::between(&seen.counters, &counters);
                if let Some(rates) = &now {
                    self.history
                        .push_back([Flow::Writes, Flow::Gets].map(|flow| rates.rate(flow).count));
                    let excess = self.history.len().saturating_sub(HISTORY_MAX);
                    self.history.drain(..excess);
                }
                Seen {
                    average: Rates::between(&seen.base, &counters),
                    told,
                    counters,
                    base: seen.base,
                    now,
                }
            }
        });
        self.chosen = self.chosen.min(self.choice_count() - 1);
    }

    /// All keyspaces together and each of them; only one if there is but one.
    fn choice_count(&self) -> usize {
        let seen = self.seen.as_ref();
        match seen.map_or(0, |seen| seen.told.file.stats.keyspaces.len()) {
            0 | 1 => 1,
            count => count + 1,
        }
    }

    /// Does what a key asks for; leaving is for the caller.
    pub(super) fn press(&mut self, press: Press) {
        let was_help = std::mem::take(&mut self.is_help);
        let count = self.choice_count();
        match press {
            Press::NextKeyspace => self.chosen = (self.chosen + 1) % count,
            Press::PreviousKeyspace => self.chosen = (self.chosen + count - 1) % count,
            Press::Pause => self.is_paused = !self.is_paused,
            Press::Reset => self.reset(),
            Press::Help => self.is_help = !was_help,
            Press::Leave | Press::Other => {}
        }
    }

    /// Rates and averages begin anew with what was seen last.
    fn reset(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.base = seen.counters.clone();
            (seen.now, seen.average) = (None, None);
            self.is_reset = true;
        }
        self.history.clear();
    }
}

impl Seen {
    fn first(told: Told, counters: Counters) -> Self {
        let base = counters.at_open();
        Self {
            average: Rates::between(&base, &counters),
            told,
            counters,
            base,
            now: None,
        }
    }

    /// How the keyspace is held back that is held back most.
    pub(super) fn throttle(&self) -> ThrottleStats {
        let stats = &self.told.file.stats;
        let keyspaces = stats.keyspaces.iter().map(|keyspace| keyspace.throttle);
        let slowest = keyspaces.min_by(|a, b| a.bytes_per_second.total_cmp(&b.bytes_per_second));
        slowest.unwrap_or(stats.throttle)
    }
}
