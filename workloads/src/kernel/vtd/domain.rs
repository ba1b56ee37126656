//! Domains of the driver: allocation, domain ids, attach, block, and the attach of a restored domain (`intel/iommu.c`; series
//! patches 08 and 09).
//!
//! A domain has one id in each unit, counted by attached devices; the id goes back when the last one leaves, without a flush:
//! who leaves has flushed.
//!
//! Assumed for v2: the attach of a restored domain takes the id of the record instead of a new one and leaves the context entry
//! alone; its error path is that of every attach, which blocks the device (LU-054).

use iommu_model::addr::DomainId;
use iommu_model::spec::vtd::capability::{SAGAW_39, SSLPS_1G, SSLPS_2M};
use sim::memory::{Field, Ptr, field};

use super::super::Task;
use super::super::generic_pt;
use super::super::iommu::liveupdate::{abi, restored_state};
use super::super::iommu::{DevInfo, Domain, DomainInfo, DomainOps};
use super::super::mm::{Gfp, callee_fails, kfree, kzalloc, list};
use super::{IntelIommu, cache, cap, context, iommu_of, seq_id};
use crate::callee;
use crate::defect::Defect;
use crate::errno::{EINVAL, ENOMEM, ENOSPC, Errno};
use crate::mark::Mark;
use crate::revision::Iommu;
use crate::tag;
use crate::verb;

/// Ids of a unit: hardware has up to 2^16, the model keeps two words of them.
pub const DOMAIN_IDS: u16 = 128;
/// First id that is handed out: 0 is reserved for caching mode, 1 for pass-through.
const FIRST_DID: u16 = 2;

// --- allocation ---

/// `intel_iommu_domain_alloc_paging()`: a second-stage domain for the unit of a device. An error pointer on failure.
pub async fn intel_iommu_domain_alloc_paging(t: &Task, info: Ptr<DevInfo>) -> Ptr<Domain> {
    let _in = t.call("intel_iommu_domain_alloc_paging");
    let unit = t.read(info.at(DevInfo::IOMMU)).await;
    let cap = cap(t, iommu_of(t, unit)).await;
    let domain: Ptr<Domain> = kzalloc(t, Domain::BYTES, Gfp::Kernel, tag::DMAR_DOMAIN).await;
    if domain.is_null() {
        return Ptr::err(-ENOMEM);
    }
    t.init_lock(domain.at(Domain::LOCK)).await;
    t.init_lock(domain.at(Domain::CACHE_LOCK)).await;
    list::init(t, domain.at(Domain::DEVICES)).await;
    list::init(t, domain.at(Domain::CACHE_TAGS)).await;
    let mut sizes = 1u64 << 12;
    if cap.superpages() & SSLPS_2M != 0 {
        sizes |= 1 << 21;
    }
    if cap.superpages() & SSLPS_1G != 0 {
        sizes |= 1 << 30;
    }
    let levels = t.k.topo.units[usize::from(unit)].levels;
    let ret = generic_pt::pt_iommu_init(t, domain, levels, sizes).await;
    if ret != 0 {
        kfree(t, domain).await;
        return Ptr::err(-ret);
    }
    domain
}

/// `paging_domain_compatible()`: -EINVAL when the unit cannot walk tables of this height or leaves of these sizes.
async fn paging_domain_compatible(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>) -> Errno {
    let cap = cap(t, iommu).await;
    let (_, level) = generic_pt::load_top(t, domain).await;
    if level < 2 || cap.sagaw() & (SAGAW_39 << (level - 2)) == 0 {
        return EINVAL;
    }
    let sizes = t.read(domain.at(Domain::PGSIZE_BITMAP)).await;
    let lacks = |size: u64, bit: u8| sizes & size != 0 && cap.superpages() & bit == 0;
    if lacks(1 << 21, SSLPS_2M) || lacks(1 << 30, SSLPS_1G) { EINVAL } else { 0 }
}

// --- domain ids ---

fn ida_word(iommu: Ptr<IntelIommu>, did: u16) -> Ptr<u64> {
    iommu.at(IntelIommu::DOMAIN_IDA).byte_add(u64::from(did / 64) * 8)
}

/// `ida_alloc_range(first free)`: a negative error or the id.
async fn ida_alloc(t: &Task, iommu: Ptr<IntelIommu>) -> i32 {
    if callee_fails(t, callee::IDA) {
        return ENOMEM;
    }
    for base in (0..DOMAIN_IDS).step_by(64) {
        let reserved = if base == 0 { (1u64 << FIRST_DID) - 1 } else { 0 };
        let mut bit = 64;
        t.rmw(ida_word(iommu, base), |used| {
            bit = (used | reserved).trailing_ones();
            (bit < 64).then(|| used | 1 << bit)
        })
        .await;
        if bit < 64 {
            return i32::from(base) + bit as i32;
        }
    }
    ENOSPC
}

/// `ida_free()`.
async fn ida_free(t: &Task, iommu: Ptr<IntelIommu>, did: DomainId) {
    t.rmw(ida_word(iommu, did.0), |used| Some(used & !(1 << (did.0 % 64)))).await;
}

/// Reserves the id of a preserved device (patch 08). The result of the allocator is ignored: several devices share one id, and a
/// failed allocation is not told apart from that (R30).
pub async fn reserve_domain_id(t: &Task, iommu: Ptr<IntelIommu>, did: u16) {
    if t.k.has(Defect::DomainIdNotReserved) || did >= DOMAIN_IDS {
        return;
    }
    if callee_fails(t, callee::IDA) {
        t.mark_of(Mark::DomainIdNotReserved, did);
        return;
    }
    let bit = 1u64 << (did % 64);
    let used = t.rmw(ida_word(iommu, did), |used| Some(used | bit)).await;
    if used & bit == 0 {
        t.machine.note(verb::DOMAIN_ID, [u64::from(seq_id(t, iommu).0), u64::from(did), 1, 0]);
    }
}

/// Where a domain keeps its record for a unit.
fn iommu_array(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>) -> Ptr<Ptr<DomainInfo>> {
    let entry: Field<Ptr<DomainInfo>> = field(u16::from(seq_id(t, iommu).0) * 8, "iommu_array");
    domain.at(Domain::IOMMU_ARRAY).cast::<Domain>().at(entry)
}

/// `domain_id_iommu()`: the id of a domain in a unit; 0 when no device of the unit is attached.
pub async fn domain_id_iommu(t: &Task, domain: Ptr<Domain>, unit: u16) -> u16 {
    let info = t.read(iommu_array(t, domain, iommu_of(t, unit))).await;
    if info.is_null() { 0 } else { t.read(info.at(DomainInfo::DID)).await }
}

/// `domain_attach_iommu()`: counts one more device of the unit; the first one brings an id.
pub(super) async fn domain_attach_iommu(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>) -> Errno {
    let _in = t.call("domain_attach_iommu");
    t.mutex_lock(iommu.at(IntelIommu::DID_LOCK)).await;
    let ret = do_attach_iommu(t, domain, iommu).await;
    t.mutex_unlock(iommu.at(IntelIommu::DID_LOCK)).await;
    ret
}

async fn do_attach_iommu(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>) -> Errno {
    let slot = iommu_array(t, domain, iommu);
    let curr = t.read(slot).await;
    if !curr.is_null() {
        let refcnt = t.read(curr.at(DomainInfo::REFCNT)).await;
        t.write(curr.at(DomainInfo::REFCNT), refcnt + 1).await;
        return 0;
    }
    let info: Ptr<DomainInfo> = kzalloc(t, DomainInfo::BYTES, Gfp::Kernel, tag::DOMAIN_INFO).await;
    if info.is_null() {
        return ENOMEM;
    }
    let did = ida_alloc(t, iommu).await;
    if did < 0 {
        kfree(t, info).await;
        return did;
    }
    t.machine.note(verb::DOMAIN_ID, [u64::from(seq_id(t, iommu).0), did as u64, 1, domain.value()]);
    publish_domain_info(t, slot, info, iommu, DomainId(did as u16)).await;
    0
}

/// Fills a record and stores it with `xa_cmpxchg`; nobody else can have: `did_lock` is held.
async fn publish_domain_info(t: &Task, slot: Ptr<Ptr<DomainInfo>>, info: Ptr<DomainInfo>, iommu: Ptr<IntelIommu>, did: DomainId) {
    t.write(info.at(DomainInfo::REFCNT), 1).await;
    t.write(info.at(DomainInfo::DID), did.0).await;
    t.write(info.at(DomainInfo::IOMMU), u16::from(seq_id(t, iommu).0)).await;
    t.cmpxchg(slot, Ptr::NULL, info).await;
}

/// Attaches a restored domain to a unit: the id is the one in the record of the device (tip: `domain_reattach_iommu`, assumed
/// name). Tip refuses a domain that is not restored and an id that is not reserved; v2 does not ask.
async fn domain_reattach_iommu(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>, did: DomainId) -> Errno {
    let _in = t.call("domain_reattach_iommu");
    match t.k.rev.iommu {
        Iommu::V2 => {}
        Iommu::Tip => {
            if t.read(domain.at(Domain::OPS)).await != DomainOps::Restored as u64 {
                return EINVAL;
            }
            let used = if did.0 < DOMAIN_IDS { t.read(ida_word(iommu, did.0)).await >> (did.0 % 64) & 1 } else { 0 };
            if used == 0 && !t.k.has(Defect::DomainIdNotReserved) {
                return EINVAL;
            }
        }
    }
    let info: Ptr<DomainInfo> = kzalloc(t, DomainInfo::BYTES, Gfp::Kernel, tag::DOMAIN_INFO).await;
    if info.is_null() {
        return ENOMEM;
    }
    t.mutex_lock(iommu.at(IntelIommu::DID_LOCK)).await;
    let slot = iommu_array(t, domain, iommu);
    let curr = t.read(slot).await;
    if curr.is_null() {
        t.machine.note(verb::DOMAIN_ID, [u64::from(seq_id(t, iommu).0), u64::from(did.0), 1, domain.value()]);
        publish_domain_info(t, slot, info, iommu, did).await;
    } else {
        let refcnt = t.read(curr.at(DomainInfo::REFCNT)).await;
        t.write(curr.at(DomainInfo::REFCNT), refcnt + 1).await;
        kfree(t, info).await;
    }
    t.mutex_unlock(iommu.at(IntelIommu::DID_LOCK)).await;
    0
}

/// `domain_detach_iommu()`: the last device gives the id back. An id that came with a restored domain stays taken (tip), unless
/// this revision can reclaim and no entry of the unit names it any more (assumed).
pub(super) async fn domain_detach_iommu(t: &Task, domain: Ptr<Domain>, iommu: Ptr<IntelIommu>) {
    let _in = t.call("domain_detach_iommu");
    t.mutex_lock(iommu.at(IntelIommu::DID_LOCK)).await;
    let slot = iommu_array(t, domain, iommu);
    let info = t.read(slot).await;
    let refcnt = t.read(info.at(DomainInfo::REFCNT)).await - 1;
    t.write(info.at(DomainInfo::REFCNT), refcnt).await;
    if refcnt == 0 {
        let did = DomainId(t.read(info.at(DomainInfo::DID)).await);
        t.write(slot, Ptr::NULL).await;
        let restored = t.read(domain.at(Domain::OPS)).await == DomainOps::Restored as u64;
        if !restored || (t.k.rev.reclaim && !did_is_used(t, iommu, did).await) {
            t.machine.note(verb::DOMAIN_ID, [u64::from(seq_id(t, iommu).0), u64::from(did.0), 0, domain.value()]);
            ida_free(t, iommu, did).await;
        }
        kfree(t, info).await;
    }
    t.mutex_unlock(iommu.at(IntelIommu::DID_LOCK)).await;
}

/// True when a context entry of a device behind the unit names the id.
async fn did_is_used(t: &Task, iommu: Ptr<IntelIommu>, did: DomainId) -> bool {
    for device in t.k.topo.devices.iter().filter(|device| device.unit == seq_id(t, iommu).0) {
        if context::entry_uses_did(t, iommu, device.bdf, did).await {
            return true;
        }
    }
    false
}

// --- attach and block ---

/// `intel_iommu_attach_device()`: blocks the device, then gives it the domain. After the first step every failure leaves the device
/// blocked. v2 attaches a restored domain here as well.
pub async fn intel_iommu_attach_device(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) -> Errno {
    let _in = t.call("intel_iommu_attach_device");
    let dev = t.read(info.at(DevInfo::BDF)).await;
    t.machine.note(verb::DEVICE_CHANGING, [u64::from(dev), domain.value(), 0, 0]);
    device_block_translation(t, info).await;
    let iommu = iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    let mut ret = paging_domain_compatible(t, domain, iommu).await;
    if ret == 0 {
        ret = dmar_domain_attach_device(t, domain, info, iommu).await;
    }
    note_attached(t, info, dev).await;
    ret
}

/// Says what the device is attached to now.
async fn note_attached(t: &Task, info: Ptr<DevInfo>, dev: u16) {
    let domain = t.read(info.at(DevInfo::DOMAIN)).await;
    let did = if domain.is_null() { 0 } else { domain_id_iommu(t, domain, t.read(info.at(DevInfo::IOMMU)).await).await };
    t.machine.note(verb::DEVICE_ATTACHED, [u64::from(dev), domain.value(), u64::from(did), 0]);
}

/// `dmar_domain_attach_device()`: id, list, context entry, cache tags last.
async fn dmar_domain_attach_device(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>, iommu: Ptr<IntelIommu>) -> Errno {
    let ser = if t.read(domain.at(Domain::OPS)).await == DomainOps::Restored as u64 { restored_state(t, info).await } else { Ptr::NULL };
    let ret = if ser.is_null() {
        domain_attach_iommu(t, domain, iommu).await
    } else {
        let did = t.read(ser.at(abi(t).device.attachment_id)).await;
        domain_reattach_iommu(t, domain, iommu, DomainId(did as u16)).await
    };
    if ret != 0 {
        return ret;
    }
    device_add(t, domain, info).await;
    // The entry of a device that came with a record is live already. The defect makes it go and come back.
    let blocks_first = !ser.is_null() && t.k.has(Defect::AttachBlocksFirst);
    if blocks_first {
        context::domain_context_clear(t, info).await;
    }
    if ser.is_null() || blocks_first {
        let did = DomainId(domain_id_iommu(t, domain, u16::from(seq_id(t, iommu).0)).await);
        let ret = context::domain_context_mapping(t, domain, info, did).await;
        if ret != 0 {
            device_block_translation(t, info).await;
            return ret;
        }
    }
    let ret = cache::cache_tag_assign_domain(t, domain, info).await;
    if ret != 0 {
        device_block_translation(t, info).await;
    }
    ret
}

/// Software side of an attach: `info->domain`, attached, on the domain's list.
pub(super) async fn device_add(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) {
    t.write(info.at(DevInfo::DOMAIN), domain).await;
    t.write(info.at(DevInfo::DOMAIN_ATTACHED), 1).await;
    t.spin_lock(domain.at(Domain::LOCK)).await;
    list::add(t, info.at(DevInfo::LINK), domain.at(Domain::DEVICES)).await;
    t.spin_unlock(domain.at(Domain::LOCK)).await;
}

/// Takes a device off its domain's list.
pub(super) async fn device_del(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) {
    t.spin_lock(domain.at(Domain::LOCK)).await;
    list::del(t, info.at(DevInfo::LINK)).await;
    t.spin_unlock(domain.at(Domain::LOCK)).await;
}

/// `blocking_domain_attach_dev()`.
pub async fn blocking_domain_attach_dev(t: &Task, info: Ptr<DevInfo>) {
    let _in = t.call("blocking_domain_attach_dev");
    let dev = t.read(info.at(DevInfo::BDF)).await;
    t.machine.note(verb::DEVICE_CHANGING, [u64::from(dev), 0, 0, 0]);
    device_block_translation(t, info).await;
    t.machine.note(verb::DEVICE_ATTACHED, [u64::from(dev), 0, 0, 0]);
}

/// `device_block_translation()`: tags of the old domain first, then the context entry, then list and id.
pub async fn device_block_translation(t: &Task, info: Ptr<DevInfo>) {
    if t.read(info.at(DevInfo::DOMAIN_ATTACHED)).await == 0 {
        return;
    }
    let _in = t.call("device_block_translation");
    let domain = t.read(info.at(DevInfo::DOMAIN)).await;
    if !domain.is_null() {
        cache::cache_tag_unassign_domain(t, domain, info).await;
    }
    context::domain_context_clear(t, info).await;
    t.write(info.at(DevInfo::DOMAIN_ATTACHED), 0).await;
    if domain.is_null() {
        return;
    }
    device_del(t, domain, info).await;
    domain_detach_iommu(t, domain, iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await)).await;
    t.write(info.at(DevInfo::DOMAIN), Ptr::NULL).await;
}

/// Tip's `restore_device`: software state only. A failure undoes software state and leaves hardware as it is.
pub async fn intel_iommu_restore_device(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) -> Errno {
    let _in = t.call("intel_iommu_restore_device");
    let ser = restored_state(t, info).await;
    if ser.is_null() {
        return EINVAL;
    }
    let dev = t.read(info.at(DevInfo::BDF)).await;
    let iommu = iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    t.machine.note(verb::DEVICE_CHANGING, [u64::from(dev), domain.value(), 0, 0]);
    let did = DomainId(t.read(ser.at(abi(t).device.attachment_id)).await as u16);
    let mut ret = domain_reattach_iommu(t, domain, iommu, did).await;
    if ret == 0 {
        device_add(t, domain, info).await;
        ret = cache::cache_tag_assign_domain(t, domain, info).await;
        if ret != 0 {
            t.write(info.at(DevInfo::DOMAIN_ATTACHED), 0).await;
            device_del(t, domain, info).await;
            domain_detach_iommu(t, domain, iommu).await;
            t.write(info.at(DevInfo::DOMAIN), Ptr::NULL).await;
        } else if t.k.has(Defect::AttachBlocksFirst) {
            // The attach of every other domain: the live entry goes, then comes back.
            context::domain_context_clear(t, info).await;
            ret = context::domain_context_mapping(t, domain, info, did).await;
        }
    }
    // Hardware walks the restored tables whether software succeeded or not.
    t.machine.note(verb::DEVICE_ATTACHED, [u64::from(dev), domain.value(), u64::from(did.0), 0]);
    ret
}
