//! The terminal: taken over for the live view, and given back whatever ends it.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::prelude::CrosstermBackend;
use ratatui::{Frame, Terminal};

use super::watch::Press;

/// Whether there is a terminal that can be drawn on.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// Whether the user wants no colours: <https://no-color.org>.
pub(super) fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Gives the terminal back, once. Cloning shares it, so that whoever ends the process can.
#[derive(Clone, Debug)]
pub(super) struct Restore(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    /// Its own descriptor, so that nobody waits for the lock of standard output.
    out: File,
    is_restored: AtomicBool,
}

impl Restore {
    /// Of the terminal on standard output, before it is taken over.
    pub(super) fn of_stdout() -> io::Result<Self> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self(Arc::new(Taken {
            out,
            // Nothing to restore yet.
            is_restored: AtomicBool::new(true),
        })))
    }

    /// Makes the terminal as it was. Does nothing the second time.
    pub(super) fn restore(&self) {
        // AcqRel: of several threads one does it.
        if self.0.is_restored.swap(true, Ordering::AcqRel) {
            return;
        }
        // A terminal that is gone needs no care, and nobody could be told.
        let _ = execute!(&self.0.out, terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// The terminal while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<File>>>,
    restore: Restore,
}

impl Screen {
    /// Takes the terminal over. It is given back when this is dropped, and before the message of a
    /// panic.
    pub(super) fn open(restore: &Restore) -> io::Result<Self> {
        let own = restore.clone();
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            own.restore();
            report(panic);
        }));
        // Release: pairs with `restore`; from here on there is something to restore.
        restore.0.is_restored.store(false, Ordering::Release);
        let open = || {
            terminal::enable_raw_mode()?;
            execute!(&restore.0.out, terminal::EnterAlternateScreen, cursor::Hide)?;
            let out = BufWriter::new(restore.0.out.try_clone()?);
            Terminal::new(CrosstermBackend::new(out))
        };
        match open() {
            Ok(terminal) => Ok(Self {
                terminal,
                restore: restore.clone(),
            }),
            Err(error) => {
                restore.restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        self.terminal.backend_mut().flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore.restore();
    }
}

/// Waits for a key, or for something else to happen, no longer than `timeout`.
pub(super) fn key(timeout: Duration) -> io::Result<Option<Press>> {
    if !event::poll(timeout)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(meaning(key)),
        _ => None,
    })
}

/// What a key means.
pub(super) fn meaning(key: KeyEvent) -> Press {
    let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if has_control => Press::Leave,
        _ if has_control => Press::Other,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Press::Leave,
        KeyCode::Tab | KeyCode::Down | KeyCode::Right | KeyCode::Char('j') => Press::NextKeyspace,
        KeyCode::BackTab | KeyCode::Up | KeyCode::Left | KeyCode::Char('k') => {
            Press::PreviousKeyspace
        }
        KeyCode::Char('p' | ' ') => Press::Pause,
        KeyCode::Char('r') => Press::Reset,
        KeyCode::Char('h' | '?') | KeyCode::F(1) => Press::Help,
        _ => Press::Other,
    }
}
