//! Preserve and unpreserve of domains (patch 03), in the outgoing kernel.

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::super::super::luo::{FlbId, liveupdate_flb_get_outgoing};
use super::super::super::{Task, generic_pt};
use super::super::{Domain, DomainOps};
use super::{Array, FlbObj, alloc_object_slot, put_outgoing, set_flag};
use crate::abi::iommu::{DELETED, DomainSer};
use crate::defect::Defect;
use crate::errno::{EBUSY, EOPNOTSUPP, Errno};
use crate::revision::Iommu;
use crate::verb;

/// `iommu_domain_preserve()` (v2), `iommu_preserve_domain()` (tip), patch 03. Returns the PA of the record.
pub async fn iommu_preserve_domain(t: &Task, domain: Ptr<Domain>) -> (Errno, Pa) {
    let _in = t.call(match t.k.rev.iommu {
        Iommu::V2 => "iommu_domain_preserve",
        Iommu::Tip => "iommu_preserve_domain",
    });
    let (ret, slot) = do_preserve_domain(t, domain).await;
    let ser = if ret == 0 { slot.pa() } else { Pa(0) };
    t.machine.note(verb::DOMAIN_PRESERVED, [domain.value(), ser.0, ret as i64 as u64, 0]);
    (ret, ser)
}

async fn do_preserve_domain(t: &Task, domain: Ptr<Domain>) -> (Errno, Ptr<DomainSer>) {
    // Only paging domains have preserve and unpreserve; a restored one has neither.
    if t.read(domain.at(Domain::OPS)).await != DomainOps::Paging as u64 {
        return (EOPNOTSUPP, Ptr::NULL);
    }
    let (ret, obj) = liveupdate_flb_get_outgoing(t, FlbId::Iommu).await;
    if ret != 0 {
        return (ret, Ptr::NULL);
    }
    let obj: Ptr<FlbObj> = Ptr::new(obj);
    t.mutex_lock(obj.at(FlbObj::LOCK)).await;
    let (ret, slot) = preserve_domain_locked(t, obj, domain).await;
    if t.k.has(Defect::LeaveLocked) && ret != 0 {
        return (ret, slot);
    }
    t.mutex_unlock(obj.at(FlbObj::LOCK)).await;
    put_outgoing(t).await;
    (ret, slot)
}

/// The part under `obj->lock`.
async fn preserve_domain_locked(t: &Task, obj: Ptr<FlbObj>, domain: Ptr<Domain>) -> (Errno, Ptr<DomainSer>) {
    match t.k.rev.iommu {
        // v2 does not ask: a second preserve takes a second slot (R26).
        Iommu::V2 => {}
        Iommu::Tip => {
            if !t.read(domain.at(Domain::PRESERVED_STATE)).await.is_null() {
                return (EBUSY, Ptr::NULL);
            }
        }
    }
    let slot = alloc_object_slot(t, obj, Array::Domain).await;
    if let Some(errno) = slot.errno() {
        return (-errno, Ptr::NULL);
    }
    let ret = generic_pt::preserve(t, domain, slot.cast()).await;
    if ret != 0 {
        set_flag(t, slot, DELETED).await;
        return (ret, Ptr::NULL);
    }
    t.write(domain.at(Domain::PRESERVED_STATE), slot.cast()).await;
    (0, slot.cast())
}

/// `iommu_domain_unpreserve()` (v2), `iommu_unpreserve_domain()` (tip).
pub async fn iommu_unpreserve_domain(t: &Task, domain: Ptr<Domain>) {
    let _in = t.call(match t.k.rev.iommu {
        Iommu::V2 => "iommu_domain_unpreserve",
        Iommu::Tip => "iommu_unpreserve_domain",
    });
    let (ret, obj) = liveupdate_flb_get_outgoing(t, FlbId::Iommu).await;
    if t.warn_on(ret != 0, "iommu_unpreserve_domain: no outgoing FLB") {
        return;
    }
    let obj: Ptr<FlbObj> = Ptr::new(obj);
    t.mutex_lock(obj.at(FlbObj::LOCK)).await;
    let slot = t.read(domain.at(Domain::PRESERVED_STATE)).await;
    if !slot.is_null() {
        generic_pt::unpreserve(t, domain).await;
        set_flag(t, slot.cast(), DELETED).await;
        t.write(domain.at(Domain::PRESERVED_STATE), Ptr::NULL).await;
    }
    t.mutex_unlock(obj.at(FlbObj::LOCK)).await;
    put_outgoing(t).await;
    t.machine.note(verb::DOMAIN_UNPRESERVED, [domain.value(), 0, 0, 0]);
}
