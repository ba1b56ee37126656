//! Arm SMMUv3, driven from outside as a simulator drives it.

mod config;
mod invalidation;
mod races;
mod support;
mod updates;
mod walks;
