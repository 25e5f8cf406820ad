//! Rates, times and tables for people. Everything here is plain text, for the report and the live
//! view alike.

use std::time::Duration;

use ratatui::text::Span;

use crate::text::{bytes_for_people, count_for_people};

/// What stands where nothing is known yet.
pub(super) const UNKNOWN: &str = "-";
const GAP: usize = 2;
/// Above this a count loses its last digits.
const COUNT_IN_FULL_MAX: u64 = 999_999_999;

/// A count of at most eleven characters.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown of it")]
pub(super) fn count(count: u64) -> String {
    if count <= COUNT_IN_FULL_MAX {
        return count_for_people(count);
    }
    let mut value = count as f64;
    let mut unit = ' ';
    for next in ['k', 'M', 'G', 'T', 'P'] {
        if unit != ' ' && value < 9_999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.0} {unit}")
}

/// Operations a second: three digits, or all before the point.
pub(super) fn rate(rate: f64) -> String {
    if rate == 0.0 {
        return String::from("0");
    }
    let decimals = usize::from(rate < 99.95) + usize::from(rate < 9.995);
    match decimals {
        0 => count(whole(rate)),
        _ => format!("{rate:.decimals$}"),
    }
}

/// Bytes a second, without saying so.
pub(super) fn bytes_rate(rate: f64) -> String {
    bytes_for_people(whole(rate))
}

/// To the nearest number; what is none, or too large for one, is the largest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float that does not fit gives the nearest that does"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A part of 1 in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How long something lasted, to two or three digits.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..10 if time.subsec_millis() > 0 => {
            format!("{seconds}.{} s", time.subsec_millis() / 100)
        }
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", count_for_people(seconds / 86_400)),
    }
}

/// How long a process runs: `1:02:03`, with days in front.
pub(super) fn up_time(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 {
        clock
    } else {
        format!("{} d {clock}", count_for_people(days))
    }
}

/// How many columns of a terminal `text` takes.
fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in at most `width` columns; a `~` stands for what was cut off.
pub(super) fn clip(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if width_of(&out) >= width {
            out.pop();
            break;
        }
    }
    if width > 0 {
        out.push('~');
    }
    out
}

/// `text` in lines of at most `width` columns, broken between words where that can be.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if last.is_empty() {
            last.push_str(word);
        } else if width_of(last) + 1 + width_of(word) <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A table: the first column to the left, numbers to the right. Columns that do not fit are left
/// out, the least wanted first.
#[derive(Debug)]
pub(super) struct Grid {
    rows: Vec<Vec<String>>,
    /// Columns that can be done without, the least wanted first.
    spare: &'static [usize],
    /// Of the first column.
    name_width_max: usize,
}

impl Grid {
    pub(super) fn new(headings: &[&str], spare: &'static [usize], name_width_max: usize) -> Self {
        assert!(spare.iter().all(|at| *at < headings.len()));
        Self {
            rows: vec![headings.iter().map(|&text| text.to_owned()).collect()],
            spare,
            name_width_max,
        }
    }

    /// Adds a row, with as many cells as there are headings.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// The headings and the rows, each in at most `width` columns.
    pub(super) fn lines(&self, width: usize) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.rows[0].len()).collect();
        let widths: Vec<usize> = shown.iter().map(|at| self.column_width(*at)).collect();
        for spare in self.spare {
            let needed: usize = shown.iter().map(|at| widths[*at] + GAP).sum();
            if needed <= width + GAP {
                break;
            }
            shown.retain(|at| at != spare);
        }
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for at in &shown {
                let cell = if *at == 0 {
                    clip(&row[0], self.name_width_max)
                } else {
                    row[*at].clone()
                };
                let pad = " ".repeat(widths[*at].saturating_sub(width_of(&cell)));
                if *at == 0 {
                    line = cell + &pad;
                } else {
                    line += &" ".repeat(GAP);
                    line += &pad;
                    line += &cell;
                }
            }
            clip(line.trim_end(), width)
        };
        self.rows.iter().map(line).collect()
    }

    fn column_width(&self, at: usize) -> usize {
        let widths = self.rows.iter().map(|row| width_of(&row[at]));
        let width = widths.max().unwrap_or(0);
        if at == 0 {
            width.min(self.name_width_max)
        } else {
            width
        }
    }
}
