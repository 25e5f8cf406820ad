//! Waiting on purpose: for a moment to pass, with nothing to wait for.

use std::time::Duration;

use base::sync::Bell;

/// Waits for so long: on a bell that nobody rings.
pub(crate) fn pause(time: Duration) {
    Bell::new().wait_past(0, Some(time));
}
