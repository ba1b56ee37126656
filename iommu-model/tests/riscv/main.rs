//! The RISC-V IOMMU, step by step.

mod ats;
mod caches;
mod commands;
mod directories;
mod faults;
mod hostile;
mod in_flight;
mod inspect;
mod messages;
mod queues;
mod races;
mod raw;
mod registers;
mod rules;
mod support;
mod walks;
