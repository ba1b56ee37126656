//! The VT-d unit as a caller sees it: tables in memory, one step at a time.

mod attributes;
mod caches;
mod device_tlb;
mod faults;
mod hostile;
mod in_flight;
mod inspect;
mod page_requests;
mod queue;
mod races;
mod races_takeover;
mod races_walk;
mod registers;
mod scalable;
mod shortcut;
mod support;
mod walks;
