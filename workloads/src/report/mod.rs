//! What people and programs read about a run. All of it is a reading of the one event stream; nothing here knows a bug.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`history`] | the stream with an index: who was in which function, who wrote a word, what became of a frame |
//! | [`cause`] | from the finding backwards to what decided it: an ordered list of events, each with its role |
//! | `cached` | what a unit keeps of a word that changed |
//! | `stale` | what a program had read and somebody else changed |
//! | [`request`] | DMA requests, followed through it |
//! | [`translation`] | which register writes change it |
//! | [`words`] | an event in words, short and long |
//! | [`columns`] | events side by side, a column per actor |
//! | [`text`] | the report in kernel form, and in mail form |
//! | [`signature`] | the causes as one short word, for telling findings apart |
//! | [`json`] | the lines other programs rely on |
//! | [`trace`] | the stream itself, in ftrace columns or as JSON lines |

mod cached;
pub mod cause;
pub mod columns;
pub mod history;
pub mod json;
pub mod request;
pub mod signature;
mod stale;
pub mod text;
pub mod trace;
pub mod translation;
pub mod words;

#[cfg(test)]
mod tests;
