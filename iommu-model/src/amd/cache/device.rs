//! Device table entry cache: tag device id, content the decoded entry.

use crate::addr::Bdf;
use crate::amd::device_entry::DeviceEntry;
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::timing::Geometry;

/// One cached device table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceCached {
    /// Tag.
    pub device: Bdf,
    /// Content.
    pub entry: DeviceEntry,
    /// The words of the entry.
    pub provenance: ProvenanceId,
}

impl Cached for DeviceCached {
    const BLANK: Self = Self { device: Bdf(0), entry: DeviceEntry::BLANK, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct DeviceCache {
    pub(crate) store: Store<DeviceCached>,
}

const fn key(device: Bdf) -> Key {
    Key { tag: device.0 as u64, space: 0 }
}

impl DeviceCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry) }
    }

    /// The entry of a device, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, device: Bdf) -> Option<&DeviceCached> {
        let place = self.store.find(key(device))?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    /// The same, not marked.
    #[inline(always)]
    pub(crate) fn peek(&self, device: Bdf) -> Option<&DeviceCached> {
        Some(self.store.get(self.store.find(key(device))?))
    }

    pub(crate) fn install(&mut self, entry: DeviceCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = key(entry.device);
        self.store.insert(key.tag, key, entry, words, |ways| ask(d, Question::EvictContext { ways }));
    }
}
