//! Directory caches: device contexts, process contexts, and the non-leaf entries that lead to each.

use crate::addr::{Pa, Pasid};
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::riscv::context::{DeviceContext, ProcessContext};
use crate::riscv::id::DeviceId;
use crate::timing::Geometry;

/// A cached device context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceEntry {
    /// Tag.
    pub device: DeviceId,
    /// Content.
    pub context: DeviceContext,
    /// The words of the directory and of the context.
    pub provenance: ProvenanceId,
}

/// A cached process context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessEntry {
    /// Tag.
    pub device: DeviceId,
    /// Tag.
    pub process: Pasid,
    /// Content.
    pub context: ProcessContext,
    /// The words of both directories and of the context.
    pub provenance: ProvenanceId,
}

/// A cached non-leaf entry of a device directory, or of the process directory of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryNode {
    /// Tag: the device of a process directory; the first device that a device directory entry leads to.
    pub device: DeviceId,
    /// Tag: the first process_id that a process directory entry leads to.
    pub process: Option<Pasid>,
    /// Level of the entry, 1 or 2; its table is of the level below.
    pub level: u8,
    /// The next table; on a second stage its address is one of the guest.
    pub table: Pa,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for DeviceEntry {
    const BLANK: Self = Self { device: DeviceId(0), context: DeviceContext::BLANK, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl Cached for ProcessEntry {
    const BLANK: Self = Self { device: DeviceId(0), process: Pasid(0), context: ProcessContext::BLANK, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl Cached for DirectoryNode {
    const BLANK: Self = Self { device: DeviceId(0), process: None, level: 0, table: Pa(0), provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl DeviceEntry {
    pub(crate) const fn key_of(device: DeviceId) -> Key {
        Key { tag: device.0 as u64, space: 0 }
    }
}

impl ProcessEntry {
    pub(crate) const fn key_of(device: DeviceId, process: Pasid) -> Key {
        Key { tag: device.0 as u64 | (process.0 as u64) << 24, space: 0 }
    }
}

impl DirectoryNode {
    /// `prefix` is the part of the device_id or process_id that indexed the tables down to this entry.
    pub(crate) const fn key_of(device: Option<DeviceId>, level: u8, prefix: u32) -> Key {
        let (device, process) = match device {
            Some(device) => (device.0, 1),
            None => (0, 0),
        };
        Key { tag: device as u64 | (prefix as u64) << 24, space: level as u32 | process << 8 }
    }
}

/// A bounded cache of one kind of entry.
#[derive(Clone, Debug)]
pub(crate) struct Directory<T> {
    pub(crate) store: Store<T>,
}

impl<T: Cached> Directory<T> {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry) }
    }

    /// The entry with this key, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, key: Key) -> Option<&T> {
        let place = self.store.find(key)?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    pub(crate) fn install(
        &mut self,
        key: Key,
        entry: T,
        words: &mut Words,
        d: &mut dyn Decisions,
        question: impl FnOnce(u32) -> crate::decision::Question,
    ) {
        self.store.insert(key.tag, key, entry, words, |ways| ask(d, question(ways)));
    }
}
