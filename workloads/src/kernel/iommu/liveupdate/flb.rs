//! The FLB callbacks of the IOMMU core (patch 02). LUO calls them with the FLB's outgoing or incoming mutex held.

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::super::super::Task;
use super::super::super::kho::{kho_alloc_preserve, kho_restore_folio, kho_unpreserve_free};
use super::super::super::luo::FlbOpArgs;
use super::super::super::mm::{Gfp, folio_put, kfree, kzalloc, virt_to_page};
use super::{Array, FlbObj, abi};
use crate::abi::iommu::{ARRAY_NEXT, ARRAY_PAGE_BYTES, ArrayPage, FLB_VERSION, FlbSer};
use crate::defect::Defect;
use crate::errno::{ENOMEM, Errno};
use crate::mark::Mark;
use crate::tag;

/// `iommu_liveupdate_flb_preserve()`, patch 02. Called with the FLB's outgoing mutex held.
pub async fn iommu_liveupdate_flb_preserve(t: &Task, args: &mut FlbOpArgs) -> Errno {
    let _in = t.call("iommu_liveupdate_flb_preserve");
    let abi = abi(t);
    let obj: Ptr<FlbObj> = kzalloc(t, FlbObj::BYTES, Gfp::Kernel, tag::IOMMU_FLB_OBJ).await;
    if obj.is_null() {
        return ENOMEM;
    }
    t.init_lock(obj.at(FlbObj::LOCK)).await;
    let ser: Ptr<FlbSer> = kho_alloc_preserve(t, u64::from(abi.flb.layout.bytes), tag::IOMMU_FLB_SER).await;
    if let Some(errno) = ser.errno() {
        kfree(t, obj).await;
        return -errno;
    }
    if let Some(version) = abi.flb.version {
        t.write(ser.at(version), FLB_VERSION).await;
    }
    for (done, array) in Array::ALL.into_iter().enumerate() {
        let page: Ptr<ArrayPage> = kho_alloc_preserve(t, u64::from(ARRAY_PAGE_BYTES), array.tag()).await;
        if let Some(errno) = page.errno() {
            // Labels err_free_device, err_free_domain, err_free_ser: in reverse.
            for earlier in Array::ALL[..done].iter().rev() {
                let page = t.read(obj.at(earlier.current())).await;
                kho_unpreserve_free(t, page).await;
            }
            kho_unpreserve_free(t, ser).await;
            kfree(t, obj).await;
            return -errno;
        }
        t.write(obj.at(array.current()), page).await;
        t.write(ser.at(array.first(abi)), page.pa().0).await;
    }
    t.write(obj.at(FlbObj::SER), ser).await;
    args.obj = obj.value();
    args.data = ser.pa().0;
    0
}

/// `iommu_liveupdate_flb_unpreserve()`: frees everything, whatever is still marked preserved inside.
pub async fn iommu_liveupdate_flb_unpreserve(t: &Task, args: &mut FlbOpArgs) {
    let _in = t.call("iommu_liveupdate_flb_unpreserve");
    let obj: Ptr<FlbObj> = Ptr::new(args.obj);
    let ser = t.read(obj.at(FlbObj::SER)).await;
    for array in Array::ALL {
        let mut next = t.read(ser.at(array.first(abi(t)))).await;
        while next != 0 {
            let page: Ptr<ArrayPage> = Ptr::from_pa(Pa(next));
            if t.k.has(Defect::NextAfterFree) {
                kho_unpreserve_free(t, page).await;
                next = t.read(page.at(ARRAY_NEXT)).await;
                continue;
            }
            next = t.read(page.at(ARRAY_NEXT)).await;
            kho_unpreserve_free(t, page).await;
        }
    }
    kho_unpreserve_free(t, ser).await;
    kfree(t, obj).await;
}

/// `iommu_liveupdate_flb_retrieve()`. Called with the FLB's incoming mutex held. A page that KHO does not give back is a BUG; a
/// failing kzalloc is an error: what the consumers make of it differs by revision (see `incoming.rs`).
pub async fn iommu_liveupdate_flb_retrieve(t: &Task, args: &mut FlbOpArgs) -> Errno {
    let _in = t.call("iommu_liveupdate_flb_retrieve");
    let obj: Ptr<FlbObj> = kzalloc(t, FlbObj::BYTES, Gfp::Kernel, tag::IOMMU_FLB_OBJ).await;
    if obj.is_null() {
        t.mark(Mark::FlbRetrieveFailed);
        return ENOMEM;
    }
    t.init_lock(obj.at(FlbObj::LOCK)).await;
    let folio = kho_restore_folio(t, Pa(args.data)).await;
    t.bug_on(folio.is_null(), "iommu_liveupdate_flb_retrieve: no iommu_flb_ser").await;
    let ser: Ptr<FlbSer> = Ptr::from_pa(Pa(args.data));
    t.write(obj.at(FlbObj::SER), ser).await;
    for array in Array::ALL {
        let mut next = t.read(ser.at(array.first(abi(t)))).await;
        t.write(obj.at(array.current()), Ptr::from_pa(Pa(next))).await;
        while next != 0 {
            let folio = kho_restore_folio(t, Pa(next)).await;
            t.bug_on(folio.is_null(), "iommu_liveupdate_flb_retrieve: no array page").await;
            next = t.read(Ptr::<ArrayPage>::from_pa(Pa(next)).at(ARRAY_NEXT)).await;
        }
    }
    args.obj = obj.value();
    0
}

/// `iommu_liveupdate_flb_finish()`: plain frees; nobody asks whether an object is still used.
pub async fn iommu_liveupdate_flb_finish(t: &Task, args: &mut FlbOpArgs) {
    let _in = t.call("iommu_liveupdate_flb_finish");
    let obj: Ptr<FlbObj> = Ptr::new(args.obj);
    let ser = t.read(obj.at(FlbObj::SER)).await;
    for array in Array::ALL {
        let mut next = t.read(ser.at(array.first(abi(t)))).await;
        while next != 0 {
            let page: Ptr<ArrayPage> = Ptr::from_pa(Pa(next));
            next = t.read(page.at(ARRAY_NEXT)).await;
            folio_put(t, virt_to_page(t, page)).await;
        }
    }
    folio_put(t, virt_to_page(t, ser)).await;
    kfree(t, obj).await;
}
