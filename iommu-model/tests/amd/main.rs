//! The AMD-Vi unit as a caller sees it: tables in memory, one step at a time.

mod commands;
mod events;
mod faults;
mod support;
mod walks;
