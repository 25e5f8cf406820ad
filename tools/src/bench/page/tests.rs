use base::sync::Arc;
use clap::Parser;

use super::*;
use crate::bench::line::ResultLine;
use crate::bench::measure::{Meter, Outcome};
use crate::bench::moments::{Pause, PauseKind};
use crate::bench::record::Cost;
use crate::bench::report::theory::Tuning;
use crate::bench::report::{Charge, Returned, Totals};
use crate::bench::series::{SPAN_NANOS, Series};

/// Every tag that is opened is closed, in order.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let tag = piece.split('>').next().expect("a tag ends");
        if tag.starts_with('!') {
            continue;
        }
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .expect("a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "in {open:?}");
        } else if !tag.ends_with('/') && !["meta", "br"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn figure(number: f64) -> (f64, String) {
    (number, format!("{number} k"))
}

/// A workload that put 1000 entries in each tenth of a second, and waited in between.
fn record() -> Record {
    let clock = Arc::new(SystemClock::new());
    let mut meter = Meter::new(clock);
    meter.start();
    for _ in 0..1000 {
        meter.finish(1);
    }
    meter.stop();
    let mut outcome = Outcome::merge(&[meter]);
    outcome.series = Series {
        first: 7,
        counts: vec![1000; 20],
    };
    let pause = |kind, span: u64| Pause {
        kind,
        cause: "x".to_owned(),
        from_nanos: span * SPAN_NANOS,
        upto_nanos: (span + 1) * SPAN_NANOS,
    };
    Record {
        line: ResultLine::new("a<b", &outcome),
        outcome,
        threads: 1,
        bytes_beside: 0,
        cost: Cost {
            user_bytes: 100,
            log_bytes: 150,
            flush_bytes: 100,
            ..Cost::default()
        },
        pauses: vec![pause(PauseKind::Stall, 10), pause(PauseKind::Throttle, 12)],
        levels: Vec::new(),
        ended_micros: 0,
    }
}

#[test]
fn a_run_shows_when_writes_waited_and_what_they_cost() {
    let args = Args::try_parse_from(["lsm-bench"]).expect("no flags");
    let amplification = Amplification {
        totals: Totals {
            user_bytes: 100,
            log: Charge {
                payload: 150,
                pages: 4096,
            },
            compaction_by_level: vec![Charge::default(); 8],
            arrived_by_level: vec![0; 8],
            resident_by_level: vec![0; 8],
            ..Totals::default()
        },
        device: None,
        space: None,
        returned: Returned::default(),
        keyspaces: Vec::new(),
        tuning: Tuning::default(),
    };
    let page = run(&args, &[record(), record()], &amplification);
    assert_well_formed(&page);
    // Two of each: one in each chart; and one in the legend.
    for colour in ["stall", "slow"] {
        let bands = page.matches(&format!("fill=\"var(--{colour})\"")).count();
        assert_eq!(bands, 2, "{colour}");
    }
    assert!(page.contains("10 k/s"), "a thousand in a tenth: {page}");
    for part in [
        "<td>a&lt;b</td>",
        "a&lt;b (2)",
        "1.50 (40.96 in pages)",
        ">2.50</text>",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    let empty = run(&args, &[], &amplification);
    assert_well_formed(&empty);
    assert!(!empty.contains("<h2>Results"));
}

#[test]
fn peers_stand_beside_each_other_with_the_best_marked() {
    let engines: Vec<Peer> = ["siltstone", "a<b", "c"]
        .map(|name| Peer {
            name: name.to_owned(),
            settings: "cache & filter".to_owned(),
        })
        .to_vec();
    let line = |label: &str, is_more_better| PeerLine {
        label: label.to_owned(),
        figures: vec![Some(figure(1.0)), Some(figure(2.0)), None],
        is_more_better,
        ratio: Some(0.5),
    };
    let lines = [line("fillseq", true), line("compact, s", false)];
    let page = peers("lead", "- one\n- two\n", &engines, &lines);
    assert_well_formed(&page);
    assert!(page.contains("<td class=\"best\">2 k</td>"), "{page}");
    assert!(
        page.contains("<td class=\"best\">1 k</td>"),
        "less is better: {page}"
    );
    assert!(page.contains("a&lt;b") && page.contains("cache &amp; filter"));
    assert!(page.contains(">one</li>") && page.contains(">two</li>"));
    for part in ["http:", "https:", "<script", "url(", "@import"] {
        assert!(!page.contains(part), "nothing is loaded: {part}");
    }
}

#[test]
fn axes_end_at_round_numbers() {
    for (number, top) in [
        (0.0, 1.0),
        (1.0, 1.0),
        (1.1, 2.0),
        (480.0, 500.0),
        (7e5, 1e6),
    ] {
        let found = chart::round_up(number);
        assert!((found / top - 1.0).abs() < 1e-9, "{number}: {found}");
    }
}

#[test]
fn figures_are_short() {
    assert_eq!(
        [rate(12.0), rate(365_718.0), rate(2e6)],
        ["12 /s", "366 k/s", "2.00 M/s"]
    );
    let shown = [0.25, 250.0, 2500.0, 25_000.0, 2.5e6].map(micros);
    assert_eq!(shown, ["0.25 us", "250 us", "2.5 ms", "25 ms", "2.5 s"]);
}
