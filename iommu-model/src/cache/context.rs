//! Context cache: tag source-id, content the decoded context entry (with what the root entry led to).

use super::store::{Cached, Key, Place, Store};
use crate::addr::{Bdf, DomainId, Pa, Pasid};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::spec::vtd::fault::FaultReason;
use crate::timing::Geometry;

/// Where requests of a device go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextTarget {
    /// Through second-stage tables.
    Tables {
        /// The top table.
        root: Pa,
        /// Levels of the walk, 3 to 5.
        levels: u8,
    },
    /// Passed through.
    PassThrough,
    /// Scalable mode: by what the PASID tables say.
    Scalable {
        /// The PASID directory.
        directory: Pa,
        /// PASIDs below 2^this are in the directory.
        pasid_bits: u8,
        /// PASID of requests that carry none.
        rid_pasid: Pasid,
        /// Requests without PASID are privileged.
        rid_privileged: bool,
        /// Requests with PASID are allowed.
        pasid_enabled: bool,
    },
    /// Nowhere: a not-present or erroneous entry, cached only under CM = 1.
    Fault(FaultReason),
}

/// One cached context entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextEntryCached {
    /// Tag.
    pub source: Bdf,
    /// DID of the entry; 0 for not-present entries, and in scalable mode, where the entry has none.
    pub domain: DomainId,
    /// FPD.
    pub fault_disable: bool,
    /// The device may ask for translations and send translated requests (T = 01, DTE).
    pub device_tlb: bool,
    /// The device may send page requests (PRE).
    pub page_requests: bool,
    /// Where requests go.
    pub target: ContextTarget,
    /// The words of the root and the context entry.
    pub provenance: ProvenanceId,
}

impl Cached for ContextEntryCached {
    const BLANK: Self = Self {
        source: Bdf(0),
        domain: DomainId(0),
        fault_disable: false,
        device_tlb: false,
        page_requests: false,
        target: ContextTarget::PassThrough,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

#[inline(always)]
fn key_of(source: Bdf) -> Key {
    Key { tag: u64::from(source.0), space: 0 }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct ContextCache {
    store: Store<ContextEntryCached>,
}

impl ContextCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry) }
    }

    /// The entry of a source; does not count as use.
    #[inline(always)]
    pub(crate) fn find(&self, source: Bdf) -> Option<Place> {
        self.store.find(key_of(source))
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> &ContextEntryCached {
        self.store.get(place)
    }

    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) {
        self.store.touch(place);
    }

    /// The entry of a source, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, source: Bdf) -> Option<&ContextEntryCached> {
        let place = self.find(source)?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    #[inline(always)]
    pub(crate) fn install(&mut self, entry: &ContextEntryCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = key_of(entry.source);
        self.store.insert(key.tag, key, *entry, words, |ways| ask(d, Question::EvictContext { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&ContextEntryCached) -> bool) -> u32 {
        self.store.retain(words, keep)
    }

    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        self.store.clear(words)
    }

    pub(crate) fn reset(&mut self) {
        self.store.reset();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.store.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    pub(crate) fn remove_nth(&mut self, n: usize, words: &mut Words) -> bool {
        self.store.remove_nth(n, words)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ContextEntryCached> {
        self.store.iter()
    }
}
