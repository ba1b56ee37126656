//! An independent, set-valued reference: what the manual allows a unit to answer, given that its caches may hold, keep or
//! drop anything legal. Every outcome of the model is a member of that set, and every member is reached by some choices.
//!
//! QEMU has no paging-structure caches and no PASID cache, and caches contexts its own way, so it cannot arbitrate these; this can.
//! VT-d in legacy mode with a device TLB and requests in flight is here and in `race`; PASIDs and first stages are in `scalable`;
//! SMMUv3, AMD-Vi and RISC-V are in `others`. Not here: nested translation, A and D updates, page requests.

mod model;
mod others;
mod race;
mod reference;
mod scalable;
mod world;

use iommu_model::Question;
use proptest::prelude::*;
use world::{Ask, Command, Edit, Op, Outcome, To, asks, commands, edits};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        2 => prop::sample::select(edits()).prop_map(Op::Edit),
        2 => prop::sample::select(commands()).prop_map(Op::Invalidate),
        2 => prop::sample::select(asks()).prop_map(Op::Ask),
        2 => (0usize..2, any::<bool>()).prop_map(|(page, write)| Op::Device { page, write }),
        2 => (prop::sample::select(asks()), 0usize..6, prop::sample::select(edits()), prop::option::of(prop::sample::select(commands())))
            .prop_map(|(ask, at, edit, command)| Op::Race { ask, at, edit, command: command.filter(|command| command.is_of_unit()) }),
    ];
    prop::collection::vec(op, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn whatever_the_model_answers_the_manual_allows(
        ops in ops(),
        answers in prop::collection::vec(0u32..3, 1..9),
        drops in prop::collection::vec(0usize..12, 1..5),
    ) {
        let mut n = 0;
        let mut d = |question: Question| {
            n += 1;
            answers[n % answers.len()].min(question.options() - 1)
        };
        let trace = model::trace(&ops, &drops, &mut d);
        prop_assert!(reference::traces(&ops).contains(&trace), "{trace:?} is not allowed");
    }
}

const READ: Ask = Ask { source: 0, page: 0, write: false };

/// Both ways, for a request, any one or two things that happen, and another request.
#[test]
fn whatever_the_manual_allows_some_choices_of_the_model_reach() {
    let happens: Vec<Op> = edits().into_iter().map(Op::Edit).chain(commands().into_iter().map(Op::Invalidate)).collect();
    let lasts = [READ, Ask { write: true, ..READ }, Ask { page: 1, ..READ }, Ask { source: 1, ..READ }];
    let (mut sequences, mut traces, mut several) = (0, 0, 0);
    for (n, &first) in happens.iter().enumerate() {
        for (k, &second) in happens.iter().enumerate() {
            // An edit before anything, or the same one twice, says nothing new.
            if n == k || matches!(first, Op::Invalidate(_)) {
                continue;
            }
            for last in lasts {
                let ops = [Op::Ask(READ), first, second, Op::Ask(last)];
                let (allowed, reached) = (reference::traces(&ops), model::traces(&ops));
                assert_eq!(allowed, reached, "{ops:?}");
                sequences += 1;
                traces += allowed.len();
                several += usize::from(allowed.len() > 1);
            }
        }
    }
    assert!(sequences > 2000 && several > 800 && traces > sequences, "{sequences} sequences, {several} with several of {traces} traces");
}

/// Longer ones, where entries made at different times meet.
#[test]
fn entries_of_different_ages_meet_in_the_model_as_the_manual_allows() {
    let edits = [
        Edit::Top { tables: 0, middles: 1 },
        Edit::Leaf { tables: 0, page: 0, flags: 1 },
        Edit::Middle { tables: 0, to: To::Superpage },
        Edit::Context { source: 0, tables: 1, domain: 1 },
    ];
    let commands = [
        Command::ContextDevice { source: 0, domain: 1 },
        Command::IotlbDomain { domain: 1 },
        Command::IotlbPages { domain: 1, page: 0, order: 0, leaf_only: true },
        Command::IotlbPages { domain: 1, page: 0, order: 9, leaf_only: false },
    ];
    for edit in edits {
        for other in edits {
            for command in commands {
                let ops = [
                    Op::Ask(READ),
                    Op::Edit(edit),
                    Op::Ask(Ask { page: 1, ..READ }),
                    Op::Edit(other),
                    Op::Invalidate(command),
                    Op::Ask(Ask { write: true, ..READ }),
                ];
                assert_eq!(reference::traces(&ops), model::traces(&ops), "{ops:?}");
            }
        }
    }
}

/// A store lands between any two fetches of a walk; what is cached then is asked for again.
#[test]
fn a_walk_that_races_with_a_store_ends_in_the_model_as_the_manual_allows() {
    let (mut several, mut sequences) = (0, 0);
    for edit in edits() {
        for at in 0..6 {
            for ask in [READ, Ask { write: true, ..READ }] {
                for warm in [false, true] {
                    let race = Op::Race { ask, at, edit, command: None };
                    let first = if warm { vec![Op::Ask(Ask { page: 1, ..READ })] } else { Vec::new() };
                    let ops = [first, vec![race, Op::Ask(READ)]].concat();
                    let (allowed, reached) = (reference::traces(&ops), model::traces(&ops));
                    assert_eq!(allowed, reached, "{ops:?}");
                    several += usize::from(allowed.len() > 1);
                    sequences += 1;
                }
            }
        }
    }
    assert!(several > 100 && sequences > 400, "{several} of {sequences}");
}

/// An invalidation completes inside a walk: nothing that it covers comes out of that walk, or is left behind by it.
#[test]
fn a_walk_that_an_invalidation_overtakes_uses_nothing_of_what_was_removed() {
    let mut sequences = 0;
    for edit in edits() {
        for command in commands().into_iter().filter(|command| command.is_of_unit()) {
            for at in 1..5 {
                let race = Op::Race { ask: READ, at, edit, command: Some(command) };
                for ops in [vec![race, Op::Ask(READ)], vec![Op::Ask(Ask { page: 1, ..READ }), race, Op::Ask(READ)]] {
                    let (allowed, reached) = (reference::traces(&ops), model::traces(&ops));
                    assert!(reached.is_subset(&allowed), "{ops:?}: {reached:?} of {allowed:?}");
                    sequences += 1;
                }
            }
        }
    }
    assert!(sequences > 2000, "{sequences}");
}

/// Through a device TLB, in every order of the two invalidations.
#[test]
fn a_device_tlb_answers_as_the_manual_allows() {
    let device = Op::Device { page: 0, write: false };
    let flush = Op::Invalidate(Command::IotlbPages { domain: 1, page: 0, order: 0, leaf_only: true });
    let told = [Op::Invalidate(Command::DeviceAll), Op::Invalidate(Command::DevicePage { page: 0 })];
    let lasts = [device, Op::Device { page: 0, write: true }, Op::Device { page: 1, write: false }, Op::Ask(READ)];
    for edit in edits() {
        for told in told {
            for order in [vec![flush, told], vec![told, flush], vec![told, device, flush], vec![flush], vec![told]] {
                for last in lasts {
                    let ops = [vec![device, Op::Edit(edit)], order.clone(), vec![last]].concat();
                    assert_eq!(reference::traces(&ops), model::traces(&ops), "{ops:?}");
                }
            }
        }
    }
}

#[test]
fn the_reference_itself_knows_stale_and_fresh() {
    let unmapped = Edit::Leaf { tables: 0, page: 0, flags: 0 };
    let flush = Command::IotlbPages { domain: 1, page: 0, order: 0, leaf_only: true };
    let old = Outcome::Page { pa: 0x10_0000, readable: true, writable: true };
    let stale = reference::traces(&[Op::Ask(READ), Op::Edit(unmapped), Op::Ask(READ)]);
    assert_eq!(stale, [vec![old, old], vec![old, Outcome::Fault(6)]].into());
    let clean = reference::traces(&[Op::Ask(READ), Op::Edit(unmapped), Op::Invalidate(flush), Op::Ask(READ)]);
    assert_eq!(clean, [vec![old, Outcome::Fault(6)]].into());
}
