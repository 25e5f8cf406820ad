use super::*;

/// The limits that follow from the default options.
const LIMITS: Limits = Limits {
    memtable_depth: Span {
        begin: 2.0,
        end: 3.0,
    },
    memory_bytes: Span {
        begin: 448e6,
        end: 512e6,
    },
    level0_depth: Span {
        begin: 8.0,
        end: 20.0,
    },
    debt_bytes: Span {
        begin: 1e9,
        end: 4e9,
    },
};

const CALM: Inputs = Inputs {
    memtable_depth: 0.0,
    memory_bytes: 0.0,
    level0_depth: 0.0,
    debt_bytes: 0.0,
    flush_speed: 200e6,
    compaction_speed: 40e6,
};

/// What each input is called, how to set it, and how far beyond its span it may go.
type Axis = (ThrottleCause, fn(&mut Inputs, f64), f64);

const AXES: [Axis; 4] = [
    (ThrottleCause::Memtables, |i, v| i.memtable_depth = v, 3.5),
    (ThrottleCause::Memory, |i, v| i.memory_bytes = v, 600e6),
    (ThrottleCause::Level0, |i, v| i.level0_depth = v, 24.0),
    (ThrottleCause::Debt, |i, v| i.debt_bytes = v, 40e9),
];

const STEPS: u32 = 4000;

/// The allowed speed as a number that can be compared: nothing is 0, everything is infinite.
fn speed(verdict: Verdict) -> f64 {
    match verdict {
        Verdict::Free => f64::INFINITY,
        Verdict::Slow(pace) => pace.bytes_per_second,
        Verdict::Stop(_) => 0.0,
    }
}

/// A few thousand points of the space of inputs, from a fixed seed.
fn points() -> impl Iterator<Item = Inputs> {
    let mut state = 7_u64;
    let mut next = move || {
        // Knuth's MMIX generator.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
    };
    (0..3000).map(move |_| {
        let mut inputs = CALM;
        for (_, set, max) in AXES {
            set(&mut inputs, next() * max);
        }
        inputs.flush_speed = 1e6 + next() * 1e9;
        inputs.compaction_speed = 1e6 + next() * 1e9;
        inputs
    })
}

#[test]
fn further_behind_is_never_faster() {
    for inputs in points() {
        for (cause, set, max) in AXES {
            let mut before = f64::INFINITY;
            for step in 0..=200 {
                let mut moved = inputs;
                set(&mut moved, max * f64::from(step) / 200.0);
                let now = speed(rate(&moved, &LIMITS));
                assert!(now <= before, "{cause} at step {step} of {inputs:?}");
                before = now;
            }
        }
    }
}

#[test]
fn a_faster_background_is_never_slower() {
    for inputs in points() {
        let mut before = 0.0;
        for step in 1..=50 {
            let mut moved = inputs;
            moved.flush_speed = inputs.flush_speed * f64::from(step);
            moved.compaction_speed = inputs.compaction_speed * f64::from(step);
            let now = speed(rate(&moved, &LIMITS));
            assert!(now >= before, "at step {step} of {inputs:?}");
            before = now;
        }
    }
}

/// Of a write's time the throttle takes `1 / speed` a byte: that is what must not jump. It is 0
/// where nothing is behind, and may jump only at a stop.
#[test]
fn a_small_change_of_an_input_is_a_small_change_of_the_price() {
    for inputs in points() {
        for (cause, set, max) in AXES {
            let mut before: Option<(ThrottleCause, f64)> = None;
            for step in 0..=STEPS {
                let mut moved = inputs;
                set(&mut moved, max * f64::from(step) / f64::from(STEPS));
                let Verdict::Slow(pace) = rate(&moved, &LIMITS) else {
                    before = None;
                    continue;
                };
                // In units of what the background would ask for itself: 64 is the highest.
                let background = match pace.cause {
                    ThrottleCause::Memtables | ThrottleCause::Memory => inputs.flush_speed,
                    ThrottleCause::Level0 | ThrottleCause::Debt => inputs.compaction_speed,
                };
                let price = background / pace.bytes_per_second;
                assert!((0.0..64.001).contains(&price), "{cause} of {inputs:?}");
                // Where the cause changes both ask the same, but in other units.
                let jump = before
                    .filter(|(last, _)| *last == pace.cause)
                    .map_or(0.0, |(_, last)| (price - last).abs());
                // A step is a small fraction of a span; next to a stop the price is steepest.
                let most = if price < 4.0 { 0.3 } else { 16.0 };
                assert!(
                    jump < most,
                    "{cause} jumps by {jump} at {step} of {inputs:?}"
                );
                before = Some((pace.cause, price));
            }
        }
    }
}

#[test]
fn each_span_begins_free_passes_the_background_in_the_middle_and_ends_in_a_stop() {
    let spans = [
        (LIMITS.memtable_depth, CALM.flush_speed),
        (LIMITS.memory_bytes, CALM.flush_speed),
        (LIMITS.level0_depth, CALM.compaction_speed),
    ];
    for ((cause, set, _), (span, background)) in AXES.into_iter().zip(spans) {
        let at = |value| {
            let mut inputs = CALM;
            set(&mut inputs, value);
            rate(&inputs, &LIMITS)
        };
        assert_eq!(at(span.begin), Verdict::Free, "{cause}");
        assert_eq!(at(span.end), Verdict::Stop(cause), "{cause}");
        let middle = speed(at(f64::midpoint(span.begin, span.end)));
        assert!(
            (middle / background - 1.0).abs() < 1e-9,
            "{cause}: {middle}"
        );
    }
    let owing = |debt_bytes| Inputs { debt_bytes, ..CALM };
    assert_eq!(
        rate(&owing(LIMITS.debt_bytes.begin), &LIMITS),
        Verdict::Free
    );
    let at_end = rate(&owing(LIMITS.debt_bytes.end), &LIMITS);
    let pace = Pace {
        bytes_per_second: CALM.compaction_speed,
        cause: ThrottleCause::Debt,
    };
    assert_eq!(at_end, Verdict::Slow(pace));
    assert!(
        speed(rate(&owing(1e18), &LIMITS)) > 0.0,
        "debt stops nobody"
    );
}
