//! The caches of a unit: context cache, IOTLB, paging-structure caches.
//!
//! An entry stays until an invalidation that covers it, an eviction that the caller chose, or [`Unit::drop_cached`](crate::Unit::drop_cached)
//! removes it. Nothing looks at memory again: staleness is the point. Each entry keeps the words it was made from.
//!
//! The caches know tags and ranges; which command removes what is decided in `vtd::invalidate`.

pub mod context;
pub mod iotlb;
pub mod psc;
pub(crate) mod store;

use crate::timing::Params;
use context::{ContextCache, ContextEntryCached};
use iotlb::{IotlbCache, IotlbEntry};
use psc::{PscCache, PscEntry};

/// All caches of one unit.
#[derive(Clone, Debug)]
pub struct Caches {
    pub(crate) context: ContextCache,
    pub(crate) iotlb: IotlbCache,
    pub(crate) psc: PscCache,
}

impl Caches {
    pub(crate) fn new(params: &Params) -> Self {
        Self { context: ContextCache::new(params.context), iotlb: IotlbCache::new(params.iotlb), psc: PscCache::new(&params.psc) }
    }

    /// Removes every entry of every cache; returns how many there were.
    pub(crate) fn clear(&mut self) -> u32 {
        self.context.clear() + self.iotlb.clear() + self.psc.clear()
    }

    /// Context-cache entries, in an order that depends only on the history of the cache.
    pub fn contexts(&self) -> impl Iterator<Item = &ContextEntryCached> {
        self.context.iter()
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
        self.context.len() + self.iotlb.len() + self.psc.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the `n`-th entry counted over contexts, IOTLB, paging-structure caches; hardware may do so at any time.
    /// Returns whether there was one.
    pub(crate) fn drop_nth(&mut self, mut n: usize) -> bool {
        if self.context.remove_nth(n) {
            return true;
        }
        n -= self.context.len();
        if self.iotlb.remove_nth(n) {
            return true;
        }
        n -= self.iotlb.len();
        self.psc.remove_nth(n)
    }
}
