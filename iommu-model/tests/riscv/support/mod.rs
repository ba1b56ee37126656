//! What the tests share: memory, table builders, and a world that drives a unit. The builders know the layouts and
//! nothing of the walker; the world knows the walker's interface.

#[path = "../../vtd/support/memory.rs"]
pub(crate) mod memory;
pub(crate) mod tables;
pub(crate) mod world;

pub(crate) use memory::Memory;
pub(crate) use tables::{Dc, Tables, commands, leaf, pointer};
pub(crate) use world::{DEVICE, GSCID, IOVA, PAGE, PSCID, Scripted, World};
