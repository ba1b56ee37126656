//! Goal: the level above carries a whole update. Method: agent and VMM on madsim nodes issue every call by message.

use workloads::defect::Defects;
use workloads::host::{self, BURST, BURSTS_MAX, Hosted};
use workloads::mark::Mark;
use workloads::revision::Revision;
use workloads::run::{RunSpec, VerdictKind};
use workloads::scenario::{self, Settings};

fn spec(kernel: &str, seed: u64) -> RunSpec {
    let revision = Revision::by_name(kernel).expect("a revision");
    RunSpec {
        scenario: scenario::by_name("update-with-dma").expect("a scenario"),
        outgoing: revision,
        incoming: revision,
        defects: Defects::NONE,
        policy: "uniform".parse().expect("a policy"),
        seed,
        fail_nth: None,
        settings: Settings::new(),
    }
}

fn check(hosted: &Hosted, marks: &[Mark]) {
    let Hosted { outcome, bursts, calls } = hosted;
    assert_eq!(outcome.verdict.kind, VerdictKind::Clean, "{:?}", outcome.verdict);
    for mark in marks {
        assert!(outcome.counts.mark(*mark) > 0, "{} was never hit", mark.name());
    }
    assert!(*calls > 15 && bursts * BURST >= outcome.steps, "{calls} calls, {bursts} bursts");
}

#[test]
fn an_update_runs_to_finish_where_there_is_a_second_phase() {
    for seed in 0..10 {
        check(&host::run(&spec("tip-reclaim", seed)), &[Mark::KexecReached, Mark::AdoptionDone, Mark::FinishReached]);
    }
}

#[test]
fn an_update_runs_to_adoption_where_there_is_none() {
    for kernel in ["v2", "tip"] {
        for seed in 0..5 {
            check(&host::run(&spec(kernel, seed)), &[Mark::KexecReached, Mark::AdoptionDone]);
        }
    }
}

// Goal: whatever call fails, the programs come to an end. Method: each of the first fallible calls fails in turn.
#[test]
fn a_failing_call_never_hangs_the_programs() {
    for nth in (0..200).step_by(7) {
        let spec = RunSpec { fail_nth: Some(nth), ..spec("tip-reclaim", u64::from(nth)) };
        let Hosted { outcome, bursts, .. } = host::run(&spec);
        assert!(bursts < BURSTS_MAX, "fail-nth {nth}: {:?}", outcome.verdict);
        assert_ne!(outcome.verdict.property, "bursts", "fail-nth {nth}");
    }
}
