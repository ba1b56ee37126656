//! The RISC-V IOMMU, step by step.

mod ats;
mod commands;
mod directories;
mod faults;
mod in_flight;
mod messages;
mod races;
mod rules;
mod support;
mod walks;
