//! How much memory the system could still give to cached files: what it says itself, bounded by
//! what the groups of this process are allowed. Reads small files of the system; called by `fs`.

use std::fs;
use std::path::{Path, PathBuf};

/// A group that is allowed so much has no limit.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Bytes that are free or hold nothing but cached files; `None` where the system does not say.
pub(crate) fn available_bytes() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    available(&read)
}

fn available(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo"))
        .and_then(|text| number_after(&text, "MemAvailable:"))
        .map(|kibibytes| kibibytes.saturating_mul(1024));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups
        .lines()
        .filter_map(|line| of_hierarchy(line, read))
        .min();
    machine.into_iter().chain(limits).min()
}

/// The number that stands behind `name` in a text of one name and number a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What the group in a line of `/proc/self/cgroup`, and those above it, leave; `None` if they limit
/// no memory.
fn of_hierarchy(line: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    let files = if controllers.is_empty() {
        &VERSION_2
    } else if controllers.split(',').any(|name| name == "memory") {
        &VERSION_1
    } else {
        return None;
    };
    let group = Path::new(group.trim_start_matches('/'));
    let mut least = None;
    for above in group.ancestors() {
        let dir = PathBuf::from(files.root).join(above);
        let left = files.left_in(&dir, read);
        least = least.into_iter().chain(left).min();
    }
    least
}

/// What the files of a kind of group are called.
struct GroupFiles {
    root: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: what is cached of files, by how lately it was used.
    cached: [&'static str; 2],
}

const VERSION_1: GroupFiles = GroupFiles {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: GroupFiles = GroupFiles {
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    cached: ["inactive_file", "active_file"],
};

impl GroupFiles {
    /// What the group at `dir` may still take, cached files included.
    fn left_in(&self, dir: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
        let number = |name: &str| -> Option<u64> { read(&dir.join(name))?.trim().parse().ok() };
        // A group of the second version without a limit says `max`.
        let limit = number(self.limit).filter(|limit| *limit < UNLIMITED_BYTES)?;
        let stat = read(&dir.join("memory.stat")).unwrap_or_default();
        let cached = self
            .cached
            .iter()
            .filter_map(|name| number_after(&stat, name));
        let used = number(self.usage)?.saturating_sub(cached.sum());
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system that has these files.
    fn of(files: &[(&str, &str)]) -> Option<u64> {
        available(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        })
    }

    const MACHINE: (&str, &str) = (
        "/proc/meminfo",
        "MemTotal:       24000 kB\nMemFree:  1 kB\nMemAvailable:   20000 kB\n",
    );

    #[test]
    fn a_machine_without_groups_gives_what_is_available() {
        assert_eq!(of(&[MACHINE]), Some(20_000 << 10));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("/proc/meminfo", "MemAvailable:\n")]), None);
    }

    #[test]
    fn the_tightest_group_above_counts() {
        let files = [
            MACHINE,
            ("/proc/self/cgroup", "1:cpu:/a\n0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.current", "1\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("/sys/fs/cgroup/a/memory.current", "800000\n"),
            (
                "/sys/fs/cgroup/a/memory.stat",
                "anon 5\ninactive_file 300000\nactive_file 100000\n",
            ),
        ];
        assert_eq!(of(&files), Some(600_000));
    }

    #[test]
    fn groups_of_the_first_version_are_known() {
        let mut files = vec![
            MACHINE,
            ("/proc/self/cgroup", "4:memory:/x\n3:cpuset:/\n0::/\n"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9000000\n"),
            ("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "8000000\n"),
            (
                "/sys/fs/cgroup/memory/x/memory.stat",
                "inactive_file 1\ntotal_inactive_file 2000000\ntotal_active_file 1\n",
            ),
        ];
        assert_eq!(of(&files), Some(3_000_001));
        files[2].1 = "9223372036854771712\n";
        assert_eq!(of(&files), Some(20_000 << 10), "no limit");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_something() {
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
