//! The processes of a group, and whose turn it is.
//!
//! One process runs at a time. The others are stopped as a whole by a signal, so that no flush or
//! compaction of one engine takes processors or the disk from another, and each finds the work it
//! left where it left it when its turn comes again.

use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use base::fs::{self, OsFs};
use base::sync::Bell;
use base::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::child::{Order, read_line, row_to_json, write_line};
use super::measured::Measured;
use super::plan::Row;
use crate::bench::engine::EngineName;
use crate::interrupt::Stop;
use crate::scratch::remove_tree;

/// The word on the command line that makes a process a child.
pub(crate) const CHILD_WORD: &str = "engine-child";

/// How often a turn looks whether it is to end early.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// The process of one engine, stopped except in its turn.
#[derive(Debug)]
pub(crate) struct Turns {
    order: Order,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it was opened with.
    pub(crate) settings: Vec<(String, String)>,
}

impl Turns {
    /// Starts a process that opens a new database.
    ///
    /// # Errors
    /// As the engine says; if no process can be started.
    pub(crate) fn start(order: Order) -> Result<Self> {
        fs::create_dir_all(&OsFs, &order.setup.dir)?;
        let program = std::env::current_exe()
            .map_err(|source| Error::io("/proc/self/exe", "read link", source))?;
        let mut child = Command::new(&program)
            .arg(CHILD_WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the parent, which passes it on to the one whose turn it is.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::io(&program, "start", source))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("it was asked for");
        let mut turns = Self {
            order,
            child,
            input,
            output: BufReader::new(output),
            settings: Vec::new(),
        };
        let order = turns.order.to_json();
        let hello = turns.ask(&order)?;
        let pairs = hello["settings"].as_array().cloned().unwrap_or_default();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
        turns.settings = pairs.iter().map(|p| (word(&p[0]), word(&p[1]))).collect();
        turns.signal(Signal::STOP)?;
        Ok(turns)
    }

    /// Which engine it is.
    pub(crate) fn engine(&self) -> EngineName {
        self.order.engine
    }

    /// Gives the engine its turn at `row`.
    ///
    /// # Errors
    /// As the engine says.
    pub(crate) fn run(&mut self, row: &Row, stop: &Stop) -> Result<Measured> {
        self.signal(Signal::CONT)?;
        let pid = self.pid();
        let done = Bell::new();
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| pass_on(stop, pid, &done));
            let answer = self.ask(&row_to_json(row));
            done.ring();
            answer
        })?;
        self.signal(Signal::STOP)?;
        if row.work.writes() {
            // What the operating system still has to write would fall into the turns of others.
            rustix::fs::sync();
        }
        Measured::from_json(&answer["measured"]).ok_or_else(|| self.ended())
    }

    /// Ends the process and removes its database.
    ///
    /// # Errors
    /// If the engine could not close it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.input = None;
        let status = self
            .child
            .wait()
            .map_err(|source| Error::io("child", "wait for", source))?;
        if !status.success() {
            return Err(self.ended().with_value("status", status));
        }
        Ok(())
    }

    fn ask(&mut self, question: &serde_json::Value) -> Result<serde_json::Value> {
        let input = self.input.as_mut().expect("open until the end");
        let asked = write_line(input, question);
        let answer = asked.and_then(|()| read_line(&mut self.output));
        match answer {
            Ok(Some(answer)) => Ok(answer),
            // It has said why on standard error.
            Ok(None) | Err(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> Error {
        Error::invalid_argument("the process of an engine ended before its work was done")
            .with_value("engine", self.order.engine.name())
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match self.pid().map(|pid| kill_process(pid, signal)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended()),
        }
    }
}

/// Hands on the wish to stop, until the turn is `done`.
fn pass_on(stop: &Stop, pid: Option<Pid>, done: &Bell) {
    while !done.wait_past(0, Some(STOP_INTERVAL)) {
        if let (true, Some(pid)) = (stop.is_set(), pid) {
            // If it is gone already, its turn ends as well.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // After `end` it is gone already; otherwise nobody waits for what it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_tree(&self.order.setup.dir);
    }
}
