//! Arm SMMUv3, driven from outside as a simulator drives it.

mod ats;
mod caches;
mod config;
mod foreign;
mod hostile;
mod inspect;
mod invalidation;
mod page_requests;
mod queues;
mod races;
mod registers;
mod support;
mod updates;
mod walks;
