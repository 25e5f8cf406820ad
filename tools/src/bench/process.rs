//! What the operating system says about this process: bytes given to the disk, time of processors.

/// The lines of `/proc/self/io` that concern the disk, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceBytes {
    /// Read from the disk.
    pub read: u64,
    /// Pages that this process made dirty, in bytes: each is counted when it becomes dirty, so
    /// again when it is written to after the disk had it.
    pub written: u64,
    /// Of `written`, what never reached the disk, because the file was deleted or cut before.
    pub cancelled: u64,
}

impl DeviceBytes {
    /// What has been counted up to now; `None` where the system does not tell.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/io").ok()?)
    }

    /// The same of another process; `None` also if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                (found == name).then(|| value.trim().parse().ok())?
            })
        };
        Some(Self {
            read: value("read_bytes")?,
            written: value("write_bytes")?,
            cancelled: value("cancelled_write_bytes")?,
        })
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            written: self.written + other.written,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    /// What was counted since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            read: self.read.saturating_sub(earlier.read),
            written: self.written.saturating_sub(earlier.written),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
        }
    }
}

/// The lines of `/proc/self/status` about memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBytes {
    /// Resident and backed by no file: memtables, caches, everything allocated.
    pub anonymous: u64,
    /// Resident pages of mapped files, which the system takes back when it needs them.
    pub file: u64,
    /// The most that was ever resident, mapped files included.
    pub peak: u64,
}

impl MemoryBytes {
    /// What the system says now; `None` where it does not tell.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    /// The same of another process; `None` also if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                let kibibytes = value.trim().strip_suffix(" kB")?;
                (found == name).then(|| kibibytes.parse::<u64>().ok())?
            })
        };
        Some(Self {
            anonymous: value("RssAnon")? << 10,
            file: value("RssFile")? << 10,
            peak: value("VmHWM")? << 10,
        })
    }
}

/// How many ticks Linux counts in a second of processor time; part of its interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of all threads of this process up to now, in seconds.
pub fn cpu_seconds() -> Option<f64> {
    cpu_parts().map(|(user, system)| user + system)
}

/// The same, of the program itself and of the system on its behalf.
pub fn cpu_parts() -> Option<(f64, f64)> {
    parse_cpu_parts(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Processor time of another process up to now, in seconds; `None` also if it is gone.
pub fn cpu_seconds_of(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_cpu_parts(&text).map(|(user, system)| user + system)
}

/// Processor time of the processes that this one started and waited for, in seconds.
pub fn children_cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    parse_cpu_fields(&text, 13).map(|(user, system)| user + system)
}

fn parse_cpu_parts(text: &str) -> Option<(f64, f64)> {
    parse_cpu_fields(text, 11)
}

/// The two fields of ticks from the `first` one behind the name on.
fn parse_cpu_fields(text: &str, first: usize) -> Option<(f64, f64)> {
    // The second field is a name in parentheses that may hold anything, spaces included.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(first);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_the_system_is_read() {
        let text = "rchar: 6976\nwchar: 0\nsyscr: 10\nsyscw: 0\nread_bytes: 4096\n\
            write_bytes: 8192\ncancelled_write_bytes: 1\n";
        let found = DeviceBytes::parse(text).expect("whole");
        let expected = DeviceBytes {
            read: 4096,
            written: 8192,
            cancelled: 1,
        };
        assert_eq!(found, expected);
        assert_eq!(found.since(found), DeviceBytes::default());
        assert_eq!(DeviceBytes::parse("rchar: 1\n"), None);
    }

    #[test]
    fn memory_is_told_apart_by_what_backs_it() {
        let text = "Name:\tx\nVmHWM:\t  40 kB\nVmRSS:\t  30 kB\nRssAnon:\t  20 kB\n\
            RssFile:\t  10 kB\n";
        let expected = MemoryBytes {
            anonymous: 20 << 10,
            file: 10 << 10,
            peak: 40 << 10,
        };
        assert_eq!(MemoryBytes::parse(text), Some(expected));
        assert_eq!(MemoryBytes::parse("VmHWM:\t  40 kB\n"), None);
    }

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let text = "7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_cpu_parts(text), Some((1.5, 0.5)));
        let text = "7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 150 50 25 75 20 0 1 0 5 0 0";
        assert_eq!(parse_cpu_fields(text, 13), Some((0.25, 0.75)));
    }
}
