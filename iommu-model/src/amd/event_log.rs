//! The event log, a ring that the unit writes. 48882 section 2.5.
//!
//! An event that finds room is accepted at once, and written when the caller drives the log. Its place counts as taken
//! from then on, the tail moves when it is stored. An event that finds none sets EventOverflow and stops the log until
//! software has switched it off and on. Stored events and overflow set EventLogInt; that a message goes out only as the bit
//! goes from 0 to 1 is an assumption.

use super::unit::Unit;
use crate::addr::{Pa, Pfn};
use crate::request::Message;
use crate::spec::amd::event::EVENT_BYTES;
use crate::spec::amd::register::{BUFFER_LENGTH_MIN, BufferBase, BufferPointer};
use std::collections::VecDeque;

/// Most events that wait to be written. A caller that does not drive the log overflows it.
const PENDING_MAX: usize = 64;

/// What the caller of the log brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventInput {
    /// Nothing: next step, please.
    Continue,
    /// The event is stored, or there is no memory for it; nobody is told of that.
    Written,
}

/// What the log did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventProgress {
    /// Nothing to do.
    Idle,
    /// Wants these 16 bytes stored: answer `Written`.
    Write {
        /// First byte; 16-byte aligned.
        pa: Pa,
        /// Words in address order.
        words: [u64; 2],
        /// Cycles.
        cost: u32,
    },
    /// The event is in the log.
    Done {
        /// The interrupt message that goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
}

/// Entries of a buffer, as an index mask. That a length below the smallest counts as that is an assumption.
pub(crate) fn index_mask(base: BufferBase) -> u16 {
    ((1u32 << base.length().max(BUFFER_LENGTH_MIN)) - 1) as u16
}

/// The registers and the events on their way.
#[derive(Clone, Debug)]
pub(crate) struct EventLog {
    pub(crate) base: BufferBase,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// EventLogRun.
    pub(crate) running: bool,
    pending: VecDeque<[u64; 2]>,
    writing: bool,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        let pending = VecDeque::with_capacity(PENDING_MAX);
        Self { base: BufferBase::new().with_length(BUFFER_LENGTH_MIN), head: 0, tail: 0, running: false, pending, writing: false }
    }

    pub(crate) fn reset(&mut self) {
        self.base = BufferBase::new().with_length(BUFFER_LENGTH_MIN);
        (self.head, self.tail) = (0, 0);
        (self.running, self.writing) = (false, false);
        self.pending.clear();
    }

    /// Whether an event waits to be written.
    pub(crate) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Software writes the base: both pointers go to 0. Events on their way go to the new place (assumption).
    pub(crate) fn write_base(&mut self, value: BufferBase) {
        self.base = BufferBase::new().with_frame(value.frame()).with_length(value.length());
        (self.head, self.tail) = (0, 0);
    }

    /// Software writes the head.
    pub(crate) fn write_head(&mut self, value: BufferPointer) {
        self.head = value.index() & index_mask(self.base);
    }

    /// Software writes the tail, as Linux does when it sets up the log.
    pub(crate) fn write_tail(&mut self, value: BufferPointer) {
        self.tail = value.index() & index_mask(self.base);
    }
}

impl Unit {
    /// Hands an event to the log. Returns whether it was accepted, and the message that goes out.
    pub(crate) fn log(&mut self, event: [u64; 2]) -> (bool, Option<Message>) {
        let log = &mut self.events;
        if !log.running {
            return (false, None);
        }
        let mask = index_mask(log.base);
        let next = log.tail.wrapping_add(log.pending.len() as u16 + 1) & mask;
        if next == log.head & mask || log.pending.len() == PENDING_MAX {
            log.running = false;
            self.status.set_event_overflow(true);
            return (false, self.raise_event());
        }
        log.pending.push_back(event);
        (true, None)
    }

    fn raise_event(&mut self) -> Option<Message> {
        if self.status.event_interrupt() {
            return None;
        }
        self.status.set_event_interrupt(true);
        if self.control.event_interrupt() { self.message() } else { None }
    }

    /// One step of the event log.
    pub fn event_log_advance(&mut self, input: EventInput) -> EventProgress {
        let log = &mut self.events;
        let Some(&words) = log.pending.front() else { return EventProgress::Idle };
        if log.writing && input == EventInput::Written {
            log.writing = false;
            log.pending.pop_front();
            log.tail = log.tail.wrapping_add(1) & index_mask(log.base);
            return EventProgress::Done { message: self.raise_event(), cost: 0 };
        }
        let cost = if log.writing { 0 } else { self.params.timing.status_write };
        log.writing = true;
        let pa = Pfn(log.base.frame()).pa().offset(u64::from(log.tail & index_mask(log.base)) * EVENT_BYTES);
        EventProgress::Write { pa, words, cost }
    }

    /// Whether an event waits to be written.
    #[must_use]
    pub fn event_log_has_work(&self) -> bool {
        self.events.has_work()
    }
}
