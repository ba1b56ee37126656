//! The hunt: workers run seed after seed until the budget is spent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::clock::Stopwatch;
use super::distinct::Distinct;
use super::progress::Progress;
use super::store::Store;
use super::tally::Tally;
use super::{Budget, Partition, Selection};
use crate::run::{How, VerdictKind, Workspace, run};

/// Runs a worker makes before it adds its tally to the common one.
const BATCH: usize = 32;

/// What a hunt needs beside the selection.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// When it ends.
    pub budget: Budget,
    /// Workers.
    pub jobs: usize,
    /// Seed of run 0; run n has this plus n.
    pub seed: u64,
    /// Which runs belong to this process.
    pub partition: Partition,
}

/// What a hunt brought home.
#[derive(Clone, Debug, Default)]
pub struct Catch {
    /// Sums.
    pub tally: Tally,
    /// Different runs.
    pub distinct: Distinct,
    /// Wall-clock time.
    pub time: std::time::Duration,
    /// A run that panicked: a bug of lurch. Its number and what it said.
    pub panic: Option<(u64, String)>,
    /// Why the result folder could not be written; the hunt ends there.
    pub unwritten: Option<String>,
}

/// What workers share.
struct Shared<'a> {
    interrupted: &'a AtomicBool,
    store: Option<&'a Store>,
    next: AtomicU64,
    stop: AtomicBool,
    catch: Mutex<Catch>,
}

impl Hunt {
    /// Hunts.
    ///
    /// What violates something goes to `store` at once. When `interrupted` turns true the runs in flight are finished and the hunt ends.
    pub fn run(&self, selection: &Selection, progress: &Progress, store: Option<&Store>, interrupted: &AtomicBool) -> Catch {
        let watch = Stopwatch::start();
        let shared =
            Shared { next: AtomicU64::new(0), stop: AtomicBool::new(false), interrupted, store, catch: Mutex::new(Catch::default()) };
        let (done, ended) = crossbeam::channel::bounded::<()>(0);
        crossbeam::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let done = done.clone();
                let shared = &shared;
                scope.spawn(move |_| {
                    self.work(selection, shared, &watch);
                    drop(done);
                });
            }
            drop(done);
            // Nothing is ever sent: the channel closes when the last worker has gone.
            while ended.recv_timeout(progress.interval()) == Err(crossbeam::channel::RecvTimeoutError::Timeout) {
                let catch = shared.catch.lock();
                progress.show(selection, &catch, &watch, self);
            }
        })
        .expect("a worker catches the panics of its runs");
        let mut catch = shared.catch.into_inner();
        catch.time = watch.elapsed();
        progress.finish();
        catch
    }

    /// Runs of this partition.
    pub(super) fn limit(&self, selection: &Selection) -> u64 {
        let there_are = selection.product.as_ref().map_or(u64::MAX, |product| product.nr_runs());
        match self.budget {
            Budget::Runs(runs) => self.partition.share(runs.min(there_are)),
            Budget::Time(_) => self.partition.share(there_are),
        }
    }

    fn work(&self, selection: &Selection, shared: &Shared<'_>, watch: &Stopwatch) {
        let mut workspace = Workspace::new();
        let mut tally = Tally::default();
        let mut hashes = Vec::with_capacity(BATCH);
        let mut spec = selection.spec(self.seed);
        let limit = self.limit(selection);
        while !shared.stop.load(Ordering::Relaxed) && !shared.interrupted.load(Ordering::Relaxed) {
            if matches!(self.budget, Budget::Time(time) if watch.elapsed() >= time) {
                break;
            }
            let n = shared.next.fetch_add(1, Ordering::Relaxed);
            if n >= limit {
                break;
            }
            let number = self.partition.run(n);
            match selection.product {
                Some(_) => spec = selection.run(self.seed, number),
                None => spec.seed = self.seed.wrapping_add(number),
            }
            match catch_unwind(AssertUnwindSafe(|| run(&mut workspace, &spec, &How::default()))) {
                Ok(outcome) => {
                    tally.count(number, &outcome);
                    let violated = outcome.verdict.kind == VerdictKind::Violation && outcome.verdict.listed.is_none();
                    if let Some(store) = shared.store.filter(|_| violated)
                        && let Err(error) = store.suspect(&spec, number, &outcome)
                    {
                        shared.catch.lock().unwritten.get_or_insert(error.to_string());
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    hashes.push(outcome.trace_hash);
                }
                Err(panic) => {
                    workspace = Workspace::new();
                    shared.catch.lock().panic.get_or_insert((number, message(panic.as_ref())));
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
            if hashes.len() >= BATCH {
                shared.add(&mut tally, &mut hashes);
            }
        }
        shared.add(&mut tally, &mut hashes);
    }
}

impl Shared<'_> {
    fn add(&self, tally: &mut Tally, hashes: &mut Vec<u64>) {
        let mut catch = self.catch.lock();
        catch.tally.add(tally);
        hashes.drain(..).for_each(|hash| catch.distinct.add(hash));
        drop(catch);
        *tally = Tally::default();
    }
}

/// What a panic said.
pub fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
