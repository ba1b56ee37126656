//! What frames and slab objects hold, as reports name it. Also the class of a fallible allocation.

use sim::memory::Tag;

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Tag = Tag($value);)*

        /// Name of a tag in reports.
        pub fn name(tag: Tag) -> &'static str {
            match tag.0 {
                $($value => $text,)*
                _ => "unknown",
            }
        }
    };
}

tags! {
    /// Kernel text and data.
    KERNEL_IMAGE = 1, "kernel image";
    /// Array of struct page.
    MEMMAP = 2, "struct page array";
    /// Page carved into slab objects.
    SLAB = 3, "slab page";
    /// Node or leaf of the KHO radix tree.
    KHO_RADIX = 4, "KHO radix node";
    /// KHO root FDT.
    KHO_FDT = 5, "KHO FDT";
    /// LUO header, block or array.
    LUO = 6, "LUO serialized state";
    /// FLB header page.
    LUO_FLB = 7, "LUO FLB header";
    /// iommu_flb_ser.
    IOMMU_FLB_SER = 8, "iommu_flb_ser";
    /// Array page of iommu_domain_ser.
    IOMMU_DOMAIN_ARRAY = 9, "iommu_domain_ser array";
    /// Array page of iommu_device_ser.
    IOMMU_DEVICE_ARRAY = 10, "iommu_device_ser array";
    /// Array page of iommu_hw_ser.
    IOMMU_HW_ARRAY = 11, "iommu_hw_ser array";
    /// Page-table page of an IOMMU domain.
    IOMMU_TABLE = 12, "IOMMU page table";
    /// VT-d root table.
    VTD_ROOT = 13, "VT-d root table";
    /// VT-d context table.
    VTD_CONTEXT = 14, "VT-d context table";
    /// VT-d invalidation queue.
    VTD_QUEUE = 15, "VT-d invalidation queue";
    /// VT-d descriptor status array.
    VTD_STATUS = 16, "VT-d desc_status";
    /// Folio of a memfd.
    MEMFD_FOLIO = 17, "memfd folio";
    /// memfd_luo_ser.
    MEMFD_SER = 18, "memfd_luo_ser";
    /// vmalloc block.
    VMALLOC = 19, "vmalloc block";
    /// KHO vmalloc chunk page.
    VMALLOC_CHUNK = 20, "KHO vmalloc chunk";
    /// iommufd serialized header.
    IOMMUFD_SER = 21, "iommufd_ser";
    /// vfio serialized device.
    VFIO_SER = 22, "vfio_pci_core_device_ser";
    /// Test FLB data.
    TEST_FLB = 23, "test FLB data";
    /// Memory of an unrelated user of the allocator.
    OTHER = 24, "unrelated kernel memory";
    /// Low memory kept by firmware.
    FIRMWARE = 25, "firmware";
    /// struct file.
    FILE = 30, "struct file";
    /// struct luo_session.
    LUO_SESSION = 31, "struct luo_session";
    /// struct luo_file.
    LUO_FILE = 32, "struct luo_file";
    /// struct iommu_flb_obj.
    IOMMU_FLB_OBJ = 33, "struct iommu_flb_obj";
    /// struct dmar_domain.
    DMAR_DOMAIN = 34, "struct dmar_domain";
    /// struct iommufd_ioas.
    IOAS = 35, "struct iommufd_ioas";
    /// struct iommufd_hw_pagetable.
    HWPT = 36, "struct iommufd_hwpt_paging";
    /// struct iopt_area.
    AREA = 37, "struct iopt_area";
    /// struct iopt_pages.
    IOPT_PAGES = 38, "struct iopt_pages";
    /// struct iommufd_ctx.
    IOMMUFD_CTX = 39, "struct iommufd_ctx";
    /// struct iommufd_device.
    IOMMUFD_DEVICE = 40, "struct iommufd_device";
    /// struct vfio_device.
    VFIO_DEVICE = 41, "struct vfio_pci_core_device";
    /// struct device_domain_info.
    DEVICE_INFO = 42, "struct device_domain_info";
    /// struct iommu_group.
    GROUP = 43, "struct iommu_group";
    /// struct iommu_domain_info (per unit).
    DOMAIN_INFO = 44, "struct iommu_domain_info";
    /// struct cache_tag.
    CACHE_TAG = 45, "struct cache_tag";
    /// shmem inode.
    SHMEM_INODE = 46, "struct shmem_inode_info";
    /// xarray node or list entry of the page cache.
    XA_NODE = 47, "xa_node";
    /// memfd_luo private data.
    MEMFD_PRIVATE = 48, "struct memfd_luo private data";
    /// kho_block bookkeeping.
    KHO_BLOCK = 49, "struct kho_block";
    /// on-stack state that other contexts can reach.
    STACK = 50, "kernel stack object";
    /// file descriptor table.
    FD_TABLE = 51, "fd table";
    /// object table of iommufd.
    IOMMUFD_OBJECTS = 52, "iommufd object table";
}
