//! The page request queue: devices ask software for pages, the unit writes records to memory, software responds.
//!
//! 1. A page request is looked up like a request: the context entry must allow it (`device_requests`).
//! 2. It waits for its turn here. At its turn the unit drops what it caches of that page (QEMU 10.2 does so; of every
//!    domain, which is wider than needed).
//! 3. If the queue in memory is full, PRO is set, and until software clears it every further request is dropped; the last
//!    of a group is answered by the unit itself, as a failure (assumption).
//! 4. Else the record is written at the tail, the tail moves, PPR is set.
//! 5. The event goes out when PPR or PRO is set while neither was.
//!
//! The caller drives it like the invalidation queue. A wait descriptor with PD completes only when all requests that
//! have come are written or dropped.

use super::fault::EventBlock;
use super::unit::Unit;
use crate::addr::{PAGE_SIZE, Pa, Pfn};
use crate::ats::{Attributes, PageRequest, PageResponse, RequestKind, ResponseCode};
use crate::request::{Access, Busy, Message, Request, WalkId};
use crate::spec::vtd::page_request::{
    PageQueueAddress, PageRequestRecord, PageRequestStatus, RECORD_BYTES, RECORD_PAGE_REQUEST, RECORDS_SHIFT,
};
use std::collections::VecDeque;

/// What the caller brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageQueueInput {
    /// Nothing: next step, please.
    Continue,
    /// The record is stored.
    Written,
}

/// What the page request queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageQueueProgress {
    /// Nothing to do.
    Idle,
    /// Wants this record stored: answer `Written`.
    WriteRecord {
        /// 32-byte aligned.
        pa: Pa,
        /// The record in address order.
        words: [u64; 4],
        /// Cycles.
        cost: u32,
    },
    /// The queue in memory is full: the request is dropped.
    Dropped {
        /// What the unit answers, if the request was the last of its group.
        response: Option<PageResponse>,
        /// The page request event, if it goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
    /// A record is there for software.
    Recorded {
        /// The page request event, if it goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
}

/// The queue's registers and state.
#[derive(Clone, Debug)]
pub(crate) struct PageRequests {
    pub(crate) head: u16,
    pub(crate) tail: u16,
    pub(crate) address: PageQueueAddress,
    pub(crate) status: PageRequestStatus,
    pub(crate) event: EventBlock,
    /// The request that each walker looks up.
    looked_up: Vec<Option<PageRequest>>,
    /// Allowed and not yet written.
    waiting: VecDeque<PageRequest>,
    /// The front of `waiting` is being written.
    writing: bool,
}

impl PageRequests {
    /// As many requests can wait as walks can be in flight. It allocates here only.
    pub(crate) fn new(walks_max: u16) -> Self {
        let walks = usize::from(walks_max);
        Self {
            head: 0,
            tail: 0,
            address: PageQueueAddress::new(),
            status: PageRequestStatus::new(),
            event: EventBlock::new(),
            looked_up: vec![None; walks],
            waiting: VecDeque::with_capacity(walks),
            writing: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        (self.head, self.tail) = (0, 0);
        self.address = PageQueueAddress::new();
        self.status = PageRequestStatus::new();
        self.event = EventBlock::new();
        self.looked_up.fill(None);
        self.waiting.clear();
        self.writing = false;
    }

    /// Requests that have come and are neither written nor dropped.
    pub(crate) fn pending(&self) -> u32 {
        (self.waiting.len() + self.looked_up.iter().flatten().count()) as u32
    }

    /// The walk in this slot may send page requests.
    pub(crate) fn accept(&mut self, slot: usize) {
        self.waiting.extend(self.looked_up[slot].take());
    }

    /// The walk in this slot ended in another way.
    pub(crate) fn refuse(&mut self, slot: usize) {
        if let Some(request) = self.looked_up.get_mut(slot) {
            *request = None;
        }
    }

    /// Records that the queue in memory has room for, plus one.
    fn records(&self) -> u32 {
        1 << (RECORDS_SHIFT + u32::from(self.address.size()))
    }

    fn next_tail(&self) -> u16 {
        ((u32::from(self.tail) + 1) % self.records()) as u16
    }

    /// Sets status bits; the event goes out if none was set.
    fn raise(&mut self, pending: bool, overflow: bool) -> Option<Message> {
        let quiet = !self.status.pending() && !self.status.overflow();
        self.status.set_pending(self.status.pending() || pending);
        self.status.set_overflow(self.status.overflow() || overflow);
        if quiet { self.event.raise() } else { None }
    }

    /// Write 1 to clear.
    pub(crate) fn write_status(&mut self, value: u32) {
        let clear = PageRequestStatus::from_bits(value);
        self.status.set_pending(self.status.pending() && !clear.pending());
        self.status.set_overflow(self.status.overflow() && !clear.overflow());
        if !self.status.pending() && !self.status.overflow() {
            self.event.control.set_pending(false);
        }
    }
}

fn record(request: &PageRequest) -> [u64; 4] {
    let bits = PageRequestRecord::new()
        .with_kind(RECORD_PAGE_REQUEST)
        .with_pasid_present(request.pasid.is_some())
        .with_source(request.source.0)
        .with_pasid(request.pasid.map_or(0, |pasid| pasid.0 & crate::spec::vtd::fault::PASID_MAX))
        .with_execute(request.execute)
        .with_privileged(request.privileged)
        .with_read(request.read)
        .with_write(request.write)
        .with_last(request.last)
        .with_group(request.group & crate::spec::vtd::page_request::GROUP_MAX)
        .with_page(request.address.page_number())
        .into_bits();
    [bits as u64, (bits >> 64) as u64, 0, 0]
}

impl Unit {
    /// A page request arrives and takes a walker; `advance` it like a request. It ends as a translation without any
    /// permission if the request is allowed, and then waits for [`Unit::page_queue_advance`].
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken, or as many page requests wait as there are walkers.
    pub fn begin_page_request(&mut self, request: PageRequest) -> Result<WalkId, Busy> {
        if self.page_requests.pending() as usize >= self.page_requests.looked_up.len() {
            return Err(Busy);
        }
        let access = if request.write { Access::Write } else { Access::Read };
        let plain = Request { source: request.source, iova: request.address.page(), access, pasid: request.pasid };
        let attributes = Attributes { kind: RequestKind::PageRequest, privileged: request.privileged, execute: request.execute };
        let walk = self.walks.begin(plain, attributes, false, false).ok_or(Busy)?;
        self.page_requests.looked_up[usize::from(walk.slot)] = Some(request);
        Ok(walk)
    }

    /// Whether `page_queue_advance` would do more than say [`PageQueueProgress::Idle`].
    #[must_use]
    pub fn page_queue_has_work(&self) -> bool {
        !self.page_requests.waiting.is_empty()
    }

    /// One step of the page request queue.
    pub fn page_queue_advance(&mut self, input: PageQueueInput) -> PageQueueProgress {
        let Some(&request) = self.page_requests.waiting.front() else { return PageQueueProgress::Idle };
        let cost = self.params.timing.page_request;
        if self.page_requests.writing {
            return match input {
                PageQueueInput::Written => self.finish_record(),
                PageQueueInput::Continue => self.ask_record(&request, 0),
            };
        }
        let queue = &mut self.page_requests;
        if queue.status.overflow() || queue.next_tail() == queue.head {
            queue.waiting.pop_front();
            let message = queue.raise(false, true);
            let response = request.last.then_some(PageResponse {
                source: request.source,
                pasid: request.pasid,
                group: request.group,
                code: ResponseCode::FAILURE,
            });
            return PageQueueProgress::Dropped { response, message, cost };
        }
        queue.writing = true;
        let first = request.address.page();
        self.caches.iotlb.retain(&mut self.caches.words, |entry| {
            entry.pasid != request.pasid || !(entry.page <= first && first.0 - entry.page.0 < entry.page_bytes.max(PAGE_SIZE))
        });
        self.ask_record(&request, cost)
    }

    fn ask_record(&self, request: &PageRequest, cost: u32) -> PageQueueProgress {
        let queue = &self.page_requests;
        let pa = Pfn(queue.address.base()).pa().offset(u64::from(queue.tail) * RECORD_BYTES);
        PageQueueProgress::WriteRecord { pa, words: record(request), cost }
    }

    /// Step 4, after the store.
    fn finish_record(&mut self) -> PageQueueProgress {
        let queue = &mut self.page_requests;
        queue.writing = false;
        queue.waiting.pop_front();
        queue.tail = queue.next_tail();
        PageQueueProgress::Recorded { message: queue.raise(true, false), cost: 0 }
    }
}
