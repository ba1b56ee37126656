//! Where QEMU is known to answer otherwise, and why.
//!
//! A check that QEMU does not make, or makes later, is taken away from the model by making the words right that it
//! objects to. Only if the model then says what QEMU said is the difference explained.

use super::Riscv;
use crate::architecture::{Architecture, Difference, Outcome, Request, Side};
use crate::memory::{Place, TableMemory, WORDS_MAX, Word};
use crate::riscv::machine::LAYOUT;
use iommu_model::FetchKind;
use iommu_model::spec::riscv::device_context::{
    DirectoryEntry, MODE_BARE, MODE_SV39, MODE_SV48, MODE_SV57, SecondStagePointer, TablePointer, TranslationAttributes, TranslationControl,
};
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::spec::riscv::process_context::ProcessAttributes;

const DEVICE_RESERVED: Difference = Difference {
    name: "reserved bits of a device context",
    reason: "QEMU does not look at them, nor at the alignment of the second stage's root, nor at SADE and GADE of an unused stage",
    side: Side::Model,
};
const DIRECTORY_RESERVED: Difference =
    Difference { name: "reserved bits of a directory entry", reason: "QEMU does not look at them", side: Side::Model };
const PROCESS_RESERVED: Difference =
    Difference { name: "reserved bits of a process context", reason: "QEMU does not look at them", side: Side::Model };
const ENTRY_RESERVED: Difference = Difference {
    name: "reserved bits of a page-table entry",
    reason: "QEMU does not look at bits 62:54: reserved, and PBMT without Svpbmt or in a non-leaf entry",
    side: Side::Model,
};
const NAPOT: Difference = Difference { name: "N of a page-table entry", reason: "QEMU does not look at N", side: Side::Model };
const WIDTH: Difference = Difference {
    name: "width of the address",
    reason: "QEMU asks the second stage for the first stage's root before it looks whether the address is one of the first stage",
    side: Side::Open,
};
const PROCESS_LOAD: Difference = Difference {
    name: "process directory beyond the second stage",
    reason: "QEMU reports a load access fault (265) where the second stage refuses the directory's address (20, 21, 23)",
    side: Side::Model,
};
const GUEST_USER: Difference = Difference {
    name: "U, A and R of a second-stage page",
    reason: "QEMU does not look at them where the second stage maps a process directory",
    side: Side::Model,
};
const PROCESS_MODE: Difference = Difference {
    name: "mode of the process directory",
    reason: "QEMU blames the process directory (267), not the device context (259)",
    side: Side::Model,
};

const DEVICE_MODE: Difference = Difference {
    name: "mode of a device context",
    reason: "QEMU reports a reserved MODE as a context that is not valid (258) or cannot be read through (265), not as misconfigured (259)",
    side: Side::Model,
};
const NARROW: Difference =
    Difference { name: "SXL", reason: "QEMU takes a context with SXL for one of 32-bit schemes, though fctl.GXL is 0", side: Side::Model };
const UNUSED_DIRECTORY: Difference = Difference {
    name: "mode of an unused process directory",
    reason: "QEMU does not look at the MODE of a process directory that the request does not use",
    side: Side::Model,
};
const IMPLICIT_WRITE: Difference = Difference {
    name: "second stage of an implicit read",
    reason: "QEMU asks the second stage for W and D where the walk of a write reads a first-stage entry",
    side: Side::Model,
};

pub(super) const ALL: [Difference; 13] = [
    DEVICE_RESERVED,
    DIRECTORY_RESERVED,
    PROCESS_RESERVED,
    ENTRY_RESERVED,
    NAPOT,
    WIDTH,
    PROCESS_LOAD,
    PROCESS_MODE,
    GUEST_USER,
    DEVICE_MODE,
    NARROW,
    UNUSED_DIRECTORY,
    IMPLICIT_WRITE,
];

/// Checks that may have to be taken away one after another.
const STEPS_MAX: usize = 8;

/// What an entry with reserved bits is for QEMU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// The same entry without them.
    Ignored,
    /// One with a longer address, where nothing is.
    Address,
}

pub(super) fn explain(riscv: &mut Riscv, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
    if cause(theirs) == Some(Cause::WRITE_GUEST_PAGE) && implicit_write_faults(riscv, request, image, theirs) {
        return Some(IMPLICIT_WRITE);
    }
    riscv.reset();
    riscv.translate(request, image);
    let control = image.trail.get(riscv.shared_words() - WORDS_MAX).map_or(0, |(_, word)| *word);
    if cause(ours) == Some(Cause::DDT_MISCONFIGURED) && TranslationControl::from_bits(control).narrow() {
        return Some(NARROW);
    }
    if let Some(canonical) = canonical(riscv, request, image)
        && cause(theirs) == Some(Cause::WRITE_GUEST_PAGE)
        && implicit_write_faults(riscv, canonical, image, theirs)
    {
        return Some(WIDTH);
    }
    let silent = matches!(theirs, Outcome::Passed(pa) if request.write || pa == 0);
    if silent && cause(ours) == Some(Cause::DDT_MISCONFIGURED) && TranslationControl::from_bits(control).disable_faults() {
        // DTF silences a fault of the process directory, but not one of the device context.
        return Some(PROCESS_MODE);
    }
    let before = image.image();
    [Reserved::Ignored, Reserved::Address].into_iter().find_map(|reserved| {
        image.restore(&before);
        explain_by(riscv, request, image, ours, theirs, reserved)
    })
}

fn explain_by(
    riscv: &mut Riscv,
    request: Request,
    image: &mut TableMemory,
    ours: Outcome,
    theirs: Outcome,
    reserved: Reserved,
) -> Option<Difference> {
    let (mut ours, mut request) = (ours, request);
    let mut why = None;
    riscv.reset();
    riscv.translate(request, image);
    for _ in 0..STEPS_MAX {
        // Where a healed walk leaves what is known, nobody can say what QEMU finds.
        if why.is_some() && image.lost {
            return why;
        }
        if let Some(same) = same(request, ours, theirs) {
            return why.or(same);
        }
        // What follows a check that QEMU does not make may be a write that it should not ask for.
        if why.is_some() && cause(theirs) == Some(Cause::WRITE_GUEST_PAGE) && implicit_write_faults(riscv, request, image, theirs) {
            return why;
        }
        riscv.reset();
        riscv.translate(request, image);
        if ours == Outcome::Silent && record_faults(riscv, image) {
            // The fault that nobody was told of may be one that QEMU does not see.
        } else {
            let by = heal(riscv, &mut request, image, ours, reserved)?;
            why = why.or(Some(by));
        }
        riscv.reset();
        ours = riscv.translate(request, image).outcome;
    }
    None
}

/// Whether the walk's device context has a second stage, whatever most contexts of the image have.
fn has_second_stage(riscv: &Riscv, image: &TableMemory) -> bool {
    let word = image.trail.get(riscv.shared_words() - WORDS_MAX + 1).map_or(0, |(_, word)| *word);
    SecondStagePointer::from_bits(word).mode() != MODE_BARE
}

/// Takes DTF out of the walk's device context; returns whether it was there.
fn record_faults(riscv: &Riscv, image: &mut TableMemory) -> bool {
    let Some(&(pa, word)) = image.trail.get(riscv.shared_words() - WORDS_MAX) else { return false };
    let control = TranslationControl::from_bits(word);
    image.amend(pa, control.with_disable_faults(false).into_bits());
    control.disable_faults()
}

/// Whether the request would end as QEMU says if the second stage had no page that lacks W or D.
fn implicit_write_faults(riscv: &mut Riscv, request: Request, image: &mut TableMemory, theirs: Outcome) -> bool {
    riscv.reset();
    riscv.translate(request, image);
    if !request.write || !has_second_stage(riscv, image) {
        return false;
    }
    let before = image.image();
    riscv.reset();
    riscv.translate(request, image);
    let mut found = false;
    let (trail, of_directory) = (image.trail.clone(), words_of_directory(image));
    for (n, &(pa, word)) in trail.iter().enumerate() {
        let entry = PageTableEntry::from_bits(word);
        let leaf = entry.valid() && entry.user() && (entry.read() || entry.execute());
        if leaf && !(entry.write() && entry.dirty()) {
            image.amend(pa, entry.with_valid(false).into_bits());
            riscv.reset();
            let outcome = riscv.translate(request, image).outcome;
            // Without a page that holds the process directory too, the walk does not come so far.
            let held_both = n >= of_directory && trail[..of_directory].iter().any(|(other, _)| *other == pa);
            found |= outcome == theirs || (held_both && cause(outcome) == Some(Cause::READ_GUEST_PAGE));
            image.amend(pa, word);
        }
    }
    before.iter().for_each(|(pa, word)| image.amend(*pa, *word));
    found
}

/// How many words of the walk come before those of its first stage: the process directory's, and what led to them.
fn words_of_directory(image: &TableMemory) -> usize {
    image.kinds.iter().rposition(|kind| *kind == FetchKind::ProcessContext).map_or(0, |last| last + 1)
}

const fn cause(outcome: Outcome) -> Option<Cause> {
    match outcome {
        Outcome::Blocked(code) => Some(Cause(code)),
        _ => None,
    }
}

/// Whether QEMU says the same in other words; if so, which difference that is, if any.
fn same(request: Request, ours: Outcome, theirs: Outcome) -> Option<Option<Difference>> {
    match (ours, theirs) {
        _ if ours == theirs => Some(None),
        (Outcome::Silent, Outcome::Passed(pa)) => (request.write || pa == 0).then_some(None),
        (Outcome::Passed(pa), Outcome::Passed(_)) => (request.write || LAYOUT.place(pa) != Place::Data).then_some(None),
        _ => match (cause(ours)?, cause(theirs)?) {
            (Cause::READ_GUEST_PAGE | Cause::WRITE_GUEST_PAGE, Cause::PDT_LOAD) => Some(Some(PROCESS_LOAD)),
            (Cause::DDT_MISCONFIGURED, Cause::PDT_MISCONFIGURED) => Some(Some(PROCESS_MODE)),
            (Cause::DDT_MISCONFIGURED, Cause::DDT_INVALID | Cause::PDT_LOAD) => Some(Some(DEVICE_MODE)),
            _ => None,
        },
    }
}

/// Takes the check away that the model's last answer came from.
fn heal(riscv: &Riscv, request: &mut Request, image: &mut TableMemory, ours: Outcome, reserved: Reserved) -> Option<Difference> {
    let context = riscv.shared_words() - WORDS_MAX;
    match cause(ours)? {
        Cause::DDT_MISCONFIGURED if image.trail.len() <= context => heal_directory(image),
        Cause::DDT_MISCONFIGURED => {
            let words = image.trail.get(context..context + WORDS_MAX)?.to_vec();
            let control = TranslationControl::from_bits(words[0].1);
            let pointer = TablePointer::from_bits(words[3].1);
            if control.process_directory() && !control.default_process() && pointer.mode() != MODE_BARE {
                image.amend(words[3].0, pointer.with_mode(MODE_BARE).with_reserved(0).into_bits());
                return Some(UNUSED_DIRECTORY);
            }
            let healed = healed_context(&words);
            words.iter().zip(healed).for_each(|((pa, _), word)| image.amend(*pa, word));
            words.iter().zip(healed).any(|((_, old), new)| *old != new).then_some(DEVICE_RESERVED)
        }
        Cause::PDT_MISCONFIGURED => {
            let nr_words = image.trail.len();
            let last = image.trail.get(nr_words.checked_sub(2)?..)?.to_vec();
            if last[1].0 != last[0].0 + 8 {
                return heal_directory(image);
            }
            let attributes = ProcessAttributes::from_bits(last[0].1).with_reserved_3(0).with_reserved_32(0).into_bits();
            let pointer = TablePointer::from_bits(last[1].1).with_reserved(0).into_bits();
            image.amend_as(last[0].0, FetchKind::ProcessContext, attributes);
            image.amend_as(last[1].0, FetchKind::ProcessContext, pointer);
            (attributes != last[0].1 || pointer != last[1].1).then_some(PROCESS_RESERVED)
        }
        Cause::READ_PAGE | Cause::WRITE_PAGE | Cause::READ_GUEST_PAGE | Cause::WRITE_GUEST_PAGE => {
            // A walk that read no page table was refused for its address: its last word is of a context.
            if !matches!(image.kinds.last(), Some(FetchKind::FirstStage { .. } | FetchKind::Table { .. })) {
                *request = canonical(riscv, *request, image)?;
                return Some(WIDTH);
            }
            let (pa, word) = *image.trail.last()?;
            let entry = PageTableEntry::from_bits(word);
            let healed = entry.with_reserved_54(0).with_software_59(0).with_memory_type(0);
            if healed != entry {
                let healed = if reserved == Reserved::Address { healed.with_ppn(LAYOUT.void >> 12).with_napot(false) } else { healed };
                image.amend(pa, healed.into_bits());
                return Some(ENTRY_RESERVED);
            }
            let leaf = entry.valid() && (entry.read() || entry.execute());
            let of_guest = matches!(cause(ours)?, Cause::READ_GUEST_PAGE | Cause::WRITE_GUEST_PAGE);
            if leaf && of_guest && !(entry.user() && entry.accessed()) {
                image.amend(pa, entry.with_user(true).with_accessed(true).into_bits());
                return Some(GUEST_USER);
            }
            // What comes before any page table belongs to the process directory.
            let in_directory = !image.kinds.iter().any(|kind| matches!(kind, FetchKind::FirstStage { .. } | FetchKind::ProcessContext));
            let control = TranslationControl::from_bits(image.trail.get(riscv.shared_words() - WORDS_MAX)?.1);
            if leaf && of_guest && !entry.read() && in_directory && control.process_directory() {
                image.amend(pa, entry.with_read(true).into_bits());
                return Some(GUEST_USER);
            }
            if entry.napot() {
                image.amend(pa, entry.with_napot(false).into_bits());
                return Some(NAPOT);
            }
            *request = canonical(riscv, *request, image)?;
            Some(WIDTH)
        }
        _ => None,
    }
}

/// The request with its address made one of the first stage, if it is none and there is a second stage.
fn canonical(riscv: &Riscv, request: Request, image: &TableMemory) -> Option<Request> {
    // The root is in the context that was read last.
    let of_process = image.kinds.last() == Some(&FetchKind::ProcessContext);
    let pointer = if of_process { image.trail.last()?.1 } else { image.trail.get(riscv.shared_words() - WORDS_MAX + 3)?.1 };
    let bits = match TablePointer::from_bits(pointer).mode() {
        MODE_SV39 => 39,
        MODE_SV48 => 48,
        MODE_SV57 => 57,
        _ => return None,
    };
    let unused = u64::BITS - bits;
    let iova = ((request.iova << unused) as i64 >> unused) as u64;
    (iova != request.iova && has_second_stage(riscv, image)).then_some(Request { iova, ..request })
}

fn heal_directory(image: &mut TableMemory) -> Option<Difference> {
    let (pa, word) = *image.trail.last()?;
    let entry = DirectoryEntry::from_bits(word).with_reserved_1(0).with_reserved_54(0).into_bits();
    image.amend(pa, entry);
    (entry != word).then_some(DIRECTORY_RESERVED)
}

/// A device context without what is reserved.
fn healed_context(words: &[Word]) -> [u64; WORDS_MAX] {
    let control = TranslationControl::from_bits(words[0].1).with_reserved_12(0).with_reserved_32(0);
    let control = control.with_first_stage_update(false).with_second_stage_update(false);
    let second = SecondStagePointer::from_bits(words[1].1);
    let attributes = TranslationAttributes::from_bits(words[2].1).with_reserved_0(0).with_reserved_32(0).with_rcid(0).with_mcid(0);
    let first = TablePointer::from_bits(words[3].1).with_reserved(0);
    let second = second.with_ppn(second.ppn() & !3);
    [control.into_bits(), second.into_bits(), attributes.into_bits(), first.into_bits(), 0, 0, 0, 0]
}
