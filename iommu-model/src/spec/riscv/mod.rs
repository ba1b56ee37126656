//! RISC-V IOMMU architecture specification, version 1.0, with the QoS, non-leaf invalidation (NL) and address range (S)
//! extensions as its extensions chapter gives them; page tables from the privileged specification, MSI tables from
//! the Advanced Interrupt Architecture. Reserved bits are named: behaviour checks them by name.

pub mod capability;
pub mod command;
pub mod device_context;
pub mod fault;
pub mod msi;
pub mod page_request;
pub mod paging;
pub mod process_context;
pub mod register;
