//! What a test does to a simulated file system, and asks of it, beside its calls.

use rustix::io::Errno;

use super::state::os_error;
use super::{
    Content, CrashModel, FailedSync, Fault, FaultPlan, Filler, Observer, OpKind, Path, PathBuf,
    Result, SimFs, State, Status, image,
};
use crate::sync::Arc;

/// Faults.
impl SimFs {
    /// The plan of its failures. A failed write or sync marks the file, see [`FailedSync`].
    pub fn faults(&self) -> &FaultPlan {
        &self.shared.faults
    }

    /// Plans one more fault.
    ///
    /// # Panics
    /// If `fault.nth` is 0: calls are counted from 1.
    pub fn fail(&self, fault: Fault) {
        self.shared.faults.fail(fault);
    }

    /// Forgets every planned fault; the counters stay.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// How many calls of `kind` were made, whether or not they failed.
    pub fn calls(&self, kind: OpKind) -> u64 {
        self.shared.faults.calls(kind)
    }

    /// Says what a failed sync shall do; [`FailedSync::Forgotten`] until then.
    pub fn set_failed_sync(&self, mode: FailedSync) {
        self.shared.state.lock().failed_sync = mode;
    }

    /// Bounds the sum of the lengths of all files that have a name or a handle. Reserved bytes
    /// count; a write that does not fit is done as far as it fits, then fails with `NoSpace`.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.shared.state.lock().quota = quota;
    }

    /// Says what [`FileSystem::cache_memory_bytes`] tells; nothing until then.
    ///
    /// [`FileSystem::cache_memory_bytes`]: crate::fs::FileSystem::cache_memory_bytes
    pub fn set_cache_memory_bytes(&self, bytes: Option<u64>) {
        self.shared.state.lock().cache_memory_bytes = bytes;
    }

    /// The sum that [`SimFs::set_quota`] bounds.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().used_bytes()
    }
}

/// Crashes.
impl SimFs {
    /// Crashes at the `count`th mutating call from now, counted from 1: that call and every later
    /// one, reads too, fail with an `Io` error that says `crashed`. The call itself may still be
    /// done, a write in part.
    ///
    /// # Panics
    /// If `count` is 0: use [`SimFs::crash_now`].
    pub fn crash_after(&self, count: u64) {
        assert!(count > 0, "calls are counted from 1");
        let mut state = self.shared.state.lock();
        state.crash_at = Some(state.mutations + count);
    }

    /// Crashes between two calls.
    pub fn crash_now(&self) {
        self.shared.state.lock().crash();
    }

    /// Whether it has crashed. Images can still be made of it, that is what they are for.
    pub fn has_crashed(&self) -> bool {
        self.shared.state.lock().crashed
    }

    /// How many mutating calls were made. Of those that a fault met, writes and syncs count.
    pub fn mutation_count(&self) -> u64 {
        self.shared.state.lock().mutations
    }

    /// How many changes no sync has covered yet: [`CrashModel::Prefix`] makes a difference up to
    /// this number.
    pub fn pending_count(&self) -> usize {
        image::pending_places(&self.shared.state.lock()).len()
    }

    /// Length of the last write that no sync has covered yet, the one that
    /// [`CrashModel::Torn`] tears.
    pub fn last_write_bytes(&self) -> Option<usize> {
        image::last_write(&self.shared.state.lock()).map(|(_, len)| len)
    }

    /// A new file system, independent of this one, that holds what a power cut now would leave
    /// under `model`. Everything on it is durable, nothing is locked, watched, observed or planned
    /// to fail, and there is no quota. Equal seeds make equal images.
    pub fn crash_image(&self, model: &CrashModel, seed: u64) -> Arc<Self> {
        let made = image::image(&self.shared.state.lock(), *model, seed);
        Self::from_state(made)
    }

    /// The models worth trying at this point: each of the fixed ones, at most `prefix_count_max`
    /// prefixes spread over the pending changes, and `random_count` each of those that a seed
    /// decides, to be used with different seeds.
    pub fn crash_models(&self, prefix_count_max: usize, random_count: usize) -> Vec<CrashModel> {
        let mut models = vec![
            CrashModel::Synced,
            CrashModel::Everything,
            CrashModel::NamesAndLengths,
            CrashModel::Data,
        ];
        let pending = self.pending_count();
        // Of a prefix of none and of all the models above take care.
        let count = prefix_count_max.min(pending.saturating_sub(1));
        let spread = |index: usize| 1 + index * (pending - 1) / count;
        models.extend((0..count).map(|index| CrashModel::Prefix(spread(index))));
        for index in 0..random_count {
            models.push(CrashModel::Sectors);
            models.push(CrashModel::Torn {
                kept: None,
                filler: Filler::ALL[index % Filler::ALL.len()],
            });
        }
        models
    }
}

/// Questions about durability, and hooks. None of these fails or counts as a call.
impl SimFs {
    /// Has `observer` called before every mutating call, or nobody. It is called without any lock
    /// held. It must not own this file system, or neither is ever dropped.
    pub fn set_observer(&self, observer: Option<Observer>) {
        *self.shared.observer.lock() = observer;
    }

    /// Switches the order checker; on from the start, and in an image as in its origin.
    pub fn set_order_checked(&self, checked: bool) {
        self.shared.state.lock().order_checked = checked;
    }

    /// The first rule that was broken, if any. While there is one, every mutating call panics.
    pub fn violation(&self) -> Option<String> {
        self.shared.state.lock().violation.clone()
    }

    /// Whether `path` survives a power cut as the name of what it names now, and every directory
    /// above it too.
    pub fn is_name_durable(&self, path: &Path) -> bool {
        self.shared.state.lock().is_name_durable(path)
    }

    /// Whether the file at `path` has no change of data or length that a power cut may lose.
    pub fn is_synced(&self, path: &Path) -> bool {
        let state = self.shared.state.lock();
        let file = state.resolve_file(path).map(|id| state.file(id));
        file.is_ok_and(super::state::FileNode::is_synced)
    }

    /// Whether the first `upto` bytes of the file at `path` are there and survive a power cut.
    pub fn is_synced_upto(&self, path: &Path, upto: u64) -> bool {
        let state = self.shared.state.lock();
        let file = state.resolve_file(path).map(|id| state.file(id));
        file.is_ok_and(|file| file.is_synced_upto(upto))
    }

    /// What the file at `path` holds, whatever was synced.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.shared.state.lock();
        let id = state.resolve_file(path).ok()?;
        Some(state.file(id).current.to_vec())
    }

    /// What the file that `path` names now certainly holds after a power cut, whether or not its
    /// name survives.
    pub fn durable_contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.shared.state.lock();
        let id = state.resolve_file(path).ok()?;
        Some(state.file(id).durable.to_vec())
    }

    /// Every file below `/`, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.shared.state.lock();
        let mut paths = Vec::new();
        collect_paths(&state, super::state::ROOT, Path::new("/"), &mut paths);
        paths
    }

    /// Puts a durable file with these bytes at `path`, in place of what was there, whose handles
    /// keep what they had. No call, no rule: for damage, and for files of other programs.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn install(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut state = self.shared.state.lock();
        state.install(path, Content::from_bytes(bytes))
    }

    pub(super) fn status_now(&self, path: &Path) -> Result<Option<Status>> {
        let state = self.look(OpKind::Status, path)?;
        match state.resolve(path) {
            Ok(id) => Ok(Some(match state.files.get(&id) {
                Some(file) => Status {
                    len: file.current.len(),
                    is_dir: false,
                },
                None => Status {
                    len: 0,
                    is_dir: true,
                },
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(os_error(OpKind::Status, path, errno)),
        }
    }
}

fn collect_paths(state: &State, dir: u64, path: &Path, paths: &mut Vec<PathBuf>) {
    for (name, node) in &state.dirs[&dir].live {
        let path = path.join(name);
        if state.dirs.contains_key(node) {
            collect_paths(state, *node, &path, paths);
        } else {
            paths.push(path);
        }
    }
}
