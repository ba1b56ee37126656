//! `drivers/iommu/intel/liveupdate.c` of the series: preserve and unpreserve of units and devices, restore of root and context
//! tables.
//!
//! Assumed for v2, whose text of these functions was not read: as tip (tables found at device preserve, remembered in a bitmap),
//! except that shutdown does not clear root entries and the record has no `restored` word.

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::root::RootEntry;
use sim::memory::Ptr;

use super::super::Task;
use super::super::generic_pt::scan_table;
use super::super::iommu::liveupdate::abi;
use super::super::iommu::liveupdate::incoming::reserve_domain_ids;
use super::super::iommu::{DevInfo, Domain};
use super::super::iommu_pages::{iommu_preserve_page, iommu_restore_page, iommu_unpreserve_page};
use super::context::{context_table_of, root_slot};
use super::domain::domain_id_iommu;
use super::{IntelIommu, iommu_of, reg_phys};
use crate::abi::iommu::{CONTEXT_BITMAP_WORDS, DeviceSer, HW_TYPE_INTEL, HwSer};
use crate::defect::Defect;
use crate::errno::{EINVAL, Errno};

/// Where the bit of a bus lies: its word in the record, and the bit. Bit = bus * 2; the upper halves exist in scalable mode only.
fn bitmap_bit(t: &Task, hw: Ptr<HwSer>, bus: u8) -> (Ptr<u64>, u64) {
    let bit = u64::from(bus) * 2;
    (hw.at(abi(t).hw.context_tables_bitmap).byte_add(bit / 64 * 8), 1 << (bit % 64))
}

/// True when the context table of a bus is preserved.
pub(super) async fn context_table_is_preserved(t: &Task, hw: Ptr<HwSer>, bus: u8) -> bool {
    let (word, bit) = bitmap_bit(t, hw, bus);
    t.read(word).await & bit != 0
}

/// `intel_iommu_preserve()`: the root table.
pub async fn intel_iommu_preserve(t: &Task, iommu: Ptr<IntelIommu>, hw: Ptr<HwSer>) -> Errno {
    let _in = t.call("intel_iommu_preserve");
    let hw_abi = &abi(t).hw;
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    let ret = iommu_preserve_page(t, root).await;
    if ret != 0 {
        return ret;
    }
    t.write(hw.at(hw_abi.phys_addr), reg_phys(t, iommu).0).await;
    t.write(hw.at(hw_abi.root_table), root.pa().0).await;
    t.write(hw.at(hw_abi.token), reg_phys(t, iommu).0).await;
    t.write(hw.at(hw_abi.kind), HW_TYPE_INTEL).await;
    0
}

/// `intel_iommu_unpreserve()`: every context table whose bit is set, then the root table.
pub async fn intel_iommu_unpreserve(t: &Task, iommu: Ptr<IntelIommu>, hw: Ptr<HwSer>) {
    let _in = t.call("intel_iommu_unpreserve");
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    for index in 0..CONTEXT_BITMAP_WORDS {
        let word: Ptr<u64> = hw.at(abi(t).hw.context_tables_bitmap).byte_add(u64::from(index) * 8);
        let mut bits = t.read(word).await;
        while bits != 0 {
            let bit = bits & bits.wrapping_neg();
            let bus = ((u32::from(index) * 64 + bit.trailing_zeros()) / 2) as u8;
            let table = context_table_of(t.read(root_slot(root, bus)).await);
            iommu_unpreserve_page(t, table).await;
            bits &= !bit;
            t.write(word, bits).await;
        }
    }
    iommu_unpreserve_page(t, root).await;
}

/// `intel_iommu_preserve_device()`: every context table of the unit that is there and not yet preserved; then the id. An error
/// leaves the tables to the unpreserve of the unit.
pub async fn intel_iommu_preserve_device(t: &Task, info: Ptr<DevInfo>, device: Ptr<DeviceSer>) -> Errno {
    let _in = t.call("intel_iommu_preserve_device");
    let domain: Ptr<Domain> = t.read(info.at(DevInfo::DOMAIN)).await;
    if domain.is_null() {
        return EINVAL;
    }
    let unit = t.read(info.at(DevInfo::IOMMU)).await;
    let iommu = iommu_of(t, unit);
    let hw = t.read(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE)).await;
    let ret = preserve_context_tables(t, iommu, hw).await;
    if ret != 0 {
        return ret;
    }
    let did = domain_id_iommu(t, domain, unit).await;
    t.write(device.at(abi(t).device.attachment_id), u64::from(did)).await;
    0
}

/// Looks at all 256 buses, each look under the lock, the KHO call outside it. Buses without table are passed in one step.
async fn preserve_context_tables(t: &Task, iommu: Ptr<IntelIommu>, hw: Ptr<HwSer>) -> Errno {
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    let mut from = 0;
    loop {
        t.spin_lock(iommu.at(IntelIommu::LOCK)).await;
        let next = scan_table(t, root, from).await;
        let under_lock = t.k.has(Defect::PreserveUnderSpinlock);
        if !under_lock || next.is_none() {
            t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
        }
        let Some((index, low)) = next else { return 0 };
        from = index + 1;
        let ret = preserve_context_table(t, hw, (index / 2) as u8, context_table_of(low)).await;
        if under_lock {
            t.spin_unlock(iommu.at(IntelIommu::LOCK)).await;
        }
        if ret != 0 {
            return ret;
        }
    }
}

/// One context table, once.
async fn preserve_context_table(t: &Task, hw: Ptr<HwSer>, bus: u8, table: Ptr<u64>) -> Errno {
    let (word, bit) = bitmap_bit(t, hw, bus);
    let bits = t.read(word).await;
    if table.is_null() || bits & bit != 0 {
        return 0;
    }
    let ret = iommu_preserve_page(t, table).await;
    if ret == 0 {
        t.write(word, bits | bit).await;
    }
    ret
}

/// `intel_iommu_unpreserve_device()`: in legacy mode the unit's tables are all there is.
pub async fn intel_iommu_unpreserve_device(t: &Task, info: Ptr<DevInfo>, device: Ptr<DeviceSer>) {
    let _in = t.call("intel_iommu_unpreserve_device");
    let _ = (info, device);
}

/// `intel_iommu_liveupdate_restore_root_table()`, patch 08: adopts root and context tables, reserves the ids of preserved devices.
/// A table that was not handed over is a BUG.
pub async fn restore_root_table(t: &Task, iommu: Ptr<IntelIommu>, hw: Ptr<HwSer>) {
    let _in = t.call("intel_iommu_liveupdate_restore_root_table");
    let hw_abi = &abi(t).hw;
    let restored = match hw_abi.restored {
        Some(restored) => t.read(hw.at(restored)).await != 0,
        None => false,
    };
    if !restored {
        let root_pa = t.read(hw.at(hw_abi.root_table)).await;
        let root = iommu_restore_page(t, Pa(root_pa)).await;
        t.write(iommu.at(IntelIommu::ROOT_ENTRY), root).await;
        let mut from = 0;
        while let Some((index, low)) = scan_table(t, root, from).await {
            from = index + 1;
            let entry = RootEntry::from_bits(u128::from(low));
            if index % 2 == 0 && entry.present() {
                iommu_restore_page(t, Pa(entry.context_table() << 12)).await;
            }
        }
        if let Some(restored) = hw_abi.restored {
            t.write(hw.at(restored), 1).await;
        }
    }
    let walked = reserve_domain_ids(t, iommu, reg_phys(t, iommu).0).await;
    t.bug_on(!walked, "restore_root_table: preserved devices cannot be walked").await;
}
