//! The terminal: taken over for the live view, and given back whatever ends it.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::prelude::CrosstermBackend;
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::watch::Press;

/// Keys that are read before anybody has looked at them.
const KEYS_AHEAD: usize = 64;

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
        let _ = terminal::disable_raw_mode();
        // One that takes nothing, as after Ctrl-S, must not keep the process from ending.
        if state_of(&self.0.out, PollFlags::OUT).contains(PollFlags::OUT) {
            let _ = execute!(&self.0.out, terminal::LeaveAlternateScreen, cursor::Show);
        }
    }
}

/// The terminal while it is ours.
pub(super) struct Screen {
    /// Never dropped: that would show the cursor on a terminal which may be gone, and complain of
    /// it to standard error, which is gone then as well. `restore` does what is needed.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<File>>>>,
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
                terminal: ManuallyDrop::new(terminal),
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

/// Whether the terminal on standard output has been closed.
pub(super) fn is_gone() -> bool {
    state_of(&io::stdout(), PollFlags::empty()).intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Which of `wanted` a terminal is ready for, and whether it is gone. Does not wait.
fn state_of(terminal: &impl AsFd, wanted: PollFlags) -> PollFlags {
    let mut found = [PollFd::new(terminal, wanted)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut found, Some(&now)) {
        Ok(_) => found[0].revents(),
        // Whatever cannot be asked is taken to be there: using it fails if it is not.
        Err(_) => wanted,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore.restore();
    }
}

/// The keys that are pressed, read by a thread of its own: once the terminal is gone a read of it
/// may never return, and nobody else shall wait for that. The thread goes with the process.
pub(super) struct Keys(Receiver<io::Result<Option<Press>>>);

impl Keys {
    /// Begins to read. To be called once.
    pub(super) fn read() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(KEYS_AHEAD);
        let read = move || {
            loop {
                let key = event::read().map(|event| match event {
                    Event::Key(key) if key.kind != KeyEventKind::Release => Some(meaning(key)),
                    _ => None,
                });
                let is_over = key.is_err();
                if sender.send(key).is_err() || is_over {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(String::from("keys"));
        thread.spawn(read)?;
        Ok(Self(receiver))
    }

    /// Waits for a key, or for something else to happen, no longer than `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<Option<Press>> {
        match self.0.recv_timeout(timeout) {
            Ok(key) => key,
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Ok(Some(Press::Leave)),
        }
    }
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
