#![expect(clippy::float_cmp, reason = "rates of such numbers are exact")]

use std::time::Duration;

use siltstone::ThrottleCause;

use super::{found, healthy, last, stalled, steady};
use crate::admin::top::look::Found;
use crate::admin::top::people::{self, Grid};
use crate::admin::top::rates::{Amount, Counters, Flow, Rate, Rates};
use crate::admin::top::watch::{Press, Watch};

fn rate_of(count: f64, bytes: f64) -> Rate {
    Rate { count, bytes }
}

fn now(watch: &Watch) -> &Rates {
    let seen = watch.seen.as_ref().expect("there was a look");
    seen.now.as_ref().expect("there were two")
}

#[test]
fn rates_are_what_grew_over_the_time_of_the_writer() {
    let from = steady(100, &["default", "events"]);
    let mut to = steady(100, &["default", "events"]);
    to.up_micros += 2_500_000;
    // The wall clock jumped meanwhile, which changes nothing.
    to.written_micros = 5;
    let stats = &mut to.stats;
    stats.user_write_count += 1000;
    stats.user_bytes_written += 5000;
    stats.get_count += 10;
    stats.get_hit_count += 4;
    stats.get_bytes_read += 25;
    stats.seek_count += 5;
    stats.scan_bytes_read += 50;
    stats.scan_entry_count += 500;
    stats.log_sync_count += 15;
    stats.log_bytes += 7500;
    stats.flush_count += 20;
    stats.flush_bytes_written += 100;
    stats.compaction_count += 25;
    stats.compaction_bytes_written += 125;
    stats.compaction_bytes_read += 250;
    stats.cache_hits += 3;
    stats.cache_misses += 1;
    stats.stall_micros += 1_250_000;
    stats.throttle_micros += 250_000;
    stats.waits[0].throttle_micros += 250_000;
    stats.waits[1].stall_micros += 1_250_000;
    stats.keyspaces[1].user_write_count += 5;
    stats.keyspaces[1].user_bytes_written += 50;
    stats.keyspaces[1].get_count += 500;
    to.amplification.keyspaces[1].read.scan.seek_count += 25;

    let rates = Rates::between(&Counters::of(&from), &Counters::of(&to)).expect("of one opening");
    let expected = [
        (Flow::Writes, 400.0, 2000.0),
        (Flow::Gets, 4.0, 10.0),
        (Flow::Seeks, 2.0, 20.0),
        (Flow::Entries, 200.0, 0.0),
        (Flow::Log, 6.0, 3000.0),
        (Flow::Flushes, 8.0, 40.0),
        (Flow::Compactions, 10.0, 50.0),
        (Flow::CompactionReads, 0.0, 100.0),
    ];
    assert_eq!(expected.len(), Flow::ALL.len());
    for (flow, count, bytes) in expected {
        assert_eq!(rates.rate(flow), rate_of(count, bytes), "{flow:?}");
    }
    assert_eq!(rates.seconds, 2.5);
    assert_eq!((rates.stalled_share, rates.throttled_share), (0.5, 0.1));
    assert_eq!(rates.cause, Some(ThrottleCause::Level0));
    assert_eq!(
        (rates.found_share, rates.cache_hit_share),
        (Some(0.4), Some(0.75))
    );
    assert_eq!(rates.keyspaces[0].writes, rate_of(0.0, 0.0));
    let events = rates.keyspaces[1];
    assert_eq!(events.writes, rate_of(2.0, 20.0));
    assert_eq!((events.gets, events.seeks), (200.0, 10.0));
}

#[test]
fn nothing_follows_from_one_look_or_from_two_openings() {
    let file = steady(100, &["default"]);
    let counters = Counters::of(&file);
    assert_eq!(Rates::between(&counters, &counters), None);
    assert_eq!(
        Rates::between(&Counters::of(&steady(101, &[])), &counters),
        None
    );
    let mut other = steady(200, &["default"]);
    other.opened_micros += 1;
    assert_eq!(Rates::between(&counters, &Counters::of(&other)), None);
    let mut other = steady(200, &["default"]);
    other.process_id += 1;
    assert_eq!(Rates::between(&counters, &Counters::of(&other)), None);
}

#[test]
fn averages_are_over_the_time_since_it_was_opened() {
    let counters = Counters::of(&steady(100, &["default"]));
    let average = Rates::between(&counters.at_open(), &counters).expect("a hundred seconds");
    assert_eq!(average.seconds, 100.0);
    assert_eq!(average.rate(Flow::Writes), rate_of(1000.0, 116_000.0));
    assert_eq!(average.keyspaces[0].writes, rate_of(500.0, 58_000.0));
    assert_eq!((average.found_share, average.cause), (Some(0.9), None));
    let nothing = Counters::of(&steady(0, &["default"]));
    assert_eq!(Rates::between(&nothing.at_open(), &nothing), None);
}

/// A keyspace is dropped and made anew under its name, and another one comes.
#[test]
fn keyspaces_that_come_and_go_have_no_strange_rates() {
    let mut from = steady(100, &["default", "events"]);
    from.stats.keyspaces[1].user_write_count = 1_000_000;
    let mut to = steady(110, &["default", "archive", "events"]);
    to.stats.keyspaces[1].user_write_count = 30;
    to.stats.keyspaces[2].user_write_count = 70;
    let rates = Rates::between(&Counters::of(&from), &Counters::of(&to)).expect("of one opening");
    let writes: Vec<f64> = rates
        .keyspaces
        .iter()
        .map(|part| part.writes.count)
        .collect();
    assert_eq!(writes, [500.0, 3.0, 0.0]);
}

#[test]
fn a_file_that_did_not_change_keeps_the_rates_and_ages() {
    let mut watch = healthy(&["default"]);
    let before = now(&watch).clone();
    assert_eq!(before.rate(Flow::Writes).count, 1000.0);
    watch.take(found(steady(110, &["default"])));
    assert_eq!(*now(&watch), before);
    let mut older = super::told(steady(110, &["default"]));
    older.seen_micros += 1_000_000;
    watch.take(Found::Told(Box::new(older)));
    assert_eq!(*now(&watch), before);
    assert_eq!(last(&mut watch).age(), Some(Duration::from_millis(1500)));
    assert_eq!(watch.history, [[1000.0, 500.0]]);
}

#[test]
fn another_opening_begins_anew() {
    let mut watch = healthy(&["default", "events"]);
    watch.press(Press::NextKeyspace);
    watch.press(Press::NextKeyspace);
    watch.press(Press::Reset);
    assert_eq!((watch.chosen, watch.is_reset), (2, true));
    let mut file = steady(5, &["default"]);
    file.process_id += 1;
    watch.take(found(file));
    let seen = watch.seen.as_ref().expect("a look");
    assert_eq!(seen.now, None);
    let average = seen.average.as_ref().expect("since it was opened");
    assert_eq!(average.rate(Flow::Writes).count, 1000.0);
    assert_eq!(
        (watch.chosen, watch.is_reset),
        (0, false),
        "there is only one"
    );
    assert!(watch.history.is_empty());
}

#[test]
fn a_reset_lets_averages_begin_there() {
    let mut watch = healthy(&["default"]);
    watch.press(Press::Reset);
    let seen = watch.seen.as_ref().expect("a look");
    assert_eq!((&seen.now, &seen.average), (&None, &None));
    assert_eq!(
        seen.counters.amount(Flow::Writes),
        Amount {
            count: 110_000,
            bytes: 12_760_000
        }
    );
    for (up, writes) in [(112, 110_400), (120, 110_500)] {
        let mut file = steady(up, &["default"]);
        file.stats.user_write_count = writes;
        watch.take(found(file));
    }
    let seen = watch.seen.as_ref().expect("a look");
    let average = seen.average.as_ref().expect("ten seconds");
    assert_eq!(now(&watch).rate(Flow::Writes).count, 12.5);
    assert_eq!(average.rate(Flow::Writes).count, 50.0);
}

#[test]
fn a_pause_keeps_everything_as_it_is() {
    let mut watch = healthy(&["default"]);
    watch.press(Press::Pause);
    watch.take(found(steady(500, &["default"])));
    watch.take(Found::Nothing(String::from("gone")));
    watch.take_failure(String::from("damaged"));
    assert_eq!(
        (last(&mut watch).file.up_micros, &watch.trouble),
        (110_000_000, &None)
    );
    watch.press(Press::Pause);
    watch.take(found(steady(500, &["default"])));
    assert_eq!(now(&watch).seconds, 390.0);
    watch.take_failure(String::from("damaged"));
    assert_eq!(watch.trouble.as_deref(), Some("damaged"));
    watch.take(found(steady(501, &["default"])));
    assert_eq!(watch.trouble, None, "it was written anew");
}

#[test]
fn keyspaces_are_walked_through_in_a_circle() {
    let mut watch = healthy(&["default", "events"]);
    let mut walk = |press: Press| {
        watch.press(press);
        watch.chosen
    };
    let forth = [Press::NextKeyspace; 4].map(&mut walk);
    let back = [Press::PreviousKeyspace; 3].map(&mut walk);
    assert_eq!((forth, back), ([1, 2, 0, 1], [0, 2, 1]));
    watch.press(Press::Help);
    assert!(watch.is_help);
    watch.press(Press::Other);
    assert!(!watch.is_help);
    let mut nothing = super::missing();
    nothing.press(Press::NextKeyspace);
    nothing.press(Press::Reset);
    assert_eq!(nothing.chosen, 0);
}

#[test]
fn the_history_has_an_end() {
    let mut watch = Watch::new(String::from("db"));
    for up in 1..=1000 {
        watch.take(found(steady(up, &["default"])));
    }
    assert_eq!(watch.history.len(), 512);
}

#[test]
fn what_is_waited_for_longest_is_the_cause() {
    let watch = stalled();
    let rates = now(&watch);
    assert_eq!(rates.cause, Some(ThrottleCause::Level0));
    assert_eq!((rates.stalled_share, rates.throttled_share), (0.45, 0.225));
    let seen = watch.seen.as_ref().expect("a look");
    assert_eq!(seen.throttle().bytes_per_second, 0.0, "of the slowest");
}

#[test]
fn numbers_are_short() {
    let rates = [
        (0.0, "0"),
        (0.004, "0.00"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1_234_567.8, "1,234,568"),
        (2_500_000_000.0, "2500 M"),
        (f64::INFINITY, "18447 P"),
    ];
    for (rate, want) in rates {
        assert_eq!(people::rate(rate), want);
    }
    let counts = [
        (999_999_999, "999,999,999"),
        (1_000_000_000, "1000 M"),
        (123_456_789_012, "123 G"),
        (u64::MAX, "18447 P"),
    ];
    for (count, want) in counts {
        assert_eq!(people::count(count), want);
    }
    let times = [
        (0, "0 ms"),
        (250, "250 ms"),
        (1000, "1 s"),
        (9999, "9.9 s"),
        (119_900, "119 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 days"),
    ];
    for (millis, want) in times {
        assert_eq!(people::time(Duration::from_millis(millis)), want);
    }
    assert_eq!(people::up_time(3_723_000_000), "1:02:03");
    assert_eq!(people::up_time(90_061_000_000), "1 d 1:01:01");
    assert_eq!(people::percent(1.5), "150.0 %");
}

#[test]
fn long_lines_are_broken_between_words() {
    let lines = |width: usize| people::wrap("one two  three", width).join("|");
    assert_eq!(lines(80), "one two  three");
    assert_eq!(lines(8), "one two |three");
    assert_eq!(lines(3), "one|two|three");
    assert_eq!(people::wrap("", 5), [""]);
}

#[test]
fn tables_leave_out_what_does_not_fit() {
    let mut grid = Grid::new(&["name", "a", "b"], &[1, 2], 6);
    grid.row(
        ["\u{732b}\u{732b}", "12", "345"]
            .map(str::to_owned)
            .to_vec(),
    );
    grid.row(["abcdefgh", "", "6"].map(str::to_owned).to_vec());
    let lines = |width: usize| grid.lines(width).join("\n");
    assert_eq!(
        lines(15),
        "name     a    b\n\u{732b}\u{732b}    12  345\nabcde~        6"
    );
    assert_eq!(
        lines(14),
        "name      b\n\u{732b}\u{732b}    345\nabcde~    6"
    );
    assert_eq!(lines(6), "name\n\u{732b}\u{732b}\nabcde~");
    assert_eq!(lines(3), "na~\n\u{732b}~\nab~");
    assert_eq!(lines(0), "\n\n");
}
