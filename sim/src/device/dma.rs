//! The actors of a DMA device: one issues requests, one lets posted writes land.

use std::rc::Rc;

use iommu_model::addr::{DomainId, Iova, Pa};
use iommu_model::request::{Access, CacheHit, Fetched, Progress, Request};

use super::unit::registers;
use super::{Dice, POSTED_MAX, Posted};
use crate::engine::{ChoiceKind, Object, Op, OpKind};
use crate::machine::Machine;
use crate::trace::EventKind;

/// Pages of a range a request may pick from: the choice stays small, the ends of the range are always among them.
const PAGES_TO_CHOOSE: u64 = 8;

/// What a request was answered.
enum Answer {
    Memory { pa: Pa, domain: Option<DomainId>, cached: bool },
    Fault(u8),
    Message,
}

/// Issues requests for ever while the bus-master bit is set and some range is programmed.
pub(super) async fn issue(machine: Rc<Machine>, index: usize) {
    let core = machine.core.clone();
    let device = &machine.fabric.devices()[index];
    loop {
        if !device.bus_master.get() || device.ranges.borrow().is_empty() {
            core.block(device.queue()).await;
            continue;
        }
        if device.posted.borrow().len() >= POSTED_MAX {
            core.block(device.queue()).await;
            continue;
        }
        core.step(Op::turn()).await;
        if !device.bus_master.get() {
            continue;
        }
        let Some((iova, write)) = draw(&machine, index) else { continue };
        let serial = device.serial.get();
        device.serial.set(serial + 1);
        machine.emit(EventKind::DmaIssued { device: device.id, serial, iova, write });
        device.translating.set(Some(serial));
        let answer = translate(&machine, index, iova, write).await;
        device.translating.set(None);
        core.wake(device.queue());
        match answer {
            Answer::Message => {}
            Answer::Fault(reason) => machine.emit(EventKind::DmaFaulted { device: device.id, serial, iova, reason, write }),
            Answer::Memory { pa, domain, cached } => {
                machine.emit(EventKind::DmaTranslated { device: device.id, serial, iova, pa, domain, cached });
                if write {
                    let value = tag(device.id.0, serial);
                    device.posted.borrow_mut().push_back(Posted { serial, iova, pa, value });
                    core.wake(device.queue());
                } else {
                    device.reading.set(Some(serial));
                    core.step(Op::new(OpKind::DmaRead, Object(pa.0), 8)).await;
                    device.reading.set(None);
                    core.wake(device.queue());
                    match machine.read_words(pa, 1) {
                        Some([value, _]) => machine.emit(EventKind::DmaRead { device: device.id, serial, iova, pa, value }),
                        None => machine.emit(EventKind::DmaLost { device: device.id, serial, pa, write: false }),
                    }
                }
            }
        }
    }
}

/// Lets posted writes land for ever, oldest first.
pub(super) async fn land(machine: Rc<Machine>, index: usize) {
    let core = machine.core.clone();
    let device = &machine.fabric.devices()[index];
    loop {
        let Some(oldest) = device.posted.borrow().front().copied() else {
            core.block(device.queue()).await;
            continue;
        };
        let Posted { serial, iova, pa, value } = oldest;
        core.step(Op::new(OpKind::DmaWrite, Object(pa.0), 8)).await;
        core.charge(200);
        let exists = machine.memory().frame(pa).is_some_and(|frame| frame.state != crate::memory::FrameState::Absent);
        let old = exists.then(|| machine.store_by_device(pa, 8, value));
        device.posted.borrow_mut().pop_front();
        match old {
            Some(old) => machine.emit(EventKind::DmaLanded { device: device.id, serial, iova, pa, old, new: value }),
            None => machine.emit(EventKind::DmaLost { device: device.id, serial, pa, write: true }),
        }
        core.wake(device.queue());
        machine.wake_word(pa);
    }
}

/// The word a device writes: recognisable in a dump, different for each request.
const fn tag(device: u8, serial: u32) -> u64 {
    0xd3a0_0000_0000_0000 | (device as u64) << 40 | serial as u64
}

/// Draws an address the driver programmed, and the direction.
fn draw(machine: &Machine, index: usize) -> Option<(Iova, bool)> {
    let device = &machine.fabric.devices()[index];
    let ranges = device.ranges.borrow();
    if ranges.is_empty() {
        return None;
    }
    let range = ranges[machine.core.choose(ChoiceKind::Workload, ranges.len() as u32) as usize];
    let pages = (range.bytes >> 12).max(1);
    let choices = pages.min(PAGES_TO_CHOOSE);
    let kinds = if range.writable { 3 } else { 1 };
    let drawn = u64::from(machine.core.choose(ChoiceKind::Workload, (choices * kinds) as u32));
    let (page, kind) = (drawn / kinds, drawn % kinds);
    // The first half of the choices are the first pages, the second half the last ones.
    let page = if page < choices.div_ceil(2) { page } else { pages - (choices - page) };
    let offset = u64::from(device.serial.get() % 64) * 8;
    Some((Iova(range.iova.0 + (page << 12) + offset), range.writable && kind > 0))
}

/// Has the unit translate, one look-up or fetch a step.
async fn translate(machine: &Machine, index: usize, iova: Iova, write: bool) -> Answer {
    let core = &machine.core;
    let device = &machine.fabric.devices()[index];
    let slot = &machine.fabric.units()[usize::from(device.unit.0)];
    let access = if write { Access::Write } else { Access::Read };
    let request = Request { source: device.bdf, iova, access, pasid: None };
    let walk = loop {
        let begun = slot.unit.borrow_mut().begin(request);
        match begun {
            Ok(walk) => break walk,
            Err(_) => core.step(Op::pause()).await,
        }
    };
    core.step(Op::new(OpKind::Register, registers(device.unit), 8)).await;
    let mut progress = slot.unit.borrow_mut().advance(walk, None, &mut Dice(core));
    loop {
        core.charge(progress.cost());
        match progress {
            Progress::Lookup { .. } => core.step(Op::new(OpKind::Register, registers(device.unit), 8)).await,
            Progress::Merged { .. } => core.step(Op::pause()).await,
            Progress::Fetch { pa, bytes, .. } => {
                core.step(machine.fetch_op(device.unit, pa, u16::from(bytes))).await;
                // An invalidation may have restarted the walk meanwhile: then nobody reads this word any more.
                progress = slot.unit.borrow_mut().advance(walk, None, &mut Dice(core));
                if !matches!(progress, Progress::Fetch { pa: wanted, .. } if wanted == pa) {
                    continue;
                }
                let fetched = match machine.fetch_words(device.unit, pa, usize::from(bytes / 8)) {
                    Some(words) => {
                        machine.emit(EventKind::Fetched { unit: device.unit, device: Some(device.id), pa, bytes, value: words[0] });
                        Fetched::Words(words)
                    }
                    None => Fetched::NoMemory,
                };
                progress = slot.unit.borrow_mut().advance(walk, Some(fetched), &mut Dice(core));
                continue;
            }
            Progress::Update { pa, .. } => {
                core.step(Op::new(OpKind::DmaWrite, Object(pa.0), 8)).await;
                progress = slot.unit.borrow_mut().advance(walk, None, &mut Dice(core));
                let Progress::Update { pa: wanted, old, new, .. } = progress else { continue };
                if wanted != pa {
                    continue;
                }
                let fetched = match machine.read_words(pa, 1) {
                    Some([found, _]) => {
                        if found == old {
                            machine.store_by_device(pa, 8, new);
                        }
                        Fetched::word(found)
                    }
                    None => Fetched::NoMemory,
                };
                progress = slot.unit.borrow_mut().advance(walk, Some(fetched), &mut Dice(core));
                continue;
            }
            Progress::Done(translation) => {
                let cached = translation.from == CacheHit::Iotlb;
                return Answer::Memory { pa: translation.pa, domain: Some(translation.domain), cached };
            }
            Progress::Untranslated { pa, .. } => return Answer::Memory { pa, domain: None, cached: false },
            Progress::InterruptMessage { .. } => return Answer::Message,
            Progress::Fault(fault) => return Answer::Fault(fault.reason.vtd().map_or(u8::MAX, |reason| reason.0)),
        }
        progress = slot.unit.borrow_mut().advance(walk, None, &mut Dice(core));
    }
}
