//! Layouts of the Arm SMMUv3 architecture, IHI 0070 G.b, and of the VMSAv8-64 descriptors that it walks. No behaviour.
//!
//! Bit ranges are those of the section that each item names. The ones that drivers rely on agree in Linux 7.3
//! `arm-smmu-v3.h`; those of STE, CD and registers also in gem5 24.0 `smmu_v3_defs.hh`.

pub mod capability;
pub mod command;
pub mod context;
pub mod descriptor;
pub mod event;
pub mod page_request;
pub mod register;
pub mod stream;
