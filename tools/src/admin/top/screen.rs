//! The live view on a terminal of any size: what does not fit is left out from the bottom, the
//! line of keys last.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::Sparkline;

use super::parts::{Line, Tone, activity, facts, first_look, head, help, keyspaces, levels};
use super::people::{Grid, clip, rate, wrap};
use super::watch::Watch;

/// From this width on keyspaces and levels stand side by side.
const WIDE: u16 = 150;
/// Lines of each graph, its heading apart.
const GRAPH_HEIGHT: u16 = 2;
const KEYS: &str = "q leave  Tab keyspace  p pause  r reset  h help";

/// How things are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether colours may be used.
    pub(super) has_colour: bool,
    /// Between two looks at the file.
    pub(super) interval: Duration,
}

impl Look {
    fn style(self, tone: Tone) -> Style {
        let (colour, modifier) = match tone {
            Tone::Plain => return Style::new(),
            Tone::Heading => (Color::Cyan, Modifier::BOLD),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Remark => (Color::Yellow, Modifier::empty()),
            Tone::Alarm => (Color::Red, Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        if self.has_colour {
            style.fg(colour)
        } else {
            style
        }
    }
}

/// Draws everything.
pub(super) fn draw(watch: &Watch, look: Look, frame: &mut Frame<'_>) {
    let mut pen = Pen {
        look,
        rest: frame.area(),
        frame,
    };
    pen.footer(watch);
    if watch.is_help {
        return pen.lines(help(look.interval));
    }
    pen.wrapped(head(watch));
    if let Some(grid) = activity(watch) {
        pen.grid(&grid, None);
    }
    if let Some(remark) = first_look(watch) {
        pen.lines(vec![(Tone::Remark, remark)]);
    }
    pen.lines(facts(watch));
    let (Some(keyspaces), Some(levels)) = (keyspaces(watch), levels(watch)) else {
        return;
    };
    pen.trees(watch, &keyspaces, &levels);
    pen.graphs(watch);
}

/// Draws into what is left of the screen, from the top down.
struct Pen<'a, 'b> {
    look: Look,
    rest: Rect,
    frame: &'a mut Frame<'b>,
}

impl Pen<'_, '_> {
    /// Takes `height` lines off the top of what is left, or what there is.
    fn take(&mut self, height: u16) -> Rect {
        let [taken, rest] =
            Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(self.rest);
        self.rest = rest;
        taken
    }

    fn footer(&mut self, watch: &Watch) {
        let [rest, line] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(self.rest);
        // A screen of one line is for the database.
        if rest.is_empty() {
            return;
        }
        self.rest = rest;
        let keys = if watch.is_paused {
            format!("PAUSED, p goes on  {KEYS}")
        } else {
            KEYS.to_owned()
        };
        let keys = clip(&keys, usize::from(line.width));
        let style = Style::new().add_modifier(Modifier::DIM);
        self.frame.render_widget(Text::styled(keys, style), line);
    }

    fn lines(&mut self, lines: Vec<Line>) {
        for (tone, line) in lines {
            let area = self.take(1);
            let line = clip(&line, usize::from(area.width));
            let text = Text::styled(line, self.look.style(tone));
            self.frame.render_widget(text, area);
        }
    }

    /// The same, but what is longer than a line goes on in the next.
    fn wrapped(&mut self, lines: Vec<Line>) {
        let width = usize::from(self.rest.width);
        let parts = |(tone, line): Line| wrap(&line, width).into_iter().map(move |l| (tone, l));
        self.lines(lines.into_iter().flat_map(parts).collect());
    }

    /// Draws a table, one of its rows marked.
    fn grid(&mut self, grid: &Grid, chosen: Option<usize>) {
        let lines = grid.lines(usize::from(self.rest.width));
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let area = self.take(height);
        self.rows(&lines, chosen, area);
    }

    /// Draws headings and as many rows as there is room for, the chosen one among them.
    fn rows(&mut self, lines: &[String], chosen: Option<usize>, area: Rect) {
        let Some((headings, rows)) = lines.split_first() else {
            return;
        };
        let room = usize::from(area.height.saturating_sub(1));
        let last = chosen.map_or(0, |at| at + 1);
        let first = last.saturating_sub(room);
        let shown = rows.iter().enumerate().skip(first).take(room);
        let heading = (self.look.style(Tone::Heading), headings);
        let rows = shown.map(|(at, line)| {
            let style = if chosen == Some(at) {
                Style::new().add_modifier(Modifier::REVERSED)
            } else {
                Style::new()
            };
            (style, line)
        });
        for ((style, line), area) in std::iter::once(heading).chain(rows).zip(area.rows()) {
            let line = clip(line, usize::from(area.width));
            self.frame.render_widget(Text::styled(line, style), area);
        }
    }

    /// The keyspaces and the levels of the chosen one: side by side where that fits.
    fn trees(&mut self, watch: &Watch, keyspaces: &Grid, levels: &Grid) {
        let chosen = Some(watch.chosen);
        if self.rest.width >= WIDE {
            let [left, _, right] = Layout::horizontal([
                Constraint::Fill(1),
                Constraint::Length(3),
                Constraint::Fill(1),
            ])
            .areas(self.rest);
            let own = keyspaces.lines(usize::from(left.width));
            let deep = levels.lines(usize::from(right.width));
            let needed = own.len().max(deep.len());
            let area = self.take(u16::try_from(needed).unwrap_or(u16::MAX));
            self.rows(
                &own,
                chosen,
                Rect {
                    height: area.height,
                    ..left
                },
            );
            let right = Rect {
                height: area.height,
                ..right
            };
            return self.rows(&deep, None, right);
        }
        let width = usize::from(self.rest.width);
        let own = keyspaces.lines(width);
        let deep = levels.lines(width);
        // Levels come first: there are few, and a list of keyspaces can be walked through.
        let wanted = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX);
        let deep_height = wanted(deep.len());
        let least = wanted(own.len()).min(3);
        let own_height = self.rest.height.saturating_sub(deep_height).max(least);
        let area = self.take(own_height.min(wanted(own.len())));
        self.rows(&own, chosen, area);
        let area = self.take(deep_height);
        self.rows(&deep, None, area);
    }

    /// How fast writes and gets went, look by look, where there is room left.
    fn graphs(&mut self, watch: &Watch) {
        for (at, name) in ["writes/s", "gets/s"].into_iter().enumerate() {
            let values = watch.history.iter().map(|rates| rates[at]);
            let highest = values.clone().fold(0.0, f64::max);
            if self.rest.height <= GRAPH_HEIGHT || highest <= 0.0 {
                continue;
            }
            let title = format!("{name}, up to {}", rate(highest));
            self.lines(vec![(Tone::Heading, title)]);
            let area = self.take(GRAPH_HEIGHT);
            let skipped = watch.history.len().saturating_sub(usize::from(area.width));
            let bars: Vec<u64> = values.skip(skipped).map(thousandths_of(highest)).collect();
            let style = self.look.style(Tone::Good);
            let graph = Sparkline::default().data(bars).max(1000).style(style);
            self.frame.render_widget(graph, area);
        }
    }
}

/// Numbers from 0 to `highest` as numbers from 0 to 1000.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 1000"
)]
fn thousandths_of(highest: f64) -> impl Fn(f64) -> u64 {
    move |value| (value / highest * 1000.0).round().clamp(0.0, 1000.0) as u64
}
