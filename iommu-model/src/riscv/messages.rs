//! MSI page tables: step 18 of "Process to translate an IOVA", "Process to translate addresses of MSIs".

use super::cache::iotlb::{Permissions, TlbEntry};
use super::cache::space::Space;
use super::context::DeviceContext;
use super::unit::Unit;
use super::walk::{Origin, Step};
use crate::addr::{Iova, PAGE_SHIFT, PAGE_SIZE, Pa, Pfn};
use crate::decision::Decisions;
use crate::request::{Progress, Translation};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::msi::{
    MRIF_BYTES, MSI_ENTRY_BYTES, MSI_MODE_BASIC, MSI_MODE_MRIF, MsiEntryBasic, MsiEntryMrif, MsiEntryNotice, NOTICE_HIGH_SHIFT,
};

/// Where a message goes that a memory-resident interrupt file takes. Storing it and sending the notice is up to the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InterruptFile {
    /// The file, 512-byte aligned.
    pub file: Pa,
    /// Where the notice is written.
    pub notice: Pa,
    /// NID, 11 bits: the notice.
    pub notice_id: u16,
}

impl DeviceContext {
    /// Whether an address of the guest is that of a virtual interrupt file.
    #[inline]
    pub(crate) const fn is_message(&self, address: u64) -> bool {
        match self.messages {
            Some(table) => ((address >> PAGE_SHIFT) ^ table.pattern) & !table.mask == 0,
            None => false,
        }
    }
}

/// Packs the bits of `value` that `mask` names at the low end.
const fn extract(value: u64, mask: u64) -> u64 {
    let (mut left, mut packed, mut at) = (mask, 0, 0);
    while left != 0 {
        let bit = left.trailing_zeros();
        packed |= (value >> bit & 1) << at;
        at += 1;
        left &= left - 1;
    }
    packed
}

impl Unit {
    /// Steps 5 to 7, the request.
    pub(crate) fn fetch_message(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let Some(table) = walk.context.messages else { return self.fault(slot, Cause::INTERNAL, 0, 0, d) };
        walk.step = Step::Message;
        walk.second_touched = true;
        let number = extract(walk.second.input >> PAGE_SHIFT, table.mask);
        let pa = Pa(table.root.0 | number.wrapping_mul(MSI_ENTRY_BYTES));
        self.fetch(slot, pa, self.params.timing.table_fetch, d)
    }

    /// Steps 9 to 15.
    pub(crate) fn consume_message(&mut self, slot: usize, words: [u64; 2], d: &mut dyn Decisions) -> Progress {
        let entry = MsiEntryBasic::from_bits(words[0]);
        if !entry.valid() {
            return self.fault(slot, Cause::MSI_INVALID, 0, 0, d);
        }
        // A custom format is up to the implementation: this one has none.
        match entry.mode() {
            _ if entry.custom() => self.fault(slot, Cause::MSI_MISCONFIGURED, 0, 0, d),
            MSI_MODE_BASIC => self.translate_message(slot, entry, d),
            MSI_MODE_MRIF if self.cap.msi_mrif => self.file_message(slot, words, d),
            _ => self.fault(slot, Cause::MSI_MISCONFIGURED, 0, 0, d),
        }
    }

    /// Step 13.
    fn translate_message(&mut self, slot: usize, entry: MsiEntryBasic, d: &mut dyn Decisions) -> Progress {
        if entry.reserved_3() != 0 || entry.reserved_54() != 0 {
            return self.fault(slot, Cause::MSI_MISCONFIGURED, 0, 0, d);
        }
        let walk = self.walkers.at(slot);
        let executes = walk.request.executes();
        let page = Iova(walk.second.input).page();
        let guest = walk.context.guest();
        let found = TlbEntry {
            space: Space::GuestMessages(walk.context.gscid),
            page,
            shift: PAGE_SHIFT as u8,
            frame: Pfn(entry.ppn()).pa(),
            guest_page: Pa(page.0),
            first_shift: 0,
            second_shift: PAGE_SHIFT as u8,
            first: Permissions::ALL,
            second: Permissions { read: true, write: true, execute: false },
            user: true,
            dirty: true,
            memory_type: 0,
            provenance: walk.words,
        };
        if executes {
            return self.fault(slot, Cause::INSTRUCTION_ACCESS, 0, 0, d);
        }
        // Of the host it has no tag that an invalidation could name.
        if guest.is_some() && !self.walkers.at(slot).has_leaf {
            self.caches.iotlb.install(found, &mut self.caches.words, d);
        }
        self.finish(slot, Some(&found), 0, d)
    }

    /// Step 14.
    fn file_message(&mut self, slot: usize, words: [u64; 2], d: &mut dyn Decisions) -> Progress {
        let (entry, notice) = (MsiEntryMrif::from_bits(words[0]), MsiEntryNotice::from_bits(words[1]));
        let reserved = entry.reserved_3() != 0 || entry.reserved_54() != 0 || notice.reserved_54() != 0 || notice.reserved_61() != 0;
        if reserved {
            return self.fault(slot, Cause::MSI_MISCONFIGURED, 0, 0, d);
        }
        let walk = self.walkers.at(slot);
        if walk.request.executes() {
            return self.fault(slot, Cause::INSTRUCTION_ACCESS, 0, 0, d);
        }
        if walk.origin == Origin::Debug {
            return self.fault(slot, Cause::TYPE_DISALLOWED, 0, 0, d);
        }
        let (address, ats) = (walk.request.iova, walk.request.is_ats());
        let cost = walk.spend(self.params.timing.bypass);
        let (cost_total, fetches) = (walk.cost_total, walk.fetches);
        self.last_file = Some(InterruptFile {
            file: Pa(entry.file() * MRIF_BYTES),
            notice: Pfn(notice.ppn()).pa(),
            notice_id: notice.notice_low() | u16::from(notice.notice_high()) << NOTICE_HIGH_SHIFT,
        });
        self.end(slot);
        if ats {
            // R, W and "untranslated access only": the device learns no address.
            return Progress::Done(Translation {
                pa: Pa(0),
                readable: true,
                writable: true,
                page_bytes: PAGE_SIZE,
                domain: crate::addr::DomainId(0),
                pass_through: true,
                cost,
                cost_total,
                fetches,
                from: crate::request::CacheHit::None,
            });
        }
        Progress::InterruptMessage { address, cost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extract_packs_the_bits_that_the_mask_names() {
        assert_eq!(extract(0b1010_0110, 0b1010_0110), 0b1111);
        assert_eq!(extract(0b0010_0100, 0b1010_0110), 0b0110);
        assert_eq!(extract(u64::MAX, 0), 0);
        assert_eq!(extract(0x1234, u64::MAX), 0x1234);
    }
}
