//! IOTLB: tag domain, page and page size; content the final address and permissions. All page sizes share it.
//!
//! Entries of different sizes for one address may stand side by side, as on hardware when software changes a
//! page size without invalidating; which one a look-up takes is asked of the caller.

use super::store::{Place, Store};
use crate::addr::{DomainId, Iova, PAGE_SHIFT, Pa};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::Provenance;
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::second_stage::LEVEL_BITS;
use crate::timing::Geometry;
use smallvec::SmallVec;

/// Levels that can hold a leaf: 4 KiB, 2 MiB, 1 GiB.
const LEAF_LEVELS: u32 = 3;

/// log2 of the page size of a leaf at `level`.
pub(crate) const fn page_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32).saturating_sub(1)
}

/// One cached translation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IotlbEntry {
    /// Tag: domain.
    pub domain: DomainId,
    /// Tag: first address of the page.
    pub page: Iova,
    /// Tag: page size in bytes.
    pub page_bytes: u64,
    /// First byte of the host page.
    pub frame: Pa,
    /// AND of R over all levels.
    pub readable: bool,
    /// AND of W over all levels.
    pub writable: bool,
    /// Set for an erroneous entry that CM = 1 let in. A not-present entry let in by CM = 1 is one with neither
    /// permission and no reason here.
    pub fault: Option<FaultReason>,
    /// The words it was made from: root, context, every level.
    pub provenance: Provenance,
}

impl IotlbEntry {
    /// The host address of an address in this page.
    #[must_use]
    pub const fn translate(&self, iova: Iova) -> Pa {
        Pa(self.frame.0 | (iova.0 & (self.page_bytes - 1)))
    }
}

/// Bits of the number of a 4 KiB page in a 57-bit address.
const NUMBER_BITS: u32 = 45;

/// Domain, size and page number in one word.
const fn tag(domain: DomainId, level: u8, number: u64) -> u64 {
    ((domain.0 as u64) << (NUMBER_BITS + 2)) | ((level as u64) << NUMBER_BITS) | number
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct IotlbCache {
    store: Store<IotlbEntry>,
    /// Whether an entry of each size was ever installed since the last clear: sizes that were not need no look-up.
    sizes: [bool; LEAF_LEVELS as usize],
}

impl IotlbCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry), sizes: [false; LEAF_LEVELS as usize] }
    }

    /// The entry that serves an address, marked as used.
    pub(crate) fn lookup(&mut self, domain: DomainId, iova: Iova, d: &mut dyn Decisions) -> Option<&IotlbEntry> {
        let mut found: SmallVec<[Place; LEAF_LEVELS as usize]> = SmallVec::new();
        for level in (1..=LEAF_LEVELS as u8).filter(|level| self.sizes[usize::from(level - 1)]) {
            let number = iova.0 >> page_shift(level);
            found.extend(self.store.find(number, tag(domain, level, number)));
        }
        let ways = found.len() as u32;
        let place = *found.get(ask(d, Question::ChooseIotlb { ways }) as usize)?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    pub(crate) fn install(&mut self, entry: IotlbEntry, d: &mut dyn Decisions) {
        let shift = entry.page_bytes.trailing_zeros();
        let level = ((shift - PAGE_SHIFT) / LEVEL_BITS + 1) as u8;
        let number = entry.page.0 >> shift;
        self.sizes[usize::from(level - 1)] = true;
        let tag = tag(entry.domain, level, number);
        self.store.insert(number, tag, entry, |ways| ask(d, Question::EvictIotlb { ways }));
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&IotlbEntry) -> bool) -> u32 {
        self.store.retain(keep)
    }

    pub(crate) fn clear(&mut self) -> u32 {
        self.sizes = [false; LEAF_LEVELS as usize];
        self.store.clear()
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    pub(crate) fn remove_nth(&mut self, n: usize) -> bool {
        self.store.remove_nth(n)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IotlbEntry> {
        self.store.iter()
    }
}
