//! Root and context entries, legacy mode (`intel/iommu.c`).
//!
//! Entries are changed under `iommu->lock`. A live entry is given up in the order the manual wants: P off first, then the caches,
//! then the rest. Context tables are never freed while the unit is in use.

use iommu_model::addr::{Bdf, DomainId, Pa};
use iommu_model::spec::vtd::context::{AW_39, CONTEXT_ENTRY_BYTES, ContextEntry, TT_UNTRANSLATED};
use iommu_model::spec::vtd::root::{ROOT_ENTRY_BYTES, RootEntry};
use sim::memory::Ptr;

use super::super::Task;
use super::super::generic_pt;
use super::super::iommu::{DevInfo, Domain};
use super::super::iommu_pages::iommu_alloc_pages;
use super::super::mm::{Gfp, PAGE_SIZE};
use super::qi::{self, ContextFlush, IotlbFlush};
use super::{IntelIommu, iommu_flush_cache, iommu_of};
use crate::defect::Defect;
use crate::errno::{ENOMEM, Errno};
use crate::tag;

/// Low word of the root entry of a bus.
pub(super) fn root_slot(root: Ptr<u64>, bus: u8) -> Ptr<u64> {
    root.byte_add(u64::from(bus) * ROOT_ENTRY_BYTES)
}

/// Context table a root entry points to; NULL when it is not present.
pub(super) fn context_table_of(root_low: u64) -> Ptr<u64> {
    let entry = RootEntry::from_bits(u128::from(root_low));
    if entry.present() { Ptr::from_pa(Pa(entry.context_table() << 12)) } else { Ptr::NULL }
}

/// `iommu_context_addr(iommu, bus, devfn, alloc)`: the entry of a device, NULL when its table does not exist (and, with `alloc`,
/// when there is no memory for it). `iommu->lock` is held.
pub(super) async fn iommu_context_addr(t: &Task, iommu: Ptr<IntelIommu>, dev: Bdf, alloc: bool) -> Ptr<u64> {
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    let at = root_slot(root, dev.bus());
    let mut table = context_table_of(t.read(at).await);
    if table.is_null() {
        if !alloc {
            return Ptr::NULL;
        }
        table = iommu_alloc_pages(t, Gfp::Atomic, tag::VTD_CONTEXT).await;
        if table.is_null() {
            return Ptr::NULL;
        }
        iommu_flush_cache(t, iommu, table, PAGE_SIZE).await;
        let entry = RootEntry::new().with_present(true).with_context_table(table.pa().0 >> 12).into_bits();
        t.write(at, entry as u64).await;
        iommu_flush_cache(t, iommu, at, ROOT_ENTRY_BYTES).await;
    }
    table.byte_add(u64::from(dev.devfn()) * CONTEXT_ENTRY_BYTES)
}

/// The two words of a context entry for `domain`, without P.
async fn context_words(t: &Task, domain: Ptr<Domain>, did: DomainId) -> (u64, u64) {
    let (top, level) = generic_pt::load_top(t, domain).await;
    let bits = ContextEntry::new()
        .with_translation_type(TT_UNTRANSLATED)
        .with_second_stage(top.pa().0 >> 12)
        .with_address_width(level - 2 + AW_39)
        .with_domain(did.0)
        .into_bits();
    (bits as u64, (bits >> 64) as u64)
}

/// `domain_context_mapping()`: an entry that is present already is left as it is, whatever it says.
pub(super) async fn domain_context_mapping(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>, did: DomainId) -> Errno {
    let _in = t.call("domain_context_mapping_one");
    let iommu = iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    let dev = Bdf(t.read(info.at(DevInfo::BDF)).await);
    t.spin_lock(iommu.at(IntelIommu::LOCK)).await;
    let context = iommu_context_addr(t, iommu, dev, true).await;
    let mut ret = ENOMEM;
    if !context.is_null() {
        ret = 0;
        let low = t.read(context).await;
        if !ContextEntry::from_bits(u128::from(low)).present() {
            let high_at: Ptr<u64> = context.byte_add(8);
            t.write(context, 0).await;
            t.write(high_at, 0).await;
            let (low, high) = context_words(t, domain, did).await;
            if t.k.has(Defect::PresentTooEarly) {
                t.write_once(context, low | PRESENT).await;
            }
            t.write(high_at, high).await;
            t.write(context, low).await;
            t.smp_wmb();
            t.write_once(context, low | PRESENT).await;
            if !t.k.has(Defect::ContextNotFlushed) {
                iommu_flush_cache(t, iommu, context, CONTEXT_ENTRY_BYTES).await;
            }
        }
    }
    t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
    ret
}

/// P of the low word.
pub(super) const PRESENT: u64 = ContextEntry::new().with_present(true).into_bits() as u64;

/// The id in the high word.
pub(super) const fn did_of(high: u64) -> DomainId {
    DomainId(ContextEntry::from_bits((high as u128) << 64).domain())
}

/// `domain_context_clear_one()`: P off, caches, then the rest of the entry.
pub(super) async fn domain_context_clear(t: &Task, info: Ptr<DevInfo>) {
    let _in = t.call("domain_context_clear_one");
    let iommu = iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    let dev = Bdf(t.read(info.at(DevInfo::BDF)).await);
    t.spin_lock(iommu.at(IntelIommu::LOCK)).await;
    let context = iommu_context_addr(t, iommu, dev, false).await;
    if context.is_null() {
        t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
        return;
    }
    let did = did_of(t.read(context.byte_add::<u64>(8)).await);
    let low = t.read(context).await;
    t.write_once(context, low & !PRESENT).await;
    t.smp_wmb();
    iommu_flush_cache(t, iommu, context, CONTEXT_ENTRY_BYTES).await;
    t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
    intel_context_flush_no_pasid(t, iommu, dev, did).await;
    t.write(context, 0).await;
    t.write(context.byte_add::<u64>(8), 0).await;
    iommu_flush_cache(t, iommu, context, CONTEXT_ENTRY_BYTES).await;
}

/// `intel_context_flush_no_pasid()`: context cache of the device, then the IOTLB of the id its entry had.
pub(super) async fn intel_context_flush_no_pasid(t: &Task, iommu: Ptr<IntelIommu>, dev: Bdf, did: DomainId) {
    qi::flush_context(t, iommu, ContextFlush::Device(did, dev)).await;
    qi::flush_iotlb(t, iommu, IotlbFlush::Domain(did)).await;
}

/// Reclaim (assumed): lets a present entry name another domain, without a moment in which it is not present. High word (id), then
/// low word (table): each store leaves an entry that is valid and translates alike. See [`super::replace`].
pub(super) async fn context_entry_replace(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>, did: DomainId) {
    let iommu = iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    let dev = Bdf(t.read(info.at(DevInfo::BDF)).await);
    t.spin_lock(iommu.at(IntelIommu::LOCK)).await;
    let context = iommu_context_addr(t, iommu, dev, false).await;
    let (low, high) = context_words(t, domain, did).await;
    t.write_once(context.byte_add::<u64>(8), high).await;
    t.smp_wmb();
    t.write_once(context, low | PRESENT).await;
    iommu_flush_cache(t, iommu, context, CONTEXT_ENTRY_BYTES).await;
    t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
}

/// True when the context entry of a device names `did`. `iommu->lock` is taken.
pub(super) async fn entry_uses_did(t: &Task, iommu: Ptr<IntelIommu>, dev: Bdf, did: DomainId) -> bool {
    t.spin_lock(iommu.at(IntelIommu::LOCK)).await;
    let context = iommu_context_addr(t, iommu, dev, false).await;
    let uses = if context.is_null() {
        false
    } else {
        let low = t.read(context).await;
        low & PRESENT != 0 && did_of(t.read(context.byte_add::<u64>(8)).await) == did
    };
    t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
    uses
}
