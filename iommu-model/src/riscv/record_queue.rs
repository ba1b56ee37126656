//! A queue that the unit writes: fault queue or page-request queue. Specification, "Fault/Event-Queue", "Page-Request-Queue".
//!
//! A record that finds room is accepted at once, and written when the caller drives the queue. Its place counts as taken
//! from then on, the tail moves when it is stored. A record that finds none sets the overflow bit; while an error bit is
//! set, every record is dropped.

use crate::addr::{Pa, Pfn};
use crate::request::Message;
use crate::spec::riscv::register::{QueueBase, RecordQueueControl};
use std::collections::VecDeque;

/// Most records that wait to be written. A caller that does not drive the queue overflows it (assumption: hardware stalls).
pub(crate) const PENDING_MAX: usize = 64;

/// What the caller of a queue brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordInput {
    /// Nothing: next step, please.
    Continue,
    /// The record is stored.
    Written,
    /// There is no memory for it.
    WriteFailed,
}

/// What a queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordProgress {
    /// Nothing to do.
    Idle,
    /// Wants this store: answer `Written` or `WriteFailed`.
    Write {
        /// First byte; 16-byte aligned.
        pa: Pa,
        /// 16 or 32.
        bytes: u8,
        /// Words in address order; of 16 bytes, the first two.
        words: [u64; 4],
        /// Cycles.
        cost: u32,
    },
    /// The record is over: stored, or dropped with an error bit set.
    Done {
        /// Whether it was stored.
        stored: bool,
        /// The interrupt message that goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Push {
    Accepted,
    /// The queue was full: the overflow bit is set now.
    Overflowed,
    /// The queue is off.
    Off,
    /// An error bit was set: the one of overflow, or not.
    Stopped {
        overflow: bool,
    },
}

/// The registers and the records on their way.
#[derive(Clone, Debug)]
pub(crate) struct RecordQueue {
    pub(crate) base: QueueBase,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) control: RecordQueueControl,
    entry_bytes: u64,
    pending: VecDeque<[u64; 4]>,
    writing: bool,
}

impl RecordQueue {
    pub(crate) fn new(entry_bytes: u64) -> Self {
        Self {
            base: QueueBase::new(),
            head: 0,
            tail: 0,
            control: RecordQueueControl::new(),
            entry_bytes,
            pending: VecDeque::with_capacity(PENDING_MAX),
            writing: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.base = QueueBase::new();
        (self.head, self.tail) = (0, 0);
        self.control = RecordQueueControl::new();
        self.pending.clear();
        self.writing = false;
    }

    /// Bits of an index.
    fn mask(&self) -> u64 {
        (1 << (u32::from(self.base.log2_size_minus_1()) + 1)) - 1
    }

    fn has_error(&self) -> bool {
        self.control.memory_fault() || self.control.overflow()
    }

    /// A record wants a place.
    pub(crate) fn push(&mut self, record: [u64; 4]) -> Push {
        if !self.control.on() || !self.control.enable() {
            return Push::Off;
        }
        if self.has_error() {
            return Push::Stopped { overflow: !self.control.memory_fault() };
        }
        let next = u64::from(self.tail) + self.pending.len() as u64 + 1;
        if next & self.mask() == u64::from(self.head) || self.pending.len() == PENDING_MAX {
            self.control.set_overflow(true);
            return Push::Overflowed;
        }
        self.pending.push_back(record);
        Push::Accepted
    }

    /// Whether a record waits to be written.
    pub(crate) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What is to be written next.
    pub(crate) fn write(&mut self, cost: u32) -> Option<RecordProgress> {
        let words = *self.pending.front()?;
        let cost = if self.writing { 0 } else { cost };
        self.writing = true;
        let pa = Pfn(self.base.ppn()).pa().offset(u64::from(self.tail) * self.entry_bytes);
        Some(RecordProgress::Write { pa, bytes: self.entry_bytes as u8, words, cost })
    }

    /// The answer to a write; `None` if there was none.
    pub(crate) fn written(&mut self, stored: bool) -> Option<()> {
        if !core::mem::take(&mut self.writing) {
            return None;
        }
        self.pending.pop_front();
        if stored {
            self.tail = ((u64::from(self.tail) + 1) & self.mask()) as u32;
        } else {
            self.control.set_memory_fault(true);
            self.pending.clear();
        }
        self.settle();
        Some(())
    }

    /// A queue that was switched off is off when nothing is on its way.
    fn settle(&mut self) {
        if !self.control.enable() && self.pending.is_empty() {
            self.control.set_on(false);
        }
        self.control.set_busy(self.control.on() != self.control.enable());
    }

    /// Software writes the control register. Ignored while the queue is being switched off.
    pub(crate) fn write_control(&mut self, value: RecordQueueControl) {
        if self.control.busy() {
            return;
        }
        if value.enable() && !self.control.enable() {
            self.tail = 0;
            self.control = RecordQueueControl::new().with_on(true);
        }
        let cleared = |kept: bool, write_1: bool| kept && !write_1;
        self.control = self
            .control
            .with_enable(value.enable())
            .with_interrupt_enable(value.interrupt_enable())
            .with_memory_fault(cleared(self.control.memory_fault(), value.memory_fault()))
            .with_overflow(cleared(self.control.overflow(), value.overflow()));
        self.settle();
    }

    /// Software writes the base. Ignored while the queue is on.
    pub(crate) fn write_base(&mut self, value: QueueBase) {
        if !self.control.on() {
            self.base = QueueBase::new().with_log2_size_minus_1(value.log2_size_minus_1()).with_ppn(value.ppn());
            self.write_head(self.head);
        }
    }

    /// Software writes the head.
    pub(crate) fn write_head(&mut self, value: u32) {
        self.head = (u64::from(value) & self.mask()) as u32;
    }

    /// Whether an error bit keeps the interrupt pending.
    pub(crate) fn asserts_interrupt(&self) -> bool {
        self.control.interrupt_enable() && self.has_error()
    }
}
