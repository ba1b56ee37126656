//! What is the same for SMMUv3, AMD-Vi and RISC-V: walks that begin, are driven, given up or left behind.

use super::input::{Bytes, Choices};
use iommu_model::{FetchKind, Fetched, Pa, Progress, WalkId};

/// Whether the inputs reach anything.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Reached {
    pub(crate) translations: u64,
    pub(crate) faults: u64,
    pub(crate) updates: u64,
    pub(crate) invalidations: u64,
    /// A queue stopped at an error.
    pub(crate) stops: u64,
    /// Fault records were written.
    pub(crate) records: u64,
}

/// A unit under fire.
pub(crate) trait Target {
    /// Most fetches of a walk that nobody restarts.
    const FETCHES_MAX: u32;
    /// Most updates of one, each tried again as often as the unit does.
    const UPDATES_MAX: u32;
    /// Most walks in flight.
    const WALKS_MAX: usize;

    /// Reset; on more often than by chance.
    fn start(&mut self, bytes: &mut Bytes<'_>);
    /// A request, prefetch or message, if a walker is free.
    fn begin(&mut self, bytes: &mut Bytes<'_>) -> Option<WalkId>;
    fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut Choices) -> Progress;
    /// What a walk waits for.
    fn awaited(&self, walk: WalkId) -> Option<(Pa, FetchKind)>;
    fn cancel(&mut self, walk: WalkId) -> bool;
    fn in_flight_count(&self) -> usize;
    /// What memory holds.
    fn answer(&self, bytes: &mut Bytes<'_>, pa: Pa, kind: FetchKind) -> Fetched;
    /// Registers, queues, caches. Must leave walks in flight.
    fn disturb(&mut self, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices);
}

/// What memory holds whatever was asked for; none if it is to be what belongs there.
pub(crate) fn hostile(bytes: &mut Bytes<'_>) -> Option<Fetched> {
    match bytes.below(4 * bytes.hostility) {
        0 => Some(Fetched::NoMemory),
        1 => Some(Fetched::Words([bytes.entry(), bytes.entry()])),
        2 | 3 => Some(Fetched::Wide([(); 8].map(|()| bytes.entry()))),
        _ => None,
    }
}

fn check(progress: &Progress, reached: &mut Reached) {
    match progress {
        Progress::Fetch { pa, bytes, .. } => assert!(pa.is_aligned(u64::from(*bytes).min(8)), "{pa} for {bytes} bytes"),
        Progress::Update { pa, old, new, .. } => {
            assert!(pa.is_aligned(8) && old != new, "an update changes something");
            reached.updates += 1;
        }
        Progress::Done(translation) => {
            assert!(translation.page_bytes.is_power_of_two());
            reached.translations += 1;
        }
        Progress::Fault(_) => reached.faults += 1,
        _ => {}
    }
}

/// One input.
pub(crate) fn run<T: Target>(target: &mut T, bytes: &mut Bytes<'_>, reached: &mut Reached) {
    let mut d = Choices(bytes.word());
    bytes.hostility = [1, 4, 16, 256][bytes.below(4) as usize];
    target.start(bytes);
    let mut walks: Vec<WalkId> = Vec::with_capacity(4);
    for _ in 0..bytes.below(24) + 1 {
        match bytes.below(16) {
            0..4 => walks.extend(target.begin(bytes)),
            4..9 => {
                let Some(n) = (!walks.is_empty()).then(|| bytes.below(walks.len() as u64) as usize) else { continue };
                let asked = target.awaited(walks[n]);
                let brought = asked.map(|(pa, kind)| target.answer(bytes, pa, kind));
                let progress = target.advance(walks[n], brought, &mut d);
                check(&progress, reached);
                if progress.is_end() {
                    walks.remove(n);
                }
            }
            9 | 10 => {
                if let Some(walk) = walks.pop() {
                    finish(target, reached, walk, bytes, &mut d);
                }
            }
            11 => {
                if let Some(walk) = walks.pop() {
                    assert!(target.cancel(walk));
                }
            }
            _ => target.disturb(bytes, reached, &mut d),
        }
        assert!(target.in_flight_count() == walks.len() && walks.len() <= T::WALKS_MAX);
    }
    for walk in walks.drain(..) {
        finish(target, reached, walk, bytes, &mut d);
    }
    assert_eq!(target.in_flight_count(), 0);
}

/// Drives a walk to its end.
fn finish<T: Target>(target: &mut T, reached: &mut Reached, walk: WalkId, bytes: &mut Bytes<'_>, d: &mut Choices) {
    let asked = target.awaited(walk);
    let mut brought = asked.map(|(pa, kind)| target.answer(bytes, pa, kind));
    let (mut fetches, mut updates) = (0, 0);
    for _ in 0..4000 {
        let progress = target.advance(walk, brought.take(), d);
        check(&progress, reached);
        match progress {
            Progress::Fetch { pa, kind, .. } => {
                fetches += 1;
                assert!(fetches <= T::FETCHES_MAX, "more fetches than levels");
                brought = Some(target.answer(bytes, pa, kind));
            }
            Progress::Update { old, .. } => {
                updates += 1;
                assert!(updates <= T::UPDATES_MAX, "more updates than tries");
                brought = Some(Fetched::word(if bytes.below(2) == 0 { old } else { bytes.entry() }));
            }
            Progress::Merged { .. } => {
                assert!(target.cancel(walk));
                return;
            }
            progress if progress.is_end() => return,
            _ => {}
        }
    }
    panic!("a walk without end");
}

/// Inputs `first` and those after it, each on one of the targets.
pub(crate) fn fuzz<T: Target>(targets: &mut [T], inputs: u64, first: u64) -> Reached {
    let mut reached = Reached::default();
    for n in first..first + inputs {
        let mut bytes = Bytes::numbered(n);
        let which = bytes.below(targets.len() as u64) as usize;
        run(&mut targets[which], &mut bytes, &mut reached);
    }
    reached
}

/// Whether everything was reached so often.
pub(crate) fn all_reached(reached: &Reached, least: u64) -> bool {
    let Reached { translations, faults, updates, invalidations, stops, records } = *reached;
    [translations, faults, updates, invalidations, stops, records].iter().all(|count| *count > least)
}
