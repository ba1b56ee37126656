//! TLB: translations by virtual address (of stage 1, or of both stages combined) and by IPA (of stage 2 alone). All page
//! sizes share it.
//!
//! A virtual address is tagged by VMID and ASID, or by VMID alone if the leaf is global; an IPA by VMID. Entries of different
//! sizes for one address may stand side by side.

use crate::addr::{Iova, Pa};
use crate::cache::store::{Cached, Key, Place, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::request::Access;
use crate::smmu::ids::{Asid, Vmid};
use crate::timing::Geometry;

/// What a cached address means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// A virtual address of one ASID.
    Virtual(Asid),
    /// A virtual address of every ASID of the VMID (nG = 0).
    Global,
    /// An intermediate physical address.
    Intermediate,
}

impl Space {
    /// Whether it is one of stage 1.
    #[must_use]
    pub const fn is_stage_1(self) -> bool {
        !matches!(self, Self::Intermediate)
    }

    #[inline(always)]
    const fn key(self) -> u32 {
        match self {
            Self::Virtual(asid) => asid.0 as u32,
            Self::Global => 1 << 16,
            Self::Intermediate => 2 << 16,
        }
    }

    #[inline(always)]
    const fn index(self) -> usize {
        match self {
            Self::Virtual(_) => 0,
            Self::Global => 1,
            Self::Intermediate => 2,
        }
    }
}

/// One cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbEntry {
    /// Tag.
    pub vmid: Vmid,
    /// Tag.
    pub space: Space,
    /// Tag: first address.
    pub page: Iova,
    /// Tag: bytes that it maps.
    pub page_bytes: u64,
    /// First byte of the output.
    pub frame: Pa,
    /// Reads are allowed.
    pub readable: bool,
    /// Writes are allowed, perhaps after an update of the descriptor.
    pub writable: bool,
    /// Writes need no update of a descriptor.
    pub dirty: bool,
    /// Stage 2 is in it: its output is that of both stages.
    pub combined: bool,
    /// Level of the leaf; of stage 1, if it has one.
    pub level: u8,
    /// log2 of the granule of those tables.
    pub granule: u8,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for TlbEntry {
    const BLANK: Self = Self {
        vmid: Vmid(0),
        space: Space::Global,
        page: Iova(0),
        page_bytes: 0,
        frame: Pa(0),
        readable: false,
        writable: false,
        dirty: false,
        combined: false,
        level: 0,
        granule: 0,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl TlbEntry {
    /// Whether the access needs no walk and no refusal.
    #[inline]
    #[must_use]
    pub const fn serves(&self, access: Access) -> bool {
        match access {
            Access::Read => self.readable,
            Access::Write => self.writable && self.dirty,
        }
    }

    /// The output for an address in this page.
    #[inline]
    #[must_use]
    pub const fn translate(&self, address: u64) -> Pa {
        Pa(self.frame.0 | (address & (self.page_bytes - 1)))
    }
}

/// log2 of the smallest page.
const PAGE_SHIFT: u32 = 12;
/// Bits of the number of a smallest page: a virtual address has 48 bits and its half.
const NUMBER_BITS: u32 = 49 - PAGE_SHIFT;

#[inline(always)]
const fn key(vmid: Vmid, space: u32, size: u32, address: u64) -> Key {
    let number = (address >> (PAGE_SHIFT + size)) & ((1 << NUMBER_BITS) - 1);
    Key { tag: ((vmid.0 as u64) << (NUMBER_BITS + 5)) | ((size as u64) << NUMBER_BITS) | number, space }
}

/// What a look-up found.
pub(crate) enum Found<'a> {
    /// Nothing.
    Miss,
    /// An entry; the only one, or the one that was chosen.
    Hit(&'a TlbEntry),
    /// Several, and the unit does not choose.
    Conflict,
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct TlbCache {
    store: Store<TlbEntry>,
    /// For each kind of space, bit n: an entry of 2^(12 + n) bytes was installed since the last reset.
    sizes: [u32; 3],
}

impl TlbCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry), sizes: [0; 3] }
    }

    #[inline(always)]
    fn find(&self, vmid: Vmid, space: Space, address: u64, found: &mut Option<Place>, count: &mut u32, nth: u32) {
        let mut left = self.sizes[space.index()];
        while left != 0 {
            if let Some(place) = self.store.find(key(vmid, space.key(), left.trailing_zeros(), address)) {
                if *count == nth {
                    *found = Some(place);
                }
                *count += 1;
            }
            left &= left - 1;
        }
    }

    /// The entry that serves an address, marked as used. With `conflicts`, several may also be none.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, vmid: Vmid, space: Space, address: u64, conflicts: bool, d: &mut dyn Decisions) -> Found<'_> {
        // Most units see one page size and no global page.
        let own = self.sizes[space.index()];
        if own.is_power_of_two() && (self.sizes[Space::Global.index()] == 0 || !space.is_stage_1()) {
            return match self.store.find(key(vmid, space.key(), own.trailing_zeros(), address)) {
                Some(place) => {
                    self.store.touch(place);
                    Found::Hit(self.store.get(place))
                }
                None => Found::Miss,
            };
        }
        self.lookup_several(vmid, space, address, conflicts, d)
    }

    /// The entry that serves an address, if only one page size was ever cached; does not count as use.
    #[inline(always)]
    pub(crate) fn find_one(&self, vmid: Vmid, space: Space, address: u64) -> Option<Place> {
        let own = self.sizes[space.index()];
        let simple = own.is_power_of_two() && (self.sizes[Space::Global.index()] == 0 || !space.is_stage_1());
        if simple { self.store.find(key(vmid, space.key(), own.trailing_zeros(), address)) } else { None }
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> &TlbEntry {
        self.store.get(place)
    }

    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) {
        self.store.touch(place);
    }

    /// Where entries of several sizes or spaces may match.
    #[inline(never)]
    fn lookup_several(&mut self, vmid: Vmid, space: Space, address: u64, conflicts: bool, d: &mut dyn Decisions) -> Found<'_> {
        let (mut found, mut count) = (None, 0);
        self.find(vmid, space, address, &mut found, &mut count, 0);
        if space.is_stage_1() {
            self.find(vmid, Space::Global, address, &mut found, &mut count, 0);
        }
        let Some(mut place) = found else { return Found::Miss };
        if count > 1 {
            match self.choose(vmid, space, address, count, conflicts, d) {
                Some(chosen) => place = chosen,
                None => return Found::Conflict,
            }
        }
        self.store.touch(place);
        Found::Hit(self.store.get(place))
    }

    #[cold]
    fn choose(&self, vmid: Vmid, space: Space, address: u64, ways: u32, conflicts: bool, d: &mut dyn Decisions) -> Option<Place> {
        if conflicts && ask(d, Question::RaiseConflict) != 0 {
            return None;
        }
        let nth = ask(d, Question::ChooseIotlb { ways });
        let (mut found, mut count) = (None, 0);
        self.find(vmid, space, address, &mut found, &mut count, nth);
        if space.is_stage_1() {
            self.find(vmid, Space::Global, address, &mut found, &mut count, nth);
        }
        found
    }

    pub(crate) fn install(&mut self, entry: TlbEntry, words: &mut Words, d: &mut dyn Decisions) {
        let size = entry.page_bytes.trailing_zeros() - PAGE_SHIFT;
        self.sizes[entry.space.index()] |= 1 << size;
        let key = key(entry.vmid, entry.space.key(), size, entry.page.0);
        self.store.insert(entry.page.0 >> (PAGE_SHIFT + size), key, entry, words, |ways| ask(d, Question::EvictIotlb { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&TlbEntry) -> bool) -> u32 {
        self.store.retain(words, keep)
    }

    pub(crate) fn reset(&mut self) {
        self.sizes = [0; 3];
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TlbEntry> {
        self.store.iter()
    }
}
