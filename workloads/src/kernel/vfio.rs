//! VFIO character devices of vfio-pci: `drivers/vfio/{vfio_main.c,device_cdev.c,iommufd.c}`, `drivers/vfio/pci/vfio_pci_core.c`.
//!
//! A device is bound to one iommufd through one open file at a time, attached to one HWPT of it, and detached. Each device is a
//! device set of its own, so `dev_set->lock` is part of the device.
//!
//! | modelled | not modelled |
//! | --- | --- |
//! | open, BIND_IOMMUFD, attach, replace, detach, close | group files, legacy containers, PASID attach, KVM |
//! | first open: bus mastering off, function reset, both undone by no one | BARs, interrupts, configuration space, power states |
//! | live update of the file ([`super::vfio_liveupdate`]) | PCI core preservation and its FLB |
//!
//! The PCI core would say that a device is incoming. Here the IOMMU core says so: it runs on a restored domain. That is an
//! **assumption** with an effect: when the IOMMU FLB could not be retrieved, a device counts as an ordinary one.

use iommu_model::addr::{Bdf, Iova};
use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, Refcount};

use super::file::{self, File, FileKind, Files, copy_to_user_fails};
use super::iommu::iommu_restored_domain;
use super::iommufd::device::{
    IommufdDevice, iommufd_device_attach, iommufd_device_bind, iommufd_device_detach, iommufd_device_replace, iommufd_device_unbind,
};
use super::iommufd::object::{Object, refcount_dec_and_test};
use super::iommufd::{IommufdCtx, iommufd_ctx_from_fd, iommufd_ctx_put};
use super::mm::{Gfp, callee_fails, kfree, kzalloc};
use super::{SECTION_BYTES, Section, Task};
use crate::abi::vfio::{self as abi, VfioSer};
use crate::callee;
use crate::errno::{EBADF, EBUSY, EFAULT, EINVAL, EIO, ENODEV, ENOMEM, ENOTTY, Errno};
use crate::tag;

/// `struct vfio_pci_core_device`, with its `struct vfio_device` and device set.
#[derive(Clone, Copy, Debug)]
pub struct VfioDevice;

impl VfioDevice {
    /// `pdev`, as its requester id.
    pub const BDF: Field<u16> = field(0, "vdev.pdev");
    /// `reset_works`: what the first open found out.
    pub const RESET_WORKS: Field<u8> = field(2, "vdev.reset_works");
    /// `iommufd_attached`.
    pub const IOMMUFD_ATTACHED: Field<u8> = field(3, "vdev.iommufd_attached");
    /// `open_count`.
    pub const OPEN_COUNT: Field<u32> = field(4, "vdev.open_count");
    /// `dev_set->lock`.
    pub const DEV_SET_LOCK: Field<Mutex> = field(8, "vdev.dev_set.lock");
    /// `iommufd_device`: NULL when not bound.
    pub const IOMMUFD_DEVICE: Field<Ptr<IommufdDevice>> = field(16, "vdev.iommufd_device");
    /// `liveupdate_incoming_state` (VFIO series v2): set by retrieve, used up by the first open.
    pub const INCOMING_STATE: Field<Ptr<VfioSer>> = field(24, "vdev.liveupdate_incoming_state");
    /// `refcount`: registration and open files.
    pub const REFCOUNT: Field<Refcount> = field(32, "vdev.refcount");
    const BYTES: u16 = 40;
}

/// `struct vfio_device_file`.
#[derive(Clone, Copy, Debug)]
pub struct VfioDeviceFile;

impl VfioDeviceFile {
    /// `device`.
    pub const DEVICE: Field<Ptr<VfioDevice>> = field(0, "df.device");
    /// `iommufd`: the context it is bound to, held.
    pub const IOMMUFD: Field<Ptr<IommufdCtx>> = field(8, "df.iommufd");
    /// `access_granted`: bound.
    pub const ACCESS_GRANTED: Field<u8> = field(16, "df.access_granted");
    const BYTES: u16 = 24;
}

/// Registered devices, by index in the topology: the character devices of `/dev/vfio/devices`.
const fn vfio_device(index: usize) -> Field<Ptr<VfioDevice>> {
    assert!((index as u64) < SECTION_BYTES / 8, "the section holds 64 devices");
    field(index as u16 * 8, "vfio_device")
}

/// Module init and probe: vfio-pci binds to every device.
pub async fn vfio_init(t: &Task) {
    for (index, device) in t.k.topo.devices.iter().enumerate() {
        let vdev = vfio_pci_probe(t, device.bdf).await;
        t.write(t.sym(Section::Vfio, vfio_device(index)), vdev).await;
    }
}

/// `vfio_pci_probe()`: the driver manages DMA itself, so ownership of the group is not taken. NULL on failure.
async fn vfio_pci_probe(t: &Task, bdf: Bdf) -> Ptr<VfioDevice> {
    let _in = t.call("vfio_pci_probe");
    let vdev: Ptr<VfioDevice> = kzalloc(t, VfioDevice::BYTES, Gfp::Kernel, tag::VFIO_DEVICE).await;
    if !vdev.is_null() {
        t.write(vdev.at(VfioDevice::BDF), bdf.0).await;
        t.init_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        t.refcount_set(vdev.at(VfioDevice::REFCOUNT), 1).await;
    }
    vdev
}

/// `vfio_find_device()`: holds the device. NULL when it is not registered.
pub async fn vfio_find_device(t: &Task, bdf: Bdf) -> Ptr<VfioDevice> {
    for (index, device) in t.k.topo.devices.iter().enumerate() {
        if device.bdf == bdf {
            let vdev = t.read(t.sym(Section::Vfio, vfio_device(index))).await;
            if !vdev.is_null() && t.refcount_inc_not_zero(vdev.at(VfioDevice::REFCOUNT)).await {
                return vdev;
            }
        }
    }
    Ptr::NULL
}

/// `vfio_device_put_registration()`. Unregistering is not modelled, so the registration itself stays.
pub async fn vfio_device_put_registration(t: &Task, vdev: Ptr<VfioDevice>) {
    let last = refcount_dec_and_test(t, vdev.at(VfioDevice::REFCOUNT)).await;
    t.warn_on(last, "vfio_device_put_registration");
}

/// The device behind a VFIO file.
pub async fn vfio_device_from_file(t: &Task, filp: Ptr<File>) -> Ptr<VfioDevice> {
    let df: Ptr<VfioDeviceFile> = Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await);
    t.read(df.at(VfioDeviceFile::DEVICE)).await
}

/// `vfio_allocate_device_file()` and an anonymous file around it: takes over the hold on the device. ERR pointer on failure, then the hold is
/// still the caller's.
pub async fn vfio_device_open_file(t: &Task, vdev: Ptr<VfioDevice>) -> Ptr<File> {
    let df: Ptr<VfioDeviceFile> = kzalloc(t, VfioDeviceFile::BYTES, Gfp::Kernel, tag::VFIO_DEVICE).await;
    if df.is_null() {
        return Ptr::err(-ENOMEM);
    }
    t.write(df.at(VfioDeviceFile::DEVICE), vdev).await;
    let filp = file::alloc_file(t, FileKind::VfioCdev, df.value()).await;
    if filp.is_null() {
        kfree(t, df).await;
        return Ptr::err(-ENOMEM);
    }
    filp
}

/// `open("/dev/vfio/devices/vfioN")`: a file descriptor or an error. An incoming device that was not retrieved is -EBUSY.
pub async fn sys_vfio_open(t: &Task, files: Ptr<Files>, bdf: Bdf) -> i32 {
    let fd = file::get_unused_fd(t, files).await;
    if fd < 0 {
        return fd;
    }
    let filp = vfio_device_fops_cdev_open(t, bdf).await;
    if let Some(errno) = filp.errno() {
        file::put_unused_fd(t, files, fd).await;
        return -errno;
    }
    file::fd_install(t, files, fd, filp).await;
    fd
}

/// `vfio_device_fops_cdev_open()`. ERR pointer on failure.
async fn vfio_device_fops_cdev_open(t: &Task, bdf: Bdf) -> Ptr<File> {
    let _in = t.call("vfio_device_fops_cdev_open");
    let vdev = vfio_find_device(t, bdf).await;
    if vdev.is_null() {
        return Ptr::err(-ENODEV);
    }
    let incoming = !iommu_restored_domain(t, bdf).await.is_null();
    if incoming && t.read(vdev.at(VfioDevice::INCOMING_STATE)).await.is_null() {
        vfio_device_put_registration(t, vdev).await;
        return Ptr::err(-EBUSY);
    }
    let filp = vfio_device_open_file(t, vdev).await;
    if filp.errno().is_some() {
        vfio_device_put_registration(t, vdev).await;
    }
    filp
}

/// `vfio_pci_open_device()`: bus mastering off and a function reset, which ends all DMA. An incoming device skips both and goes on.
async fn vfio_pci_open_device(t: &Task, vdev: Ptr<VfioDevice>) -> Errno {
    let _in = t.call("vfio_pci_open_device");
    let state = t.read(vdev.at(VfioDevice::INCOMING_STATE)).await;
    if !state.is_null() {
        let reset_works = t.read(state.at(abi::RESET_WORKS)).await;
        t.write(vdev.at(VfioDevice::RESET_WORKS), reset_works).await;
        t.write(vdev.at(VfioDevice::INCOMING_STATE), Ptr::NULL).await;
        return 0;
    }
    if callee_fails(t, callee::VFIO_ENABLE) {
        return EIO;
    }
    vfio_pci_reset(t, vdev).await;
    t.write(vdev.at(VfioDevice::RESET_WORKS), 1).await;
    0
}

/// `pci_clear_master()` and a function-level reset: the device forgets what its driver programmed.
async fn vfio_pci_reset(t: &Task, vdev: Ptr<VfioDevice>) {
    let bdf = Bdf(t.read(vdev.at(VfioDevice::BDF)).await);
    t.relax().await;
    t.machine.fabric.set_bus_master(&t.machine.core, bdf, false);
    t.relax().await;
    t.machine.fabric.unprogram(bdf, Iova(0), u64::MAX);
}

/// `vfio_df_device_first_open()`: bind to the iommufd, then the driver's open. The caller holds `dev_set->lock`.
async fn vfio_df_device_first_open(t: &Task, df: Ptr<VfioDeviceFile>, vdev: Ptr<VfioDevice>) -> Errno {
    let _in = t.call("vfio_df_device_first_open");
    let ictx = t.read(df.at(VfioDeviceFile::IOMMUFD)).await;
    let bdf = Bdf(t.read(vdev.at(VfioDevice::BDF)).await);
    let state = t.read(vdev.at(VfioDevice::INCOMING_STATE)).await;
    let incoming = if state.is_null() { None } else { Some(t.read(state.at(abi::IOMMUFD_TOKEN)).await) };
    let idev = iommufd_device_bind(t, ictx, bdf, incoming).await;
    if let Some(errno) = idev.errno() {
        return -errno;
    }
    t.write(vdev.at(VfioDevice::IOMMUFD_DEVICE), idev).await;
    if incoming.is_some() && t.k.rev.reclaim {
        // Assumed: it comes attached to its restored HWPT.
        t.write(vdev.at(VfioDevice::IOMMUFD_ATTACHED), 1).await;
    }
    let rc = vfio_pci_open_device(t, vdev).await;
    if rc != 0 {
        vfio_iommufd_physical_unbind(t, vdev).await;
    }
    rc
}

/// `vfio_iommufd_physical_unbind()`. The caller holds `dev_set->lock`.
async fn vfio_iommufd_physical_unbind(t: &Task, vdev: Ptr<VfioDevice>) {
    let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
    if t.read(vdev.at(VfioDevice::IOMMUFD_ATTACHED)).await != 0 {
        let rc = iommufd_device_detach(t, idev).await;
        t.warn_on(rc != 0, "vfio_iommufd_physical_unbind");
        t.write(vdev.at(VfioDevice::IOMMUFD_ATTACHED), 0).await;
    }
    iommufd_device_unbind(t, idev).await;
    t.write(vdev.at(VfioDevice::IOMMUFD_DEVICE), Ptr::NULL).await;
}

/// Holds the file behind `vfd` when it is a VFIO device. ERR pointer when not.
async fn vfio_file_get(t: &Task, files: Ptr<Files>, vfd: i32) -> Ptr<File> {
    let filp = file::fget(t, files, vfd).await;
    if filp.is_null() {
        return Ptr::err(-EBADF);
    }
    if file::file_kind(t, filp).await != Some(FileKind::VfioCdev) {
        file::fput(t, filp).await;
        return Ptr::err(-ENOTTY);
    }
    filp
}

/// `VFIO_DEVICE_BIND_IOMMUFD`, `vfio_df_ioctl_bind_iommufd()`: the id of the device in the iommufd, or an error.
pub async fn vfio_bind_iommufd(t: &Task, files: Ptr<Files>, vfd: i32, ifd: i32) -> i32 {
    let _in = t.call("vfio_df_ioctl_bind_iommufd");
    let filp = vfio_file_get(t, files, vfd).await;
    if let Some(errno) = filp.errno() {
        return -errno;
    }
    let df: Ptr<VfioDeviceFile> = Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await);
    let vdev = t.read(df.at(VfioDeviceFile::DEVICE)).await;
    t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    let rc = 'out_unlock: {
        if t.read(df.at(VfioDeviceFile::ACCESS_GRANTED)).await != 0 {
            break 'out_unlock EINVAL;
        }
        let ictx = iommufd_ctx_from_fd(t, files, ifd).await;
        if let Some(errno) = ictx.errno() {
            break 'out_unlock -errno;
        }
        t.write(df.at(VfioDeviceFile::IOMMUFD), ictx).await;
        let rc = 'out_put: {
            // vfio_df_open(): through a character device only once at a time.
            if t.read(vdev.at(VfioDevice::OPEN_COUNT)).await != 0 {
                break 'out_put EINVAL;
            }
            t.write(vdev.at(VfioDevice::OPEN_COUNT), 1).await;
            let rc = vfio_df_device_first_open(t, df, vdev).await;
            if rc != 0 {
                t.write(vdev.at(VfioDevice::OPEN_COUNT), 0).await;
                break 'out_put rc;
            }
            let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
            let id = t.read(idev.at(IommufdDevice::OBJ).at(Object::ID)).await;
            if copy_to_user_fails(t) {
                vfio_df_close(t, vdev).await;
                break 'out_put EFAULT;
            }
            t.store_release(df.at(VfioDeviceFile::ACCESS_GRANTED), 1).await;
            break 'out_unlock id as i32;
        };
        t.write(df.at(VfioDeviceFile::IOMMUFD), Ptr::NULL).await;
        iommufd_ctx_put(t, ictx).await;
        rc
    };
    t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    file::fput(t, filp).await;
    rc
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`, `vfio_df_ioctl_attach_pt()`: attach, or replace when it is attached already.
pub async fn vfio_attach(t: &Task, files: Ptr<Files>, vfd: i32, hwpt_id: i32) -> Errno {
    let _in = t.call("vfio_df_ioctl_attach_pt");
    let filp = vfio_file_get(t, files, vfd).await;
    if let Some(errno) = filp.errno() {
        return -errno;
    }
    let df: Ptr<VfioDeviceFile> = Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await);
    let rc = 'out: {
        if t.load_acquire(df.at(VfioDeviceFile::ACCESS_GRANTED)).await == 0 {
            break 'out EINVAL;
        }
        let vdev = t.read(df.at(VfioDeviceFile::DEVICE)).await;
        t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        // vfio_iommufd_physical_attach_ioas()
        let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
        let mut rc = if t.read(vdev.at(VfioDevice::IOMMUFD_ATTACHED)).await != 0 {
            iommufd_device_replace(t, idev, hwpt_id).await
        } else {
            iommufd_device_attach(t, idev, hwpt_id).await
        };
        if rc == 0 {
            t.write(vdev.at(VfioDevice::IOMMUFD_ATTACHED), 1).await;
            if copy_to_user_fails(t) {
                vfio_iommufd_physical_detach_ioas(t, vdev).await;
                rc = EFAULT;
            }
        }
        t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        rc
    };
    file::fput(t, filp).await;
    rc
}

/// `vfio_iommufd_physical_detach_ioas()`. The caller holds `dev_set->lock`.
async fn vfio_iommufd_physical_detach_ioas(t: &Task, vdev: Ptr<VfioDevice>) -> Errno {
    if t.read(vdev.at(VfioDevice::IOMMUFD_ATTACHED)).await == 0 {
        return 0;
    }
    let idev = t.read(vdev.at(VfioDevice::IOMMUFD_DEVICE)).await;
    let rc = iommufd_device_detach(t, idev).await;
    if rc == 0 {
        t.write(vdev.at(VfioDevice::IOMMUFD_ATTACHED), 0).await;
    }
    rc
}

/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`, `vfio_df_ioctl_detach_pt()`.
pub async fn vfio_detach(t: &Task, files: Ptr<Files>, vfd: i32) -> Errno {
    let _in = t.call("vfio_df_ioctl_detach_pt");
    let filp = vfio_file_get(t, files, vfd).await;
    if let Some(errno) = filp.errno() {
        return -errno;
    }
    let df: Ptr<VfioDeviceFile> = Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await);
    let rc = 'out: {
        if t.load_acquire(df.at(VfioDeviceFile::ACCESS_GRANTED)).await == 0 {
            break 'out EINVAL;
        }
        let vdev = t.read(df.at(VfioDeviceFile::DEVICE)).await;
        t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        let rc = vfio_iommufd_physical_detach_ioas(t, vdev).await;
        t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        rc
    };
    file::fput(t, filp).await;
    rc
}

/// `vfio_df_close()`: the driver stops the device, then the iommufd lets it go. The caller holds `dev_set->lock`.
async fn vfio_df_close(t: &Task, vdev: Ptr<VfioDevice>) {
    let _in = t.call("vfio_df_close");
    vfio_pci_reset(t, vdev).await;
    vfio_iommufd_physical_unbind(t, vdev).await;
    t.write(vdev.at(VfioDevice::OPEN_COUNT), 0).await;
}

/// `vfio_device_fops_release()`: the last reference to the file is gone.
pub async fn vfio_device_fops_release(t: &Task, filp: Ptr<File>) {
    let _in = t.call("vfio_device_fops_release");
    let df: Ptr<VfioDeviceFile> = Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await);
    let vdev = t.read(df.at(VfioDeviceFile::DEVICE)).await;
    if t.read(df.at(VfioDeviceFile::ACCESS_GRANTED)).await != 0 {
        t.mutex_lock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
        vfio_df_close(t, vdev).await;
        let ictx = t.read(df.at(VfioDeviceFile::IOMMUFD)).await;
        iommufd_ctx_put(t, ictx).await;
        t.mutex_unlock(vdev.at(VfioDevice::DEV_SET_LOCK)).await;
    }
    vfio_device_put_registration(t, vdev).await;
    kfree(t, df).await;
}
