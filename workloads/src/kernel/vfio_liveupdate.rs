//! Live update of a VFIO device file: `drivers/vfio/pci/vfio_pci_liveupdate.c`, VFIO series v2 to v4 with the hook of the IOMMU series.
//!
//! Not modelled: `pci_liveupdate_preserve()` and its FLB, which stand between the IOMMU hook and the allocation; interrupts and power
//! states, which can make freeze refuse. The reset in freeze is gone in the IOMMU series: the device goes on.
//!
//! `dev_set->lock` is not held from the IOMMU hook to the end of preserve, nor from preserve to unpreserve: an attachment may change
//! in between where the IOMMU core does not refuse that.

use iommu_model::addr::{Bdf, Pa};
use sim::memory::Ptr;

use super::Task;
use super::file::{FileKind, file_kind};
use super::iommufd::device::{iommufd_device_preserve, iommufd_device_unpreserve};
use super::kho::{kho_alloc_preserve, kho_restore_free, kho_unpreserve_free};
use super::luo::FileOpArgs;
use super::mm::callee_fails;
use super::vfio::{VfioDevice, vfio_device_from_file, vfio_device_open_file, vfio_device_put_registration, vfio_find_device};
use crate::abi::vfio::{self as abi, VfioSer};
use crate::callee;
use crate::errno::{EINVAL, ENODEV, Errno};
use crate::tag;

/// `vfio_pci_liveupdate_can_preserve()`: a file opened through the character device.
pub async fn vfio_liveupdate_can_preserve(t: &Task, args: &mut FileOpArgs) -> bool {
    file_kind(t, args.file).await == Some(FileKind::VfioCdev)
}

/// `vfio_pci_liveupdate_preserve()`.
pub async fn vfio_liveupdate_preserve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("vfio_pci_liveupdate_preserve");
    let vdev = vfio_device_from_file(t, args.file).await;
    let mut token = abi::NO_IOMMUFD;
    t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    if t.read(vdev.at(VfioDevice::IOMMUFD_ATTACHED)).await != 0 {
        let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
        let rc;
        (rc, token) = iommufd_device_preserve(t, args.session, idev).await;
        if rc != 0 {
            t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
            return rc;
        }
    }
    t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;

    let ser: Ptr<VfioSer> = kho_alloc_preserve(t, u64::from(abi::VFIO_SER.bytes), tag::VFIO_SER).await;
    if let Some(errno) = ser.errno() {
        unpreserve_iommufd(t, vdev).await;
        return -errno;
    }
    let bdf = t.read(vdev.at(VfioDevice::BDF)).await;
    t.write(ser.at(abi::BDF), bdf).await;
    t.write(ser.at(abi::DOMAIN), 0).await;
    let reset_works = t.read(vdev.at(VfioDevice::RESET_WORKS)).await;
    t.write(ser.at(abi::RESET_WORKS), reset_works).await;
    t.write(ser.at(abi::IOMMUFD_TOKEN), token).await;
    args.serialized_data = ser.pa().0;
    0
}

/// The iommufd part of unpreserve: only when the device is attached **now**.
async fn unpreserve_iommufd(t: &Task, vdev: Ptr<VfioDevice>) {
    t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    if t.read(vdev.at(VfioDevice::IOMMUFD_ATTACHED)).await != 0 {
        let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
        iommufd_device_unpreserve(t, idev).await;
    }
    t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
}

/// `vfio_pci_liveupdate_unpreserve()`.
pub async fn vfio_liveupdate_unpreserve(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("vfio_pci_liveupdate_unpreserve");
    let vdev = vfio_device_from_file(t, args.file).await;
    unpreserve_iommufd(t, vdev).await;
    kho_unpreserve_free(t, Ptr::<VfioSer>::from_pa(Pa(args.serialized_data))).await;
}

/// `vfio_pci_liveupdate_freeze()`: checks only.
pub async fn vfio_liveupdate_freeze(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("vfio_pci_liveupdate_freeze");
    let vdev = vfio_device_from_file(t, args.file).await;
    t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    let ret = if callee_fails(t, callee::VFIO_FREEZE) { EINVAL } else { 0 };
    t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    ret
}

/// `vfio_pci_liveupdate_retrieve()`: the device that the record names, through an anonymous file.
pub async fn vfio_liveupdate_retrieve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("vfio_pci_liveupdate_retrieve");
    let ser: Ptr<VfioSer> = Ptr::from_pa(Pa(args.serialized_data));
    let bdf = Bdf(t.read(ser.at(abi::BDF)).await);
    let vdev = vfio_find_device(t, bdf).await;
    if t.read(ser.at(abi::DOMAIN)).await != 0 || vdev.is_null() {
        if !vdev.is_null() {
            vfio_device_put_registration(t, vdev).await;
        }
        return ENODEV;
    }
    let filp = vfio_device_open_file(t, vdev).await;
    if let Some(errno) = filp.errno() {
        vfio_device_put_registration(t, vdev).await;
        return -errno;
    }
    t.write(vdev.at(VfioDevice::INCOMING_STATE), ser).await;
    args.file = filp;
    0
}

/// `vfio_pci_liveupdate_can_finish()`: retrieved, and bound since.
pub async fn vfio_liveupdate_can_finish(t: &Task, args: &mut FileOpArgs) -> bool {
    let _in = t.call("vfio_pci_liveupdate_can_finish");
    if args.retrieve_status <= 0 || args.file.is_null() {
        return false;
    }
    let vdev = vfio_device_from_file(t, args.file).await;
    t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    let state = t.read(vdev.at(VfioDevice::INCOMING_STATE)).await;
    t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    state.is_null()
}

/// `vfio_pci_liveupdate_finish()`.
pub async fn vfio_liveupdate_finish(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("vfio_pci_liveupdate_finish");
    kho_restore_free(t, Ptr::<VfioSer>::from_pa(Pa(args.serialized_data))).await;
}
