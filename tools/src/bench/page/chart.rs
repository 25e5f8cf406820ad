//! The parts that charts are made of: scales, axes, lines and bars, in the units of a viewBox.

use std::fmt::Write as _;

use super::{NO_FAILURE, escaped};

/// A frame with room for labels at the left and below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// Where `part` of the way lies, from left to right.
    pub(super) fn x(&self, part: f64) -> f64 {
        self.left + part * (self.width - self.left - 8.0)
    }

    /// Where `part` of the way lies, from below to above.
    pub(super) fn y(&self, part: f64) -> f64 {
        let height = self.height - self.bottom - 8.0;
        8.0 + (1.0 - part) * height
    }

    /// The beginning of a drawing that is called `title`.
    pub(super) fn open(&self, title: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\">\n",
            self.width,
            self.height,
            escaped(title)
        )
    }

    /// A line across at `part` of the height, and what it stands for.
    pub(super) fn level(&self, out: &mut String, part: f64, label: &str) {
        let y = self.y(part);
        writeln!(
            out,
            "<line class=\"axis\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            self.left,
            self.width - 8.0,
            self.left - 5.0,
            y + 4.0,
            escaped(label)
        )
        .expect(NO_FAILURE);
    }

    /// What stands below at `part` of the width.
    pub(super) fn below(&self, out: &mut String, part: f64, label: &str) {
        let anchor = match part {
            p if p > 0.95 => "end",
            p if p < 0.05 => "start",
            _ => "middle",
        };
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            self.x(part),
            self.height - self.bottom + 14.0,
            escaped(label)
        )
        .expect(NO_FAILURE);
    }

    /// A line through points, each as parts of the width and height.
    pub(super) fn line(&self, out: &mut String, colour: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y)))
            .collect();
        writeln!(
            out,
            "<polyline class=\"graph\" stroke=\"var(--{colour})\" points=\"{}\"/>",
            points.join(" ")
        )
        .expect(NO_FAILURE);
    }

    /// A band over the whole height between two parts of the width.
    pub(super) fn band(&self, out: &mut String, colour: &str, from: f64, upto: f64) {
        let width = (self.x(upto) - self.x(from)).max(1.0);
        writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"var(--{colour})\" opacity=\"0.35\"/>",
            self.x(from),
            self.y(1.0),
            self.y(0.0) - self.y(1.0)
        )
        .expect(NO_FAILURE);
    }
}

/// One bar, made of parts side by side, with a name before and a figure behind.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    /// Colours and lengths.
    pub(super) parts: Vec<(&'static str, f64)>,
    pub(super) figure: String,
    /// Where a mark stands, if one does.
    pub(super) mark: Option<f64>,
}

const BAR_HEIGHT: f64 = 24.0;
const NAME_WIDTH: f64 = 124.0;
const FIGURE_WIDTH: f64 = 146.0;
const BARS_WIDTH: f64 = 480.0;

/// Bars below one another, to the same scale.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, length)| length).sum::<f64>();
    let longest = bars
        .iter()
        .map(|bar| sum(bar).max(bar.mark.unwrap_or(0.0)))
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE);
    let height = BAR_HEIGHT * super::as_f64(bars.len() as u64) + 4.0;
    let mut out = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {BARS_WIDTH:.0} {height:.0}\" role=\"img\" \
         aria-label=\"{}\">\n",
        escaped(title)
    );
    let scale = (BARS_WIDTH - NAME_WIDTH - FIGURE_WIDTH) / longest;
    for (index, bar) in (0_u32..).zip(bars) {
        let y = f64::from(index) * BAR_HEIGHT + 4.0;
        write!(
            out,
            "<text class=\"strong\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            NAME_WIDTH - 8.0,
            y + 13.0,
            escaped(&bar.name)
        )
        .expect(NO_FAILURE);
        let mut x = NAME_WIDTH;
        for (colour, length) in &bar.parts {
            let width = length * scale;
            write!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"17\" \
                 fill=\"var(--{colour})\"/>"
            )
            .expect(NO_FAILURE);
            x += width;
        }
        if let Some(mark) = bar.mark {
            let at = NAME_WIDTH + mark * scale;
            write!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" \
                 stroke=\"var(--ink)\" stroke-width=\"2\"/>",
                y - 2.0,
                y + 19.0
            )
            .expect(NO_FAILURE);
            x = x.max(at);
        }
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 6.0,
            y + 13.0,
            escaped(&bar.figure)
        )
        .expect(NO_FAILURE);
    }
    out.push_str("</svg>\n");
    out
}

/// A round number at or above `number`, for the top of an axis: 1, 2 or 5 times a power of ten.
pub(super) fn round_up(number: f64) -> f64 {
    if number <= 0.0 || !number.is_finite() {
        return 1.0;
    }
    let power = 10.0_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= number);
    step.unwrap_or(10.0) * power
}
