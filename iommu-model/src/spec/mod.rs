//! Layouts as the manuals give them: bits and encodings, no behaviour. One folder an architecture.

pub mod amd;
pub mod riscv;
pub mod smmu;
pub mod vtd;
