//! When the engine held writes back, and how long it worked in the background: from its events.

use base::clock::{Clock, SystemClock};
use base::sync::{Arc, Mutex};
use siltstone::Event;

/// More pauses than this are not kept; what is drawn of so many is a block of colour anyhow.
const PAUSES_MAX: usize = 20_000;

/// How writes were held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseKind {
    /// They waited for flush or compaction.
    Stall,
    /// They were slowed down.
    Throttle,
}

/// A span of time in which writes were held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How.
    pub kind: PauseKind,
    /// What was behind.
    pub cause: String,
    /// From here on, by the clock of the run.
    pub from_nanos: u64,
    /// Up to here; `u64::MAX` while it lasts.
    pub upto_nanos: u64,
}

#[derive(Debug, Default)]
struct State {
    pauses: Vec<Pause>,
    compaction_micros: u64,
    stall_count: u64,
}

/// Listens to the databases of a run. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    clock: Arc<SystemClock>,
    state: Arc<Mutex<State>>,
}

impl Moments {
    pub(crate) fn new(clock: Arc<SystemClock>) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    /// Notes an event of the engine.
    pub(crate) fn note(&self, event: &Event) {
        let begin = |kind, cause: &siltstone::ThrottleCause| {
            let cause = format!("{cause:?}");
            self.begin(kind, cause);
        };
        match event {
            Event::StallBegan { cause, .. } => begin(PauseKind::Stall, cause),
            Event::ThrottleBegan { cause, .. } => begin(PauseKind::Throttle, cause),
            Event::StallEnded { .. } => self.end(PauseKind::Stall),
            Event::ThrottleEnded { .. } => self.end(PauseKind::Throttle),
            Event::Compacted { micros, .. } => self.state.lock().compaction_micros += micros,
            _ => {}
        }
    }

    fn begin(&self, kind: PauseKind, cause: String) {
        let from_nanos = self.clock.monotonic_nanos();
        let mut state = self.state.lock();
        state.stall_count += u64::from(kind == PauseKind::Stall);
        if state.pauses.len() < PAUSES_MAX {
            state.pauses.push(Pause {
                kind,
                cause,
                from_nanos,
                upto_nanos: u64::MAX,
            });
        }
    }

    fn end(&self, kind: PauseKind) {
        let now = self.clock.monotonic_nanos();
        let mut state = self.state.lock();
        let is_open = |pause: &&mut Pause| pause.kind == kind && pause.upto_nanos == u64::MAX;
        for pause in state.pauses.iter_mut().filter(is_open) {
            pause.upto_nanos = now;
        }
    }

    /// A database has gone: what held its writes back does so no more.
    pub(crate) fn end_all(&self) {
        self.end(PauseKind::Stall);
        self.end(PauseKind::Throttle);
    }

    /// The pauses within a span of time, cut to it.
    pub(crate) fn within(&self, from_nanos: u64, upto_nanos: u64) -> Vec<Pause> {
        let state = self.state.lock();
        let cut = |pause: &Pause| Pause {
            from_nanos: pause.from_nanos.max(from_nanos),
            upto_nanos: pause.upto_nanos.min(upto_nanos),
            ..pause.clone()
        };
        let pauses = state.pauses.iter().map(cut);
        pauses.filter(|p| p.from_nanos < p.upto_nanos).collect()
    }

    /// How often writes came to wait, and how long compactions took together, up to now.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.stall_count, state.compaction_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_cut_to_the_span_that_is_asked_for() {
        let clock = Arc::new(SystemClock::new());
        let moments = Moments::new(Arc::clone(&clock));
        let before = clock.monotonic_nanos();
        moments.begin(PauseKind::Throttle, "x".to_owned());
        moments.begin(PauseKind::Stall, "y".to_owned());
        moments.end(PauseKind::Stall);
        let after = clock.monotonic_nanos();
        let pauses = moments.within(before, after + 1000);
        assert_eq!(pauses.len(), 2);
        assert_eq!(pauses[0].upto_nanos, after + 1000, "it has not ended");
        assert!(pauses[1].upto_nanos <= after);
        assert_eq!(moments.within(0, before), []);
        assert_eq!(moments.sums().0, 1);
        moments.end_all();
        assert!(moments.within(before, u64::MAX)[0].upto_nanos < u64::MAX);
    }
}
