//! Goal: the same token gives the same trace hash twice in one process, on two threads, with any number of jobs, in debug and in
//! release. Method: the runs of `snapshots/golden-hashes.txt`, whose hashes hold for every profile these tests are built in; and
//! one sweep with 1 and with 4 workers.
//!
//! A change that is meant to change event streams refreshes the file: `LURCH_REFRESH=1 cargo test -p workloads --test determinism`.

use std::sync::atomic::AtomicBool;

use workloads::golden::{self, Golden};
use workloads::run::{How, RunSpec, Workspace, run};
use workloads::sweep::hunt::{Catch, Hunt};
use workloads::sweep::progress::Progress;
use workloads::sweep::{Budget, Partition, Selection};
use workloads::{host, scenario, token};

fn goldens() -> Vec<Golden> {
    golden::all().expect("the file is sound")
}

fn hash(workspace: &mut Workspace, spec: &RunSpec) -> u64 {
    run(workspace, spec, &How::default()).trace_hash
}

/// The hashes of all golden runs, in one workspace.
fn hashes() -> Vec<u64> {
    let mut workspace = Workspace::new();
    goldens().iter().map(|golden| hash(&mut workspace, &golden.spec)).collect()
}

#[test]
fn golden_hashes_hold_in_this_profile() {
    if std::env::var_os("LURCH_REFRESH").is_some() {
        let comments = golden::TEXT.lines().take_while(|line| line.starts_with('#'));
        let lines = goldens().into_iter().zip(hashes()).map(|(golden, hash)| format!("{} {hash:016x}", golden.token));
        let text: Vec<String> = comments.map(str::to_owned).chain(lines).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots/golden-hashes.txt");
        std::fs::write(path, text.join("\n") + "\n").expect("the source folder is writable");
        return;
    }
    let differences = golden::differences().expect("the file is sound");
    assert!(differences.is_empty(), "{}\nmeant? refresh: see the head of this file", differences.join("\n"));
}

#[test]
fn the_golden_runs_cover_every_scenario_kernel_and_policy() {
    let goldens = goldens();
    for scenario in scenario::all() {
        assert!(goldens.iter().any(|golden| golden.spec.scenario.name == scenario.name), "{}", scenario.name);
    }
    for revision in workloads::revision::REVISIONS {
        assert!(goldens.iter().any(|golden| golden.spec.outgoing == revision), "{}", revision.name);
    }
    for policy in ["surw", "pos", "pct", "uniform", "starve", "urw", "rff", "delay", "timed"] {
        assert!(goldens.iter().any(|golden| golden.spec.policy.to_string().starts_with(policy)), "{policy}");
    }
    for golden in goldens {
        assert_eq!(token::encode(&golden.spec).as_deref(), Some(golden.token));
    }
}

#[test]
fn a_token_gives_the_same_hash_twice_in_one_process() {
    assert_eq!(hashes(), hashes());
    // What ran before in a workspace must not show.
    let mut workspace = Workspace::new();
    for (golden, expected) in goldens().iter().rev().zip(hashes().iter().rev()) {
        assert_eq!(hash(&mut workspace, &golden.spec), *expected, "{}", golden.token);
    }
}

#[test]
fn a_token_gives_the_same_hash_on_two_threads() {
    let [one, two] = crossbeam::scope(|scope| {
        [scope.spawn(|_| hashes()), scope.spawn(|_| hashes())].map(|thread| thread.join().expect("a run does not panic"))
    })
    .expect("no thread panics");
    assert_eq!(one, two);
    assert_eq!(one, hashes());
}

#[test]
fn recorded_choices_give_the_same_hash() {
    let mut workspace = Workspace::new();
    for golden in goldens() {
        let first = run(&mut workspace, &golden.spec, &How::default());
        let again = run(&mut workspace, &golden.spec, &How { replay: Some(&first.record), keep_log: true, ..How::default() });
        assert_eq!(again.trace_hash, first.trace_hash, "{}", golden.token);
        assert_eq!((again.divergence, again.verdict), (None, first.verdict), "{}", golden.token);
    }
}

fn sweep(jobs: usize) -> Catch {
    let golden = &goldens()[0].spec;
    let selection = Selection {
        scenario: scenario::by_name("any").expect("a scenario"),
        outgoing: golden.outgoing,
        incoming: golden.incoming,
        defects: golden.defects,
        policy: sim::policy::PolicySpec::default(),
        fail_nth: None,
        settings: golden.settings.clone(),
        product: None,
    };
    let hunt = Hunt { budget: Budget::Runs(300), jobs, seed: 1, partition: Partition::WHOLE };
    hunt.run(&selection, &Progress::new(), None, &AtomicBool::new(false))
}

#[test]
fn a_sweep_finds_the_same_with_one_and_four_jobs() {
    let (one, four) = (sweep(1), sweep(4));
    assert_eq!(one.panic, None);
    // Findings with run numbers and hashes, marks, steps, verdicts.
    assert_eq!(one.tally, four.tally);
    assert_eq!(one.distinct.count(), four.distinct.count());
    let mut both = one.distinct.clone();
    both.extend(&four.distinct);
    assert_eq!(both.count(), one.distinct.count(), "the sets of hashes are equal");
}

#[test]
fn a_hosted_run_gives_the_same_hash_twice_and_on_two_threads() {
    let spec = RunSpec { scenario: scenario::by_name("update-with-dma").expect("a scenario"), ..goldens()[0].spec.clone() };
    let hosted = || {
        let hosted = host::run(&spec);
        (hosted.outcome.trace_hash, hosted.bursts, hosted.calls)
    };
    let first = hosted();
    assert_eq!(hosted(), first);
    let threads = crossbeam::scope(|scope| {
        [scope.spawn(|_| hosted()), scope.spawn(|_| hosted())].map(|thread| thread.join().expect("a run does not panic"))
    });
    assert_eq!(threads.expect("no thread panics"), [first, first]);
}
