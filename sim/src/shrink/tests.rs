//! Goal: what is left is the same failure, repeats, and is close to the smallest there is. Method: the small public programs, where the
//! fewest switches can be found by trying all schedules with 0, 1, 2, .. of them.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::engine::{ActorId, Burst, Choice, ChoiceKind, Op};
use crate::policy::{FaultPlan, PolicySpec, Profile};
use crate::programs::Program;
use crate::shared::{Outcome, World};

/// How a run failed.
fn failure(outcome: &Outcome) -> (Option<String>, bool) {
    (outcome.failure.clone(), outcome.burst == Burst::Deadlock)
}

/// The first `nr` failing runs of a program.
fn failing(program: Program, nr: usize) -> Vec<Outcome> {
    let profile = program.profile();
    let runs = (0..20_000).map(|seed| program.run(PolicySpec::Portfolio.build(seed, &profile, FaultPlan::Never)));
    let found: Vec<_> = runs.filter(Outcome::is_bug).take(nr).collect();
    assert_eq!(found.len(), nr, "{program}");
    found
}

fn shrunk(program: Program, found: &Outcome) -> Shrunk {
    let shrunk = shrink(&found.record, Budget::default(), |policy, _| failure(&program.run(policy)) == failure(found));
    shrunk.expect("it fails when it is replayed")
}

#[test]
fn a_shrunk_run_fails_the_same_way_wherever_it_is_replayed() {
    for program in Program::ALL {
        for found in failing(program, 3) {
            let shrunk = shrunk(program, &found);
            let replayed = program.run(Box::new(Replay::new(shrunk.list.clone())));
            assert_eq!((failure(&replayed), &replayed.record), (failure(&found), &shrunk.list), "{program}");
            assert!(shrunk.to <= shrunk.from && shrunk.to.steps == replayed.steps, "{program}: {shrunk:?}");
        }
    }
}

#[test]
fn the_same_run_shrinks_to_the_same_run() {
    let program = Program::Reorder { setters: 9, checkers: 1 };
    for found in failing(program, 5) {
        let (once, again) = (shrunk(program, &found), shrunk(program, &found));
        assert_eq!((once.list, once.runs, once.steps), (again.list, again.runs, again.steps));
    }
}

/// Tries the schedules with at most so many switches, one after the other.
struct Bounded {
    switches_max: u32,
    /// At each choice which of the options, those that cost a switch last, is taken, and how many there are.
    path: Vec<(usize, usize)>,
}

/// One run of [`Bounded`].
struct Walk {
    search: Rc<RefCell<Bounded>>,
    position: usize,
    switches: u32,
    last: Option<ActorId>,
}

impl Policy for Walk {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        let Choice::Schedule(enabled) = choice else { return 0 };
        let mut options: Vec<usize> = (0..enabled.ids.len()).collect();
        options.sort_by_key(|&option| Some(enabled.ids[option]) != self.last);
        let stays = self.last.is_some_and(|last| enabled.ids.contains(&last));
        let mut search = self.search.borrow_mut();
        if self.switches >= search.switches_max && (stays || self.last.is_some()) {
            // Nothing may be switched any more; where it has to be, the run is over the bound, and any way to its end will do.
            options.truncate(1);
        }
        if self.position == search.path.len() {
            search.path.push((0, options.len()));
        }
        let (taken, _) = search.path[self.position];
        self.position += 1;
        options[taken] as u32
    }

    fn performed(&mut self, actor: ActorId, _: Op) {
        self.switches += u32::from(self.last.is_some_and(|last| last != actor));
        self.last = Some(actor);
    }

    fn name(&self) -> String {
        "bounded".to_owned()
    }
}

/// The fewest switches with which the program fails; `None` where more than `runs_max` runs do not tell.
fn fewest_switches(program: Program, runs_max: u64) -> Option<u64> {
    let mut runs = 0;
    for switches_max in 0.. {
        let search = Rc::new(RefCell::new(Bounded { switches_max, path: Vec::new() }));
        loop {
            runs += 1;
            if runs > runs_max {
                return None;
            }
            let policy = Walk { search: search.clone(), position: 0, switches: 0, last: None };
            let counted = Rc::<RefCell<scribe::Observed>>::default();
            let outcome = program.run(Box::new(policy));
            if outcome.is_bug() {
                let replay = Source::List(Replay::new(outcome.record.clone()));
                program.run(Box::new(Scribe::new(replay, Rc::default(), counted.clone())));
                let switches = counted.borrow().measure.switches;
                if switches <= u64::from(switches_max) {
                    return Some(switches);
                }
            }
            let mut search = search.borrow_mut();
            while search.path.last().is_some_and(|(taken, options)| taken + 1 == *options) {
                search.path.pop();
            }
            match search.path.last_mut() {
                Some((taken, _)) => *taken += 1,
                None => break,
            }
        }
    }
    None
}

#[test]
fn a_shrunk_run_has_at_most_twice_the_fewest_switches_possible() {
    let programs = [
        Program::Account,
        Program::BluetoothDriver,
        Program::Deadlock01,
        Program::Lazy01,
        Program::Reorder { setters: 2, checkers: 1 },
        Program::Reorder { setters: 3, checkers: 1 },
        Program::Twostage { writers: 1, readers: 1 },
        Program::Stringbuffer,
        Program::WorkStealQueue,
    ];
    for program in programs {
        let fewest = fewest_switches(program, 300_000).unwrap_or_else(|| panic!("{program}: too many schedules"));
        for found in failing(program, 20) {
            let shrunk = shrunk(program, &found);
            assert!(shrunk.to.switches <= 2 * fewest, "{program}: {} switches where {fewest} do", shrunk.to.switches);
            assert!(shrunk.complete);
        }
    }
}

/// A program that draws what it does: the second of two actors fails a check after one operation of kind 3 and one failed call, and only
/// if the first one has acted; a daemon takes turns beside them, and a third actor is in nobody's way.
fn drawing(policy: Box<dyn Policy>) -> Outcome {
    let world = World::new(policy);
    let (flag, own, beat) = (world.cell(0u32), world.cell(0u32), world.cell(0u32));
    let first = flag.clone();
    world.spawn("first", async move { first.set(1).await });
    world.spawn("bystander", async move {
        for step in 0..20 {
            own.set(step).await;
        }
    });
    let daemon = world.clone();
    world.spawn_daemon("daemon", async move {
        loop {
            daemon.core().step(Op::turn()).await;
            beat.set(daemon.core().choose(ChoiceKind::Workload, 9)).await;
        }
    });
    let check = world.clone();
    world.spawn("second", async move {
        let core = check.core().clone();
        let mut third = false;
        let mut failed = false;
        for _ in 0..10 {
            third |= core.choose(ChoiceKind::Workload, 5) == 3;
            failed |= core.fails(ChoiceKind::AllocFails, 1);
            core.choose(ChoiceKind::Placement, 7);
            check.pause().await;
            check.check(!(third && failed && flag.get().await == 1), "all three");
        }
    });
    world.run(1_000)
}

#[test]
fn operations_failures_turns_and_bystanders_go() {
    let plan = FaultPlan::Random { per_1024: 500 };
    let runs = (0..1000).map(|seed| drawing(PolicySpec::Uniform.build(seed, &Profile::default(), plan)));
    for found in runs.filter(Outcome::is_bug).take(20) {
        let fails = |policy, _| drawing(policy).failure == found.failure;
        let shrunk = shrink(&found.record, Budget::default(), fails).expect("it fails again");
        let Measure { failures, oddities, actors, preemptions, .. } = shrunk.to;
        // The flag must be set, so that the first actor acts; the others need not.
        assert_eq!((failures, oddities, actors, preemptions), (1, 1, 2, 0), "{:?} from {:?}", shrunk.to, shrunk.from);
    }
}

#[test]
fn a_list_that_does_not_fit_or_does_not_fail_is_refused() {
    let program = Program::Lazy01;
    let found = failing(program, 1).remove(0);
    assert!(shrink(&found.record, Budget::default(), |policy, _| program.run(policy).is_bug()).is_some());
    assert!(shrink(&found.record, Budget::default(), |_, _| false).is_none());
    let other = [Recorded::new(ChoiceKind::Poison, 2)];
    assert!(
        shrink(&other, Budget::default(), |policy, _| {
            program.run(policy);
            true
        })
        .is_none()
    );
}

#[test]
fn the_budget_ends_the_search_and_says_so() {
    let program = Program::Reorder { setters: 9, checkers: 1 };
    let found = failing(program, 1).remove(0);
    let mut made = 0;
    let fails = |policy, _| {
        made += 1;
        program.run(policy).failure == found.failure
    };
    let shrunk = shrink(&found.record, Budget { runs: 10, steps: u64::MAX }, fails).expect("it fails again");
    assert_eq!((shrunk.runs, shrunk.complete, made), (10, false, 10));
}
