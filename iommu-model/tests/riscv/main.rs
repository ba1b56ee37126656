//! The RISC-V IOMMU, step by step.

mod directories;
mod faults;
mod support;
mod walks;
