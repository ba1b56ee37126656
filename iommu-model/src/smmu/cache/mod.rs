//! The caches of a unit: stream table entries, context descriptors, level-1 descriptors of both, TLB, walk caches.
//!
//! An entry stays until a command that covers it, an eviction that the caller chose, or
//! [`Unit::drop_cached`](super::Unit::drop_cached) removes it. Each keeps the words it was made from. Which command removes
//! what is decided in `smmu::invalidate`.

pub mod config;
pub mod tlb;
pub mod walk;

use super::params::Params;
use crate::provenance::{Provenance, ProvenanceId, Words};
use config::{ConfigCache, ContextEntryCached, Level1Cached, StreamEntryCached};
use tlb::{TlbCache, TlbEntry};
use walk::{WalkCache, WalkEntry};

/// Most words of one chain: level-1 stream descriptor, four of the STE, level-1 CD, three of the CD, four stage-1 levels, and
/// four stage-2 levels below the level-1 CD, the CD, each stage-1 level and the page.
const WORDS_MAX: usize = 1 + 4 + 1 + 3 + 4 + 7 * 4;

/// All caches of one unit.
#[derive(Clone, Debug)]
pub struct Caches {
    pub(crate) config: ConfigCache,
    pub(crate) tlb: TlbCache,
    pub(crate) walk: WalkCache,
    /// The words of every entry, and of every walk.
    pub(crate) words: Words,
}

impl Caches {
    pub(crate) fn new(params: &Params) -> Self {
        let config = ConfigCache::new(params);
        let tlb = TlbCache::new(params.tlb);
        let walk = WalkCache::new(params);
        let entries = config.capacity() + tlb.capacity() + walk.capacity();
        // Every entry and the walk that ended last hold one chain each, a walk up to three; one more is held while it
        // replaces another.
        let chains = entries + 3 * usize::from(params.walks_max) + 2;
        Self { config, tlb, walk, words: Words::new(chains * WORDS_MAX) }
    }

    pub(crate) fn reset(&mut self) {
        self.config.reset();
        self.tlb.reset();
        self.walk.reset();
        self.words.reset();
    }

    /// The words that a cached entry was made from, outermost first.
    #[must_use]
    pub fn provenance(&self, of: ProvenanceId) -> Provenance {
        self.words.read(of)
    }

    /// Stream table entries, in an order that depends only on the history of the cache.
    pub fn streams(&self) -> impl Iterator<Item = &StreamEntryCached> {
        self.config.streams.iter()
    }

    /// Context descriptors, in an order that depends only on the history of the cache.
    pub fn contexts(&self) -> impl Iterator<Item = &ContextEntryCached> {
        self.config.contexts.iter()
    }

    /// Level-1 descriptors, in an order that depends only on the history of the cache.
    pub fn level_1(&self) -> impl Iterator<Item = &Level1Cached> {
        self.config.level_1.iter()
    }

    /// TLB entries, in an order that depends only on the history of the cache.
    pub fn tlb(&self) -> impl Iterator<Item = &TlbEntry> {
        self.tlb.iter()
    }

    /// Walk-cache entries: stage 1 from level 0 down, then stage 2.
    pub fn walks(&self) -> impl Iterator<Item = &WalkEntry> {
        self.walk.iter()
    }

    /// Entries in all caches together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.config.len() + self.tlb.len() + self.walk.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the `n`-th entry, counted over STEs, CDs, level-1 descriptors, TLB, walk caches; returns whether there was one.
    pub(crate) fn drop_nth(&mut self, n: usize) -> bool {
        let words = &mut self.words;
        let (config, tlb) = (self.config.len(), self.tlb.len());
        if n < config {
            return self.config.remove_nth(n, words);
        }
        if n - config < tlb {
            return self.tlb.remove_nth(n - config, words);
        }
        self.walk.remove_nth(n - config - tlb, words)
    }
}
