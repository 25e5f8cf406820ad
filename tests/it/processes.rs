//! Tests that need a process of their own: this binary runs itself again with one test, which then
//! finds that it has a role to play.

use std::path::Path;
use std::process::{Child, Command, Stdio};

const ROLE: &str = "SILTSTONE_TEST_ROLE";
const PLACE: &str = "SILTSTONE_TEST_DIR";

/// What this process was started for, and the directory it is to work in; nothing in an ordinary
/// run.
pub(crate) fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(PLACE).ok()?))
}

/// A command that runs the test `test` (its full path) in the role `role`. `prefix` is shell that
/// comes before the program: limits, or another program that runs it; by default `exec`.
pub(crate) fn again(test: &str, role: &str, dir: &Path, prefix: &str) -> Command {
    let binary = std::env::current_exe().expect("this binary has a path");
    let prefix = if prefix.is_empty() { "exec" } else { prefix };
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{prefix} \"$0\" \"$@\""))
        .arg(binary)
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(ROLE, role)
        .env(PLACE, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end and fails unless it passed.
pub(crate) fn passes(mut command: Command) {
    let output = command.output().expect("a process can be started");
    assert!(
        output.status.success(),
        "the other process ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
