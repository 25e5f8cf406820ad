//! A small file system of our own, for what happens when it is full: in memory, or an ext4 in a
//! file. Unmounted when dropped, also by an unwinding or a second Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base::fs::{self, FileSystem, OsFs};

use super::failure::{OrSetup, Outcome};
use crate::interrupt;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    Memory,
    /// With delayed allocation and a log of its own, as most disks have it.
    Ext4,
}

impl MountKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "tmpfs",
            Self::Ext4 => "ext4",
        }
    }
}

/// A file system that is mounted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: PathBuf,
    /// What was mounted, in that order.
    dirs: Vec<PathBuf>,
}

/// A mount, or why this process may not have one.
#[derive(Debug)]
pub(crate) enum Mounted {
    Here(Mount),
    Refused(String),
}

impl Mount {
    /// Mounts a new file system of `bytes` below `parent`, which is an ordinary directory.
    pub(crate) fn make(parent: &Path, kind: MountKind, bytes: u64) -> Outcome<Mounted> {
        let mut mount = Self {
            dirs: Vec::new(),
            dir: parent.join("mount"),
        };
        let refused = match kind {
            MountKind::Memory => mount.mount_memory(&parent.join("mount"), bytes)?,
            MountKind::Ext4 => mount.mount_ext4(parent, bytes)?,
        };
        Ok(match refused {
            Some(reason) => Mounted::Refused(reason),
            None => Mounted::Here(mount),
        })
    }

    fn mount_memory(&mut self, dir: &Path, bytes: u64) -> Outcome<Option<String>> {
        let size = format!("size={bytes}");
        let arguments = ["-t", "tmpfs", "-o", &size, "siltstone-torture"];
        self.mount(dir, &arguments)
    }

    /// The image lies in memory: what is tried is a full disk, not how slowly it syncs.
    fn mount_ext4(&mut self, parent: &Path, bytes: u64) -> Outcome<Option<String>> {
        let below = parent.join("below");
        let refused = self.mount_memory(&below, bytes + (1 << 20))?;
        if refused.is_some() {
            return Ok(refused);
        }
        let image = below.join("image");
        let file = OsFs.create(&image).or_setup()?;
        file.set_len(bytes).or_setup()?;
        let refused = run("mkfs.ext4", &["-q", "-F", "-m", "0"], &image);
        if refused.is_some() {
            return Ok(refused);
        }
        let image = image.to_string_lossy();
        let dir = self.dir.clone();
        self.mount(&dir, &["-t", "ext4", "-o", "loop", &image])
    }

    fn mount(&mut self, dir: &Path, arguments: &[&str]) -> Outcome<Option<String>> {
        fs::create_dir_all(&OsFs, dir).or_setup()?;
        let refused = run("mount", arguments, dir);
        if refused.is_none() {
            interrupt::doom_mount(dir.to_owned());
            self.dirs.push(dir.to_owned());
        }
        Ok(refused)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for dir in self.dirs.drain(..).rev() {
            interrupt::unmount(&dir);
            interrupt::spare_mount(&dir);
        }
    }
}

/// Runs a program of the system; what it complained of if it failed, or that it is not there.
fn run(program: &str, arguments: &[&str], last: &Path) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .arg(last)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let first = complaint.lines().next().unwrap_or("no reason given");
            Some(format!("{program}: {first}"))
        }
        Err(error) => Some(format!("{program}: {error}")),
    }
}
