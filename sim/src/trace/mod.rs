//! Events and their readers.

mod event;

pub use event::{DeviceId, Event, EventKind, Flavor, LockKind, TraceHash, UnitId, Verb};
