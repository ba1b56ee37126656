//! Replay: answers from a recorded list, exactly, as long as the run asks what the list answers.
//!
//! Needs the list of a run ([`Outcome`](crate::shared::Outcome) or [`Choices::record`](crate::engine::Choices::record)).
//! Guarantee: the same program with the same list makes the same run. Where the program has changed, the first choice that
//! does not fit is kept as a [`Divergence`], and from there on the list is void: a choice that happens to fit later means
//! nothing. The run then goes on with a fallback policy, or with the plainest answer: the first enabled actor, outcome 0.
//!
//! A list that is too short diverges only without a fallback: a prefix with something to go on with is a legitimate start.

use super::{Divergence, Policy};
use crate::engine::{ActorId, Choice, ChoiceKind, Op, Recorded};

/// The policy that repeats a recorded run.
pub struct Replay {
    list: Vec<Recorded>,
    position: usize,
    steps: u64,
    then: Option<Box<dyn Policy>>,
    divergence: Option<Divergence>,
}

impl Replay {
    /// Repeats `list`, then goes on with the plainest answers.
    pub fn new(list: Vec<Recorded>) -> Replay {
        Replay { list, position: 0, steps: 0, then: None, divergence: None }
    }

    /// Goes on with `then` after a divergence or the end of the list (`--then`).
    pub fn then(mut self, then: Box<dyn Policy>) -> Replay {
        self.then = Some(then);
        self
    }

    /// The recorded answer, when it fits the choice.
    #[inline]
    fn recorded(&self, choice: &Choice<'_>) -> Option<u32> {
        let recorded = self.list.get(self.position)?;
        let value = recorded.value();
        match *choice {
            Choice::Schedule(enabled) if recorded.kind() == ChoiceKind::Schedule => {
                enabled.ids.binary_search(&ActorId(u8::try_from(value).ok()?)).ok().map(|index| index as u32)
            }
            Choice::Of { kind, options } if recorded.kind() == kind => Some(value).filter(|&value| value < options),
            Choice::Odds { kind, .. } | Choice::Fault { kind, .. } if recorded.kind() == kind => Some(value).filter(|&value| value <= 1),
            _ => None,
        }
    }

    #[cold]
    fn diverge(&mut self, choice: &Choice<'_>) {
        let ended = self.position >= self.list.len();
        if self.divergence.is_none() && !(ended && self.then.is_some()) {
            let expected = self.list.get(self.position).map_or("the end of the list".to_owned(), |recorded| expected(*recorded));
            self.divergence = Some(Divergence { position: self.position, step: self.steps, expected, offered: offered(choice) });
        }
        self.list.clear();
    }
}

impl Policy for Replay {
    #[inline]
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        if let Some(value) = self.recorded(&choice) {
            self.position += 1;
            return value;
        }
        if !self.list.is_empty() || self.divergence.is_none() {
            self.diverge(&choice);
        }
        self.then.as_mut().map_or(0, |then| then.choose(choice))
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.steps += 1;
        if let Some(then) = &mut self.then {
            then.performed(actor, op);
        }
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        if let Some(then) = &mut self.then {
            then.ordered(before, after);
        }
    }

    fn name(&self) -> String {
        "replay".to_owned()
    }

    fn divergence(&self) -> Option<Divergence> {
        self.divergence.clone()
    }
}

/// What a recorded choice says, in words.
fn expected(recorded: Recorded) -> String {
    let value = recorded.value();
    match recorded.kind() {
        ChoiceKind::Schedule => format!("schedule actor a{value}"),
        kind @ (ChoiceKind::AllocFails | ChoiceKind::CalleeFails) => {
            format!("{} {}", words(kind), if value == 0 { "no" } else { "yes" })
        }
        kind => format!("{} {value}", words(kind)),
    }
}

/// What a choice offers, in words.
fn offered(choice: &Choice<'_>) -> String {
    match *choice {
        Choice::Schedule(enabled) => {
            let ids: Vec<String> = enabled.ids.iter().map(ActorId::to_string).collect();
            format!("schedule one of {}", ids.join(" "))
        }
        Choice::Of { kind, options } => format!("{} below {options}", words(kind)),
        Choice::Odds { kind, .. } => format!("{} 0 or 1", words(kind)),
        Choice::Fault { kind, nth, class } => format!("{} yes or no (call {nth}, class {class})", words(kind)),
    }
}

fn words(kind: ChoiceKind) -> &'static str {
    match kind {
        ChoiceKind::Schedule => "schedule",
        ChoiceKind::AllocFails => "allocation fails:",
        ChoiceKind::CalleeFails => "callee fails:",
        ChoiceKind::Placement => "placement",
        ChoiceKind::Hardware => "hardware",
        ChoiceKind::Workload => "workload",
        ChoiceKind::Poison => "poison",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs};
    use super::super::{FaultPlan, PolicySpec, Profile};
    use super::*;
    use crate::engine::Enabled;
    use crate::shared::World;

    #[test]
    fn a_recorded_run_replays_to_the_same_run_under_every_policy() {
        let program = |policy| programs::reorder(policy, 3, 2);
        let profile = profile_of(program);
        for name in ["uniform", "pct:3", "pos", "urw", "surw", "starve", "delay:2", "portfolio"] {
            let spec: PolicySpec = name.parse().expect("a known name");
            for seed in 0..50 {
                let recorded = program(spec.build(seed, &profile, FaultPlan::Never));
                let replayed = program(Box::new(Replay::new(recorded.record.clone())));
                assert_eq!(recorded, replayed);
            }
        }
    }

    #[test]
    fn choices_of_every_kind_replay() {
        let program = |policy: Box<dyn Policy>| {
            let world = World::new(policy);
            let seen = world.cell(0u32);
            for name in ["left", "right"] {
                let (core, seen) = (world.core().clone(), seen.clone());
                world.spawn(name, async move {
                    for kind in &ChoiceKind::ALL[3..] {
                        let drawn = core.choose(*kind, 50) + u32::from(core.odds(*kind, 500));
                        let failed = core.fails(ChoiceKind::AllocFails, 1) || core.fails(ChoiceKind::CalleeFails, 2);
                        seen.update(|sum| sum.wrapping_mul(31) + drawn + u32::from(failed)).await;
                    }
                });
            }
            let outcome = world.run(1000);
            assert_eq!(world.core().choices().borrow().divergence(), None);
            (outcome, seen.peek())
        };
        for seed in 0..50 {
            let drawn = program(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Random { per_1024: 300 }));
            assert_eq!(drawn, program(Box::new(Replay::new(drawn.0.record.clone()))));
        }
    }

    fn ask(replay: &mut Replay, ids: &[ActorId]) -> u32 {
        replay.choose(Choice::Schedule(Enabled { ids, others: ids, ops: &[Op::begin(); 8], last: None, step: replay.steps, version: 0 }))
    }
    fn listed(choices: &[(ChoiceKind, u32)]) -> Replay {
        Replay::new(choices.iter().map(|&(kind, value)| Recorded::new(kind, value)).collect())
    }

    #[test]
    fn an_actor_that_is_not_enabled_is_named_as_the_divergence() {
        let mut replay = listed(&[(ChoiceKind::Schedule, 2), (ChoiceKind::Schedule, 5), (ChoiceKind::Schedule, 0)]);
        assert_eq!(ask(&mut replay, &[ActorId(1), ActorId(2)]), 1);
        replay.performed(ActorId(2), Op::begin());
        assert_eq!(ask(&mut replay, &[ActorId(0), ActorId(3)]), 0);
        let divergence = Divergence { position: 1, step: 1, expected: "schedule actor a5".into(), offered: "schedule one of a0 a3".into() };
        assert_eq!(replay.divergence(), Some(divergence.clone()));
        // What follows in the list is void, even where it would fit; the first divergence stays.
        assert_eq!(ask(&mut replay, &[ActorId(7), ActorId(9)]), 0);
        assert_eq!(replay.divergence(), Some(divergence));
    }

    #[test]
    fn a_choice_of_another_kind_or_range_is_a_divergence() {
        let mut replay = listed(&[(ChoiceKind::Placement, 9)]);
        assert_eq!(replay.choose(Choice::Of { kind: ChoiceKind::Placement, options: 9 }), 0);
        let divergence = replay.divergence().expect("9 is out of range");
        assert_eq!((divergence.expected.as_str(), divergence.offered.as_str()), ("placement 9", "placement below 9"));

        let mut replay = listed(&[(ChoiceKind::Placement, 1)]);
        assert_eq!(replay.choose(Choice::Fault { kind: ChoiceKind::AllocFails, nth: 4, class: 2 }), 0);
        let divergence = replay.divergence().expect("another kind");
        assert_eq!(divergence.offered, "allocation fails: yes or no (call 4, class 2)");
    }

    #[test]
    fn the_end_of_the_list_diverges_only_without_a_fallback() {
        let mut replay = listed(&[]);
        assert_eq!(ask(&mut replay, &[ActorId(0), ActorId(1)]), 0);
        assert_eq!(replay.divergence().map(|divergence| divergence.expected), Some("the end of the list".to_owned()));

        let then = PolicySpec::Uniform.build(1, &Profile::default(), FaultPlan::Never);
        let mut replay = listed(&[(ChoiceKind::Schedule, 1)]).then(then);
        let picks: u32 = (0..20).map(|_| ask(&mut replay, &[ActorId(0), ActorId(1)])).sum();
        assert!(picks > 2, "the fallback picks both");
        assert_eq!(replay.divergence(), None);
    }

    #[test]
    fn the_prefix_of_a_run_goes_on_with_the_fallback_that_made_it() {
        // POS keeps state: it must have heard of the replayed steps as well to be of use; here only that the run ends well.
        let program = |policy| programs::reorder(policy, 3, 2);
        for seed in 0..50 {
            let spec = PolicySpec::Pos;
            let mut list = program(spec.build(seed, &Profile::default(), FaultPlan::Never)).record;
            list.truncate(list.len() / 2);
            let replay = Replay::new(list.clone()).then(spec.build(seed + 1, &Profile::default(), FaultPlan::Never));
            assert_eq!(program(Box::new(replay)).record[..list.len()], list);
        }
    }
}
