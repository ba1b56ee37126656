//! The caches of a unit, together the IOATC: device and process directory, IOTLB, walk caches of both stages.
//!
//! An entry stays until an invalidation that covers it, an eviction that the caller chose, or
//! [`Unit::drop_cached`](super::Unit::drop_cached) removes it. Nothing looks at memory again. Each entry keeps the words
//! it was made from. Entries whose V is 0 are never cached, nor are those that fault.

pub(crate) mod directory;
pub(crate) mod iotlb;
pub(crate) mod space;
pub(crate) mod walk;

use crate::provenance::{Provenance, ProvenanceId, Words};
use crate::timing::Params;
use directory::{DeviceEntry, Directory, DirectoryNode, ProcessEntry};
use iotlb::{Iotlb, TlbEntry};
use walk::{WalkCache, WalkEntry};

/// Most words of one chain: two directory entries and eight words of a context; a process directory of three levels on
/// five second-stage levels, with two entries and two words; five first-stage levels, each on five; the page on
/// five more, or an MSI entry of two.
const CHAIN_WORDS_MAX: usize = 2 + 8 + (3 * 5 + 2 + 2) + 5 * 6 + 5 + 2;

/// All caches of one unit.
#[derive(Clone, Debug)]
pub struct Caches {
    pub(crate) devices: Directory<DeviceEntry>,
    pub(crate) device_nodes: Directory<DirectoryNode>,
    pub(crate) processes: Directory<ProcessEntry>,
    pub(crate) process_nodes: Directory<DirectoryNode>,
    pub(crate) iotlb: Iotlb,
    pub(crate) walk: WalkCache,
    /// The words of every entry, and of every walk.
    pub(crate) words: Words,
}

impl Caches {
    /// Each directory cache comes twice: for contexts, and for what leads to them.
    pub(crate) fn new(params: &Params) -> Self {
        let mut caches = Self {
            devices: Directory::new(params.context),
            device_nodes: Directory::new(params.context),
            processes: Directory::new(params.pasid),
            process_nodes: Directory::new(params.pasid),
            iotlb: Iotlb::new(params.iotlb),
            walk: WalkCache::new(&params.psc),
            words: Words::new(0),
        };
        // Every entry and the walk that ended last hold one chain each, a walk up to three; one more is held while it
        // replaces another.
        let chains = caches.capacity() + 3 * usize::from(params.walks_max) + 2;
        caches.words = Words::new(chains * CHAIN_WORDS_MAX);
        caches
    }

    fn capacity(&self) -> usize {
        let directories = self.devices.store.capacity() + self.device_nodes.store.capacity();
        let processes = self.processes.store.capacity() + self.process_nodes.store.capacity();
        directories + processes + self.iotlb.capacity() + self.walk.capacity()
    }

    /// Removes what page-table entries were made into; returns how many there were.
    pub(crate) fn clear_translations(&mut self) -> u32 {
        self.iotlb.clear(&mut self.words) + self.walk.clear(&mut self.words)
    }

    /// Forgets every entry and every word, those of walks included, whatever their number.
    pub(crate) fn reset(&mut self) {
        self.devices.store.reset();
        self.device_nodes.store.reset();
        self.processes.store.reset();
        self.process_nodes.store.reset();
        self.iotlb.reset();
        self.walk.reset();
        self.words.reset();
    }

    /// The words that a cached entry was made from, outermost first.
    #[must_use]
    pub fn provenance(&self, of: ProvenanceId) -> Provenance {
        self.words.read(of)
    }

    /// Device contexts, in an order that depends only on the history of the cache.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceEntry> {
        self.devices.store.iter()
    }

    /// Non-leaf entries of device directories, in such an order.
    pub fn device_nodes(&self) -> impl Iterator<Item = &DirectoryNode> {
        self.device_nodes.store.iter()
    }

    /// Process contexts, in such an order.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessEntry> {
        self.processes.store.iter()
    }

    /// Non-leaf entries of process directories, in such an order.
    pub fn process_nodes(&self) -> impl Iterator<Item = &DirectoryNode> {
        self.process_nodes.store.iter()
    }

    /// Translations, in such an order.
    pub fn iotlb(&self) -> impl Iterator<Item = &TlbEntry> {
        self.iotlb.iter()
    }

    /// Non-leaf page-table entries, level 2 first.
    pub fn walk(&self) -> impl Iterator<Item = &WalkEntry> {
        self.walk.iter()
    }

    /// Entries in all caches together.
    #[must_use]
    pub fn len(&self) -> usize {
        let directories = self.devices.store.len() + self.device_nodes.store.len();
        let processes = self.processes.store.len() + self.process_nodes.store.len();
        directories + processes + self.iotlb.len() + self.walk.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the `n`-th entry: devices, their nodes, processes, their nodes, IOTLB, walk caches.
    pub(crate) fn drop_nth(&mut self, mut n: usize) -> bool {
        let words = &mut self.words;
        if n < self.devices.store.len() {
            return self.devices.store.remove_nth(n, words);
        }
        n -= self.devices.store.len();
        if n < self.device_nodes.store.len() {
            return self.device_nodes.store.remove_nth(n, words);
        }
        n -= self.device_nodes.store.len();
        if n < self.processes.store.len() {
            return self.processes.store.remove_nth(n, words);
        }
        n -= self.processes.store.len();
        if n < self.process_nodes.store.len() {
            return self.process_nodes.store.remove_nth(n, words);
        }
        n -= self.process_nodes.store.len();
        if n < self.iotlb.len() {
            return self.iotlb.remove_nth(n, words);
        }
        self.walk.remove_nth(n - self.iotlb.len(), words)
    }
}
