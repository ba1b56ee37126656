//! The caches of a unit: context cache, PASID cache, IOTLB, paging-structure caches.
//!
//! An entry stays until an invalidation that covers it, an eviction that the caller chose, or [`Unit::drop_cached`](crate::Unit::drop_cached)
//! removes it. Nothing looks at memory again: staleness is the point. Each entry keeps the words it was made from.
//!
//! The caches know tags and ranges; which command removes what is decided in `vtd::invalidate`.

pub mod context;
pub mod device_tlb;
pub mod iotlb;
pub mod pasid;
pub mod psc;
pub(crate) mod store;

use crate::provenance::{Provenance, ProvenanceId, SOURCES_MAX, SOURCES_NESTED_MAX, Words};
use crate::timing::{Geometry, Params};
use context::{ContextCache, ContextEntryCached};
use iotlb::{IotlbCache, IotlbEntry};
use pasid::{PasidCache, PasidEntryCached};
use psc::{PscCache, PscEntry};

/// All caches of one unit.
#[derive(Clone, Debug)]
pub struct Caches {
    pub(crate) context: ContextCache,
    pub(crate) pasid: PasidCache,
    pub(crate) iotlb: IotlbCache,
    pub(crate) psc: PscCache,
    /// The words of every entry, and of every walk.
    pub(crate) words: Words,
}

impl Caches {
    pub(crate) fn new(params: &Params, scalable: bool) -> Self {
        let context = ContextCache::new(params.context);
        let iotlb = IotlbCache::new(params.iotlb);
        let psc = PscCache::new(&params.psc);
        let pasid = PasidCache::new(if scalable { params.pasid } else { Geometry { sets: 1, ways: 0 } });
        let entries = context.capacity() + pasid.capacity() + iotlb.capacity() + psc.capacity();
        // Every entry and the walk that ended last hold one chain each, a walk up to three; one more is held while it
        // replaces another.
        let chains = entries + 3 * usize::from(params.walks_max) + 2;
        let words = Words::new(chains * if scalable { SOURCES_NESTED_MAX } else { SOURCES_MAX });
        Self { context, pasid, iotlb, psc, words }
    }

    /// Removes every entry of every cache; returns how many there were.
    pub(crate) fn clear(&mut self) -> u32 {
        let words = &mut self.words;
        self.context.clear(words) + self.pasid.clear(words) + self.iotlb.clear(words) + self.psc.clear(words)
    }

    /// Forgets every entry and every word, those of walks included, whatever their number.
    pub(crate) fn reset(&mut self) {
        self.context.reset();
        self.pasid.reset();
        self.iotlb.reset();
        self.psc.reset();
        self.words.reset();
    }

    /// The words that a cached entry was made from, outermost first.
    #[must_use]
    pub fn provenance(&self, of: ProvenanceId) -> Provenance {
        self.words.read(of)
    }

    /// Context-cache entries, in an order that depends only on the history of the cache.
    pub fn contexts(&self) -> impl Iterator<Item = &ContextEntryCached> {
        self.context.iter()
    }

    /// PASID-cache entries, in an order that depends only on the history of the cache.
    pub fn pasids(&self) -> impl Iterator<Item = &PasidEntryCached> {
        self.pasid.iter()
    }

    /// IOTLB entries, in an order that depends only on the history of the cache.
    pub fn iotlb(&self) -> impl Iterator<Item = &IotlbEntry> {
        self.iotlb.iter()
    }

    /// Paging-structure-cache entries, level 2 first.
    pub fn psc(&self) -> impl Iterator<Item = &PscEntry> {
        self.psc.iter()
    }

    /// Entries in all caches together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.context.len() + self.pasid.len() + self.iotlb.len() + self.psc.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the `n`-th entry counted over contexts, PASIDs, IOTLB, paging-structure caches; hardware may do so at any time.
    /// Returns whether there was one.
    pub(crate) fn drop_nth(&mut self, mut n: usize) -> bool {
        if self.context.remove_nth(n, &mut self.words) {
            return true;
        }
        n -= self.context.len();
        if self.pasid.remove_nth(n, &mut self.words) {
            return true;
        }
        n -= self.pasid.len();
        if self.iotlb.remove_nth(n, &mut self.words) {
            return true;
        }
        n -= self.iotlb.len();
        self.psc.remove_nth(n, &mut self.words)
    }
}
