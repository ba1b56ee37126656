//! GCR3 cache: tag device id and PASID, content the guest page table that the GCR3 table leads to.

use crate::addr::{Bdf, DomainId, Pa, Pasid};
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::timing::Geometry;

/// One cached GCR3 table entry of the last level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestRootCached {
    /// Tag.
    pub device: Bdf,
    /// Tag.
    pub pasid: Pasid,
    /// Domain of the device, by which invalidations name it.
    pub domain: DomainId,
    /// Root of the guest page table; an address of the guest.
    pub root: Pa,
    /// The words of the device table entry and of the GCR3 table.
    pub provenance: ProvenanceId,
}

impl Cached for GuestRootCached {
    const BLANK: Self = Self { device: Bdf(0), pasid: Pasid(0), domain: DomainId(0), root: Pa(0), provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct GuestRootCache {
    pub(crate) store: Store<GuestRootCached>,
}

const fn key(device: Bdf, pasid: Pasid) -> Key {
    Key { tag: device.0 as u64 | (pasid.0 as u64) << 16, space: 0 }
}

impl GuestRootCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry) }
    }

    /// The entry of a PASID of a device, marked as used.
    pub(crate) fn lookup(&mut self, device: Bdf, pasid: Pasid) -> Option<&GuestRootCached> {
        let place = self.store.find(key(device, pasid))?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    pub(crate) fn install(&mut self, entry: GuestRootCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = key(entry.device, entry.pasid);
        self.store.insert(u64::from(entry.pasid.0), key, entry, words, |ways| ask(d, Question::EvictPasid { ways }));
    }
}
