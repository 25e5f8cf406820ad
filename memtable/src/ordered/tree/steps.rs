//! Lets a test step in between any two reads of a node: what another thread could do at that very
//! moment is done there, by this one. Not at work while this thread holds the lock of a node, for
//! which the other would wait.

use std::cell::{Cell, RefCell};

use base::sync::Arc;
use base::sync::atomic::{AtomicUsize, Ordering};

/// What is to happen, and when.
struct Plan {
    /// How many steps are left until then.
    left: usize,
    held_count: usize,
    act: Option<Box<dyn FnOnce()>>,
}

thread_local! {
    static PLAN: RefCell<Plan> = const {
        RefCell::new(Plan { left: 0, held_count: 0, act: None })
    };
    static WAITS: Cell<Option<Arc<AtomicUsize>>> = const { Cell::new(None) };
}

/// Called whenever a thread finds a node locked and will look again.
pub(super) fn waited() {
    if let Some(waits) = WAITS.take() {
        waits.fetch_add(1, Ordering::AcqRel);
        WAITS.set(Some(waits));
    }
}

/// From here on `waits` counts how often this thread finds a node locked.
pub(super) fn count_waits(waits: &Arc<AtomicUsize>) {
    WAITS.set(Some(Arc::clone(waits)));
}

/// Called by nodes wherever another thread could come between.
pub(super) fn reached() {
    let act = PLAN.with_borrow_mut(|plan| {
        if plan.held_count > 0 {
            return None;
        }
        match plan.left.checked_sub(1) {
            Some(left) => {
                plan.left = left;
                None
            }
            None => plan.act.take(),
        }
    });
    if let Some(act) = act {
        act();
    }
}

pub(super) fn locked() {
    PLAN.with_borrow_mut(|plan| plan.held_count += 1);
}

pub(super) fn unlocked() {
    PLAN.with_borrow_mut(|plan| plan.held_count -= 1);
}

/// Calls `run`, and `act` at step `at` of it. Returns `None` if it ended before.
pub(super) fn interrupted<R>(
    at: usize,
    act: impl FnOnce() + 'static,
    run: impl FnOnce() -> R,
) -> Option<R> {
    PLAN.with_borrow_mut(|plan| {
        plan.left = at;
        plan.act = Some(Box::new(act));
    });
    let result = run();
    let left = PLAN.with_borrow_mut(|plan| plan.act.take());
    left.is_none().then_some(result)
}
