//! Engines beside each other: a table, and bars row by row.

use std::fmt::Write as _;

use super::chart::{Bar, bars};
use super::{NO_FAILURE, colour, escaped, legend, whole};

/// One engine.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) settings: String,
}

/// One row of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct PeerLine {
    pub(crate) label: String,
    /// One for each engine: the figure, and how people read it.
    pub(crate) figures: Vec<Option<(f64, String)>>,
    /// Whether more is better.
    pub(crate) is_more_better: bool,
    /// How the first stands to the best of the others; above 1 is good for it.
    pub(crate) ratio: Option<f64>,
}

/// The page of a comparison; `lead` says what was compared, and how.
pub(crate) fn peers(lead: &str, notes: &str, engines: &[Peer], lines: &[PeerLine]) -> String {
    let sections = [
        table(engines, lines),
        charts(engines, lines),
        settings(engines, notes),
    ];
    whole("siltstone and its peers", lead, &sections)
}

fn table(engines: &[Peer], lines: &[PeerLine]) -> String {
    let mut out = String::from(
        "<h2>Medians and ratios</h2>\n<p class=\"quiet\">The last column is how the first engine \
         stands to the best of the others: above 1 it is ahead, whatever the figure.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th>row</th>",
    );
    for engine in engines {
        write!(out, "<th>{}</th>", escaped(&engine.name)).expect(NO_FAILURE);
    }
    out.push_str("<th>ratio</th></tr>\n");
    for line in lines {
        write!(out, "<tr><td>{}</td>", escaped(&line.label)).expect(NO_FAILURE);
        let best = best(line);
        for figure in &line.figures {
            match figure {
                None => out.push_str("<td>-</td>"),
                Some((number, shown)) => {
                    let is_best = best.is_some_and(|best| number.to_bits() == best.to_bits());
                    let class = if is_best { " class=\"best\"" } else { "" };
                    write!(out, "<td{class}>{}</td>", escaped(shown)).expect(NO_FAILURE);
                }
            }
        }
        let ratio = line
            .ratio
            .map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
        writeln!(out, "<td>{ratio}</td></tr>").expect(NO_FAILURE);
    }
    out.push_str("</table></div>\n");
    out
}

fn best(line: &PeerLine) -> Option<f64> {
    let figures = line.figures.iter().flatten().map(|(number, _)| *number);
    if line.is_more_better {
        figures.max_by(f64::total_cmp)
    } else {
        figures.min_by(f64::total_cmp)
    }
}

fn charts(engines: &[Peer], lines: &[PeerLine]) -> String {
    let mut out = String::from("<h2>Row by row</h2>\n");
    let names = engines.iter().enumerate();
    out += &legend(names.map(|(index, engine)| (colour(index), engine.name.as_str())));
    out.push_str("<div class=\"grid\">\n");
    for line in lines {
        let rows: Vec<Bar> = line
            .figures
            .iter()
            .enumerate()
            .filter_map(|(index, figure)| {
                let (number, shown) = figure.as_ref()?;
                Some(Bar {
                    name: engines[index].name.clone(),
                    parts: vec![(colour(index), *number)],
                    figure: shown.clone(),
                    mark: None,
                })
            })
            .collect();
        let hint = if line.is_more_better {
            ""
        } else {
            " (less is better)"
        };
        write!(
            out,
            "<div><h3>{}{hint}</h3>\n{}</div>\n",
            escaped(&line.label),
            bars(&line.label, &rows)
        )
        .expect(NO_FAILURE);
    }
    out.push_str("</div>\n");
    out
}

fn settings(engines: &[Peer], notes: &str) -> String {
    let mut out = String::from("<h2>Settings, and how it was measured</h2>\n<ul>\n");
    for engine in engines {
        writeln!(
            out,
            "<li><b>{}</b> <span class=\"quiet\">{}</span></li>",
            escaped(&engine.name),
            escaped(&engine.settings)
        )
        .expect(NO_FAILURE);
    }
    for note in notes.split("\n- ") {
        let note = note.trim_start_matches("- ").trim();
        if !note.is_empty() {
            writeln!(out, "<li class=\"quiet\">{}</li>", escaped(note)).expect(NO_FAILURE);
        }
    }
    out.push_str("</ul>\n");
    out
}
