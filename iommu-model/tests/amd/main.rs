//! The AMD-Vi unit as a caller sees it: tables in memory, one step at a time.

mod ats;
mod commands;
mod events;
mod faults;
mod foreign;
mod guest;
mod hostile;
mod in_flight;
mod inspect;
mod races;
mod registers;
mod support;
mod walks;
