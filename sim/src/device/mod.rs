//! Hardware that acts by itself: DMA devices and remapping units.
//!
//! A device may issue a request at any step, to any address its driver programmed; its writes are posted and land later, in
//! order. Each request is translated by its unit one look-up or fetch a step. A unit's invalidation queue is an actor of its
//! own. None of this knows a kernel: jumps, crashes and dead programs do not stop it.

mod dma;
mod unit;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use iommu_model::addr::{Bdf, Iova, Pa};
use iommu_model::decision::{Decisions, Question};
use iommu_model::vtd::{Drain, Unit};

use crate::engine::{ChoiceKind, Core, Engine, Group, Life, Object};
use crate::machine::Machine;
use crate::trace::{DeviceId, UnitId};

/// The group of everything that outlives kernels.
pub const HARDWARE: Group = Group(u8::MAX);

/// A range of addresses a device may use, as its driver programmed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaRange {
    /// First address.
    pub iova: Iova,
    /// Bytes, a multiple of 4096.
    pub bytes: u64,
    /// The device may write there; else it only reads.
    pub writable: bool,
}

/// A posted write on its way to memory.
#[derive(Clone, Copy, Debug)]
struct Posted {
    serial: u32,
    iova: Iova,
    pa: Pa,
    value: u64,
}

/// One DMA device.
pub struct Device {
    /// Number.
    pub id: DeviceId,
    /// Requester id.
    pub bdf: Bdf,
    /// Unit it is behind.
    pub unit: UnitId,
    bus_master: Cell<bool>,
    ranges: RefCell<Vec<DmaRange>>,
    posted: RefCell<VecDeque<Posted>>,
    serial: Cell<u32>,
    reading: Cell<Option<u32>>,
    /// The request that is being translated.
    translating: Cell<Option<u32>>,
}

/// Most writes of one device in flight.
const POSTED_MAX: usize = 4;

impl Device {
    fn new(id: DeviceId, bdf: Bdf, unit: UnitId) -> Device {
        Device {
            id,
            bdf,
            unit,
            bus_master: Cell::new(false),
            ranges: RefCell::new(Vec::new()),
            posted: RefCell::new(VecDeque::with_capacity(POSTED_MAX)),
            serial: Cell::new(0),
            reading: Cell::new(None),
            translating: Cell::new(None),
        }
    }

    /// The object devices and drains wait on.
    fn queue(&self) -> Object {
        Object::queue(u64::from(self.id.0))
    }

    /// True when a write is on its way.
    pub fn has_write_in_flight(&self) -> bool {
        !self.posted.borrow().is_empty()
    }

    /// True while the device may issue requests: its bus-master bit.
    pub fn is_bus_master(&self) -> bool {
        self.bus_master.get()
    }

    /// Ranges programmed now.
    pub fn ranges(&self) -> Vec<DmaRange> {
        self.ranges.borrow().clone()
    }
}

/// A remapping unit and the state of its actor.
pub struct UnitSlot {
    /// The silicon.
    pub unit: RefCell<Unit>,
    /// Requests that must land before the register command at hand completes.
    pending_drain: Cell<Drain>,
}

/// All units and devices of a machine.
#[derive(Default)]
pub struct Fabric {
    units: Vec<UnitSlot>,
    devices: Vec<Device>,
}

impl Fabric {
    /// A machine without devices.
    pub fn new() -> Fabric {
        Fabric::default()
    }

    /// Adds a unit.
    pub fn add_unit(&mut self, unit: Unit) -> UnitId {
        self.units.push(UnitSlot { unit: RefCell::new(unit), pending_drain: Cell::new(Drain::default()) });
        UnitId(self.units.len() as u8 - 1)
    }

    /// Adds a device behind `unit`.
    pub fn add_device(&mut self, bdf: Bdf, unit: UnitId) -> DeviceId {
        let id = DeviceId(self.devices.len() as u8);
        self.devices.push(Device::new(id, bdf, unit));
        id
    }

    /// The units.
    pub fn units(&self) -> &[UnitSlot] {
        &self.units
    }

    /// True when table fetches of `unit` see CPU caches: ECAP.C.
    pub(crate) fn snoops(&self, unit: UnitId) -> bool {
        self.units[usize::from(unit.0)].unit.borrow().capabilities().coherent
    }

    /// The devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device with this requester id.
    pub fn device(&self, bdf: Bdf) -> Option<&Device> {
        self.devices.iter().find(|device| device.bdf == bdf)
    }

    /// Starts the actors of all units and devices.
    pub fn start(machine: &Rc<Machine>, engine: &Engine) {
        for index in 0..machine.fabric.units.len() {
            let id = UnitId(index as u8);
            engine.spawn(&format!("iommu{index} queue"), HARDWARE, Life::Daemon, unit::serve_queue(machine.clone(), id));
            engine.spawn(&format!("iommu{index} commands"), HARDWARE, Life::Daemon, unit::complete_commands(machine.clone(), id));
        }
        for index in 0..machine.fabric.devices.len() {
            let bdf = machine.fabric.devices[index].bdf;
            engine.spawn(&format!("dev {bdf}"), HARDWARE, Life::Daemon, dma::issue(machine.clone(), index));
            engine.spawn(&format!("dev {bdf} writes"), HARDWARE, Life::Daemon, dma::land(machine.clone(), index));
        }
    }

    /// Sets or clears the bus-master bit of a device (PCI command register, bit 2) inside the step at hand.
    pub fn set_bus_master(&self, core: &Core, bdf: Bdf, on: bool) {
        if let Some(device) = self.device(bdf) {
            device.bus_master.set(on);
            core.wake(device.queue());
        }
    }

    /// Lets a device use `range` from now on, inside the step at hand.
    pub fn program(&self, core: &Core, bdf: Bdf, range: DmaRange) {
        if let Some(device) = self.device(bdf) {
            device.ranges.borrow_mut().push(range);
            core.wake(device.queue());
        }
    }

    /// Takes all ranges inside `[iova, iova + bytes)` from a device, inside the step at hand. Requests under way go on.
    pub fn unprogram(&self, bdf: Bdf, iova: Iova, bytes: u64) {
        if let Some(device) = self.device(bdf) {
            device.ranges.borrow_mut().retain(|range| range.iova.0 < iova.0 || range.iova.0 >= iova.0 + bytes);
        }
    }

    /// True when some device has a write on its way.
    pub fn has_write_in_flight(&self) -> bool {
        self.devices.iter().any(Device::has_write_in_flight)
    }

    /// True when some walk is under way.
    pub fn has_walk_in_flight(&self) -> bool {
        self.units.iter().any(|slot| slot.unit.borrow().in_flight_count() > 0)
    }

    /// True when some invalidation queue has work.
    pub fn has_invalidation_pending(&self) -> bool {
        self.units.iter().any(|slot| slot.unit.borrow().queue_has_work())
    }
}

/// Answers the hardware's questions from the policy. The plain behaviour is likely, the others are rare.
pub(crate) struct Dice<'a>(pub(crate) &'a Core);

impl Decisions for Dice<'_> {
    fn decide(&mut self, question: Question) -> u32 {
        match question {
            Question::EvictContext { .. } | Question::EvictIotlb { .. } | Question::EvictPsc { .. } => {
                self.0.choose(ChoiceKind::Hardware, question.options())
            }
            other => {
                if self.0.odds(ChoiceKind::Hardware, 64) {
                    1 + self.0.choose(ChoiceKind::Hardware, other.options() - 1)
                } else {
                    0
                }
            }
        }
    }
}
