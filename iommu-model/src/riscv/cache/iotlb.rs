//! IOTLB: content the final address and permissions. All page sizes and all kinds of spaces share it.

use super::space::{SPACE_BITS, Space};
use crate::addr::{Iova, PAGE_SHIFT, Pa};
use crate::cache::store::{Cached, Key, Place, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::riscv::id::{Gscid, Pscid};
use crate::timing::Geometry;

/// log2 of every page size there is: five levels, and 64 KiB.
const SHIFTS: [u8; 6] = [12, 16, 21, 30, 39, 48];

/// What a leaf allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// R.
    pub read: bool,
    /// W.
    pub write: bool,
    /// X.
    pub execute: bool,
}

impl Permissions {
    /// Nothing.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true };

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { read: self.read && other.read, write: self.write && other.write, execute: self.execute && other.execute }
    }

    /// Whether everything that `needed` names is allowed.
    #[must_use]
    pub const fn serves(self, needed: Self) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write) && (self.execute || !needed.execute)
    }
}

/// One cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbEntry {
    /// Tag: address space.
    pub space: Space,
    /// Tag: first address of the page.
    pub page: Iova,
    /// Tag: log2 of the page size, the smaller of both stages.
    pub shift: u8,
    /// First byte of the host page.
    pub frame: Pa,
    /// First byte of the page in the guest; without second stage, that of the host page.
    pub guest_page: Pa,
    /// log2 of the page size of the first-stage leaf; 0 without first stage.
    pub first_shift: u8,
    /// log2 of the page size of the second-stage leaf; 0 without second stage.
    pub second_shift: u8,
    /// What the first-stage leaf allows; everything without first stage.
    pub first: Permissions,
    /// What the second-stage leaf or MSI entry allows; everything without second stage.
    pub second: Permissions,
    /// U of the first-stage leaf; set without first stage.
    pub user: bool,
    /// It may serve writes without a walk: D is set in both leaves.
    pub dirty: bool,
    /// PBMT of the first stage, else of the second.
    pub memory_type: u8,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for TlbEntry {
    const BLANK: Self = Self {
        space: Space::Host(Pscid(0)),
        page: Iova(0),
        shift: 0,
        frame: Pa(0),
        guest_page: Pa(0),
        first_shift: 0,
        second_shift: 0,
        first: Permissions::NONE,
        second: Permissions::NONE,
        user: false,
        dirty: false,
        memory_type: 0,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl TlbEntry {
    /// A page that no stage translates; never cached, for such pages need no invalidation.
    pub(crate) const fn identity(iova: Iova) -> Self {
        let page = iova.page();
        Self {
            space: Space::HostGlobal,
            page,
            shift: PAGE_SHIFT as u8,
            frame: Pa(page.0),
            guest_page: Pa(page.0),
            first_shift: 0,
            second_shift: 0,
            first: Permissions::ALL,
            second: Permissions::ALL,
            user: true,
            dirty: true,
            memory_type: 0,
            provenance: ProvenanceId::NONE,
        }
    }

    /// The host address of an address in this page.
    #[inline]
    #[must_use]
    pub const fn translate(&self, iova: Iova) -> Pa {
        Pa(self.frame.0 | (iova.0 & ((1 << self.shift) - 1)))
    }

    /// First address and log2 of the size of what the first-stage leaf maps, of which this may be a fragment.
    pub(crate) const fn first_leaf(&self) -> (u64, u8) {
        (self.page.0 & !((1 << self.first_shift) - 1), self.first_shift)
    }

    /// The same of the second-stage leaf, in guest-physical addresses.
    pub(crate) const fn second_leaf(&self) -> (u64, u8) {
        (self.guest_page.0 & !((1 << self.second_shift) - 1), self.second_shift)
    }

    /// The guest it is of, if its guest pages count.
    pub(crate) const fn guest(&self) -> Option<Gscid> {
        self.space.gscid()
    }
}

/// Bits of a page number: 59 address bits without 12.
const NUMBER_BITS: u32 = 47;
/// Bits of a size code.
const SIZE_BITS: u32 = 3;
/// Bits of a GSCID that find room in the tag.
const GSCID_BITS: u32 = 64 - NUMBER_BITS - SIZE_BITS;

/// Size, page number and space in one key; a canonical address keeps its meaning without the copies of its top bit.
#[inline(always)]
fn key(space: Space, size: usize, address: u64) -> Key {
    let (gscid, code) = space.code();
    let number = (address >> SHIFTS[size]) & ((1 << NUMBER_BITS) - 1);
    let tag = number | (size as u64) << NUMBER_BITS | gscid << (NUMBER_BITS + SIZE_BITS);
    Key { tag, space: code | ((gscid >> GSCID_BITS) as u32) << SPACE_BITS }
}

/// Whether an address needs no more than the 59 bits of the widest second stage.
pub(crate) const fn is_widest_guest_physical(address: u64) -> bool {
    address >> (NUMBER_BITS + PAGE_SHIFT) == 0
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct Iotlb {
    store: Store<TlbEntry>,
    /// Bit n: an entry of `SHIFTS[n]` was installed since the last clear. Other sizes need no look-up.
    sizes: u8,
    /// A global entry was installed since the last clear.
    globals: bool,
}

impl Iotlb {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry), sizes: 0, globals: false }
    }

    /// The entry that serves an address, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, space: Space, address: u64, d: &mut dyn Decisions) -> Option<&TlbEntry> {
        let place = match self.sizes {
            1 if !self.globals => self.store.find(key(space, 0, address)),
            0 => None,
            _ => self.find_any(space, address, d),
        }?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    /// Several sizes, or global pages, are to be looked up.
    fn find_any(&self, space: Space, address: u64, d: &mut dyn Decisions) -> Option<Place> {
        let mut ways = 0;
        let mut first = None;
        self.matching(space, address, |place| {
            first = first.or(Some(place));
            ways += 1;
        });
        if ways <= 1 {
            return first;
        }
        let chosen = ask(d, Question::ChooseIotlb { ways });
        let mut n = 0;
        let mut found = None;
        self.matching(space, address, |place| {
            if n == chosen {
                found = Some(place);
            }
            n += 1;
        });
        found
    }

    fn matching(&self, space: Space, address: u64, mut each: impl FnMut(Place)) {
        let mut left = self.sizes;
        while left != 0 {
            let size = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(place) = self.store.find(key(space, size, address)) {
                each(place);
            }
            if self.globals
                && space.global() != space
                && let Some(place) = self.store.find(key(space.global(), size, address))
            {
                each(place);
            }
        }
    }

    pub(crate) fn install(&mut self, entry: TlbEntry, words: &mut Words, d: &mut dyn Decisions) {
        let Some(size) = SHIFTS.iter().position(|shift| *shift == entry.shift) else { return };
        if self.store.is_off() || !(entry.space.has_first_stage() || is_widest_guest_physical(entry.page.0)) {
            return;
        }
        self.sizes |= 1 << size;
        self.globals |= matches!(entry.space, Space::HostGlobal | Space::GuestGlobal(_));
        let key = key(entry.space, size, entry.page.0);
        self.store.insert(entry.page.0 >> PAGE_SHIFT, key, entry, words, |ways| ask(d, Question::EvictIotlb { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&TlbEntry) -> bool) -> u32 {
        self.store.retain(words, keep)
    }

    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        (self.sizes, self.globals) = (0, false);
        self.store.clear(words)
    }

    pub(crate) fn reset(&mut self) {
        (self.sizes, self.globals) = (0, false);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_spaces_sizes_and_pages_differ() {
        let spaces = [
            Space::Host(Pscid(0)),
            Space::Host(Pscid(0xf_ffff)),
            Space::HostGlobal,
            Space::Guest(Gscid(0), Pscid(0)),
            Space::Guest(Gscid(0xffff), Pscid(0)),
            Space::Guest(Gscid(0x3fff), Pscid(0)),
            Space::GuestGlobal(Gscid(0)),
            Space::GuestPhysical(Gscid(0)),
            Space::GuestPhysical(Gscid(0xc000)),
            Space::GuestMessages(Gscid(0)),
        ];
        let mut seen = Vec::new();
        for space in spaces {
            for size in 0..SHIFTS.len() {
                for address in [0, 1 << 48, 7 << 56] {
                    let key = key(space, size, address);
                    assert!(!seen.contains(&(key.tag, key.space)), "{space:?} {size} {address:#x}");
                    seen.push((key.tag, key.space));
                }
            }
        }
        assert!(is_widest_guest_physical(7 << 56) && !is_widest_guest_physical(8 << 56));
    }
}
