//! Events and their readers.

mod event;
mod function;

pub use event::{DeviceId, Event, EventKind, Flavor, LockKind, TraceHash, UnitId, Verb};
pub(crate) use function::Functions;
pub use function::InFunction;
