//! AMD-Vi layouts: device table, page tables, commands, events, registers.
//!
//! Sections are those of the AMD I/O Virtualization Technology specification (document 48882). Its text was read through
//! what others wrote from it: Linux 7.3 `drivers/iommu/amd/amd_iommu_types.h` and `generic_pt/fmt/amdv1.h` ("LX"), VirtualBox
//! 7 `iommu-amd.h`, written from revision 3.05 ("VB"). Where a field has only one of them, it says so.

pub mod address;
pub mod command;
pub mod control;
pub mod device_table;
pub mod event;
pub mod guest_table;
pub mod host_table;
pub mod register;
