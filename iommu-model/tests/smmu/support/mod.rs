//! What the tests share: memory, table builders, and a bench that drives a unit. The builders know the layouts and nothing
//! of the walker; the bench knows the walker's interface and nothing of the layouts.

pub(crate) mod bench;
pub(crate) mod memory;
pub(crate) mod tables;

pub(crate) use bench::{DEVICE, Ended, Scripted};
