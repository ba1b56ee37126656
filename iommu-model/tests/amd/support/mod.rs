//! What the tests share: memory, table builders, and a bench that drives a unit. The builders know the layouts and
//! nothing of the walker; the bench knows the walker's interface and nothing of the layouts.

pub(crate) mod bench;
pub(crate) mod guest;
#[path = "../../vtd/support/memory.rs"]
pub(crate) mod memory;
pub(crate) mod tables;

pub(crate) use bench::{Bench, DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE, Scripted};
pub(crate) use guest::{Guest, PASID, Shape};
pub(crate) use memory::Memory;
pub(crate) use tables::{Tables, commands};
