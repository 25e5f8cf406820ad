//! The models. Each function panics if there is a schedule in which a promise is broken.

mod bell;
mod completion;
mod group;
mod snapshots;

pub use bell::{a_ring_after_the_look_is_heard, all_who_listen_hear_one_ring};
pub use completion::{
    a_failure_ends_every_wait, a_tail_hears_of_every_record, records_count_without_a_hole,
    tickets_wait_for_room,
};
pub use group::{
    a_failed_sync_acknowledges_nobody, a_sync_covers_all_whom_it_takes_in,
    nobody_returns_before_a_sync_covers_him,
};
pub use snapshots::{
    a_release_wakes_whoever_waits_for_it, plain_reads_see_all_that_is_visible,
    snapshots_lose_nothing_to_a_job,
};

/// Preemptions a schedule may have, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const PREEMPTION_COUNT: usize = 2;

/// Goes through every schedule of `model`.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_with(PREEMPTION_COUNT, model);
}

fn explore_with(preemption_count: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemption_count);
    builder.check(model);
}
