//! The one event stream. Oracles, reports, diffs and the trace hash are readers of it.

use iommu_model::addr::{DomainId, Iova, Pa, Pfn};

use crate::engine::{ActorId, ChoiceKind};
use crate::memory::Tag;

/// How a CPU accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavor {
    /// Plain C access: may be torn, merged or reordered by the compiler.
    Plain,
    /// `READ_ONCE` / `WRITE_ONCE`.
    Once,
    /// `smp_load_acquire` / `smp_store_release`.
    Ordered,
    /// Atomic read-modify-write, fully ordered.
    Atomic,
}

/// The kind of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// `struct mutex`.
    Mutex,
    /// `spinlock_t`.
    Spin,
    /// `struct rw_semaphore`, taken for reading.
    Read,
    /// `struct rw_semaphore`, taken for writing.
    Write,
}

/// A device of the machine, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(pub u8);

/// A remapping unit of the machine, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnitId(pub u8);

/// A word the workload adds to the stream: which promise was made, which call returned. The workload keeps the names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Verb(pub u16);

impl Verb {
    /// The bit of this word in a mask of words; those from 63 on share one.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << if self.0 < 63 { self.0 } else { 63 }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum EventKind {
    /// A CPU loaded.
    Load {
        /// Where.
        pa: Pa,
        /// Bytes.
        bytes: u8,
        /// What it saw.
        value: u64,
        /// How.
        flavor: Flavor,
    },
    /// A CPU stored.
    Store {
        /// Where.
        pa: Pa,
        /// Bytes.
        bytes: u8,
        /// What was there.
        old: u64,
        /// What is there now.
        new: u64,
        /// How.
        flavor: Flavor,
    },
    /// A lock was taken.
    Locked {
        /// Address of the lock.
        pa: Pa,
        /// Kind.
        kind: LockKind,
    },
    /// A lock was released.
    Unlocked {
        /// Address of the lock.
        pa: Pa,
        /// Kind.
        kind: LockKind,
    },
    /// A block of frames was handed out.
    FramesTaken {
        /// First frame.
        pfn: Pfn,
        /// 2^order frames.
        order: u8,
        /// For what.
        tag: Tag,
    },
    /// A block of frames went back to the free list.
    FramesFreed {
        /// First frame.
        pfn: Pfn,
        /// 2^order frames.
        order: u8,
        /// What it held.
        tag: Tag,
    },
    /// A slab object was handed out.
    ObjectTaken {
        /// Address.
        pa: Pa,
        /// Requested bytes.
        bytes: u16,
        /// For what.
        tag: Tag,
    },
    /// A slab object was freed.
    ObjectFreed {
        /// Address.
        pa: Pa,
        /// What it was.
        tag: Tag,
    },
    /// A fallible call was made to fail.
    Injected {
        /// Allocation or other callee.
        kind: ChoiceKind,
        /// Class of the call.
        class: u16,
    },
    /// A CPU wrote a register of a unit.
    RegisterWritten {
        /// Unit.
        unit: UnitId,
        /// Byte offset of the register.
        offset: u16,
        /// Value.
        value: u64,
    },
    /// A unit began or ceased to translate: GSTS.TES is now what a command asked for. Requests under way landed before.
    TranslationSwitched {
        /// Unit.
        unit: UnitId,
        /// GSTS.TES.
        on: bool,
    },
    /// A unit fetched table or descriptor words.
    Fetched {
        /// Unit.
        unit: UnitId,
        /// The device whose walk it is; none for the invalidation queue.
        device: Option<DeviceId>,
        /// Where.
        pa: Pa,
        /// Bytes (8 or 16).
        bytes: u8,
        /// First word.
        value: u64,
    },
    /// A device issued a request.
    DmaIssued {
        /// Device.
        device: DeviceId,
        /// Running number of the device's requests.
        serial: u32,
        /// Address it used.
        iova: Iova,
        /// Write or read.
        write: bool,
    },
    /// A request was translated.
    DmaTranslated {
        /// Device.
        device: DeviceId,
        /// Request.
        serial: u32,
        /// Address asked for.
        iova: Iova,
        /// Address got.
        pa: Pa,
        /// Domain id it was translated under; none when it passed untranslated.
        domain: Option<DomainId>,
        /// True when the answer came from the IOTLB.
        cached: bool,
    },
    /// A request was blocked with a fault.
    DmaFaulted {
        /// Device.
        device: DeviceId,
        /// Request.
        serial: u32,
        /// Address asked for.
        iova: Iova,
        /// Architectural fault reason.
        reason: u8,
        /// Write or read.
        write: bool,
    },
    /// A posted write reached memory.
    DmaLanded {
        /// Device.
        device: DeviceId,
        /// Request.
        serial: u32,
        /// Address it used.
        iova: Iova,
        /// Where it landed.
        pa: Pa,
        /// What was there.
        old: u64,
        /// The device's tag, there now.
        new: u64,
    },
    /// A read returned.
    DmaRead {
        /// Device.
        device: DeviceId,
        /// Request.
        serial: u32,
        /// Address it used.
        iova: Iova,
        /// Where it read.
        pa: Pa,
        /// What it got.
        value: u64,
    },
    /// A write or read left the memory map (no RAM there).
    DmaLost {
        /// Device.
        device: DeviceId,
        /// Request.
        serial: u32,
        /// Address it went to.
        pa: Pa,
        /// Write or read.
        write: bool,
    },
    /// The invalidation queue did a descriptor.
    Invalidated {
        /// Unit.
        unit: UnitId,
        /// Descriptor type (manual's number).
        descriptor: u8,
    },
    /// The invalidation queue wrote a wait status.
    StatusWritten {
        /// Unit.
        unit: UnitId,
        /// Where.
        pa: Pa,
        /// What.
        data: u32,
    },
    /// The running generation ended; the next one is `era`.
    Jumped {
        /// The new generation.
        era: u8,
    },
    /// A word of the workload.
    Note {
        /// Which.
        verb: Verb,
        /// Its arguments.
        args: [u64; 4],
    },
}

impl EventKind {
    /// Number of kinds.
    pub const KINDS: usize = 22;

    /// The bit of this kind in an interest mask.
    #[inline]
    pub const fn bit(&self) -> u32 {
        1 << self.index()
    }

    /// The number of this kind.
    #[inline(always)]
    pub const fn index(&self) -> usize {
        match self {
            EventKind::Load { .. } => 0,
            EventKind::Store { .. } => 1,
            EventKind::Locked { .. } => 2,
            EventKind::Unlocked { .. } => 3,
            EventKind::FramesTaken { .. } => 4,
            EventKind::FramesFreed { .. } => 5,
            EventKind::ObjectTaken { .. } => 6,
            EventKind::ObjectFreed { .. } => 7,
            EventKind::Injected { .. } => 8,
            EventKind::RegisterWritten { .. } => 9,
            EventKind::Fetched { .. } => 10,
            EventKind::DmaIssued { .. } => 11,
            EventKind::DmaTranslated { .. } => 12,
            EventKind::DmaFaulted { .. } => 13,
            EventKind::DmaLanded { .. } => 14,
            EventKind::DmaRead { .. } => 15,
            EventKind::DmaLost { .. } => 16,
            EventKind::Invalidated { .. } => 17,
            EventKind::StatusWritten { .. } => 18,
            EventKind::Jumped { .. } => 19,
            EventKind::TranslationSwitched { .. } => 20,
            EventKind::Note { .. } => 21,
        }
    }

    /// Four words that identify the event in the trace hash. Inlined, so that an event that is only hashed is never built.
    #[inline(always)]
    fn words(&self) -> [u64; 4] {
        match *self {
            EventKind::Load { pa, bytes, value, flavor } => [pa.0, u64::from(bytes), value, flavor as u64],
            EventKind::Store { pa, bytes, old, new, flavor } => [pa.0 ^ (flavor as u64) << 60, u64::from(bytes), old, new],
            EventKind::Locked { pa, kind } | EventKind::Unlocked { pa, kind } => [pa.0, kind as u64, 0, 0],
            EventKind::FramesTaken { pfn, order, tag } | EventKind::FramesFreed { pfn, order, tag } => {
                [pfn.0, u64::from(order), u64::from(tag.0), 0]
            }
            EventKind::ObjectTaken { pa, bytes, tag } => [pa.0, u64::from(bytes), u64::from(tag.0), 0],
            EventKind::ObjectFreed { pa, tag } => [pa.0, 0, u64::from(tag.0), 0],
            EventKind::Injected { kind, class } => [kind as u64, u64::from(class), 0, 0],
            EventKind::RegisterWritten { unit, offset, value } => [u64::from(unit.0), u64::from(offset), value, 0],
            EventKind::TranslationSwitched { unit, on } => [u64::from(unit.0), u64::from(on), 0, 0],
            EventKind::Fetched { unit, device, pa, bytes, value } => {
                [pa.0, u64::from(unit.0) | u64::from(bytes) << 8, value, device.map_or(u64::MAX, |device| u64::from(device.0))]
            }
            EventKind::DmaIssued { device, serial, iova, write } => [u64::from(device.0), u64::from(serial), iova.0, u64::from(write)],
            EventKind::DmaTranslated { device, serial, iova, pa, domain, cached } => [
                u64::from(device.0) | u64::from(serial) << 8 | u64::from(cached) << 63,
                iova.0,
                pa.0,
                domain.map_or(u64::MAX, |domain| u64::from(domain.0)),
            ],
            EventKind::DmaFaulted { device, serial, iova, reason, write } => {
                [u64::from(device.0), u64::from(serial), iova.0, u64::from(reason) | u64::from(write) << 8]
            }
            EventKind::DmaLanded { device, serial, iova, pa, old, new } => {
                [u64::from(device.0) | u64::from(serial) << 8, iova.0 ^ pa.0.rotate_left(32), old, new]
            }
            EventKind::DmaRead { device, serial, iova, pa, value } => [u64::from(device.0) | u64::from(serial) << 8, iova.0, pa.0, value],
            EventKind::DmaLost { device, serial, pa, write } => [u64::from(device.0), u64::from(serial), pa.0, u64::from(write)],
            EventKind::Invalidated { unit, descriptor } => [u64::from(unit.0), u64::from(descriptor), 0, 0],
            EventKind::StatusWritten { unit, pa, data } => [u64::from(unit.0), pa.0, u64::from(data), 0],
            EventKind::Jumped { era } => [u64::from(era), 0, 0, 0],
            EventKind::Note { verb, args } => [args[0] ^ u64::from(verb.0) << 48, args[1], args[2], args[3]],
        }
    }
}

const _: () = assert!(EventKind::Note { verb: Verb(0), args: [0; 4] }.index() + 1 == EventKind::KINDS);

/// One event: what, who, when.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Event {
    /// Step of the run, from 1.
    pub step: u64,
    /// The acting actor.
    pub actor: ActorId,
    /// Generation at the time.
    pub era: u8,
    /// What happened.
    pub kind: EventKind,
}

/// Hash of a whole event stream. Not cryptographic; equal streams have equal hashes on every host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceHash {
    state: [u64; 2],
}

impl Default for TraceHash {
    fn default() -> Self {
        TraceHash { state: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f] }
    }
}

impl TraceHash {
    /// Adds one event of `actor` at `step`.
    #[inline(always)]
    pub fn add(&mut self, step: u64, actor: ActorId, kind: &EventKind) {
        let words = kind.words();
        let head = step ^ u64::from(actor.0) << 48 ^ (kind.index() as u64) << 56;
        self.mix(head ^ words[0].rotate_left(17), words[1] ^ words[2].rotate_left(29) ^ words[3].rotate_left(43));
    }

    #[inline(always)]
    fn mix(&mut self, a: u64, b: u64) {
        let [x, y] = self.state;
        let x = (x ^ a).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
        let y = (y ^ b).wrapping_mul(0xc4ce_b9fe_1a85_ec53).rotate_left(27);
        self.state = [x.wrapping_add(y), y ^ x.rotate_left(13)];
    }

    /// The hash so far.
    pub fn value(&self) -> u64 {
        let [x, y] = self.state;
        let mut h = x ^ y.rotate_left(32);
        h = (h ^ h >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^ h >> 29
    }
}
