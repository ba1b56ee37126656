//! The in-kernel test of FLBs: one preserved page of known content that hangs on the memfd handler.
//!
//! Source: lib/tests/liveupdate.c (several FLBs there, without memory of their own). Its module asks for the incoming data when it
//! is loaded, which is what loads the FLB's count.

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::Task;
use super::kho::{kho_alloc_preserve, kho_restore_folio, kho_unpreserve_free};
use super::luo::{FlbId, FlbOpArgs, liveupdate_flb_get_incoming, liveupdate_flb_put_incoming};
use super::mm::free_page;
use crate::abi::luo as abi;
use crate::errno::{EINVAL, Errno};
use crate::tag;

fn magic(page: Ptr<u64>) -> Ptr<u64> {
    page.byte_add(u64::from(abi::TEST_FLB.fields[0].offset))
}

/// `preserve`: allocates and fills the page.
pub(super) async fn test_flb_preserve(t: &Task, args: &mut FlbOpArgs) -> Errno {
    let page = kho_alloc_preserve::<u64>(t, 4096, tag::TEST_FLB).await;
    if let Some(errno) = page.errno() {
        return -errno;
    }
    t.write(magic(page), abi::TEST_FLB_MAGIC).await;
    t.write(page.byte_add::<u64>(u64::from(abi::TEST_FLB.fields[1].offset)), u64::from(t.k.era)).await;
    args.data = page.pa().0;
    args.obj = page.value();
    0
}

/// `unpreserve`: frees it.
pub(super) async fn test_flb_unpreserve(t: &Task, args: &mut FlbOpArgs) {
    kho_unpreserve_free(t, Ptr::<u64>::new(args.obj)).await;
}

/// `retrieve`: restores it and checks what it holds.
pub(super) async fn test_flb_retrieve(t: &Task, args: &mut FlbOpArgs) -> Errno {
    let folio = kho_restore_folio(t, Pa(args.data)).await;
    if folio.is_null() {
        return EINVAL;
    }
    let page = Ptr::<u64>::from_pa(Pa(args.data));
    let found = t.read(magic(page)).await;
    t.warn_on(found != abi::TEST_FLB_MAGIC, "test FLB content");
    args.obj = page.value();
    0
}

/// `finish`: frees it in the next kernel.
pub(super) async fn test_flb_finish(t: &Task, args: &mut FlbOpArgs) {
    free_page(t, Ptr::<u64>::new(args.obj)).await;
}

/// `liveupdate_test_init()`: asks for what was handed over; no data is fine.
pub async fn liveupdate_test_init(t: &Task) {
    let (err, _) = liveupdate_flb_get_incoming(t, FlbId::Test).await;
    if err == 0 {
        liveupdate_flb_put_incoming(t, FlbId::Test).await;
    }
}
