//! A whole policy from a scheduler: everything but the schedule comes from one entropy stream per kind of choice, and faults
//! from a [`FaultPlan`]. Turns of daemons ([`OpKind::Turn`]) come by lottery, at a rate the seed draws for the run.
//!
//! All daemons share that rate beyond the second: each turn is followed by a dozen steps of the daemon, and if more daemons meant more turns,
//! a few devices would leave the CPUs nothing (under priorities nothing at all). So as many turns come beside eight devices
//! as beside two, and while [`AT_WORK`] daemons do what their turn led to, the next turn comes more rarely, and with each one more rarely
//! still. Any number can be at work at once; two usually are.

use smallvec::SmallVec;

use super::Policy;
use super::fault::{FaultPlan, Faults};
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Choice, ChoiceKind, Enabled, Op, OpKind, Runnable};
use crate::entropy::{Entropy, Stream};

/// The policy that asks `S` who goes next and draws the rest.
pub struct Drawn<S> {
    scheduler: S,
    seed: u64,
    faults: Faults,
    /// Indexed by kind; made on the first draw, since most runs touch few of them. The schedule's place stays empty.
    streams: [Option<Box<Entropy>>; ChoiceKind::ALL.len()],
    /// Made on the first decision beside a waiting daemon.
    lottery: Option<Box<Lottery>>,
}

/// Who of the daemons gets a turn, and when.
struct Lottery {
    turns: Entropy,
    /// One decision in this many gives a waiting daemon its turn.
    rarity: u32,
    /// Who had a turn, and perhaps is not ready for the next one yet.
    at_work: SmallVec<[ActorId; 4]>,
}

impl Lottery {
    fn new(seed: u64) -> Lottery {
        let mut turns = Entropy::new(seed, Stream::Turns);
        let rarity = TURN_RARITIES[turns.below(TURN_RARITIES.len() as u32) as usize];
        Lottery { turns, rarity, at_work: SmallVec::new() }
    }

    /// Which of the waiting daemons gets a turn now, an index among them; one does when there are no `others`.
    #[inline]
    fn draw(&mut self, nr_waiting: usize, others: &[ActorId]) -> Option<usize> {
        let drawn = self.turns.below(self.rarity) as usize;
        let wins = others.is_empty() || drawn < nr_waiting.min(AT_WORK) && self.has_room(others);
        wins.then(|| if nr_waiting > AT_WORK { self.turns.below(nr_waiting as u32) as usize } else { drawn % nr_waiting })
    }

    /// Whether one more daemon may begin to work beside those that do.
    #[inline]
    fn has_room(&mut self, others: &[ActorId]) -> bool {
        // One that is not among the others waits for its next turn, or for something else.
        self.at_work.retain(|id| others.binary_search(id).is_ok());
        (AT_WORK..=self.at_work.len()).all(|_| self.turns.one_in(MORE_AT_WORK_RARITY))
    }
}

/// Daemons that may do what their turn led to without turns becoming rarer.
const AT_WORK: usize = 2;

/// How much rarer turns become with each one more.
const MORE_AT_WORK_RARITY: u32 = 8;

/// Rates a run may have: devices that work without a pause, and devices that do a little.
const TURN_RARITIES: [u32; 4] = [6, 12, 24, 96];

impl<S: Scheduler> Drawn<S> {
    /// Draws with `seed` beside `scheduler`, which brings its own stream.
    pub fn new(scheduler: S, seed: u64, faults: FaultPlan) -> Drawn<S> {
        Drawn { scheduler, seed, faults: Faults::new(faults), streams: Default::default(), lottery: None }
    }

    /// Who goes next: where daemons wait for a turn one of them by lottery, else one of the others as the scheduler says.
    #[inline(always)]
    fn pick(&mut self, enabled: Enabled<'_>) -> ActorId {
        let Enabled { ids, others, ops, .. } = enabled;
        if ids.len() > others.len()
            && let Some(drawn) = self.draw_turn(ids, others, ops)
        {
            return drawn;
        }
        others[self.scheduler.pick(Enabled { ids: others, ..enabled })]
    }

    /// Who goes next by lottery, or because nobody else is there; `None` when it is the scheduler's turn.
    // Kept out of line: where no daemon waits, a pick is short.
    #[inline(never)]
    fn draw_turn(&mut self, ids: &[ActorId], others: &[ActorId], ops: &[Op]) -> Option<ActorId> {
        let nr_waiting = ids.len() - others.len();
        let seed = self.seed;
        let lottery = self.lottery.get_or_insert_with(|| Box::new(Lottery::new(seed)));
        if let Some(drawn) = lottery.draw(nr_waiting, others) {
            let winner = ids.iter().filter(|id| ops[id.index()].is(OpKind::Turn)).nth(drawn).copied();
            lottery.at_work.extend(winner.filter(|id| !lottery.at_work.contains(id)));
            return winner;
        }
        match others {
            [only] => Some(*only),
            _ => None,
        }
    }

    fn stream(&mut self, kind: ChoiceKind) -> &mut Entropy {
        let seed = self.seed;
        let stream = match kind {
            ChoiceKind::Schedule => panic!("a schedule put as another choice"),
            ChoiceKind::AllocFails | ChoiceKind::CalleeFails => Stream::Faults,
            ChoiceKind::Placement => Stream::Placement,
            ChoiceKind::Hardware => Stream::Hardware,
            ChoiceKind::Workload => Stream::Workload,
            ChoiceKind::Poison => Stream::Poison,
        };
        // Both kinds of faults share a stream, and so one place.
        let place = if stream == Stream::Faults { ChoiceKind::AllocFails } else { kind };
        self.streams[place as usize].get_or_insert_with(|| Box::new(Entropy::new(seed, stream)))
    }
}

impl<S: Scheduler> Policy for Drawn<S> {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        match choice {
            Choice::Schedule(enabled) => {
                let actor = self.pick(enabled);
                enabled.ids.binary_search(&actor).expect("an enabled actor was picked") as u32
            }
            Choice::Of { kind, options } => self.stream(kind).below(options),
            Choice::Odds { kind, per_1024 } => u32::from(self.stream(kind).odds_1024(per_1024)),
            Choice::Fault { kind, nth, class } => {
                let per_1024 = self.faults.per_1024(kind, nth, class);
                u32::from(match per_1024 {
                    0 => false,
                    1024.. => true,
                    _ => self.stream(kind).odds_1024(per_1024),
                })
            }
        }
    }

    #[inline]
    fn schedule(&mut self, runnable: &Runnable) -> ActorId {
        let enabled = runnable.enabled();
        let actor = self.pick(enabled);
        self.scheduler.performed(actor, enabled.ops[actor.index()]);
        actor
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.scheduler.performed(actor, op);
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.scheduler.ordered(before, after);
    }

    fn name(&self) -> String {
        self.scheduler.name()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::programs;
    use super::super::{PolicySpec, Profile};
    use super::*;
    use crate::engine::Burst;

    fn policy(seed: u64, faults: FaultPlan) -> Box<dyn Policy> {
        PolicySpec::Uniform.build(seed, &Profile::default(), faults)
    }
    fn of(kind: ChoiceKind) -> Choice<'static> {
        Choice::Of { kind, options: 1000 }
    }

    #[test]
    fn drawing_more_of_one_kind_does_not_move_another() {
        let (mut few, mut many) = (policy(3, FaultPlan::Never), policy(3, FaultPlan::Never));
        for round in 0..200 {
            for _ in 0..round % 5 {
                many.choose(of(ChoiceKind::Hardware));
                many.choose(Choice::Odds { kind: ChoiceKind::Workload, per_1024: 100 });
            }
            for kind in [ChoiceKind::Placement, ChoiceKind::Poison] {
                assert_eq!(few.choose(of(kind)), many.choose(of(kind)));
            }
        }
    }

    #[test]
    fn more_devices_do_not_slow_the_others_down_in_proportion() {
        for spec in [PolicySpec::Uniform, PolicySpec::Pos, PolicySpec::Pct { depth: 3 }, PolicySpec::Starve] {
            let steps = |nr_devices| -> u64 {
                let profile = Profile { steps: 1000, ..Profile::default() };
                (0..200)
                    .map(|seed| {
                        let (outcome, _) = programs::beside_devices(spec.build(seed, &profile, FaultPlan::Never), nr_devices);
                        assert_eq!(outcome.burst, Burst::Finished);
                        outcome.steps
                    })
                    .sum()
            };
            let (beside_2, beside_8) = (steps(2), steps(8));
            assert!(beside_8 < 2 * beside_2, "{spec}: {beside_2} steps beside 2 devices, {beside_8} beside 8");
        }
    }

    #[test]
    fn any_number_of_devices_can_be_at_work_at_once() {
        let mut most = [0; 9];
        for seed in 0..300 {
            let policy = policy(seed, FaultPlan::Never);
            most[programs::beside_devices(policy, 8).1 as usize] += 1;
        }
        assert!(most[2] > 0 && most[3] > 0 && most[4..].iter().sum::<u32>() > 0, "{most:?}");
    }

    #[test]
    fn answers_stay_below_the_number_of_options() {
        let mut policy = policy(9, FaultPlan::Random { per_1024: 300 });
        for options in 2..200 {
            assert!(policy.choose(Choice::Of { kind: ChoiceKind::Placement, options }) < options);
        }
        assert!((0..1000).all(|nth| policy.choose(Choice::Fault { kind: ChoiceKind::AllocFails, nth, class: 0 }) <= 1));
    }

    #[test]
    fn random_faults_come_about_as_often_as_asked() {
        let mut policy = policy(9, FaultPlan::Random { per_1024: 256 });
        let failed: u32 = (0..10_000).map(|nth| policy.choose(Choice::Fault { kind: ChoiceKind::CalleeFails, nth, class: 0 })).sum();
        assert!((2_300..2_700).contains(&failed), "{failed}");
    }
}
