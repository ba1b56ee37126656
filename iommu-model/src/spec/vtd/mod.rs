//! Intel VT-d, legacy and scalable mode: every layout that hardware and software share.
//!
//! Source: VT-d architecture specification, rev 4.1/5.0; each fact agrees with Linux 7.3
//! `drivers/iommu/intel/` and at least one more independent table, unless the item says otherwise.
//!
//! Reserved bits are named fields, so that a check for them names what it checks.

pub mod capability;
pub mod context;
pub mod descriptor;
pub mod device_tlb;
pub mod fault;
pub mod first_stage;
pub mod page_request;
pub mod pasid;
pub mod register;
pub mod root;
pub mod second_stage;
