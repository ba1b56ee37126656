//! The PRI queue: page requests of devices, which the unit writes to memory for software to answer by CMD_PRI_RESP. IHI 0070
//! chapter 8 and section 4.5.2.
//!
//! - PRIQEN or SMMUEN clear, or an unacknowledged abort: every request is answered with Response Failure, without PASID.
//! - A request that finds the queue full begins an overflow; until software acknowledges it, requests are discarded. The
//!   last one of a group is answered with Success then, so that the device tries again; IDR3.PPS is 1, so that the answer has the
//!   PASID of the request and no STE is looked at.
//! - Neither EATS nor ATSCHK matters. Stop markers are queued or discarded, and never answered.
//! - An abort of a write is synchronous: the request is answered with Response Failure.
//! - The interrupt is that of a queue that is no longer empty.

use super::event::Ring;
use super::registers::Signal;
use super::unit::Unit;
use crate::addr::{Bdf, Pa};
use crate::ats::{PageRequest, PageResponse, ResponseCode};
use crate::spec::smmu::page_request::{GROUP_MASK, PAGE_REQUEST_BYTES, PageRequest0, PageRequest1, SUBSTREAM_MASK};
use std::collections::VecDeque;

/// Most requests that wait to be written. A caller that does not drive the queue overflows it. Knob.
const PENDING_MAX: usize = 64;

/// What becomes of a page request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageRequestOutcome {
    /// It waits to be written to the queue.
    Queued,
    /// It is dropped without a word.
    Discarded,
    /// The unit answers it itself.
    Answered(PageResponse),
}

/// What the caller of the queue brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageQueueInput {
    /// Nothing: next step, please.
    Continue,
    /// The entry is stored.
    Written,
    /// There is no memory at its address.
    Aborted,
}

/// What the PRI queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageQueueProgress {
    /// Nothing to do.
    Idle,
    /// Wants these 16 bytes stored: answer `Written` or `Aborted`.
    Write {
        /// 16-byte aligned.
        pa: Pa,
        /// The entry.
        words: [u64; 2],
        /// Cycles.
        cost: u32,
    },
    /// The entry can be seen through PROD.
    Recorded {
        /// The queue was empty before, and this is its interrupt.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
    /// The entry is lost; delivery stops until GERRORN acknowledges.
    Aborted {
        /// What its device is told, unless it was a stop marker.
        response: Option<PageResponse>,
        /// The interrupt of GERROR.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
}

/// The queue.
#[derive(Clone, Debug)]
pub(crate) struct PageRequests {
    pub(crate) ring: Ring,
    /// OVFLG.
    pub(crate) overflow: bool,
    /// OVACKFLG.
    pub(crate) overflow_acknowledged: bool,
    pending: VecDeque<PageRequest>,
    /// The request at the front was handed out.
    writing: bool,
}

impl PageRequests {
    pub(crate) fn new(bits_max: u8) -> Self {
        Self {
            ring: Ring::new(bits_max),
            overflow: false,
            overflow_acknowledged: false,
            pending: VecDeque::with_capacity(PENDING_MAX),
            writing: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.ring = Ring::new(self.ring.bits_max);
        (self.overflow, self.overflow_acknowledged, self.writing) = (false, false, false);
        self.pending.clear();
    }

    /// Requests that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    fn is_full(&self) -> bool {
        self.ring.used() + self.pending.len() as u32 >= self.ring.entries() || self.pending.len() == PENDING_MAX
    }
}

/// A message that says that no more requests of a PASID will come: nothing is wanted.
const fn is_stop_marker(request: &PageRequest) -> bool {
    request.pasid.is_some() && !request.read && !request.write && request.last
}

/// The unit's own answer, unless nobody asked.
fn answer(request: &PageRequest, code: ResponseCode) -> Option<PageResponse> {
    let pasid = if code == ResponseCode::SUCCESS { request.pasid } else { None };
    (!is_stop_marker(request)).then_some(PageResponse { source: request.source, pasid, group: request.group, code })
}

impl Unit {
    /// A page request message arrives.
    pub fn page_request(&mut self, request: PageRequest) -> PageRequestOutcome {
        let told = |answer: Option<PageResponse>| answer.map_or(PageRequestOutcome::Discarded, PageRequestOutcome::Answered);
        if !self.page_requests_writable() {
            return told(answer(&request, ResponseCode::FAILURE));
        }
        let queue = &mut self.page_requests;
        if queue.overflow == queue.overflow_acknowledged && queue.is_full() {
            queue.overflow = !queue.overflow_acknowledged;
        }
        if queue.overflow != queue.overflow_acknowledged {
            return told(answer(&request, ResponseCode::SUCCESS).filter(|_| request.last));
        }
        queue.pending.push_back(request);
        PageRequestOutcome::Queued
    }

    /// One step of the PRI queue.
    pub fn page_queue_advance(&mut self, input: PageQueueInput) -> PageQueueProgress {
        let stream_base = self.params.stream_base.0;
        let queue = &mut self.page_requests;
        let Some(&request) = queue.pending.front() else { return PageQueueProgress::Idle };
        match input {
            PageQueueInput::Written if queue.writing => {
                queue.writing = false;
                queue.pending.pop_front();
                let was_empty = queue.ring.used() == 0;
                queue.ring.producer = queue.ring.next(queue.ring.producer);
                let interrupt = if was_empty { self.page_request_interrupt() } else { None };
                let cost = if interrupt.is_some() { self.params.timing.interrupt } else { 0 };
                PageQueueProgress::Recorded { interrupt, cost }
            }
            PageQueueInput::Aborted if queue.writing => {
                queue.writing = false;
                queue.pending.pop_front();
                let response = answer(&request, ResponseCode::FAILURE);
                let interrupt = self.raise_error(|error| error.set_page_request_abort(true));
                PageQueueProgress::Aborted { response, interrupt, cost: self.params.timing.fault }
            }
            _ => {
                let again = core::mem::replace(&mut queue.writing, true);
                let pa = queue.ring.entry(queue.ring.producer, PAGE_REQUEST_BYTES);
                let cost = if again { 0 } else { self.params.timing.status_write };
                PageQueueProgress::Write { pa, words: words_of(&request, stream_base), cost }
            }
        }
    }

    /// Whether `page_queue_advance` would do more than say [`PageQueueProgress::Idle`].
    #[must_use]
    pub fn page_queue_has_work(&self) -> bool {
        self.page_requests.pending() != 0
    }
}

fn words_of(request: &PageRequest, stream_base: u32) -> [u64; 2] {
    let Bdf(source) = request.source;
    let first = PageRequest0::new()
        .with_stream(stream_base.wrapping_add(u32::from(source)))
        .with_substream(request.pasid.map_or(0, |pasid| pasid.0 & SUBSTREAM_MASK))
        .with_substream_valid(request.pasid.is_some())
        .with_privileged(request.privileged)
        .with_execute(request.execute)
        .with_read(request.read)
        .with_write(request.write)
        .with_last(request.last);
    let second = PageRequest1::new().with_group(request.group & GROUP_MASK).with_page(request.address.page_number());
    [first.into_bits(), second.into_bits()]
}
