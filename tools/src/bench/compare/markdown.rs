//! A comparison as a page of Markdown, its tables padded so that a terminal shows them as well.

use std::fmt::Write as _;

use base::clock::{Clock, SystemClock};

use super::measured::{Measured, PERCENTILES};
use super::results::Results;
use super::table::{Line, Table, Unit};
use crate::bench::args::{Args, EngineSettings};
use crate::bench::engine::EngineName;
use crate::bench::line::as_f64;
use crate::text::{counted, time_of_micros};

/// What makes the comparison fair, and where it is not.
pub(super) const NOTES: &str = "\
- Each engine has a process of its own. For every row the engines take turns on the same keys and
  values in the same order; who does not have its turn is stopped, its background threads included.
  After rows that write, everything is synced before the next turn.
- Keys of fillrandom and overwrite are drawn with repetition, as db_bench draws them.
- A write returns when the operating system has it; in fillsync, when the disk has it.
- Reads come in two states: as the writes left the database (compaction may go on beside them, as
  it would), and after a full compaction. Both begin with an unmeasured pass.
- Bytes written are write_bytes of /proc/self/io: pages made dirty, each as often as it is. A row is
  charged with all of them since the row before, background work between turns included.
- Memory is resident anonymous memory: memtables and caches, not mapped files.
- driver: what the driver takes itself, in ns an operation, measured with an engine that does
  nothing; it is part of every figure.
- A ratio above 1 is in favour of the first engine, in every line.
";

/// The whole page.
pub(crate) fn page(results: &Results, args: &Args, table: &Table, is_interrupted: bool) -> String {
    let mut page = String::from("# siltstone and its peers\n\n");
    page += &header(results, args);
    if is_interrupted {
        page += "\n**Interrupted: rows are missing.**\n";
    }
    page += "\n## Medians and ratios\n\n";
    page += &ratio_table(table);
    if let Some(raw) = table.raw_per_sec {
        page += "\n## Synced writes in parts of the raw file\n\n";
        page += &raw_table(table, raw);
    }
    page += "\n## Behind another log-structured engine\n\n";
    page += &behind(table);
    page += "\n## Settings\n\n";
    for (engine, settings) in results.settings() {
        let pairs: Vec<_> = settings
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        push(
            &mut page,
            format_args!("- **{}**: {}\n", engine.name(), pairs.join("; ")),
        );
    }
    page += "\n## How it was measured\n\n";
    page += NOTES;
    page += "\n## Every row\n\n";
    page += &detail_table(results);
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text)
        .expect("writing to a String cannot fail");
}

fn header(results: &Results, args: &Args) -> String {
    let time = time_of_micros(SystemClock::new().now_micros());
    let date = time.split('T').next().unwrap_or_default();
    let settings = match args.engine_settings {
        EngineSettings::Same => "the same for all",
        EngineSettings::Best => "each engine's best",
    };
    let command: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "- date: {date}\n- machine: {}\n- command: `lsm-bench {}`\n- {} of {}, values of {} \
         that compress to {:.0} %, seed {}\n- medians of {}; settings: {settings}\n",
        machine(),
        command.join(" "),
        counted(args.num, "key"),
        counted(args.key_size as u64, "byte"),
        counted(args.value_size as u64, "byte"),
        args.compression_ratio * 100.0,
        args.seed,
        counted(results.repeats() as u64, "interleaved run"),
    )
}

/// Processor, memory and kernel, as the system tells.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&cpuinfo, "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or_else(String::new, |kib| {
            format!(", {} GiB", kib.div_ceil(1 << 20))
        });
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} x {model}{memory}, Linux {}", kernel.trim())
}

fn ratio_table(table: &Table) -> String {
    let mut head = vec!["row".to_owned()];
    head.extend(table.engines.iter().map(|engine| engine.name().to_owned()));
    head.extend(["x LSM", "x all", "driver"].map(str::to_owned));
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |r| format!("{r:.2}"));
    let body = table.lines.iter().map(|line| {
        let mut cells = vec![format!("{}{}", line.label, line.unit.suffix())];
        let show = |figure: &Option<f64>| figure.map_or("-".to_owned(), |f| line.unit.show(f));
        cells.extend(line.figures.iter().map(show));
        cells.extend([ratio(line.against_lsm), ratio(line.against_all)]);
        let driver = line.driver_nanos.filter(|_| line.unit == Unit::PerSecond);
        cells.push(driver.map_or("-".to_owned(), |nanos| format!("{nanos:.0}")));
        cells
    });
    padded(&head, &body.collect::<Vec<_>>())
}

fn raw_table(table: &Table, raw_per_sec: f64) -> String {
    let mut head = vec!["row".to_owned()];
    head.extend(table.engines.iter().map(|engine| engine.name().to_owned()));
    let body: Vec<Vec<String>> = table
        .parts_of_raw
        .iter()
        .map(|part| {
            let percent = |p: &Option<f64>| p.map_or("-".to_owned(), |p| format!("{p:.0} %"));
            let mut cells = vec![part.label.to_owned()];
            cells.extend(part.percent.iter().map(percent));
            cells
        })
        .collect();
    let mut text = padded(&head, &body);
    push(
        &mut text,
        format_args!(
            "\nThe raw file takes {} synced appends a second from one thread; 8 threads are \
             compared with 8 times that.\n",
            Unit::PerSecond.show(raw_per_sec)
        ),
    );
    text
}

fn behind(table: &Table) -> String {
    let mut text = String::new();
    for line in table.behind() {
        let Line { label, unit, .. } = line;
        let own = line.figures.first().copied().flatten();
        let show = |figure: Option<f64>| figure.map_or("-".to_owned(), |f| unit.show(f));
        let ratio = line.against_lsm.unwrap_or_default();
        push(
            &mut text,
            format_args!("- {label}: {}, ratio {ratio:.2}\n", show(own)),
        );
    }
    if text.is_empty() {
        text.push_str("None.\n");
    }
    text
}

fn detail_table(results: &Results) -> String {
    let mut head: Vec<String> = ["row", "engine", "ops/s"].map(str::to_owned).to_vec();
    head.extend(PERCENTILES.iter().map(|(name, _)| format!("{name} us")));
    head.extend(
        [
            "max us",
            "written MB",
            "directory MB",
            "anonymous MB",
            "peak MB",
            "CPU s",
        ]
        .map(str::to_owned),
    );
    let mut body = Vec::new();
    for row in results.rows() {
        for engine in EngineName::ALL {
            if results.turns(&row.label, engine).is_empty() {
                continue;
            }
            let median = |figure: &dyn Fn(&Measured) -> f64| {
                results
                    .median(&row.label, engine, figure)
                    .unwrap_or_default()
            };
            let mut cells = vec![row.label.clone(), engine.name().to_owned()];
            cells.push(Unit::PerSecond.show(median(&Measured::rate)));
            for index in 0..PERCENTILES.len() {
                cells.push(Unit::Micros.show(median(&|m| m.percentile_micros[index])));
            }
            cells.push(Unit::Micros.show(median(&|m| m.max_micros)));
            let mebibytes = |figure: &dyn Fn(&Measured) -> u64| {
                Unit::Megabytes.show(median(&|m| as_f64(figure(m)) / 1_048_576.0))
            };
            cells.push(mebibytes(&|m| m.written_bytes));
            cells.push(mebibytes(&|m| m.dir_bytes));
            cells.push(mebibytes(&|m| m.memory.anonymous));
            cells.push(mebibytes(&|m| m.memory.peak));
            cells.push(Unit::Seconds.show(median(&|m| m.cpu_seconds)));
            body.push(cells);
        }
    }
    padded(&head, &body)
}

/// A table, its columns of even width: the first to the left, the others to the right.
fn padded(head: &[String], body: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = body.iter().filter_map(|row| row.get(column));
        cells.chain(head.get(column)).map(String::len).max()
    };
    let widths: Vec<usize> = (0..head.len()).filter_map(width).collect();
    let mut text = String::new();
    let mut push_row = |cells: &[String]| {
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if column == 0 {
                push(&mut text, format_args!("| {cell:<width$} |"));
            } else {
                push(&mut text, format_args!(" {cell:>width$} |"));
            }
        }
        text.push('\n');
    };
    push_row(head);
    let rule = widths.iter().enumerate().map(|(column, width)| {
        if column == 0 {
            "-".repeat(*width)
        } else {
            format!("{}:", "-".repeat(width - 1))
        }
    });
    push_row(&rule.collect::<Vec<_>>());
    for cells in body {
        push_row(cells);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_even() {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let text = padded(&words(["row", "a"]), &[words(["fillseq", "1.2 M"])]);
        let expected = "| row     |     a |\n| ------- | ----: |\n| fillseq | 1.2 M |\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_machine_is_named() {
        assert!(machine().contains("Linux"), "{}", machine());
    }
}
