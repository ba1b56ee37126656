//! The caches of a unit: device table entries, GCR3 table entries, TLB, page-directory caches.
//!
//! An entry stays until an invalidation that covers it, an eviction that the caller chose, or
//! [`Unit::drop_cached`](super::Unit::drop_cached) removes it. Nothing looks at memory again. Each entry keeps the words
//! it was made from.

pub(crate) mod device;
pub(crate) mod directory;
pub(crate) mod guest_root;
pub(crate) mod space;
pub(crate) mod tlb;

use crate::provenance::{Provenance, ProvenanceId, Words};
use crate::timing::Params;
use device::{DeviceCache, DeviceCached};
use directory::{DirectoryCache, DirectoryEntry};
use guest_root::{GuestRootCache, GuestRootCached};
use tlb::{Tlb, TlbEntry};

/// Most words of one chain: a device table entry, three GCR3 levels and five guest levels on six host levels each, and six
/// host levels for the page.
const CHAIN_WORDS_MAX: usize = 4 + (3 + 5) * (6 + 1) + 6;

/// All caches of one unit.
#[derive(Clone, Debug)]
pub struct Caches {
    pub(crate) devices: DeviceCache,
    pub(crate) guest_roots: GuestRootCache,
    pub(crate) tlb: Tlb,
    pub(crate) directories: DirectoryCache,
    /// The words of every entry, and of every walk.
    pub(crate) words: Words,
}

impl Caches {
    pub(crate) fn new(params: &Params) -> Self {
        let mut caches = Self {
            devices: DeviceCache::new(params.context),
            guest_roots: GuestRootCache::new(params.pasid),
            tlb: Tlb::new(params.iotlb),
            directories: DirectoryCache::new(params.psc),
            words: Words::new(0),
        };
        // Every entry and the walk that ended last hold one chain each, a walk up to three; one more is held while it
        // replaces another.
        let entries =
            caches.devices.store.capacity() + caches.guest_roots.store.capacity() + caches.tlb.capacity() + caches.directories.capacity();
        caches.words = Words::new((entries + 3 * usize::from(params.walks_max) + 2) * CHAIN_WORDS_MAX);
        caches
    }

    /// Removes every entry of every cache; returns how many there were.
    pub(crate) fn clear(&mut self) -> u32 {
        let words = &mut self.words;
        self.devices.store.clear(words) + self.guest_roots.store.clear(words) + self.tlb.clear(words) + self.directories.clear(words)
    }

    /// Forgets every entry and every word, those of walks included, whatever their number.
    pub(crate) fn reset(&mut self) {
        self.devices.store.reset();
        self.guest_roots.store.reset();
        self.tlb.reset();
        self.directories.reset();
        self.words.reset();
    }

    /// The words that a cached entry was made from, outermost first.
    #[must_use]
    pub fn provenance(&self, of: ProvenanceId) -> Provenance {
        self.words.read(of)
    }

    /// Device table entries, in an order that depends only on the history of the cache.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceCached> {
        self.devices.store.iter()
    }

    /// GCR3 table entries, in such an order.
    pub fn guest_roots(&self) -> impl Iterator<Item = &GuestRootCached> {
        self.guest_roots.store.iter()
    }

    /// Translations, in such an order.
    pub fn tlb(&self) -> impl Iterator<Item = &TlbEntry> {
        self.tlb.iter()
    }

    /// Non-leaf entries, level 2 first.
    pub fn directories(&self) -> impl Iterator<Item = &DirectoryEntry> {
        self.directories.iter()
    }

    /// Entries in all caches together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.store.len() + self.guest_roots.store.len() + self.tlb.len() + self.directories.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the `n`-th entry: devices, GCR3 table entries, TLB, non-leaf entries.
    pub(crate) fn drop_nth(&mut self, mut n: usize) -> bool {
        let words = &mut self.words;
        if n < self.devices.store.len() {
            return self.devices.store.remove_nth(n, words);
        }
        n -= self.devices.store.len();
        if n < self.guest_roots.store.len() {
            return self.guest_roots.store.remove_nth(n, words);
        }
        n -= self.guest_roots.store.len();
        if n < self.tlb.len() {
            return self.tlb.remove_nth(n, words);
        }
        self.directories.remove_nth(n - self.tlb.len(), words)
    }
}
