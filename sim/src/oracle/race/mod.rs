//! Data races: two accesses to one word by different actors, at least one of them a store and at least one of them plain, that no
//! synchronisation orders.
//!
//! A happens-before detector with vector clocks: Flanagan and Freund, "FastTrack" (PLDI 2009), with the few shadow cells a word of
//! ThreadSanitizer instead of full read clocks: a cell that makes room can hide a race, never invent one. What counts as
//! a race, and the form of the report, are KCSAN's (Linux, Documentation/dev-tools/kcsan.rst): marked accesses (`READ_ONCE`,
//! `WRITE_ONCE`, acquire, release, atomic) do not race with each other; a plain one does with both kinds.
//!
//! | edge | from | to |
//! | --- | --- | --- |
//! | lock | release | next acquisition |
//! | release store, atomic operation | the store | marked load or atomic operation that finds the word so |
//! | write or full barrier, then marked store | the barrier | marked load of the word |
//! | wait queue | `wake_up` | return of the sleeper |
//! | memory | its free | its next allocation |
//! | creation | the creator's step | the new actor's first step |
//! | join | the joined actor's end | whatever the joiner does next |
//! | jump | everything | everything: the next kernel begins with a clean slate |
//!
//! A `READ_ONCE` counts as an acquire, since the accesses that depend on it are ordered and nobody tells which those are: races behind
//! a load that orders nothing can be missed. Memory that an allocator hands out has no past. Not seen: what is done in a
//! step announced by hand, DMA, table fetches.
//!
//! Off unless asked for ([`MachineConfig::races`](crate::machine::MachineConfig::races)).

mod cell;
mod clock;

use std::fmt::Write as _;

use iommu_model::addr::Pa;
use rustc_hash::FxHashMap;

use crate::engine::ActorId;
use crate::memory::FRAME_BYTES;
use crate::trace::Flavor;
use cell::{Cells, Past};
use clock::Clock;

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RaceRules {
    /// Every pair with a plain access, as the Linux kernel memory model has it.
    #[default]
    Strict,
    /// As KCSAN is shipped (`CONFIG_KCSAN_ASSUME_PLAIN_WRITES_ATOMIC`): a plain aligned store of at most 8 bytes counts as marked.
    PlainStoresAtomic,
}

/// One access, as the detector is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) actor: ActorId,
    pub(crate) pa: Pa,
    pub(crate) bytes: u8,
    pub(crate) store: bool,
    pub(crate) flavor: Flavor,
    /// Loaded, or stored.
    pub(crate) value: u64,
    /// What was there, for a store.
    pub(crate) old: u64,
    pub(crate) step: u64,
}

/// A race: title without numbers, and the two accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Race {
    pub(crate) title: String,
    pub(crate) details: Vec<String>,
}

#[derive(Clone, Default)]
struct ActorState {
    clock: Clock,
    /// The clock at the last write or full barrier.
    fence: Clock,
    /// Function the actor is in, if the program says so.
    place: &'static str,
}

/// Clocks of actors and words, and the last accesses to each word.
pub(crate) struct RaceDetector {
    rules: RaceRules,
    /// Stores may reach memory in another order than they were made in, which is when they are told of.
    buffered: bool,
    actors: Vec<ActorState>,
    /// Clocks of locks, released words and wait queues, by address; look-up only.
    released: FxHashMap<u64, Clock>,
    cells: Cells,
}

impl RaceDetector {
    pub(crate) fn new(rules: RaceRules, buffered: bool) -> RaceDetector {
        RaceDetector { rules, buffered, actors: Vec::new(), released: FxHashMap::default(), cells: Cells::default() }
    }

    /// From here on `actor` is in `place`.
    pub(crate) fn enter(&mut self, actor: ActorId, place: &'static str) {
        self.actor(actor).place = place;
    }

    /// `creator` starts `actor`.
    pub(crate) fn create(&mut self, creator: ActorId, actor: ActorId) {
        let clock = std::mem::take(&mut self.actor(creator).clock);
        self.actor(actor).clock.join(&clock);
        self.actor(creator).clock = clock;
        self.tick(creator);
        self.tick(actor);
    }

    /// `actor` has seen `ended` end.
    pub(crate) fn join(&mut self, actor: ActorId, ended: ActorId) {
        let clock = std::mem::take(&mut self.actor(ended).clock);
        self.actor(actor).clock.join(&clock);
        self.actor(ended).clock = clock;
    }

    /// `actor` lets go of a lock, or wakes a queue, at `pa`.
    pub(crate) fn release(&mut self, actor: ActorId, pa: Pa) {
        let clock = std::mem::take(&mut self.actor(actor).clock);
        self.released.entry(pa.0).or_default().join(&clock);
        self.actor(actor).clock = clock;
        self.tick(actor);
    }

    /// `actor` has taken a lock, or was woken from a queue, at `pa`.
    pub(crate) fn acquire(&mut self, actor: ActorId, pa: Pa) {
        self.actor(actor);
        if let Some(clock) = self.released.get(&pa.0) {
            self.actors[actor.index()].clock.join(clock);
        }
    }

    /// `actor` passes a write or full barrier.
    pub(crate) fn barrier(&mut self, actor: ActorId) {
        let state = self.actor(actor);
        state.fence.copy(&state.clock);
        self.tick(actor);
    }

    /// `actor` gives `bytes` bytes at `pa` back to an allocator.
    pub(crate) fn free(&mut self, actor: ActorId, pa: Pa, bytes: u64) {
        let clock = std::mem::take(&mut self.actor(actor).clock);
        for block in (pa.0..pa.0 + bytes).step_by(FRAME_BYTES as usize) {
            self.released.entry(block).or_default().join(&clock);
        }
        self.actor(actor).clock = clock;
        self.tick(actor);
    }

    /// An allocator hands `bytes` bytes at `pa` to `actor`: they have no past, and whoever had them is done with them.
    pub(crate) fn allocate(&mut self, actor: ActorId, pa: Pa, bytes: u64) {
        self.cells.forget(pa, bytes);
        for block in (pa.0..pa.0 + bytes).step_by(FRAME_BYTES as usize) {
            self.acquire(actor, Pa(block));
        }
    }

    /// A generation has ended: nothing before can race with anything after.
    pub(crate) fn jump(&mut self) {
        self.cells.clear();
        self.released.clear();
    }

    /// Judges and remembers an access. An atomic operation that stores is told of as a load and then a store.
    pub(crate) fn access(&mut self, access: &Access) -> Option<Race> {
        let &Access { actor, pa, flavor, store, .. } = access;
        if !store && flavor != Flavor::Plain {
            self.acquire(actor, pa);
        }
        self.actor(actor);
        let place = self.actors[actor.index()].place;
        let epoch = self.actors[actor.index()].clock.of(actor).max(1);
        let atomic_store =
            self.rules == RaceRules::PlainStoresAtomic && store && pa.0.is_multiple_of(u64::from(access.bytes.next_power_of_two()));
        let marked = flavor != Flavor::Plain || atomic_store;
        let clock = &self.actors[actor.index()].clock;
        let race = self.cells.access(access, marked, epoch, place, |earlier| clock.of(earlier.actor) >= earlier.epoch);
        if store {
            match flavor {
                Flavor::Plain => {}
                // What a store overwrites is no longer found by later loads. Under store buffers nobody knows yet what overwrites what.
                Flavor::Once => {
                    let fence = std::mem::take(&mut self.actors[actor.index()].fence);
                    if !fence.is_zero() || self.released.contains_key(&pa.0) {
                        let released = self.released.entry(pa.0).or_default();
                        if self.buffered { released.join(&fence) } else { released.copy(&fence) }
                    }
                    self.actors[actor.index()].fence = fence;
                }
                Flavor::Ordered if !self.buffered => {
                    let clock = &self.actors[actor.index()].clock;
                    self.released.entry(pa.0).or_default().copy(clock);
                    self.tick(actor);
                }
                // An atomic operation hands on what it found, too.
                Flavor::Ordered | Flavor::Atomic => self.release(actor, pa),
            }
        }
        race.map(|earlier| report(&earlier, access, place))
    }

    fn actor(&mut self, actor: ActorId) -> &mut ActorState {
        if self.actors.len() <= actor.index() {
            self.actors.resize_with(actor.index() + 1, ActorState::default);
        }
        let state = &mut self.actors[actor.index()];
        if state.clock.of(actor) == 0 {
            state.clock.tick(actor);
        }
        state
    }

    fn tick(&mut self, actor: ActorId) {
        self.actor(actor).clock.tick(actor);
    }
}

fn report(earlier: &Past, access: &Access, place: &'static str) -> Race {
    let name = |place: &'static str| if place.is_empty() { "?" } else { place };
    let mut places = [name(earlier.place), name(place)];
    places.sort_unstable();
    let title = format!("data-race in {} / {}", places[0], places[1]);
    let line = |store: bool, marked: bool, bytes: u8, actor: ActorId, place: &'static str, step: u64| {
        let kind = if store { "write" } else { "read" };
        let marked = if marked { " (marked)" } else { "" };
        format!("{kind}{marked} of {bytes} bytes by {actor} in {} at step {step}", name(place))
    };
    let mut first = format!("pa {:#x}: ", earlier.pa.0);
    first += &line(earlier.store, earlier.marked, earlier.bytes, earlier.actor, earlier.place, earlier.step);
    let _ = write!(first, ", value {:#x}", earlier.value);
    let mut second = format!("pa {:#x}: ", access.pa.0);
    second += &line(access.store, access.flavor != Flavor::Plain, access.bytes, access.actor, place, access.step);
    let _ = match access.store {
        true => write!(second, ", value changed: {:#x} -> {:#x}", access.old, access.value),
        false => write!(second, ", value {:#x}", access.value),
    };
    Race { title, details: vec![first, second, "no lock, barrier, wake-up or creation orders the two".to_owned()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ActorId = ActorId(3);
    const B: ActorId = ActorId(7);
    const X: Pa = Pa(0x1000);
    const LOCK: Pa = Pa(0x2000);

    fn access(actor: ActorId, pa: Pa, bytes: u8, store: bool, flavor: Flavor) -> Access {
        Access { actor, pa, bytes, store, flavor, value: 1, old: 0, step: 5 }
    }

    type Step = dyn Fn(&mut RaceDetector) -> Option<Race>;

    /// The races among a sequence of accesses, with what stands between them.
    fn races(steps: &[&Step]) -> usize {
        let mut detector = RaceDetector::new(RaceRules::Strict, false);
        steps.iter().filter_map(|step| step(&mut detector)).count()
    }

    fn plain(actor: ActorId, store: bool) -> impl Fn(&mut RaceDetector) -> Option<Race> {
        move |detector| detector.access(&access(actor, X, 8, store, Flavor::Plain))
    }
    fn of(actor: ActorId, pa: Pa, store: bool, flavor: Flavor) -> impl Fn(&mut RaceDetector) -> Option<Race> {
        move |detector| detector.access(&access(actor, pa, 8, store, flavor))
    }
    fn tell(what: impl Fn(&mut RaceDetector)) -> impl Fn(&mut RaceDetector) -> Option<Race> {
        move |detector| {
            what(detector);
            None
        }
    }

    #[test]
    fn two_plain_accesses_race_when_one_is_a_store() {
        assert_eq!(races(&[&plain(A, true), &plain(B, true)]), 1);
        assert_eq!(races(&[&plain(A, true), &plain(B, false)]), 1);
        assert_eq!(races(&[&plain(A, false), &plain(B, true)]), 1);
        assert_eq!(races(&[&plain(A, false), &plain(B, false)]), 0);
        assert_eq!(races(&[&plain(A, true), &plain(A, true)]), 0);
    }

    #[test]
    fn marked_accesses_race_with_plain_ones_only() {
        for flavor in [Flavor::Once, Flavor::Ordered, Flavor::Atomic] {
            assert_eq!(races(&[&of(A, X, true, Flavor::Once), &of(B, X, true, flavor)]), 0, "{flavor:?}");
            assert_eq!(races(&[&of(A, X, true, flavor), &plain(B, false)]), 1, "{flavor:?}");
            assert_eq!(races(&[&plain(A, true), &of(B, X, false, flavor)]), 1, "{flavor:?}");
        }
    }

    #[test]
    fn bytes_of_one_word_that_do_not_overlap_do_not_race() {
        let byte =
            |actor, offset| move |detector: &mut RaceDetector| detector.access(&access(actor, Pa(X.0 + offset), 1, true, Flavor::Plain));
        assert_eq!(races(&[&byte(A, 0), &byte(B, 1)]), 0);
        assert_eq!(races(&[&byte(A, 1), &byte(B, 1)]), 1);
        assert_eq!(races(&[&byte(A, 1), &plain(B, false)]), 1);
        let across = |detector: &mut RaceDetector| detector.access(&access(A, Pa(X.0 + 4), 8, true, Flavor::Plain));
        assert_eq!(races(&[&across, &of(B, Pa(X.0 + 8), false, Flavor::Plain)]), 1, "an unaligned store reaches the next word");
    }

    #[test]
    fn a_lock_orders_and_another_lock_does_not() {
        let unlock = |pa| tell(move |d| d.release(A, pa));
        let lock = |pa| tell(move |d| d.acquire(B, pa));
        assert_eq!(races(&[&plain(A, true), &unlock(LOCK), &lock(LOCK), &plain(B, true)]), 0);
        assert_eq!(races(&[&plain(A, true), &unlock(LOCK), &lock(Pa(0x2008)), &plain(B, true)]), 1);
        assert_eq!(races(&[&unlock(LOCK), &plain(A, true), &lock(LOCK), &plain(B, true)]), 1, "stored after the unlock");
    }

    #[test]
    fn a_release_store_orders_what_stands_before_it_and_a_marked_store_only_behind_a_barrier() {
        let flag = Pa(0x3000);
        let seen = of(B, flag, false, Flavor::Ordered);
        let barrier = tell(|d| d.barrier(A));
        assert_eq!(races(&[&plain(A, true), &of(A, flag, true, Flavor::Ordered), &seen, &plain(B, false)]), 0);
        assert_eq!(races(&[&plain(A, true), &of(A, flag, true, Flavor::Once), &seen, &plain(B, false)]), 1);
        assert_eq!(races(&[&plain(A, true), &barrier, &of(A, flag, true, Flavor::Once), &seen, &plain(B, false)]), 0);
        assert_eq!(races(&[&barrier, &plain(A, true), &of(A, flag, true, Flavor::Once), &seen, &plain(B, false)]), 1);
    }

    #[test]
    fn a_release_store_hands_on_nothing_of_what_it_overwrites_and_an_atomic_operation_does() {
        let (c, flag) = (ActorId(1), Pa(0x3000));
        let (released, seen) = (of(A, flag, true, Flavor::Ordered), of(B, flag, false, Flavor::Ordered));
        for (flavor, count) in [(Flavor::Ordered, 1), (Flavor::Once, 1), (Flavor::Atomic, 0)] {
            assert_eq!(races(&[&plain(A, true), &released, &of(c, flag, true, flavor), &seen, &plain(B, false)]), count, "{flavor:?}");
        }
    }

    #[test]
    fn a_joined_actor_comes_before_what_its_joiner_does_next() {
        assert_eq!(races(&[&plain(A, true), &tell(|d| d.join(B, A)), &plain(B, true)]), 0);
        assert_eq!(races(&[&plain(A, true), &tell(|d| d.join(ActorId(1), A)), &plain(B, true)]), 1);
    }

    #[test]
    fn creation_a_new_life_and_the_jump_order() {
        assert_eq!(races(&[&plain(A, true), &tell(|d| d.create(A, B)), &plain(B, true)]), 0);
        assert_eq!(races(&[&tell(|d| d.create(A, B)), &plain(A, true), &plain(B, true)]), 1);
        assert_eq!(races(&[&plain(A, true), &tell(|d| d.allocate(B, X, 8)), &plain(B, true)]), 0);
        assert_eq!(races(&[&plain(A, true), &tell(RaceDetector::jump), &plain(B, true)]), 0);
    }

    #[test]
    fn what_belongs_to_memory_is_handed_on_with_it() {
        // The descriptor of a frame lies elsewhere: only the allocator orders its last user before its next one.
        let (frame, other, descriptor) = (Pa(0x8000), Pa(0x9000), of(A, X, true, Flavor::Plain));
        let free = tell(move |d| d.free(A, frame, 0x1000));
        assert_eq!(races(&[&descriptor, &free, &tell(move |d| d.allocate(B, frame, 0x1000)), &plain(B, true)]), 0);
        assert_eq!(races(&[&descriptor, &free, &tell(move |d| d.allocate(B, other, 0x1000)), &plain(B, true)]), 1);
    }

    #[test]
    fn as_kcsan_is_shipped_plain_stores_race_with_plain_loads_alone() {
        for (second, flavor, count) in [(true, Flavor::Plain, 0), (false, Flavor::Once, 0), (false, Flavor::Plain, 1)] {
            let mut detector = RaceDetector::new(RaceRules::PlainStoresAtomic, false);
            detector.access(&access(A, X, 8, true, Flavor::Plain));
            let race = detector.access(&access(B, X, 8, second, flavor));
            assert_eq!(usize::from(race.is_some()), count, "{second} {flavor:?}");
        }
    }

    #[test]
    fn the_report_names_both_accesses_and_the_title_has_no_numbers() {
        let mut detector = RaceDetector::new(RaceRules::Strict, false);
        detector.enter(A, "luo_preserve");
        detector.enter(B, "kho_scratch");
        detector.access(&access(A, X, 8, true, Flavor::Plain));
        let race = detector.access(&access(B, Pa(X.0 + 4), 4, false, Flavor::Once)).expect("they race");
        assert_eq!(race.title, "data-race in kho_scratch / luo_preserve");
        assert_eq!(race.details[0], "pa 0x1000: write of 8 bytes by a3 in luo_preserve at step 5, value 0x1");
        assert_eq!(race.details[1], "pa 0x1004: read (marked) of 4 bytes by a7 in kho_scratch at step 5, value 0x1");
    }
}
