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

/// A write as the gate makes it.
fn write(till: &Till, now_micros: u64, bytes: u64, longest: Option<Duration>) -> Bill {
    if till.spend_unseen(bytes) {
        return Bill::Paid;
    }
    till.charge(Charge {
        now_micros,
        bytes,
        longest,
    })
}

fn metered(memtable_bytes: u64, bytes_per_second: f64) -> Till {
    let till = Till::new(memtable_bytes);
    till.look(0, |_| slow(bytes_per_second));
    till
}

/// How many of `count` writes that may not wait pass at this moment.
fn pass_at_once(till: &Till, now_micros: u64, bytes: u64, count: usize) -> usize {
    let bills = (0..count).map(|_| write(till, now_micros, bytes, Some(Duration::ZERO)));
    bills
        .filter(|bill| match bill {
            Bill::Paid => true,
            Bill::Refused => false,
            other => panic!("{other:?} for a write that may not wait"),
        })
        .count()
}

/// Writes of so many bytes, each taking `write_micros` by itself, for ten seconds. Returns the
/// speed that came out, how many writes waited of all, and the longest wait.
fn run_with(till: &Till, write_micros: f64, bytes: u64) -> (f64, u64, u64, f64) {
    let (mut now, mut writes, mut waits, mut longest) = (1e6, 0_u64, 0_u64, 0.0_f64);
    while now < 11e6 {
        now += write_micros;
        writes += 1;
        if let Bill::Wait(wait) = write(till, bytes_in(1e6, now), bytes, None) {
            let wait = wait.as_secs_f64() * 1e6;
            let began = bytes_in(1e6, now);
            now += wait;
            waits += 1;
            longest = longest.max(wait);
            till.grant(began..bytes_in(1e6, now));
        }
    }
    (as_f64(writes * bytes) / 10.0, writes, waits, longest)
}

fn run(till: &Till, write_micros: f64) -> (f64, u64, u64, f64) {
    run_with(till, write_micros, 116)
}

#[test]
fn few_writes_pay_for_all_and_the_speed_is_what_was_allowed() {
    for allowed in [17e6, 20e6, 30e6, 40e6] {
        let till = metered(64 << 20, allowed);
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
    let till = metered(64 << 20, 60e6);
    let (_, _, waits, _) = run(&till, 2.5);
    assert_eq!(waits, 0);
}

#[test]
fn a_writer_as_fast_as_allowed_is_not_held_back() {
    // Also one that comes in bursts, of which the credit lasts for each.
    for (bytes, count) in [(100, 1), (100, 20), (1000, 5), (5000, 1)] {
        let till = metered(64 << 20, 1e6);
        let (mut now, mut waited) = (1_000_000, Duration::ZERO);
        for write_count in 1..=100_000 {
            if write_count % count == 0 {
                now += bytes * count;
            }
            if let Bill::Wait(wait) = write(&till, now, bytes, None) {
                waited += wait;
                let began = now;
                now += u64::try_from(wait.as_micros()).expect("a short wait");
                till.grant(began..now);
            }
        }
        let paid = waited.as_secs_f64() * 1e6 / as_f64(now);
        assert!(paid < 0.01, "{paid} of its time, {count} times {bytes}");
    }
}

/// A thread of [`run_many`].
#[derive(Clone, Copy)]
struct Writer {
    acts_at: u64,
    /// Since when, if it does.
    waits_since: Option<u64>,
    random: u64,
}

/// So many threads write for ten seconds, each a write every `write_micros` by itself; whoever
/// waits is woken up to two milliseconds late. Returns the speed that came out.
fn run_many(till: &Till, count: usize, write_micros: u64, bytes: u64) -> f64 {
    let writer = |index| Writer {
        acts_at: 1_000_000 + index,
        waits_since: None,
        random: index,
    };
    let mut writers: Vec<Writer> = (0..count as u64).map(writer).collect();
    let mut written = 0;
    loop {
        let next = writers.iter_mut().min_by_key(|writer| writer.acts_at);
        let writer = next.expect("there is one");
        let now = writer.acts_at;
        if now >= 11_000_000 {
            return as_f64(written) / 10.0;
        }
        if let Some(began) = writer.waits_since.take() {
            till.grant(began..now);
        }
        written += bytes;
        writer.acts_at += write_micros;
        if let Bill::Wait(wait) = write(till, now, bytes, None) {
            // Knuth's MMIX generator.
            writer.random = (writer.random.wrapping_mul(6_364_136_223_846_793_005))
                .wrapping_add(1_442_695_040_888_963_407);
            let late = (writer.random >> 33) % 2_000;
            writer.acts_at += u64::try_from(wait.as_micros()).expect("a short wait") + late;
            writer.waits_since = Some(now);
        }
    }
}

#[test]
fn of_many_that_wait_no_two_leave_credit_for_the_same() {
    for count in [1, 2, 4, 16, 64] {
        for (allowed, bytes) in [(1e6, 50), (10e6, 116), (40e6, 600)] {
            let till = metered(64 << 20, allowed);
            let speed = run_many(&till, count, 3, bytes);
            let part = speed / allowed;
            // No wait is longer for what others wait with: that comes on top.
            let waiting = as_f64(count as u64 * bytes) / allowed * 1e6 / WAIT_MICROS_MAX;
            assert!(
                part < 1.03 + waiting,
                "{count} threads come {part} times as fast, {waiting} wait"
            );
            // Whoever is late to leave credit costs others some time.
            assert!(part > 0.7, "{count} threads come {part} times as fast");
        }
    }
}

#[test]
fn values_larger_than_any_credit_come_as_fast_as_allowed() {
    // Each is worth between 4 and 6.5 ms and more than an eighth of a memtable.
    for (allowed, bytes) in [(17e6, 70 << 10), (40e6, 200 << 10), (100e6, 640 << 10)] {
        let till = metered(512 << 10, allowed);
        let (speed, writes, waits, longest) = run_with(&till, 2.5, bytes);
        assert!(
            (speed / allowed - 1.0).abs() < 0.01,
            "{speed} for {allowed}"
        );
        assert!(waits + 2 >= writes, "{waits} of {writes} at {allowed}");
        assert!(longest <= 8000.0, "{longest} us at {allowed}");
    }
}

#[test]
fn a_value_is_owed_once() {
    let till = metered(64 << 20, 1e6);
    let now = 1_000_000;
    assert_eq!(write(&till, now, 10_000, None), Bill::Paid, "nothing owed");
    // Ten milliseconds, less the four that were saved up.
    let wait = write(&till, now, 10_000, None);
    assert_eq!(wait, Bill::Wait(Duration::from_millis(6)));
    // Ten more on top of the six: whoever may not wait finds that out to the microsecond.
    assert_eq!(pass_at_once(&till, now + 14_999, 1, 10), 0);
    assert_eq!(pass_at_once(&till, now + 15_001, 1, 1), 1);
}

#[test]
fn who_may_not_wait_gains_nothing_by_trying_again() {
    let till = metered(64 << 20, 1e6);
    let now = 1_000_000;
    // One that finds nothing owed, and the credit of seven milliseconds that it leaves.
    assert_eq!(pass_at_once(&till, now, 100, 1000), 71);
    // Ten seconds, in each millisecond four times as often as allowed.
    let passed: usize = (1..=10_000)
        .map(|ms| pass_at_once(&till, now + ms * 1000, 100, 40))
        .sum();
    let allowed = 10_000 * 1000 / 100;
    assert!(
        (allowed - 100..=allowed + 100).contains(&passed),
        "{passed}, allowed are {allowed}"
    );
}

#[test]
fn large_values_that_may_not_wait_pass_one_at_a_time_when_the_last_is_paid() {
    let till = metered(64 << 20, 1e6);
    let passed: Vec<u64> = (1000..1500)
        .filter(|ms| pass_at_once(&till, ms * 1000, 100_000, 10) > 0)
        .collect();
    // A hundred milliseconds each; the first has saved four, and the last millisecond is let go.
    assert_eq!(passed, [1000, 1096, 1196, 1296, 1396, 1496]);
}

#[test]
fn a_refused_write_takes_nothing_from_others() {
    let till = metered(64 << 20, 1e6);
    let now = 1_000_000;
    assert_eq!(write(&till, now, 100, None), Bill::Paid);
    assert_eq!(write(&till, now, 6_000, None), Bill::Paid, "of the credit");
    assert_eq!(pass_at_once(&till, now, 10_000, 100), 0);
    // The last thousand of the seven are still there.
    assert_eq!(pass_at_once(&till, now, 100, 100), 10);
}

#[test]
fn who_may_wait_for_less_than_is_owed_is_refused_and_not_charged() {
    let till = metered(64 << 20, 1e6);
    let now = 1_000_000;
    assert_eq!(write(&till, now, 10_000, None), Bill::Paid);
    let longest = Some(Duration::from_micros(5_999));
    for _ in 0..100 {
        assert_eq!(write(&till, now, 100, longest), Bill::Refused);
    }
    let longest = Some(Duration::from_millis(6));
    let wait = Bill::Wait(Duration::from_millis(6));
    assert_eq!(write(&till, now, 100, longest), wait);
}

#[test]
fn a_refund_leaves_all_as_if_the_write_had_not_been_made() {
    let now = 1_000_000;
    let no_wait = Some(Duration::ZERO);
    // What others spend between a charge and its refund: the value comes back as what is owed, half
    // as credit, and most of it as credit.
    for between in [0, 3_500, 7_000] {
        let till = metered(64 << 20, 1e6);
        for _ in 0..1000 {
            assert_eq!(write(&till, now, 100, no_wait), Bill::Paid);
            till.refund(100);
        }
        // Seven milliseconds of credit, of which four were saved up.
        assert_eq!(pass_at_once(&till, now, 100, 1000), 70);
        let wait = Bill::Wait(Duration::from_millis(3));
        assert_eq!(write(&till, now, 10_000, None), wait);
        till.grant(now..now + 3_000);
        assert_eq!(write(&till, now, between, no_wait), Bill::Paid);
        till.refund(10_000);
        assert_eq!(pass_at_once(&till, now, 100, 1000), 70, "the credit");
        // A microsecond a byte, and the last millisecond is let go.
        let due = now + 7_000 + between + 7_000 - 4_000 - 1_000;
        assert_eq!(pass_at_once(&till, due - 1, 1, 10), 0);
        assert_eq!(pass_at_once(&till, due + 1, 1, 1), 1);
    }
}

#[test]
fn however_large_the_write_the_wait_is_bounded_and_the_rest_stays_owed() {
    let till = metered(64 << 20, 1e6);
    assert_eq!(write(&till, 1_000_000, 1 << 20, None), Bill::Paid);
    for _ in 0..20 {
        let bill = write(&till, 1_000_000, 1 << 20, None);
        assert_eq!(bill, Bill::Wait(Duration::from_millis(7)));
        till.grant(1_000_000..1_007_000);
    }
    // The last one finds a second owed, and takes a little more than that itself.
    let later = |micros| pass_at_once(&till, micros, 100_000, 1);
    assert_eq!(later(2_900_000), 0, "the last one is not paid yet");
    assert_eq!(later(3_100_000), 1, "time paid for it");
}

#[test]
fn credit_is_a_small_part_of_a_memtable_however_fast_writes_may_come() {
    let till = metered(64 << 10, 100e6);
    assert!(!till.spend(1), "no credit yet");
    let bill = write(&till, 1_000_000, 1, None);
    assert_eq!(bill, Bill::Paid, "a byte is not waited for");
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
