use super::*;

/// The limits that follow from the default options.
const LIMITS: Limits = Limits {
    memtable_depth: Span {
        begin: 2.0,
        end: 3.0,
    },
    memory_bytes: Span {
        begin: 384e6,
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

/// Where the plot lies: the curves, x the used part of a span, y the allowed speed over that of the
/// background on a scale of powers of two.
mod plot {
    use std::fmt::Write as _;

    use super::*;

    const LEFT: f64 = 60.0;
    const TOP: f64 = 20.0;
    const WIDTH: f64 = 520.0;
    const HEIGHT: f64 = 240.0;
    /// The used part at the right edge.
    const USED_MAX: f64 = 1.25;
    /// The powers of two at the top and at the bottom.
    const POWERS: (i32, i32) = (4, -7);

    fn x(used: f64) -> f64 {
        LEFT + WIDTH * used / USED_MAX
    }

    fn y(times: f64) -> f64 {
        let (top, bottom) = (f64::from(POWERS.0), f64::from(POWERS.1));
        TOP + HEIGHT * (top - times.log2().clamp(bottom, top)) / (top - bottom)
    }

    /// The points of one curve, from the function itself.
    fn curve(set: fn(&mut Inputs, f64), span: Span) -> String {
        let mut points = String::new();
        for step in 1..=250 {
            let used = USED_MAX * f64::from(step) / 250.0;
            let mut inputs = CALM;
            set(&mut inputs, span.begin + used * (span.end - span.begin));
            let Verdict::Slow(pace) = rate(&inputs, &LIMITS) else {
                break;
            };
            let times = pace.bytes_per_second / CALM.compaction_speed;
            write!(points, "{:.1},{:.1} ", x(used), y(times)).expect("a string grows");
        }
        points.trim_end().to_owned()
    }

    /// Without an empty line: it stands inside of Markdown.
    pub(super) fn draw() -> String {
        let mut svg = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 620 320\" width=\"620\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>The speed that writes are allowed</title>\n\
             <rect width=\"620\" height=\"320\" fill=\"white\"/>\n",
        );
        let mut line = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        for power in (POWERS.1..=POWERS.0).step_by(2) {
            let at = y(f64::from(power).exp2());
            let label = if power < 0 {
                format!("1/{}", 1 << -power)
            } else {
                (1 << power).to_string()
            };
            line(format!(
                "<path d=\"M{LEFT} {at:.1}H580\" stroke=\"#ddd\"/>\
                 <text x=\"52\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                at + 4.0
            ));
        }
        for (used, label) in [(0.0, "begin"), (0.5, "middle"), (1.0, "end")] {
            line(format!(
                "<path d=\"M{0:.1} 20V260\" stroke=\"#ddd\"/>\
                 <text x=\"{0:.1}\" y=\"278\" text-anchor=\"middle\">{label}</text>",
                x(used)
            ));
        }
        let (_, level0, _) = AXES[2];
        let (_, debt, _) = AXES[3];
        for (color, points) in [
            ("#07c", curve(level0, LIMITS.level0_depth)),
            ("#c50", curve(debt, LIMITS.debt_bytes)),
        ] {
            let pen = format!("fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"");
            line(format!("<polyline {pen} points=\"{points}\"/>"));
        }
        line(format!(
            "<text x=\"{:.1}\" y=\"252\" fill=\"#07c\">stop</text>",
            x(1.0) + 4.0
        ));
        line(String::from(
            "<text x=\"320\" y=\"40\" fill=\"#07c\">memtables, memory, level 0</text>\
             <text x=\"320\" y=\"58\" fill=\"#c50\">debt: stops nobody</text>",
        ));
        line(String::from(
            "<text x=\"320\" y=\"306\" text-anchor=\"middle\">\
             allowed speed over that of the background, by how much of a span is used</text>",
        ));
        svg.push_str("</svg>\n");
        svg
    }
}

/// `REWRITE=1` draws the plot anew; look at it like at code.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the plot is a file of the source tree"
)]
fn the_plot_in_the_docs_shows_this_very_function() {
    let drawn = plot::draw();
    assert!(!drawn.contains("\n\n"), "Markdown would end it there");
    if std::env::var_os("REWRITE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/throttling.svg");
        std::fs::write(path, &drawn).expect("written");
    }
    let stored = include_str!("../throttling.svg");
    assert!(
        drawn == stored,
        "the plot is of another function: REWRITE=1 draws it anew"
    );
}
