//! A whole policy from a scheduler: everything but the schedule comes from one entropy stream per kind of choice, and faults
//! from a [`FaultPlan`]. Turns of daemons ([`OpKind::Turn`]) come by lottery, at a rate the seed draws for the run.

use super::Policy;
use super::fault::{FaultPlan, Faults};
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Choice, ChoiceKind, Enabled, Op, OpKind};
use crate::entropy::{Entropy, Stream};

/// The policy that asks `S` who goes next and draws the rest.
pub struct Drawn<S> {
    scheduler: S,
    seed: u64,
    faults: Faults,
    /// Indexed by kind; made on the first draw, since most runs touch few of them. The schedule's place stays empty.
    streams: [Option<Box<Entropy>>; ChoiceKind::ALL.len()],
    turns: Entropy,
    /// One decision in this many gives a waiting daemon its turn.
    turn_rarity: u32,
    others: Others,
}

/// The enabled actors that wait for no turn, at the choice at hand: a table with a place for every actor, so that it is never cleared.
struct Others {
    ids: [ActorId; 256],
    /// Where they stand among the enabled.
    places: [u8; 256],
}

impl Default for Others {
    fn default() -> Others {
        Others { ids: [ActorId(0); 256], places: [0; 256] }
    }
}

/// Rates a run may have: devices that work without a pause, and devices that do a little.
const TURN_RARITIES: [u32; 4] = [6, 12, 24, 96];

impl<S: Scheduler> Drawn<S> {
    /// Draws with `seed` beside `scheduler`, which brings its own stream.
    pub fn new(scheduler: S, seed: u64, faults: FaultPlan) -> Drawn<S> {
        let mut turns = Entropy::new(seed, Stream::Turns);
        let turn_rarity = TURN_RARITIES[turns.below(TURN_RARITIES.len() as u32) as usize];
        Drawn { scheduler, seed, faults: Faults::new(faults), streams: Default::default(), turns, turn_rarity, others: Others::default() }
    }

    /// Who goes next: where daemons wait for a turn one of them by lottery, else one of the others as the scheduler says.
    #[inline]
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        // Who waits for no turn, and the places of these among the enabled. Without branches: which of them wait is hard to predict.
        let Others { ids, places } = &mut self.others;
        let mut nr = 0;
        for (place, id) in enabled.ids.iter().enumerate() {
            (ids[nr & 0xff], places[nr & 0xff]) = (*id, place as u8);
            nr += usize::from(!enabled.ops[id.index()].is(OpKind::Turn));
        }
        let nr_waiting = enabled.ids.len() - nr;
        if nr_waiting == 0 {
            return self.scheduler.pick(enabled);
        }
        let drawn = self.turns.below(self.turn_rarity) as usize;
        if drawn < nr_waiting || nr == 0 {
            let nth = drawn % nr_waiting;
            let waits = |id: &ActorId| enabled.ops[id.index()].is(OpKind::Turn);
            return enabled.ids.iter().enumerate().filter(|(_, id)| waits(id)).nth(nth).map_or(0, |(index, _)| index);
        }
        let picked = if nr == 1 { 0 } else { self.scheduler.pick(Enabled { ids: &ids[..nr], ..enabled }) };
        usize::from(places[picked])
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
            Choice::Schedule(enabled) => self.pick(enabled) as u32,
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
    use super::super::{PolicySpec, Profile};
    use super::*;

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
