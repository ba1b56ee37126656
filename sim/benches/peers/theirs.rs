//! The workload on the peers, each used as its documentation says; what is counted is the same.
//!
//! Cautions. loom does more in a step: it keeps the C11 memory model's bookkeeping and the state of an exhaustive search; what runs here
//! is the first permutations of one search. shuttle is built without its vector clocks. madsim adds simulated time to every poll.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::rc::Rc;
use std::task::Poll;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use super::workload::Workload;

/// shuttle's threads under its random scheduler. One runner makes all runs of a call, with fresh seeds in the next.
pub(super) fn shuttle_random(workload: Workload) -> Box<dyn FnMut(u64)> {
    let mut seed = 0;
    Box::new(move |runs| {
        seed += 1;
        shuttle(RandomScheduler::new_from_seed(seed, runs as usize), runs, workload);
    })
}

/// shuttle's threads under its PCT scheduler with depth 3.
pub(super) fn shuttle_pct(workload: Workload) -> Box<dyn FnMut(u64)> {
    let mut seed = 0;
    Box::new(move |runs| {
        seed += 1;
        shuttle(PctScheduler::new_from_seed(seed, 3, runs as usize), runs, workload);
    })
}

/// An atomic's `fetch_add` is shared access and scheduling point in one.
fn shuttle(scheduler: impl Scheduler + 'static, runs: u64, workload: Workload) {
    use shuttle::sync::Arc;
    use shuttle::sync::atomic::{AtomicU64, Ordering};

    let made = shuttle::Runner::new(scheduler, shuttle::Config::new()).run(move || {
        let counter = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..workload.actors)
            .map(|_| {
                let counter = counter.clone();
                shuttle::thread::spawn(move || {
                    for _ in 0..workload.steps {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread ended"));
        assert_eq!(counter.load(Ordering::SeqCst), workload.total());
    });
    assert_eq!(made as u64, runs);
}

/// loom's threads: the first permutations of its search. Its bounds are set as tightly as the workload allows, since it allocates by them.
pub(super) fn loom(workload: Workload) -> Box<dyn FnMut(u64)> {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};

    Box::new(move |runs| {
        let mut builder = loom::model::Builder::new();
        builder.max_threads = workload.actors + 1;
        builder.max_branches = workload.total() as usize * 2 + 100;
        // The number of permutations is compared at checkpoints only, before the permutation of that number.
        builder.max_permutations = Some(runs as usize + 1);
        builder.checkpoint_interval = 1;
        let made = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let count = made.clone();
        builder.check(move || {
            let counter = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..workload.actors)
                .map(|_| {
                    let counter = counter.clone();
                    loom::thread::spawn(move || {
                        for _ in 0..workload.steps {
                            counter.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("a thread ended"));
            assert_eq!(counter.load(Ordering::SeqCst), workload.total());
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(made.load(Ordering::SeqCst), runs);
    })
}

/// madsim tasks on one node of a fresh runtime: a step is an increment and one return to its executor.
pub(super) fn madsim(workload: Workload) -> Box<dyn FnMut(u64)> {
    let mut seed = 0;
    Box::new(move |runs| {
        for _ in 0..runs {
            seed += 1;
            let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
            let counter = runtime.block_on(async move {
                let counter = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
                let tasks: Vec<_> = (0..workload.actors)
                    .map(|_| {
                        let counter = counter.clone();
                        madsim::task::spawn(async move {
                            for _ in 0..workload.steps {
                                once_pending().await;
                                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("a task ended");
                }
                counter.load(std::sync::atomic::Ordering::Relaxed)
            });
            assert_eq!(black_box(counter), workload.total());
        }
    })
}

/// Returns to the executor once, ready to go on at once.
fn once_pending() -> impl Future<Output = ()> {
    let mut been = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut been, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A floor: the same loop by hand, without announcement, record or policy; what no engine goes below.
pub(super) fn nothing_but_polls(workload: Workload) -> Box<dyn FnMut(u64)> {
    use std::task::{Context, Waker};
    Box::new(move |runs| {
        for _ in 0..runs {
            let counter = Rc::new(Cell::new(0u64));
            let mut tasks: Vec<_> = (0..workload.actors)
                .map(|_| {
                    let counter = counter.clone();
                    Box::pin(async move {
                        for _ in 0..workload.steps {
                            once_pending().await;
                            counter.set(counter.get() + 1);
                        }
                    })
                })
                .collect();
            let mut context = Context::from_waker(Waker::noop());
            let mut turn = 0;
            while !tasks.is_empty() {
                turn = (turn + 1) % tasks.len();
                if tasks[turn].as_mut().poll(&mut context).is_ready() {
                    drop(tasks.swap_remove(turn));
                }
            }
            assert_eq!(black_box(counter.get()), workload.total());
        }
    })
}
