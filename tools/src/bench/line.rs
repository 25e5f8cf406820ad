//! The result line: db_bench's to the character, so that what reads its output reads ours.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use base::{Error, Result};

use super::measure::{Found, Outcome};

const NO_FAILURE: &str = "writing to a String cannot fail";

/// One result line.
///
/// # Examples
/// ```
/// let text = "fillrandom   :       2.734 micros/op 365718 ops/sec 13.672 seconds \
///     5000000 operations;   40.5 MB/s";
/// let line: tools::bench::line::ResultLine = text.parse()?;
/// assert_eq!(line.operations, 5_000_000);
/// assert_eq!(line.to_string(), text);
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ResultLine {
    /// Of the workload.
    pub name: String,
    /// Of one thread.
    pub micros_per_op: f64,
    /// Of all threads.
    pub ops_per_sec: u64,
    /// From start to end.
    pub seconds: f64,
    /// Of all threads.
    pub operations: u64,
    /// Bytes of keys and values, in units of 2^20, if the workload moves any.
    pub megabytes_per_sec: Option<f64>,
    /// Keys found, if the workload looks for any.
    pub found: Option<Found>,
    /// What else db_bench says there: of a mix, how many operations of each kind, in parentheses.
    pub message: Option<String>,
}

impl ResultLine {
    /// The line of a workload called `name`.
    pub fn new(name: &str, outcome: &Outcome) -> Self {
        // As db_bench does: one operation at least, so that nothing is divided by zero.
        let operations = outcome.done.max(1);
        let elapsed = outcome.elapsed_seconds.max(1e-9);
        let megabytes = as_f64(outcome.bytes) / 1_048_576.0;
        Self {
            name: name.to_owned(),
            micros_per_op: outcome.thread_seconds * 1e6 / as_f64(operations),
            ops_per_sec: truncated(as_f64(operations) / elapsed),
            seconds: outcome.elapsed_seconds,
            operations,
            megabytes_per_sec: (outcome.bytes > 0).then_some(megabytes / elapsed),
            found: outcome.found,
            message: None,
        }
    }
}

/// Mean and median of lines of the same workload, in db_bench's words; nothing for fewer than two.
pub(crate) fn summary(name: &str, lines: &[&ResultLine]) -> Option<String> {
    if lines.len() < 2 {
        return None;
    }
    let rates: Vec<f64> = lines.iter().map(|line| as_f64(line.ops_per_sec)).collect();
    let speeds: Vec<f64> = lines
        .iter()
        .filter_map(|line| line.megabytes_per_sec)
        .collect();
    let (mean, margin) = mean_and_margin(&rates);
    let count = lines.len();
    let mut text = format!("{name} [AVG    {count} runs] : {mean:.0} (\u{b1} {margin:.0}) ops/sec");
    let has_speeds = speeds.len() == count;
    if has_speeds {
        let (mean, margin) = mean_and_margin(&speeds);
        write!(text, "; {mean:6.1} (\u{b1} {margin:.1}) MB/sec").expect(NO_FAILURE);
    }
    let median_rate = median(rates);
    write!(
        text,
        "\n{name} [MEDIAN {count} runs] : {median_rate:.0} ops/sec"
    )
    .expect(NO_FAILURE);
    if has_speeds {
        write!(text, "; {:6.1} MB/sec", median(speeds)).expect(NO_FAILURE);
    }
    Some(text)
}

/// The mean, and half of the interval that holds it with 95 % (1.96 standard errors).
fn mean_and_margin(numbers: &[f64]) -> (f64, f64) {
    let count = as_f64(numbers.len() as u64);
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|n| (n - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    (mean, 1.96 * deviation / count.sqrt())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 {
        numbers[middle]
    } else {
        f64::midpoint(numbers[middle - 1], numbers[middle])
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people; 52 bits are plenty")]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is never negative, and the cast saturates"
)]
pub(crate) fn truncated(rate: f64) -> u64 {
    rate as u64
}

impl fmt::Display for ResultLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} : {:>11.3} micros/op {} ops/sec {:.3} seconds {} operations;",
            self.name, self.micros_per_op, self.ops_per_sec, self.seconds, self.operations
        )?;
        if let Some(rate) = self.megabytes_per_sec {
            write!(f, " {rate:>6.1} MB/s")?;
        }
        if let Some(Found { found, of }) = self.found {
            write!(f, " ({found} of {of} found)")?;
        }
        if let Some(message) = &self.message {
            write!(f, " {message}")?;
        }
        Ok(())
    }
}

impl FromStr for ResultLine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::invalid_argument("not a result line").with_value("line", text.escape_debug())
        })
    }
}

fn parse(text: &str) -> Option<ResultLine> {
    let (name, rest) = text.split_once(" : ")?;
    let (fixed, extra) = rest.split_once(" operations;")?;
    let mut words = fixed.split_whitespace();
    let mut number = |unit: &str| {
        let word = words.next()?;
        (unit.is_empty() || words.next()? == unit).then_some(word)
    };
    let micros_per_op = number("micros/op")?.parse().ok()?;
    let ops_per_sec = number("ops/sec")?.parse().ok()?;
    let seconds = number("seconds")?.parse().ok()?;
    let operations = number("")?.parse().ok()?;
    let (megabytes_per_sec, message) = match extra.split_once(" MB/s") {
        Some((rate, message)) => (Some(rate.trim().parse().ok()?), message),
        None => (None, extra),
    };
    let (found, message) = match message.trim() {
        "" => (None, None),
        message if message.ends_with(" found)") => (Some(parse_found(message)?), None),
        message if message.starts_with('(') && message.ends_with(')') => {
            (None, Some(message.to_owned()))
        }
        _ => return None,
    };
    Some(ResultLine {
        name: name.trim_end().to_owned(),
        micros_per_op,
        ops_per_sec,
        seconds,
        operations,
        megabytes_per_sec,
        found,
        message,
    })
}

fn parse_found(message: &str) -> Option<Found> {
    let (found, of) = message
        .strip_prefix('(')?
        .strip_suffix(" found)")?
        .split_once(" of ")?;
    Some(Found {
        found: found.parse().ok()?,
        of: of.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_db_bench_printed_are_read_and_written_back() {
        for line in [
            concat!(
                "fillrandom   :       2.734",
                " micros/op 365718 ops/sec 13.672 seconds 5000000 operations;   40.5 MB/s"
            ),
            concat!(
                "readrandom   :       5.341",
                " micros/op 187219 ops/sec 5.341 seconds 1000000 operations;",
                "   13.1 MB/s (632186 of 1000000 found)"
            ),
            concat!(
                "readmissing  :       2.758",
                " micros/op 362563 ops/sec 2.758 seconds 1000000 operations; (0 of 1000000 found)"
            ),
            "compact      : 5230194.000 micros/op 0 ops/sec 5.230 seconds 1 operations;",
            concat!(
                "readwhilewriting :       9.302",
                " micros/op 107498 ops/sec 9.302 seconds 1000000 operations;",
                "    7.4 MB/s (632186 of 1000000 found)"
            ),
            concat!(
                "readrandomwriterandom :       1.118",
                " micros/op 894081 ops/sec 1.118 seconds 1000000 operations;",
                " ( reads:900000 writes:100000 total:1000000 found:569012)"
            ),
            concat!(
                "fillseq      :       0.271",
                " micros/op 3690036 ops/sec 0.271 seconds 1000000 operations; 1408.2 MB/s"
            ),
        ] {
            let parsed: ResultLine = line.parse().expect(line);
            assert_eq!(parsed.to_string(), line);
        }
    }

    #[test]
    fn repeated_runs_have_a_mean_and_a_median() {
        let line = |rate: u64| -> ResultLine {
            let text = format!(
                "fillseq      :       1.000 micros/op {rate} ops/sec 1.000 seconds {rate} \
                 operations;   10.0 MB/s"
            );
            text.parse().expect("a line")
        };
        let lines = [line(100), line(200), line(600)];
        let lines: Vec<_> = lines.iter().collect();
        assert_eq!(
            summary("fillseq", &lines).expect("three"),
            "fillseq [AVG    3 runs] : 300 (\u{b1} 299) ops/sec;   10.0 (\u{b1} 0.0) MB/sec\n\
             fillseq [MEDIAN 3 runs] : 200 ops/sec;   10.0 MB/sec"
        );
        assert_eq!(summary("fillseq", &lines[..1]), None);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "Keys:       16 bytes each",
            "fillseq : fast",
            "fillseq      :       x micros/op 1 ops/sec 1.0 seconds 1 operations;",
            "fillseq      :       1.0 micros/op 1 ops/sec 1.0 seconds 1 operations; (1 of found)",
            "fillseq      :       1.0 micros/op 1 ops/sec 1.0 seconds 1 operations; quick",
        ] {
            assert!(line.parse::<ResultLine>().is_err(), "{line}");
        }
    }
}
