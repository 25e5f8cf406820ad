use std::path::Path;

use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::SimFs;

use super::*;

fn sweeper_with(file_count: u64) -> (Arc<SimFs>, Arc<Sweeper>) {
    let fs = SimFs::new(1);
    let dir = Path::new("/db");
    fs.create_dir(dir).expect("an empty disk");
    let sweeper = Sweeper::new(
        Arc::<SimFs>::clone(&fs),
        dir.into(),
        Arc::default(),
        Listener::default(),
    );
    for number in (1..=file_count).map(FileNumber) {
        let path = FileKind::Table.path(dir, number);
        fs.create(&path).expect("an empty disk");
        sweeper.unlink(FileKind::Table, number);
    }
    (fs, sweeper)
}

#[test]
fn files_go_a_few_at_a_time_and_in_order() {
    let (fs, sweeper) = sweeper_with(10);
    let mut left = Vec::new();
    loop {
        let swept = sweeper.sweep();
        left.push(fs.paths().len());
        if swept != Swept::More {
            assert_eq!(swept, Swept::Clean);
            break;
        }
        assert!(
            !fs.paths()
                .contains(&FileKind::Table.path(Path::new("/db"), FileNumber(1)))
        );
    }
    assert_eq!(left, [6, 2, 0]);
}

#[test]
fn a_file_that_cannot_go_is_tried_again_and_holds_up_no_other() {
    let (fs, sweeper) = sweeper_with(6);
    fs.fail(Fault::new(OpKind::Remove, FaultError::Eio).nth(1));
    // Later, not at once: a disk that refuses is not asked without a pause.
    assert_eq!(sweeper.sweep(), Swept::Waiting);
    assert_eq!(fs.paths().len(), 3);
    assert_eq!(sweeper.sweep(), Swept::Clean);
    assert!(fs.paths().is_empty());
}

#[test]
fn what_is_held_stays_and_the_rest_is_freed_at_once() {
    let (_fs, sweeper) = sweeper_with(0);
    let graves: Vec<Arc<u64>> = (0..10).map(Arc::new).collect();
    let weak: Vec<_> = graves.iter().map(Arc::downgrade).collect();
    let alive = || weak.iter().filter(|grave| grave.strong_count() > 0).count();
    let held = Arc::clone(&graves[0]);
    for grave in graves {
        sweeper.bury(grave);
    }
    assert_eq!((sweeper.sweep(), alive()), (Swept::Waiting, 1));
    drop(held);
    assert_eq!((sweeper.sweep(), alive()), (Swept::Clean, 0));
}
