//! The VT-d unit as a caller sees it: tables in memory, one step at a time.

mod caches;
mod faults;
mod hostile;
mod in_flight;
mod inspect;
mod queue;
mod races;
mod registers;
mod scalable;
mod shortcut;
mod support;
mod walks;
