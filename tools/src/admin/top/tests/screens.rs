use std::path::PathBuf;
use std::time::Duration;

use base::fs::{OsFs, read_small_file};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::{TWENTY, closed, dead, found, healthy, missing, no_space, poisoned, stalled, steady};
use crate::admin::args::Global;
use crate::admin::output::Output;
use crate::admin::top::screen::{Look, draw};
use crate::admin::top::terminal::meaning;
use crate::admin::top::watch::{Press, Watch};
use crate::admin::top::{document, report};

fn drawn(watch: &Watch, (width, height): (u16, u16), has_colour: bool) -> Terminal<TestBackend> {
    let backend = TestBackend::new(width, height);
    let mut terminal = Terminal::new(backend).expect("it is in memory");
    let look = Look {
        has_colour,
        interval: Duration::from_secs(1),
    };
    terminal
        .draw(|frame| draw(watch, look, frame))
        .expect("it is in memory");
    terminal
}

/// The characters on the screen, without spaces at the ends of lines.
fn text_of(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.area.rows() {
        let cells = row.columns().map(|cell| buffer[(cell.x, cell.y)].symbol());
        let line: String = cells.collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Compares with the picture of that name; `REWRITE=1` makes it anew: look at it like at code.
#[track_caller]
fn looks_like(name: &str, text: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/top/tests");
    let path = PathBuf::from(folder).join(name).with_extension("txt");
    if std::env::var_os("REWRITE").is_some() {
        rewrite(&path, text);
    }
    let stored = read_small_file(&OsFs, &path, 1 << 20).expect("there is a picture");
    let stored = String::from_utf8(stored).expect("it is text");
    assert!(
        stored == text,
        "{name} looks otherwise (REWRITE=1):\n{text}\nand not:\n{stored}"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the picture is a file of the source tree"
)]
fn rewrite(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

fn with_twenty(chosen: usize) -> Watch {
    let mut watch = healthy(&TWENTY);
    for _ in 0..chosen {
        watch.press(Press::NextKeyspace);
    }
    watch
}

fn first() -> Watch {
    let mut watch = Watch::new(String::from("/data/people.db"));
    watch.take(found(steady(100, &["default"])));
    watch
}

fn helping() -> Watch {
    let mut watch = healthy(&["default"]);
    watch.press(Press::Help);
    watch
}

fn paused() -> Watch {
    let mut watch = healthy(&["default", "events"]);
    watch.press(Press::Pause);
    watch
}

/// A while in which it went up and down.
fn long() -> Watch {
    let mut watch = Watch::new(String::from("/data/people.db"));
    let mut writes = 0;
    for up in 0..300 {
        writes += 10_000 + 9_000 * (up % 30) / 29;
        let mut file = steady(up, &["default", "events"]);
        file.stats.user_write_count = writes;
        watch.take(found(file));
    }
    watch
}

type State = (&'static str, fn() -> Watch);

const STATES: [State; 12] = [
    ("healthy", || healthy(&["default"])),
    ("first", first),
    ("stalled", stalled),
    ("no_space", no_space),
    ("poisoned", poisoned),
    ("stale", dead),
    ("missing", missing),
    ("closed", closed),
    ("twenty", || with_twenty(14)),
    ("help", helping),
    ("paused", paused),
    ("long", long),
];

#[test]
fn every_state_has_its_picture() {
    for (name, watch) in STATES {
        let text = text_of(&drawn(&watch(), (80, 24), false));
        looks_like(name, &text);
    }
}

#[test]
fn screens_of_every_size_have_theirs() {
    let cases = [
        ("healthy_40x12", healthy(&["default"]), (40, 12)),
        ("healthy_20x3", healthy(&["default"]), (20, 3)),
        ("stalled_60x18", stalled(), (60, 18)),
        ("twenty_200x50", with_twenty(20), (200, 50)),
        ("long_200x30", long(), (200, 30)),
    ];
    for (name, watch, size) in cases {
        looks_like(name, &text_of(&drawn(&watch, size, false)));
    }
}

#[test]
fn no_size_is_too_small_or_too_large() {
    for (name, watch) in STATES {
        let watch = watch();
        for width in [1, 2, 5, 10, 39, 79, 120, 149, 150, 151, 400] {
            for height in (1..30).chain([100]) {
                let text = text_of(&drawn(&watch, (width, height), true));
                assert_eq!(text.lines().count(), usize::from(height), "{name}");
            }
        }
    }
}

/// What matters most is on every screen that has a few lines; the line of keys is the last.
#[test]
fn the_chosen_keyspace_and_the_keys_stay_in_sight() {
    for chosen in 0..=TWENTY.len() {
        let watch = with_twenty(chosen);
        for height in [24, 30, 50] {
            let terminal = drawn(&watch, (80, height), false);
            let buffer = terminal.backend().buffer();
            let is_marked = |y: u16| buffer[(0, y)].modifier.contains(Modifier::REVERSED);
            let marked: Vec<u16> = (0..height).filter(|y| is_marked(*y)).collect();
            assert_eq!(marked.len(), 1, "{chosen} of {height}");
            let text = text_of(&terminal);
            let line = text.lines().nth(usize::from(marked[0])).expect("a line");
            let name = chosen.checked_sub(1).map_or("all 20", |at| TWENTY[at]);
            assert!(line.starts_with(&name[..name.len().min(20)]), "{line}");
            let last = text.lines().last().expect("a line");
            assert!(last.starts_with("q leave"), "{last}");
        }
    }
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    for (name, watch) in STATES {
        let watch = watch();
        let coloured = |has_colour: bool| {
            let terminal = drawn(&watch, (80, 24), has_colour);
            let cells = terminal.backend().buffer().content.iter();
            let is_coloured =
                |cell: &&ratatui::buffer::Cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset);
            cells.filter(is_coloured).count()
        };
        assert_eq!(coloured(false), 0, "{name}");
        assert!(coloured(true) > 0, "{name}");
        let plain = text_of(&drawn(&watch, (80, 24), false));
        assert_eq!(text_of(&drawn(&watch, (80, 24), true)), plain, "{name}");
    }
}

/// Names and messages of a stranger, and numbers as large as they can be.
#[test]
fn nothing_that_a_file_says_reaches_the_terminal_unescaped() {
    let mut file = steady(1 << 30, &["default", "\u{1b}[31mred\n\u{202e}", "\u{732b}"]);
    file.trouble = Some(String::from("bad\u{1b}]0;title\u{7}\nnews"));
    file.engine_version = String::from("\u{1b}c");
    let stats = &mut file.stats;
    for number in [
        &mut stats.user_write_count,
        &mut stats.user_bytes_written,
        &mut stats.get_count,
        &mut stats.get_bytes_read,
        &mut stats.compaction_bytes_read,
        &mut stats.memtable_bytes,
        &mut stats.pinned_slice_count,
        &mut stats.stall_micros,
        &mut stats.throttle_micros,
    ] {
        *number = 1 << 56;
    }
    for level in &mut stats.levels {
        (level.table_count, level.bytes, level.entry_count) = (1 << 56, 1 << 56, 1 << 56);
        level.score = f64::INFINITY;
    }
    file.keyspace_count = 1 << 56;
    let mut watch = Watch::new(String::from("db"));
    let mut earlier = file.clone();
    earlier.up_micros = 0;
    watch.take(found(earlier));
    watch.take(found(file));
    for size in [(80, 24), (200, 60)] {
        let text = text_of(&drawn(&watch, size, true));
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'), "{text:?}");
        let is_named = text.contains("\\x1b[31mred");
        assert!(is_named || size == (80, 24), "{text}");
    }
    let printed = printed(&watch);
    assert!(
        !printed.chars().any(|c| c.is_control() && c != '\n'),
        "{printed:?}"
    );
}

/// The report of `--once`.
fn printed(watch: &Watch) -> String {
    let global = Global {
        db: None,
        hex: false,
        json: false,
        quiet: false,
    };
    let mut bytes = Vec::new();
    report::print(watch, &mut Output::new(&mut bytes, &global)).expect("it is in memory");
    String::from_utf8(bytes).expect("it is text")
}

#[test]
fn the_report_has_its_pictures() {
    looks_like("report_first", &printed(&first()));
    looks_like("report_stalled", &printed(&stalled()));
    looks_like("report_twenty", &printed(&with_twenty(0)));
}

#[test]
fn the_document_has_its_picture() {
    for (name, watch) in [("document_first", first()), ("document_stalled", stalled())] {
        let seen = watch.seen.as_ref().expect("a look");
        let document = document::document(&watch, seen);
        let text = serde_json::to_string_pretty(&document).expect("it is in memory");
        looks_like(name, &(text + "\n"));
    }
}

#[test]
fn keys_mean_what_the_help_says() {
    let plain = |code: KeyCode| meaning(KeyEvent::new(code, KeyModifiers::NONE));
    let control = |c: char| meaning(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    for (code, press) in [
        (KeyCode::Char('q'), Press::Leave),
        (KeyCode::Esc, Press::Leave),
        (KeyCode::Tab, Press::NextKeyspace),
        (KeyCode::Down, Press::NextKeyspace),
        (KeyCode::Right, Press::NextKeyspace),
        (KeyCode::BackTab, Press::PreviousKeyspace),
        (KeyCode::Up, Press::PreviousKeyspace),
        (KeyCode::Left, Press::PreviousKeyspace),
        (KeyCode::Char('p'), Press::Pause),
        (KeyCode::Char('r'), Press::Reset),
        (KeyCode::Char('h'), Press::Help),
        (KeyCode::Char('?'), Press::Help),
        (KeyCode::Char('x'), Press::Other),
    ] {
        assert_eq!(plain(code), press, "{code:?}");
    }
    assert_eq!(control('c'), Press::Leave);
    assert_eq!(control('p'), Press::Other);
}
