//! The same comparison in scalable mode: PASID cache, first stages, and second stages behind PASIDs. Neither stage is nested.
//!
//! What is new against legacy mode: translations and pointers of a first stage are tagged with domain and PASID, those of a
//! second stage with the domain alone; an entry of the PASID table is cached between the context and both.

mod model;
mod reference;
mod world;

use world::{Ask, Command, Edit, Op, Pages, commands, edits};

const FIRST: Ask = Ask { pasid: Some(1), page: 0, write: false };
const SECOND: Ask = Ask { pasid: None, page: 0, write: false };

/// Both ways, for a request, an edit, an invalidation, and another request.
#[test]
fn behind_pasids_the_model_reaches_what_the_manual_allows_and_nothing_else() {
    let lasts = [FIRST, Ask { write: true, ..FIRST }, Ask { page: 1, ..FIRST }, SECOND];
    let (mut sequences, mut several) = (0, 0);
    for edit in edits() {
        for command in commands().into_iter().map(Some).chain([None]) {
            for last in lasts {
                let first = if last.pasid.is_some() { FIRST } else { SECOND };
                let mut ops = vec![Op::Ask(first), Op::Edit(edit)];
                ops.extend(command.map(Op::Invalidate));
                ops.push(Op::Ask(last));
                let (allowed, reached) = (reference::traces(&ops), model::traces(&ops));
                assert_eq!(allowed, reached, "{ops:?}");
                sequences += 1;
                several += usize::from(allowed.len() > 1);
            }
        }
    }
    assert!(sequences > 500 && several > 100, "{several} of {sequences} have several traces");
}

/// The order of Linux's tear-down: PASID cache before IOTLB. The other order lets the stale entry refill what was removed.
#[test]
fn the_pasid_cache_goes_before_the_translations() {
    let pasid = Op::Invalidate(Command::PasidOne { domain: 1, pasid: 1 });
    let pages = Op::Invalidate(Command::PasidIotlb { domain: 1, pasid: 1, pages: None });
    let edit = Op::Edit(Edit::First { pasid: 1, set: 1, domain: 1 });
    for (order, allowed) in [(vec![pasid, pages], 1), (vec![pages, Op::Ask(FIRST), pasid], 3), (vec![pages], 2), (vec![pasid], 2)] {
        let ops = [vec![Op::Ask(FIRST), edit], order, vec![Op::Ask(FIRST)]].concat();
        let (traces, reached) = (reference::traces(&ops), model::traces(&ops));
        assert_eq!(traces, reached, "{ops:?}");
        assert_eq!(traces.len(), allowed, "{ops:?}: {traces:?}");
    }
}

#[test]
fn a_pasid_selective_invalidation_spares_the_other_pasid_and_the_second_stage() {
    let unmapped = Op::Edit(Edit::Leaf { first: false, page: 0, flags: 0 });
    let of_first = Op::Invalidate(Command::PasidIotlb { domain: 1, pasid: 1, pages: None });
    let of_second = Op::Invalidate(Command::IotlbPages { domain: 1, pages: Pages { page: 0, order: 0, leaf_only: true } });
    for (command, allowed) in [(of_first, 2), (of_second, 1)] {
        let ops = [Op::Ask(SECOND), unmapped, command, Op::Ask(SECOND)];
        let traces = reference::traces(&ops);
        assert_eq!(traces, model::traces(&ops));
        assert_eq!(traces.len(), allowed, "{command:?}");
    }
}
