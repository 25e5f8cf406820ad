//! The order checker: what no engine may do, whatever the faults, as far as a file system can know
//! it by itself. It panics, because a test that goes on would only fail later and less clearly.

use std::path::Path;

use super::state::{Health, NodeId, State};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::fault::OpKind;
use crate::fs::parent_of;
use crate::ids::{CURRENT, FileKind, FileNumber};

/// The longest record that can be the seal of a segment after a failed write.
const SEAL_BYTES_MAX: usize = 64;

impl State {
    /// Notes a broken rule and panics; an error only if the thread is panicking already.
    pub(super) fn violated(&mut self, message: String) -> Error {
        Self::violation_found(self.violation.get_or_insert(message))
    }

    /// Fails again if a rule was broken before: the panic may have been caught by a background
    /// thread, and the test must hear of it all the same.
    pub(super) fn check_violation(&mut self) -> Result<()> {
        match self.violation.clone() {
            Some(message) if self.order_checked => Err(Self::violation_found(&message)),
            _ => Ok(()),
        }
    }

    fn violation_found(message: &str) -> Error {
        assert!(
            std::thread::panicking(),
            "order of durability broken: {message}"
        );
        Error::new(ErrorKind::Io, message)
    }

    /// Rules 5 and 6 for a write of `len` bytes.
    pub(super) fn check_write(
        &mut self,
        id: NodeId,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<()> {
        if !self.order_checked {
            return Ok(());
        }
        let file = self.file(id);
        // A live segment may be written in both ways, but only where it was reserved.
        let grows = offset.saturating_add(len as u64) > file.current.len();
        let (health, mapped) = (file.health, file.mapped || file.live_maps > 0 && grows);
        if mapped {
            return Err(self.violated(format!(
                "a mapped file is written file={} offset={offset}",
                path.display()
            )));
        }
        match health {
            Health::Fine => return Ok(()),
            Health::WriteFailed { offset: failed }
                if is_segment(path) && offset == failed && len <= SEAL_BYTES_MAX =>
            {
                self.file_mut(id).health = Health::Sealed;
                return Ok(());
            }
            Health::WriteFailed { .. } | Health::Sealed | Health::SyncFailed => {}
        }
        let after = match health {
            Health::SyncFailed => "sync",
            _ => "write",
        };
        Err(self.violated(format!(
            "a file is written after a failed {after} on it file={} offset={offset}",
            path.display()
        )))
    }

    /// Rule 5 for a store: the live segment is mapped and written, and within what was reserved.
    /// Writers may be at it when a sync fails, so that no store comes too late.
    pub(super) fn check_store(
        &mut self,
        id: NodeId,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<()> {
        let file = self.file(id);
        let is_inside = offset.saturating_add(len as u64) <= file.current.len();
        if self.order_checked && !(is_inside && file.live_maps > 0) {
            return Err(self.violated(format!(
                "a store hits what is not reserved and mapped file={} offset={offset} len={len}",
                path.display()
            )));
        }
        Ok(())
    }

    /// Rule 5 for a live mapping: one, of a segment that nobody reads through another.
    pub(super) fn check_map_live(&mut self, id: NodeId, path: &Path) -> Result<()> {
        let file = self.file(id);
        let is_alone = !file.mapped && file.live_maps == 0;
        let is_fine = file.health == Health::Fine;
        if self.order_checked && !(is_alone && is_fine && is_segment(path)) {
            return Err(self.violated(format!(
                "a file is mapped for writing that must not be file={}",
                path.display()
            )));
        }
        Ok(())
    }

    /// Rules 5 and 6 for a change of length. Cutting off what a failed write may have left is part
    /// of sealing a segment. More space is reserved for a live one while it is mapped.
    pub(super) fn check_resize(
        &mut self,
        id: NodeId,
        path: &Path,
        kind: OpKind,
        len: u64,
    ) -> Result<()> {
        if !self.order_checked {
            return Ok(());
        }
        let file = self.file(id);
        let is_live = file.live_maps > 0 && kind != OpKind::Reserve;
        let (health, mapped) = (file.health, file.mapped || is_live);
        if mapped && len != file.current.len() {
            return Err(self.violated(format!(
                "a mapped file is truncated or extended file={} len={len}",
                path.display()
            )));
        }
        let seals = is_segment(path) && len <= file.current.len();
        match health {
            Health::Fine => Ok(()),
            Health::WriteFailed { .. } | Health::Sealed if seals => Ok(()),
            Health::WriteFailed { .. } | Health::Sealed | Health::SyncFailed => {
                Err(self.violated(format!(
                    "a file is resized after a failed write or sync on it file={} len={len}",
                    path.display()
                )))
            }
        }
    }

    /// A file whose sync failed may read back right from memory and be gone from the disk.
    pub(super) fn check_map(&mut self, id: NodeId, path: &Path) -> Result<()> {
        if self.order_checked && self.file(id).health == Health::SyncFailed {
            return Err(self.violated(format!(
                "a file is mapped after a failed sync on it file={}",
                path.display()
            )));
        }
        Ok(())
    }

    /// Rule 2: CURRENT changes only when what it will name is durable.
    pub(super) fn check_rename(&mut self, node: NodeId, from: &Path, to: &Path) -> Result<()> {
        if !self.order_checked || to.file_name().is_none_or(|name| name != CURRENT) {
            return Ok(());
        }
        let Some(file) = self.files.get(&node) else {
            return Ok(());
        };
        if !file.is_synced() {
            return Err(self.violated(format!(
                "CURRENT is replaced by an unsynced file file={}",
                from.display()
            )));
        }
        // A CURRENT that names no MANIFEST in clear is left to the engine's own checks.
        let Some(number) = named_manifest(&file.current.to_vec()) else {
            return Ok(());
        };
        let manifest = FileKind::Manifest.path(parent_of(to), number);
        let Ok(id) = self.resolve_file(&manifest) else {
            return Err(self.violated(format!(
                "CURRENT will name a MANIFEST that is not there file={}",
                manifest.display()
            )));
        };
        if !self.file(id).is_synced() {
            return Err(self.violated(format!(
                "CURRENT will name an unsynced MANIFEST file={}",
                manifest.display()
            )));
        }
        if !self.is_name_durable(&manifest) {
            return Err(self.violated(format!(
                "CURRENT will name a MANIFEST whose own name is not durable file={}",
                manifest.display()
            )));
        }
        Ok(())
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name.and_then(FileKind::parse), Some((FileKind::Segment, _)))
}

/// The number of the MANIFEST whose name stands somewhere in `bytes`.
fn named_manifest(bytes: &[u8]) -> Option<FileNumber> {
    const PREFIX: &[u8] = b"MANIFEST-";
    let start = bytes.windows(PREFIX.len()).position(|w| w == PREFIX)?;
    let digits = bytes[start + PREFIX.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let name = str::from_utf8(&bytes[start..start + PREFIX.len() + digits]).ok()?;
    FileKind::parse(name).map(|(_, number)| number)
}
