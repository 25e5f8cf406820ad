use super::*;
use crate::throttle::ThrottleCause;

fn slow(bytes_per_second: f64) -> Judgement {
    let cause = ThrottleCause::Level0;
    Judgement {
        verdict: Verdict::Slow(Pace {
            bytes_per_second,
            cause,
        }),
        is_watched: false,
    }
}

/// Writes of 116 bytes, each taking `write_micros` by itself, for ten seconds. Returns the speed
/// that came out, how many writes waited of all, and the longest wait.
fn run(till: &Till, write_micros: f64) -> (f64, u64, u64, f64) {
    let (mut now, mut writes, mut waits, mut longest) = (1e6, 0_u64, 0_u64, 0.0_f64);
    while now < 11e6 {
        now += write_micros;
        writes += 1;
        if !till.spend(116)
            && let Some(wait) = till.settle(bytes_in(1e6, now), 0)
        {
            let wait = wait.as_secs_f64() * 1e6;
            now += wait;
            waits += 1;
            longest = longest.max(wait);
            till.grant();
        }
    }
    (as_f64(writes) * 116.0 / 10.0, writes, waits, longest)
}

#[test]
fn few_writes_pay_for_all_and_the_speed_is_what_was_allowed() {
    for allowed in [17e6, 20e6, 30e6, 40e6] {
        let till = Till::new(64 << 20);
        till.look(0, |_| slow(allowed));
        let (speed, writes, waits, longest) = run(&till, 2.5);
        assert!(
            (speed / allowed - 1.0).abs() < 0.05,
            "{speed} for {allowed}"
        );
        assert!(waits * 1000 <= writes, "{waits} of {writes} at {allowed}");
        assert!(longest <= 8000.0, "{longest} us at {allowed}");
    }
}

#[test]
fn nobody_waits_who_is_slower_than_allowed() {
    let till = Till::new(64 << 20);
    till.look(0, |_| slow(60e6));
    let (_, _, waits, _) = run(&till, 2.5);
    assert_eq!(waits, 0);
}

#[test]
fn however_large_the_write_the_wait_is_bounded_and_the_rest_stays_owed() {
    let till = Till::new(64 << 20);
    till.look(0, |_| slow(1e6));
    assert!(!till.spend(1 << 20));
    for _ in 0..20 {
        let wait = till.settle(1_000_000, 0).expect("a second is owed");
        assert!(wait <= Duration::from_millis(8));
        till.grant();
        assert!(!till.spend(1 << 20));
    }
    assert!(
        till.settle(9_000_000, 0).is_some(),
        "the last one is not paid yet"
    );
    assert_eq!(till.settle(11_000_000, 0), None, "time paid for it");
}

#[test]
fn credit_is_a_small_part_of_a_memtable_however_fast_writes_may_come() {
    let till = Till::new(64 << 10);
    till.look(0, |_| slow(100e6));
    assert!(!till.spend(1), "no credit yet");
    assert_eq!(till.settle(1_000_000, 0), None, "a byte is not waited for");
    let credit = (0..1000).take_while(|_| till.spend(116)).count() * 116;
    assert!((7 << 10..=8 << 10).contains(&credit), "{credit}");
}

#[test]
fn a_change_during_a_look_is_looked_at_again() {
    let till = Till::new(64 << 20);
    assert!(!till.is_open(), "nothing was looked at yet");
    let free = Judgement {
        verdict: Verdict::Free,
        is_watched: false,
    };
    till.look(0, |_| {
        till.view_changed();
        free
    });
    assert!(!till.is_open());
    till.look(0, |_| free);
    assert!(till.is_open());
    till.look(0, |_| slow(1e6));
    assert!(!till.is_open());
}

#[test]
fn a_speed_is_the_work_done_over_the_time_at_work() {
    let mut speed = Speed::new(64 << 20);
    let mut now = 5_000_000;
    for _ in 0..100 {
        // Two jobs side by side, a second of 30 MB each, then a pause that does not count.
        let jobs = [0; 2].map(|_| speed.begin(now, 30_000_000));
        for job in jobs {
            speed.finish(job, now + 1_000_000, 30_000_000);
        }
        now += 60_000_000;
    }
    let found = speed.measured();
    assert!((found / 60e6 - 1.0).abs() < 0.01, "{found}");
    assert!((speed.by(now) - found).abs() < 1.0, "nobody works");
}

#[test]
fn a_job_that_drags_on_lowers_the_speed_before_it_ends() {
    let till = Till::new(1 << 20);
    let speed_by = |now| {
        let mut found = 0.0;
        till.look(now, |speeds| {
            found = speeds.compaction;
            slow(1e6)
        });
        found
    };
    let first = speed_by(0);
    assert!((first - 64e6).abs() < 1.0, "what is believed at first");
    let work = till.begin_work(WorkKind::Compaction, 0, 4 << 20);
    assert!(
        (speed_by(50_000) - first).abs() < 1.0,
        "as fast as expected"
    );
    let dragging = [200_000, 400_000, 800_000].map(speed_by);
    assert!(first > dragging[0] && dragging[0] > dragging[1] && dragging[1] > dragging[2]);
    assert!(dragging[2] < 8e6, "{dragging:?}");
    assert_eq!(work.finish(1_000_000, 4 << 20), 1_000_000);
    let ended = speed_by(1_000_000);
    assert!(ended < dragging[2], "{ended}");
    // One that fails leaves no trace.
    let flushed = till.speeds().flush;
    drop(till.begin_work(WorkKind::Compaction, 1_000_000, 1 << 20));
    assert!((speed_by(9_000_000) - ended).abs() < 1.0);
    assert!((till.speeds().flush - flushed).abs() < 1.0);
}
