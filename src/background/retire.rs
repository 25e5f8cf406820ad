//! Which segments of the log are given up: those that no keyspace needs any more.

use log::retention;

use super::Background;
use crate::health::Job;

impl Background {
    /// Lets go of segments that every keyspace has flushed past and that nothing keeps.
    pub(crate) fn retire_segments(&self) {
        let floor = self.keyspaces.flushed_floor(self.snapshots.visible());
        let keep = retention::Retention {
            keep_bytes: self.log_keep_bytes,
            keep_micros: u64::try_from(self.log_keep_age.as_micros()).unwrap_or(u64::MAX),
        };
        // What is flushed shall not keep its space until the segment is full.
        match self.log.rotate_flushed(floor) {
            Ok(true) => self.signals.helper.wake(),
            Err(error) if self.log.poisoned().is_some() => self.health.poison(&error),
            // An error means that no segment could be made: after the next flush it is tried again.
            Ok(false) | Err(_) => {}
        }
        let sealed = self.log.sealed();
        let gone = retention::removable(&sealed, floor, &keep, &[], self.steady_micros());
        if gone.is_empty() {
            return;
        }
        // The next recovery must not look for them.
        let versions = self.tree.versions();
        match versions.raise_floor(floor, self.log.durable_upto()) {
            Ok(()) => self.health.job_succeeded(Job::Manifest),
            Err(error) => return self.health.job_failed(Job::Manifest, error),
        }
        self.log.forget(&gone);
        self.sweeper.unlink_segments(&gone);
    }
}
