//! One request through a unit of the model, whichever architecture it is of.

use crate::architecture::{Outcome, Request, Rights, Walked};
use crate::dice::Dice;
use crate::memory::{TableMemory, WORDS_MAX};
use iommu_model::translator::Translator;
use iommu_model::{Access, Bdf, Fault, FetchKind, Fetched, Iova, Plain, Progress};

/// Steps after which a walk counts as one without end.
const STEPS_MAX: u32 = 4096;

/// The fault's number.
fn code(fault: Fault) -> u16 {
    fault.smmu().map_or(fault.code(), |why| smmu_code(why.event.0, why.stage_2, why.class.bits()))
}

/// An SMMU event's number. A translation fault's tells more: its stage in bit 8, its class in bits 13:12.
pub(crate) const fn smmu_code(event: u8, stage_2: bool, class: u8) -> u16 {
    let more = if event >= 0x10 && event <= 0x13 { (stage_2 as u16) << 8 | (class as u16) << 12 } else { 0 };
    event as u16 | more
}

/// Walks to the end. `draw` makes entries for memory that is drawn as it is read.
pub(crate) fn translate(
    unit: &mut impl Translator,
    source: Bdf,
    request: Request,
    memory: &mut TableMemory,
    mut draw: impl FnMut(FetchKind, &mut Dice) -> [u64; WORDS_MAX],
) -> Walked {
    memory.begin();
    let access = if request.write { Access::Write } else { Access::Read };
    let request = iommu_model::Request { source, iova: Iova(request.iova), access, pasid: None };
    let walk = unit.begin(request).expect("one walk at a time");
    let mut answer = None;
    for _ in 0..STEPS_MAX {
        match unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, kind, .. } => {
                let found = memory.fetch(pa.0, usize::from(bytes / 8), kind, &mut |dice| draw(kind, dice));
                answer = Some(match found {
                    None => Fetched::NoMemory,
                    Some(words) if bytes <= 16 => Fetched::Words([words[0], words[1]]),
                    Some(words) => Fetched::Wide(words),
                });
            }
            Progress::Update { pa, old, new, .. } => {
                answer = Some(memory.compare_exchange(pa.0, old, new).map_or(Fetched::NoMemory, Fetched::word));
            }
            Progress::Done(translation) => {
                let rights = Rights { read: translation.readable, write: translation.writable };
                return Walked { outcome: Outcome::Passed(translation.pa.0), rights: Some(rights) };
            }
            Progress::Untranslated { pa, .. } => return Walked { outcome: Outcome::Passed(pa.0), rights: None },
            Progress::InterruptMessage { .. } => return Walked { outcome: Outcome::Message, rights: None },
            Progress::Fault(fault) => {
                let outcome = if fault.recorded { Outcome::Blocked(code(fault.reason)) } else { Outcome::Silent };
                return Walked { outcome, rights: None };
            }
            Progress::Lookup { .. } | Progress::Merged { .. } => {}
        }
    }
    panic!("a walk without end: {request:?}");
}
