//! Every model of the crate. More preemptions than by default: `LOOM_MAX_PREEMPTIONS=3`.
#![forbid(unsafe_code)]

use siltstone_models::models;

macro_rules! models {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            models::$name();
        }
    )*};
}

models! {
    a_ring_after_the_look_is_heard
    all_who_listen_hear_one_ring
    records_count_without_a_hole
    tickets_wait_for_room
    a_failure_ends_every_wait
    a_tail_hears_of_every_record
    nobody_returns_before_a_sync_covers_him
    a_sync_covers_all_whom_it_takes_in
    a_failed_sync_acknowledges_nobody
    snapshots_lose_nothing_to_a_job
    plain_reads_see_all_that_is_visible
    a_release_wakes_whoever_waits_for_it
}
