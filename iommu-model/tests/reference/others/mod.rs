//! The same comparison for the other architectures: one function, tables of three levels, pages of 4 KiB; stage 2 of an SMMU,
//! host tables of AMD-Vi, the first stage of a RISC-V IOMMU.
//!
//! Their caches are alike: what leads to the tables, pointers, pages, the last two tagged by the domain (VMID, DomainID, PSCID). What
//! differs is in [`Rules`](reference::Rules). Bits are written down in each architecture's module, not taken from the crate's
//! layouts.

mod amd;
mod machine;
mod reference;
mod riscv;
mod smmu;
mod world;

use crate::model::Odometer;
use machine::Machine;
use reference::Rules;
use world::{Ask, Command, Edit, Format, Op, commands, edits};

const READ: Ask = Ask { page: 0, write: false };
const WRITE: Ask = Ask { page: 0, write: true };
const OTHER: Ask = Ask { page: 1, write: false };

/// Both ways: for a request, one or two things that happen, and another request. The second number is of sequences that may
/// end in several ways.
fn compare<M: Machine>(format: Format, rules: Rules) -> (usize, usize) {
    let (mut sequences, mut several) = (0, 0);
    let mut both = |ops: &[Op]| {
        let (allowed, reached) = (reference::traces(format, rules, ops), machine::traces::<M>(format, rules.caches_missing, ops));
        assert_eq!(allowed, reached, "{ops:?}");
        sequences += 1;
        several += usize::from(allowed.len() > 1);
    };
    let happens: Vec<Op> = edits().into_iter().map(Op::Edit).chain(commands().into_iter().map(Op::Invalidate)).collect();
    for edit in edits() {
        for last in [READ, WRITE, OTHER] {
            both(&[Op::Ask(READ), Op::Edit(edit), Op::Ask(last)]);
            for &second in happens.iter().filter(|second| **second != Op::Edit(edit)) {
                both(&[Op::Ask(READ), Op::Edit(edit), second, Op::Ask(last)]);
            }
        }
    }
    // What was missing comes.
    for (gone, back) in [
        (Edit::Detach, Edit::Context { tables: 0, domain: 1 }),
        (Edit::NoMiddle { tables: 0 }, Edit::Middle { tables: 0, leaves: 0 }),
        (Edit::Leaf { tables: 0, page: 0, flags: 0 }, Edit::Leaf { tables: 0, page: 0, flags: 3 }),
        (Edit::Leaf { tables: 0, page: 0, flags: 1 }, Edit::Leaf { tables: 0, page: 0, flags: 3 }),
    ] {
        for command in commands().into_iter().map(Some).chain([None]) {
            let command: Vec<_> = command.map(Op::Invalidate).into_iter().collect();
            both(&[vec![Op::Edit(gone), Op::Ask(WRITE), Op::Edit(back)], command, vec![Op::Ask(WRITE)]].concat());
        }
    }
    // Entries of different ages meet.
    for edit in [Edit::Top { tables: 0, middles: 1 }, Edit::Context { tables: 1, domain: 1 }, Edit::Leaf { tables: 0, page: 0, flags: 1 }] {
        for command in [Command::Context, Command::Page { domain: 1, page: 0, non_leaf: false }, Command::Domain { domain: 1 }] {
            for other in [Edit::Middle { tables: 0, leaves: 1 }, Edit::Leaf { tables: 1, page: 1, flags: 3 }] {
                let ops = [Op::Ask(READ), Op::Edit(edit), Op::Ask(OTHER), Op::Edit(other), Op::Invalidate(command), Op::Ask(WRITE)];
                both(&ops);
            }
        }
    }
    (sequences, several)
}

#[test]
fn an_smmu_reaches_what_the_manual_allows_and_nothing_else() {
    let (sequences, several) = compare::<iommu_model::smmu::Unit>(smmu::FORMAT, smmu::RULES);
    assert!(sequences > 400 && several > 200, "{several} of {sequences}");
}

#[test]
fn amd_vi_reaches_what_the_manual_allows_and_nothing_else() {
    let (sequences, several) = compare::<iommu_model::amd::Unit>(amd::FORMAT, amd::RULES);
    assert!(sequences > 400 && several > 200, "{several} of {sequences}");
}

#[test]
fn amd_vi_that_caches_what_is_missing_does_no_more_than_that() {
    let rules = Rules { caches_missing: true, ..amd::RULES };
    let (sequences, several) = compare::<iommu_model::amd::Unit>(amd::FORMAT, rules);
    let (_, without) = compare::<iommu_model::amd::Unit>(amd::FORMAT, amd::RULES);
    assert!(several > without, "{several} of {sequences}, {without} without");
}

#[test]
fn a_riscv_iommu_reaches_what_the_manual_allows_and_nothing_else() {
    let (sequences, several) = compare::<iommu_model::riscv::Unit>(riscv::FORMAT, riscv::RULES);
    assert!(sequences > 400 && several > 200, "{several} of {sequences}");
}

/// The order of every tear-down: what leads to the tables goes before what was cached of them. The other order lets the stale
/// entry refill what was removed.
#[test]
fn the_outer_entry_goes_before_the_translations_on_every_architecture() {
    fn order<M: Machine>(format: Format, rules: Rules) {
        let (context, pages) = (Op::Invalidate(Command::Context), Op::Invalidate(Command::Domain { domain: 1 }));
        let edit = Op::Edit(Edit::Context { tables: 1, domain: 1 });
        for (between, allowed) in
            [(vec![context, pages], 1), (vec![pages, Op::Ask(READ), context], 3), (vec![pages], 2), (vec![context], 2)]
        {
            let ops = [vec![Op::Ask(READ), edit], between, vec![Op::Ask(READ)]].concat();
            let traces = reference::traces(format, rules, &ops);
            assert_eq!(traces, machine::traces::<M>(format, rules.caches_missing, &ops), "{ops:?}");
            assert_eq!(traces.len(), allowed, "{ops:?}: {traces:?}");
        }
    }
    order::<iommu_model::smmu::Unit>(smmu::FORMAT, smmu::RULES);
    order::<iommu_model::amd::Unit>(amd::FORMAT, amd::RULES);
    order::<iommu_model::riscv::Unit>(riscv::FORMAT, riscv::RULES);
}
