//! How a database meets the outside: files, time, background work, and who is told of events.

use base::clock::Clock;
use base::executor::Executor;
use base::fs::FileSystem;
use base::sync::Arc;

use crate::events::Listener;

/// The seams of one database.
#[derive(Clone, Debug)]
pub(crate) struct Seams {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) listener: Listener,
}
