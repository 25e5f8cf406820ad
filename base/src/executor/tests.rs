use std::sync::mpsc;

use super::*;

#[test]
fn a_thread_runs_its_step_when_woken_and_ends_when_stopped() {
    let threads = Threads::new(Arc::new(Inline));
    let (sender, receiver) = mpsc::channel();
    let worker = threads
        .register(
            "test",
            Box::new(move || {
                // The receiver is gone at the end of the test; that is no failure.
                let _ = sender.send(());
                Step::Idle
            }),
        )
        .expect("a thread");
    receiver.recv().expect("the first run");
    worker.wake();
    receiver.recv().expect("the run after a wake");
    worker.stop();
    while receiver.try_recv().is_ok() {}
    assert!(
        receiver.recv().is_err(),
        "the step was dropped with its sender"
    );
}

#[test]
fn the_same_seed_runs_steps_in_the_same_order() {
    let run = |seed| {
        let executor = Stepped::new(seed);
        let order = Arc::new(Mutex::new(Vec::new()));
        let workers: Vec<_> = (0..4)
            .map(|name| {
                let order = Arc::clone(&order);
                let mut left = 5;
                let step = move || {
                    order.lock().push(name);
                    left -= 1;
                    if left == 0 { Step::Idle } else { Step::Again }
                };
                executor.register("w", Box::new(step)).expect("a worker")
            })
            .collect();
        for worker in &workers {
            worker.wake();
        }
        executor.run_until_idle();

        order.lock().clone()
    };
    assert_eq!(run(7).len(), 20);
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
