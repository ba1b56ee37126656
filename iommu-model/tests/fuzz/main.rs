//! Arbitrary bytes as tables, queues, registers, descriptors and answers: nothing panics, loops or overflows, any walk ends
//! within its level count, and nothing is asked of memory that is not aligned.
//!
//! An input is a stream of bytes that says everything: the unit's capabilities, what happens, what memory holds, what
//! hardware chooses. The short run is part of `cargo test`; the long one, ten million inputs for each architecture, is
//! `cargo test --release -p iommu-model --test fuzz -- --ignored --nocapture`.

mod amd;
mod driver;
mod input;
mod riscv;
mod smmu;
mod vtd;
