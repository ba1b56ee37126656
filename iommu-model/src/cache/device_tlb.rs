//! Device TLB: the translations that a device keeps for itself. Tag PASID, page and page size; content as in the IOTLB.
//!
//! It belongs to a device, not to a unit, and is the same for every architecture. The device asks
//! ([`DeviceTlb::ask`]), the unit answers by a walk, the device keeps the answer ([`DeviceTlb::keep`]) and looks it up
//! ([`DeviceTlb::look_up`]) instead of asking again. An invalidation removes what it covers, and marks the questions that
//! are still open: their answers may be from before it and are thrown away.
//!
//! Answers without any permission are not kept. A page that an invalidation touches goes as a whole, whatever its size.
//! That the device says "done" only after its own accesses at removed addresses have landed is the caller's part, and so
//! is a device that breaks these rules.

use super::iotlb::{key, page_shift, space_of};
use super::store::{Cached, Place, Store};
use crate::addr::{DomainId, Iova, PAGE_SHIFT, Pa, Pasid};
use crate::ats::DeviceInvalidation;
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{Provenance, ProvenanceId, SOURCES_NESTED_MAX, Source, Words};
use crate::request::{Access, Busy, Translation};
use crate::spec::vtd::second_stage::LEVEL_BITS;
use crate::timing::Geometry;

/// One kept translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceTlbEntry {
    /// Tag: the PASID that the device asked with.
    pub pasid: Option<Pasid>,
    /// Tag: first address of the page.
    pub page: Iova,
    /// Tag: page size in bytes.
    pub page_bytes: u64,
    /// First byte of the host page.
    pub frame: Pa,
    /// Reads were granted.
    pub readable: bool,
    /// Writes were granted.
    pub writable: bool,
    /// The words that the answer was made from.
    pub provenance: ProvenanceId,
}

impl Cached for DeviceTlbEntry {
    const BLANK: Self =
        Self { pasid: None, page: Iova(0), page_bytes: 0, frame: Pa(0), readable: false, writable: false, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// Most questions that a device has open at a time.
const QUESTIONS_MAX: usize = 32;

/// A question that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    pasid: Option<Pasid>,
    iova: Iova,
    /// An invalidation covered it meanwhile.
    dropped: bool,
}

/// Names an open question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionTag(u8);

/// The device TLB of one function.
#[derive(Clone, Debug)]
pub struct DeviceTlb {
    store: Store<DeviceTlbEntry>,
    words: Words,
    open: [Option<Open>; QUESTIONS_MAX],
    /// Bit n: an entry of leaf level n + 1 was kept since the last clear.
    sizes: u8,
}

impl DeviceTlb {
    /// An empty one. It allocates here only.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let store = Store::new(geometry);
        // One chain more is held while it replaces another.
        let words = Words::new((store.capacity() + 1) * SOURCES_NESTED_MAX);
        Self { store, words, open: [None; QUESTIONS_MAX], sizes: 0 }
    }

    /// The host address of an access that a kept translation allows.
    pub fn look_up(&mut self, pasid: Option<Pasid>, iova: Iova, access: Access) -> Option<Pa> {
        let mut left = self.sizes;
        while left != 0 {
            let level = left.trailing_zeros() as u8 + 1;
            left &= left - 1;
            if let Some(place) = self.find(pasid, iova, level) {
                let entry = *self.store.get(place);
                if access.allowed_by(entry.readable, entry.writable) {
                    self.store.touch(place);
                    return Some(Pa(entry.frame.0 | (iova.0 & (entry.page_bytes - 1))));
                }
            }
        }
        None
    }

    fn find(&self, pasid: Option<Pasid>, iova: Iova, level: u8) -> Option<Place> {
        self.store.find(key(DomainId(0), space_of(pasid), level, iova.0 >> page_shift(level)))
    }

    /// The device begins to ask for a translation.
    ///
    /// # Errors
    ///
    /// [`Busy`] if 32 questions are open.
    pub fn ask(&mut self, pasid: Option<Pasid>, iova: Iova) -> Result<QuestionTag, Busy> {
        let free = self.open.iter().position(Option::is_none).ok_or(Busy)?;
        self.open[free] = Some(Open { pasid, iova, dropped: false });
        Ok(QuestionTag(free as u8))
    }

    /// The answer has come. Returns whether it is kept: not without permission, nor when an invalidation came between.
    /// `words` are those of the unit's walk ([`Unit::last_sources`](crate::Unit::last_sources)); beyond what a nested walk has
    /// they are not kept.
    pub fn keep(&mut self, tag: QuestionTag, answer: &Translation, words: &[Source], d: &mut dyn Decisions) -> bool {
        let Some(open) = self.open[usize::from(tag.0)].take() else { return false };
        if open.dropped || !(answer.readable || answer.writable) || self.store.is_off() {
            return false;
        }
        let shift = answer.page_bytes.trailing_zeros();
        let level = ((shift - PAGE_SHIFT) / LEVEL_BITS + 1) as u8;
        let number = open.iova.0 >> shift;
        let provenance = words
            .iter()
            .take(SOURCES_NESTED_MAX)
            .fold(ProvenanceId::NONE, |chain, word| self.words.push(chain, word.pa, word.value, word.kind));
        let entry = DeviceTlbEntry {
            pasid: open.pasid,
            page: Iova(open.iova.0 & !(answer.page_bytes - 1)),
            page_bytes: answer.page_bytes,
            frame: Pa(answer.pa.0 & !(answer.page_bytes - 1)),
            readable: answer.readable,
            writable: answer.writable,
            provenance,
        };
        self.sizes |= 1 << (level - 1);
        let key = key(DomainId(0), space_of(open.pasid), level, number);
        self.store.insert(number, key, entry, &mut self.words, |ways| ask(d, Question::EvictDeviceTlb { ways }));
        self.words.release(provenance);
        true
    }

    /// The question is given up.
    pub fn forget(&mut self, tag: QuestionTag) {
        self.open[usize::from(tag.0)] = None;
    }

    /// Removes what an invalidation covers, at once; returns how many entries went.
    pub fn invalidate(&mut self, what: &DeviceInvalidation) -> u32 {
        let covered =
            |pasid: Option<Pasid>, first: Iova, bytes: u64| (what.every_pasid || pasid == what.pasid) && what.range.overlaps(first, bytes);
        for open in self.open.iter_mut().flatten() {
            // The answer may be of any page size.
            let (page, bytes) = (Iova(open.iova.0 & !(LARGEST_PAGE - 1)), LARGEST_PAGE);
            open.dropped |= covered(open.pasid, page, bytes);
        }
        self.store.retain(&mut self.words, |entry| !covered(entry.pasid, entry.page, entry.page_bytes))
    }

    /// Drops one entry, as a device may at any time; the `n`-th. Returns whether there was one.
    pub fn drop_kept(&mut self, n: usize) -> bool {
        self.store.remove_nth(n, &mut self.words)
    }

    /// The device is reset: nothing is kept, nothing is open.
    pub fn reset(&mut self) {
        self.store.reset();
        self.words.reset();
        self.open = [None; QUESTIONS_MAX];
        self.sizes = 0;
    }

    /// What is kept, in an order that depends only on the history.
    pub fn entries(&self) -> impl Iterator<Item = &DeviceTlbEntry> {
        self.store.iter()
    }

    /// The words that a kept translation was made from, outermost first.
    #[must_use]
    pub fn provenance(&self, of: ProvenanceId) -> Provenance {
        self.words.read(of)
    }
}

/// Bytes of the largest page.
const LARGEST_PAGE: u64 = 1 << 30;
