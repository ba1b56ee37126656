//! The inner half of a walk: from a context entry through the second-stage tables to a page.
//!
//! Steps, continuing those of `context_walk`:
//!
//! 7. The address must lie within MGAW and within the width of the context entry.
//! 8. Pass-through ends here.
//! 9. IOTLB, by domain and page.
//! 10. Paging-structure caches, by domain and longest prefix.
//! 11. Paging entries, one fetch a level. Each: permission for the access (an entry without R and W is not
//!     present), no reserved bits, leaf or pointer. Permissions are the AND of all levels. Whether the manual has
//!     the permission or the reserved bits checked first is open; the order here is the one QEMU has.
//! 12. The output must not lie in the interrupt range.

use super::walk::{Grant, Stage, Stepper};
use crate::addr::{Iova, PAGE_SIZE, Pa, Pfn};
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::{IotlbEntry, page_shift};
use crate::cache::psc::PscEntry;
use crate::decision::{Question, ask_bool};
use crate::request::{CacheHit, CacheKind, FetchKind, Progress};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::second_stage::{ENTRY_BYTES, SecondStageEntry, TABLE_ENTRIES};

impl Stepper<'_> {
    /// Steps 7 to 9.
    pub(crate) fn look_up_iotlb(&mut self) -> Result<Progress, FaultReason> {
        let held = self.walk.context.expect("the outer half ended with a context entry");
        let iova = self.walk.request.iova;
        // Steps 7 and 8.
        let (root, levels) = match held.target {
            ContextTarget::Tables { root, levels } => (root, levels),
            ContextTarget::PassThrough => {
                self.check_width(self.cap.guest_width)?;
                return self.grant(Grant {
                    pa: Pa(iova.0),
                    readable: true,
                    writable: true,
                    page_bytes: PAGE_SIZE,
                    domain: held.domain,
                    pass_through: true,
                });
            }
            ContextTarget::Fault(reason) => return Err(reason),
        };
        self.check_width(self.cap.guest_width.min(page_shift(levels + 1) as u8))?;
        (self.walk.table, self.walk.level, self.walk.top) = (root, levels, levels);
        (self.walk.readable, self.walk.writable) = (true, true);
        // Step 9.
        self.spent += self.timing.iotlb_lookup;
        let miss = if self.caches.psc.is_off() { Stage::Table } else { Stage::Psc };
        let Some(entry) = self.caches.iotlb.lookup(held.domain, iova, &mut *self.d) else {
            self.walk.stage = miss;
            return Ok(Progress::Lookup { cache: CacheKind::Iotlb, hit: false, cost: self.spent });
        };
        let (readable, writable) = (entry.readable, entry.writable);
        let (pa, page_bytes, fault) = (entry.translate(iova), entry.page_bytes, entry.fault);
        let allowed = self.walk.request.access.allowed_by(readable, writable);
        if !allowed {
            if ask_bool(&mut *self.d, Question::RewalkDenied) {
                self.walk.stage = Stage::Table;
                return Ok(Progress::Lookup { cache: CacheKind::Iotlb, hit: true, cost: self.spent });
            }
            return Err(fault.unwrap_or(self.denied()));
        }
        self.walk.provenance = entry.provenance;
        self.walk.from = CacheHit::Iotlb;
        self.grant(Grant { pa, readable, writable, page_bytes, domain: held.domain, pass_through: false })
    }

    fn check_width(&self, bits: u8) -> Result<(), FaultReason> {
        if bits < 64 && self.walk.request.iova.0 >> bits != 0 {
            return Err(FaultReason::BEYOND_WIDTH);
        }
        Ok(())
    }

    /// Step 10.
    pub(crate) fn look_up_psc(&mut self) -> Result<Progress, FaultReason> {
        self.spent += self.timing.psc_lookup;
        self.walk.stage = Stage::Table;
        let domain = self.walk.domain().expect("the outer half ended with a context entry");
        let mut hit = false;
        if let Some(entry) = self.caches.psc.lookup(domain, self.walk.request.iova, self.walk.top) {
            let level = entry.level;
            let allowed = self.walk.request.access.allowed_by(entry.readable, entry.writable);
            if !allowed {
                if !ask_bool(&mut *self.d, Question::RewalkDenied) {
                    return Err(self.denied());
                }
            } else if !ask_bool(&mut *self.d, Question::UsePsc { level }) {
                (self.walk.table, self.walk.level) = (entry.table, level - 1);
                (self.walk.readable, self.walk.writable) = (entry.readable, entry.writable);
                self.walk.provenance = entry.provenance;
                self.walk.from = CacheHit::Psc(level);
                hit = true;
            }
        }
        Ok(Progress::Lookup { cache: CacheKind::Psc, hit, cost: self.spent })
    }

    /// Step 11, the request.
    pub(crate) fn fetch_table(&mut self) -> Progress {
        let level = self.walk.level;
        let index = (self.walk.request.iova.0 >> page_shift(level)) % TABLE_ENTRIES;
        self.fetch(self.walk.table.offset(index * ENTRY_BYTES), FetchKind::Table { level })
    }

    /// Step 11, the answer; then the next request, or step 12.
    pub(crate) fn consume_table(&mut self, word: u64, level: u8) -> Result<Progress, FaultReason> {
        let entry = SecondStageEntry::from_bits(word);
        if !entry.read() && !entry.write() {
            let reason = self.denied();
            self.cache_refusal(None);
            return Err(reason);
        }
        self.walk.readable &= entry.read();
        self.walk.writable &= entry.write();
        if !self.walk.request.access.allowed_by(self.walk.readable, self.walk.writable) {
            return Err(self.denied());
        }
        let leaf = level == 1 || entry.page_size();
        if self.has_reserved_bits(entry, level, leaf) {
            self.cache_refusal(Some(FaultReason::TABLE_RESERVED));
            return Err(FaultReason::TABLE_RESERVED);
        }
        let frame = Pfn(entry.frame()).pa();
        if leaf {
            return self.install_and_grant(frame, level);
        }
        self.install_psc(frame, level);
        (self.walk.table, self.walk.level) = (frame, level - 1);
        Ok(self.fetch_table())
    }

    fn has_reserved_bits(&self, entry: SecondStageEntry, level: u8, leaf: bool) -> bool {
        let frame = Pfn(entry.frame()).pa();
        entry.reserved_62()
            || !self.cap.frame_fits(frame)
            || (entry.snoop() && !(leaf && self.cap.snoop_control))
            || (leaf && !self.cap.leaf_allowed(level))
            || (leaf && !frame.is_aligned(1 << page_shift(level)))
    }

    fn install_psc(&mut self, table: Pa, level: u8) {
        if !self.caches.psc.holds(level) {
            return;
        }
        let span_bytes = 1 << page_shift(level);
        let entry = PscEntry {
            domain: self.walk.domain().expect("the outer half ended with a context entry"),
            level,
            first: Iova(self.walk.request.iova.0 & !(span_bytes - 1)),
            span_bytes,
            table,
            readable: self.walk.readable,
            writable: self.walk.writable,
            provenance: self.walk.provenance,
        };
        self.caches.psc.install(entry, &mut *self.d);
    }

    /// Step 12. A translation that faults here is not cached.
    fn install_and_grant(&mut self, frame: Pa, level: u8) -> Result<Progress, FaultReason> {
        let page_bytes = 1 << page_shift(level);
        let iova = self.walk.request.iova;
        let entry = IotlbEntry {
            domain: self.walk.domain().expect("the outer half ended with a context entry"),
            page: Iova(iova.0 & !(page_bytes - 1)),
            page_bytes,
            frame,
            readable: self.walk.readable,
            writable: self.walk.writable,
            fault: None,
            provenance: self.walk.provenance,
        };
        let grant = Grant {
            pa: entry.translate(iova),
            readable: entry.readable,
            writable: entry.writable,
            page_bytes,
            domain: entry.domain,
            pass_through: false,
        };
        let done = self.grant(grant)?;
        self.caches.iotlb.install(entry, &mut *self.d);
        Ok(done)
    }

    /// Under caching mode a not-present or erroneous paging entry may be cached, as a 4 KiB page.
    fn cache_refusal(&mut self, fault: Option<FaultReason>) {
        if !self.cap.caching_mode || !ask_bool(&mut *self.d, Question::CacheNotPresent) {
            return;
        }
        let entry = IotlbEntry {
            domain: self.walk.domain().expect("the outer half ended with a context entry"),
            page: self.walk.request.iova.page(),
            page_bytes: PAGE_SIZE,
            frame: Pa(0),
            readable: false,
            writable: false,
            fault,
            provenance: self.walk.provenance,
        };
        self.caches.iotlb.install(entry, &mut *self.d);
    }
}
