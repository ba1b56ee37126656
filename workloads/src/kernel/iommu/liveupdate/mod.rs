//! `drivers/iommu/liveupdate.c` of the series. Revisions: v2 and tip, each difference one branch.
//!
//! | file | what it is |
//! | --- | --- |
//! | this one | the FLB object, object headers, object arrays |
//! | [`flb`] | FLB callbacks |
//! | [`preserve`] | preserve and unpreserve of domains |
//! | [`device`] | preserve and unpreserve of devices and units |
//! | [`incoming`] | getters and restore in the incoming kernel |
//!
//! One mutex, `obj->lock`, serialises all of it. Slots of the arrays are never used twice: what is removed or fails is marked
//! DELETED and stays; pages stay until the FLB is unpreserved or finished.

pub mod device;
pub mod flb;
pub mod incoming;
pub mod preserve;

use iommu_model::addr::{Bdf, Pa};
use sim::memory::{Field, Ptr, Tag, field};
use sim::sync::Mutex;

use super::super::Task;
use super::super::kho::kho_alloc_preserve;
use super::super::luo::{FlbId, liveupdate_flb_put_outgoing};
use super::probe::DevInfo;
use super::{dev_info, device_ser};
use crate::abi::iommu::{
    ARRAY_HDR, ARRAY_NEXT, ARRAY_NR_OBJECTS, ARRAY_PAGE_BYTES, ArrayPage, DELETED, DeviceSer, FlbSer, HdrSer, INCOMING, IommuAbi,
};
use crate::mark::Mark;
use crate::revision::Iommu;
use crate::tag;

pub use device::{iommu_preserve_device, iommu_unpreserve_device};
pub use flb::{iommu_liveupdate_flb_finish, iommu_liveupdate_flb_preserve, iommu_liveupdate_flb_retrieve, iommu_liveupdate_flb_unpreserve};
pub use preserve::{iommu_preserve_domain, iommu_unpreserve_domain};

/// `struct iommu_flb_obj`: the live side of the FLB. v2 packed it and had it in the ABI header; nothing depends on that.
#[derive(Clone, Copy, Debug)]
pub struct FlbObj;

impl FlbObj {
    /// Protects everything below and all slots.
    pub const LOCK: Field<Mutex> = field(0, "lock");
    /// The serialized root.
    pub const SER: Field<Ptr<FlbSer>> = field(8, "ser");
    /// Page of the unit array: the last one in the outgoing kernel, the first one in the incoming kernel.
    pub const CURR_IOMMU_ARRAY: Field<Ptr<ArrayPage>> = field(16, "curr_iommu_array");
    /// As above, of the domain array.
    pub const CURR_DOMAIN_ARRAY: Field<Ptr<ArrayPage>> = field(24, "curr_domain_array");
    /// As above, of the device array.
    pub const CURR_DEVICE_ARRAY: Field<Ptr<ArrayPage>> = field(32, "curr_device_array");
    /// Bytes.
    pub const BYTES: u16 = 40;
}

/// The three object arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Array {
    Domain,
    Device,
    Iommu,
}

impl Array {
    /// In the order in which they are allocated and freed.
    const ALL: [Array; 3] = [Array::Domain, Array::Device, Array::Iommu];

    const fn tag(self) -> Tag {
        match self {
            Array::Domain => tag::IOMMU_DOMAIN_ARRAY,
            Array::Device => tag::IOMMU_DEVICE_ARRAY,
            Array::Iommu => tag::IOMMU_HW_ARRAY,
        }
    }

    const fn current(self) -> Field<Ptr<ArrayPage>> {
        match self {
            Array::Domain => FlbObj::CURR_DOMAIN_ARRAY,
            Array::Device => FlbObj::CURR_DEVICE_ARRAY,
            Array::Iommu => FlbObj::CURR_IOMMU_ARRAY,
        }
    }

    fn first(self, abi: &IommuAbi) -> Field<u64> {
        match self {
            Array::Domain => abi.flb.iommu_domain_array_phys,
            Array::Device => abi.flb.device_array_phys,
            Array::Iommu => abi.flb.iommu_array_phys,
        }
    }

    fn object_bytes(self, abi: &IommuAbi) -> u64 {
        u64::from(match self {
            Array::Domain => abi.domain.layout.bytes,
            Array::Device => abi.device.layout.bytes,
            Array::Iommu => abi.hw.layout.bytes,
        })
    }

    fn per_page(self, abi: &IommuAbi) -> u64 {
        match self {
            Array::Domain => abi.domain.per_page,
            Array::Device => abi.device.per_page,
            Array::Iommu => abi.hw.per_page,
        }
    }
}

/// The ABI this kernel writes and reads.
pub(crate) fn abi(t: &Task) -> &'static IommuAbi {
    IommuAbi::of(t.k.rev.iommu)
}

/// Flags of an object header.
async fn flags(t: &Task, hdr: Ptr<HdrSer>) -> u32 {
    let hdr_abi = &abi(t).hdr;
    match t.k.rev.iommu {
        // Bitfields: the compiler loads the byte they share.
        Iommu::V2 => u32::from(t.read(hdr.at(hdr_abi.flags).cast::<u8>()).await),
        Iommu::Tip => t.read(hdr.at(hdr_abi.flags)).await,
    }
}

/// Sets a flag: a load and a store.
async fn set_flag(t: &Task, hdr: Ptr<HdrSer>, flag: u32) {
    let hdr_abi = &abi(t).hdr;
    let new = flags(t, hdr).await | flag;
    match t.k.rev.iommu {
        Iommu::V2 => t.write(hdr.at(hdr_abi.flags).cast::<u8>(), new as u8).await,
        Iommu::Tip => t.write(hdr.at(hdr_abi.flags), new).await,
    }
}

/// `iommu_preserved_state()`: the record of a device in the direction out, NULL when there is none or it is an incoming one.
pub(crate) async fn preserved_state(t: &Task, info: Ptr<DevInfo>) -> Ptr<DeviceSer> {
    let ser = device_ser(t, info).await;
    if ser.is_null() || flags(t, ser.cast()).await & INCOMING != 0 { Ptr::NULL } else { ser }
}

/// `iommu_restored_state()`: the record a device came with.
pub(crate) async fn restored_state(t: &Task, info: Ptr<DevInfo>) -> Ptr<DeviceSer> {
    let ser = device_ser(t, info).await;
    if ser.is_null() || flags(t, ser.cast()).await & INCOMING == 0 { Ptr::NULL } else { ser }
}

/// True when the device is preserved for the next kernel.
pub async fn dev_is_preserved(t: &Task, dev: Bdf) -> bool {
    let info = dev_info(t, dev).await;
    !info.is_null() && !preserved_state(t, info).await.is_null()
}

/// Takes the next slot of an array; grows it by a page when the last one is full. `obj->lock` is held. An error pointer on failure;
/// nothing has changed then.
async fn alloc_object_slot(t: &Task, obj: Ptr<FlbObj>, array: Array) -> Ptr<HdrSer> {
    let abi = abi(t);
    let mut page = t.read(obj.at(array.current())).await;
    let mut index = t.read(page.at(ARRAY_NR_OBJECTS)).await;
    // Scaled: the plan may lower the capacity, so that few objects fill a page.
    let capacity = t.k.env.plan.slots.map_or(array.per_page(abi), |slots| slots.min(array.per_page(abi)));
    if index >= capacity {
        let new: Ptr<ArrayPage> = kho_alloc_preserve(t, u64::from(ARRAY_PAGE_BYTES), array.tag()).await;
        if new.errno().is_some() {
            return new.cast();
        }
        t.write(page.at(ARRAY_NEXT), new.pa().0).await;
        t.write(obj.at(array.current()), new).await;
        t.mark(Mark::ArrayGrew);
        page = new;
        index = t.read(page.at(ARRAY_NR_OBJECTS)).await;
    }
    t.write(page.at(ARRAY_NR_OBJECTS), index + 1).await;
    let slot = object_at(abi, array, page, index);
    t.write(slot.at(abi.hdr.ref_count), 1).await;
    slot
}

fn object_at(abi: &IommuAbi, array: Array, page: Ptr<ArrayPage>, index: u64) -> Ptr<HdrSer> {
    page.byte_add(u64::from(ARRAY_HDR.bytes) + index * array.object_bytes(abi))
}

/// Where a walk over an array of the incoming kernel stands.
struct Cursor {
    page: Ptr<ArrayPage>,
    index: u64,
}

/// Starts a walk over an array. `obj->lock` is held.
async fn first_object(t: &Task, obj: Ptr<FlbObj>, array: Array) -> Cursor {
    Cursor { page: t.read(obj.at(array.current())).await, index: 0 }
}

/// Next object that is not DELETED; NULL at the end.
async fn next_object(t: &Task, array: Array, cursor: &mut Cursor) -> Ptr<HdrSer> {
    loop {
        let nr_objects = t.read(cursor.page.at(ARRAY_NR_OBJECTS)).await;
        while cursor.index < nr_objects {
            let slot = object_at(abi(t), array, cursor.page, cursor.index);
            cursor.index += 1;
            if flags(t, slot).await & DELETED == 0 {
                return slot;
            }
        }
        let next = t.read(cursor.page.at(ARRAY_NEXT)).await;
        if next == 0 {
            return Ptr::NULL;
        }
        *cursor = Cursor { page: Ptr::from_pa(Pa(next)), index: 0 };
    }
}

/// Gives the reference of `liveupdate_flb_get_outgoing()` back. v2 never does: with a refcounted FLB every call leaks one (R5).
async fn put_outgoing(t: &Task) {
    match t.k.rev.iommu {
        Iommu::V2 => {}
        Iommu::Tip => liveupdate_flb_put_outgoing(t, FlbId::Iommu).await,
    }
}
