//! Whatever software does, in whatever order, and whatever the hardware may choose: no result of the model comes from a word
//! that an invalidation has cleaned away. The same four pages on each architecture, below one of two leaf tables.

use super::run;
use iommu_model::slot::{Checker, Event, Rules};
use iommu_model::translator::Translator;
use iommu_model::{Access, Bdf, Decisions, Fetched, Geometry, Iova, Pa, Params, Progress, Question, Request};
use proptest::prelude::*;

/// The device's entry, and what it leads to.
pub(crate) const DEVICE_TABLE: u64 = 1;
pub(crate) const CONTEXT: u64 = 2;
pub(crate) const TOP: u64 = 3;
pub(crate) const MIDDLE: u64 = 4;
/// Leaf tables.
pub(crate) const LEAVES: [u64; 2] = [6, 8];
const FRAMES: usize = 16;

/// Pages that an invalidation names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// A page, leaves only or all that leads there.
    Page { page: u64, leaf_only: bool },
    /// Everything of the address space.
    All,
}

/// What an architecture brings.
pub(crate) trait Architecture: Translator {
    type Rules: Rules<Command: std::fmt::Debug>;

    /// A unit that is on, with small caches.
    fn unit(params: Params) -> Self;
    fn rules() -> Self::Rules;
    /// The words that lead to the top table, by address.
    fn outer_words() -> Vec<(Pa, u64)>;
    fn pointer(level: u8, frame: u64) -> u64;
    fn leaf(frame: u64) -> u64;
    /// Of the entry that maps or leads to these; level 1 maps 4 KiB, 2 leads to such.
    fn declare(checker: &mut Checker<Self::Rules>, pa: Pa, level: u8, first: Iova, span_bytes: u64, word: u64);
    /// Carries an invalidation out, and a wait behind it.
    fn invalidate(&mut self, scope: Scope, d: &mut dyn Decisions) -> <Self::Rules as Rules>::Command;
}

struct Watched<A: Architecture> {
    unit: A,
    words: Vec<u64>,
    checker: Checker<A::Rules>,
}

#[derive(Clone, Debug)]
enum Act {
    Store { which: usize, value: u64 },
    Invalidate(Scope),
    Read { page: u64, at: usize, between: Vec<Self> },
}

impl<A: Architecture> Watched<A> {
    fn new() -> Self {
        let two = Geometry { sets: 1, ways: 2 };
        let params = Params { iotlb: two, psc: [two; 4], ..Params::default() };
        let mut it = Self { unit: A::unit(params), words: vec![0; FRAMES * 512], checker: Checker::new(A::rules()) };
        for (pa, word) in A::outer_words() {
            it.words[(pa.0 / 8) as usize] = word;
        }
        it.words[TOP as usize * 512] = A::pointer(3, MIDDLE);
        it.words[MIDDLE as usize * 512] = A::pointer(2, LEAVES[0]);
        A::declare(&mut it.checker, Pa(MIDDLE << 12), 2, Iova(0), 2 << 20, A::pointer(2, LEAVES[0]));
        for table in LEAVES {
            for page in 0..4 {
                let (pa, word) = (Pa((table << 12) + page * 8), A::leaf(0x100 + table * 16 + page));
                it.words[(pa.0 / 8) as usize] = word;
                A::declare(&mut it.checker, pa, 1, Iova(page << 12), 4096, word);
            }
        }
        it
    }

    fn read(&mut self, page: u64, at: usize, between: &[Act], d: &mut dyn Decisions) -> Result<(), TestCaseError> {
        let request = Request { source: Bdf(0), iova: Iova(page << 12), access: Access::Read, pasid: None };
        let walk = self.unit.begin(request).expect("a walker is free");
        let (mut answer, mut fetches) = (None, 0);
        loop {
            let progress = self.unit.advance(walk, answer.take(), d);
            if let Progress::Fetch { pa, bytes, .. } = progress {
                let words: [u64; 8] = core::array::from_fn(|n| self.words.get((pa.0 / 8) as usize + n).copied().unwrap_or(0));
                if fetches == at {
                    // Plain to begin with, then anything.
                    let mut answers = 0u32;
                    let mut inner = |question: Question| {
                        answers += 1;
                        answers / 3 % question.options()
                    };
                    between.iter().try_for_each(|act| self.perform(act, &mut inner))?;
                }
                fetches += 1;
                answer = Some(if bytes <= 16 { Fetched::Words([words[0], words[1]]) } else { Fetched::Wide(words) });
            } else if progress.is_end() {
                break;
            }
        }
        for word in &self.unit.last_provenance() {
            let used = run(&mut self.checker, &[Event::Used { pa: word.pa, value: word.value }]);
            prop_assert!(used.is_ok(), "{used:?}");
        }
        Ok(())
    }

    fn perform(&mut self, act: &Act, d: &mut dyn Decisions) -> Result<(), TestCaseError> {
        match act {
            Act::Store { which, value } => {
                let pa = match *which {
                    which @ 0..8 => Pa((LEAVES[which / 4] << 12) + (which as u64 % 4) * 8),
                    _ => Pa(MIDDLE << 12),
                };
                let word = match (*value, *which) {
                    (0, _) => 0,
                    (value, 8) => A::pointer(2, LEAVES[value as usize % 2]),
                    (value, which) => A::leaf(0x200 + which as u64 * 16 + value),
                };
                self.words[(pa.0 / 8) as usize] = word;
                // What software does here need not be allowed; what hardware makes of it is judged.
                let _ = self.checker.step(&Event::Stored { pa, value: word });
            }
            Act::Invalidate(scope) => {
                let command = self.unit.invalidate(*scope, d);
                for event in [Event::Issued(command), Event::Waited] {
                    prop_assert!(self.checker.step(&event).is_ok());
                }
            }
            Act::Read { page, at, between } => self.read(*page, *at, between, d)?,
        }
        Ok(())
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let store = (0usize..9, 0u64..6).prop_map(|(which, value)| Act::Store { which, value });
    let scope = prop_oneof![
        3 => (0u64..4, any::<bool>()).prop_map(|(page, leaf_only)| Scope::Page { page, leaf_only }),
        1 => Just(Scope::All),
    ];
    let simple = prop_oneof![3 => store, 4 => scope.prop_map(Act::Invalidate)];
    let read =
        (0u64..4, 0usize..6, prop::collection::vec(simple.clone(), 0..4)).prop_map(|(page, at, between)| Act::Read { page, at, between });
    prop::collection::vec(prop_oneof![2 => simple, 3 => read], 1..60)
}

/// The property, and that the walks it watches do go down to their leaves.
pub(crate) fn never_uses_what_was_cleaned_away<A: Architecture>() {
    let mut it = Watched::<A>::new();
    for page in 0..4 {
        it.read(page, 99, &[], &mut iommu_model::Plain).expect("nothing is stale");
        let last = it.unit.last_provenance().last().expect("it has words").pa;
        assert_eq!(last, Pa((LEAVES[0] << 12) + page * 8), "page {page}");
    }
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) });
    let result = runner.run(&(acts(), prop::collection::vec(0u32..4, 1..8)), |(acts, answers)| {
        let mut it = Watched::<A>::new();
        let mut n = 0;
        let mut d = |question: Question| {
            n += 1;
            answers[n % answers.len()].min(question.options() - 1)
        };
        acts.iter().try_for_each(|act| it.perform(act, &mut d))
    });
    result.unwrap_or_else(|failed| panic!("{failed}"));
}
