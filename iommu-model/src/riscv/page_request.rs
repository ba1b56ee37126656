//! Page requests: how they find their queue, and what the unit answers itself if they do not. Specification, "PCIe ATS Page
//! Request handling".

use super::fault::{DEVICE_MASK, PROCESS_MASK};
use super::interrupt::Source;
use super::record_queue::{Push, RecordInput, RecordProgress};
use super::request::{AddressKind, PageRequest, PageRequestOutcome, ResponseCode, Transaction};
use super::unit::Unit;
use super::walk::Origin;
use crate::addr::{Iova, PAGE_SHIFT, Pa};
use crate::decision::Decisions;
use crate::request::{Access, Busy, Progress, WalkId};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::page_request::{PageRequestPayload, PageRequestRecord};

impl Unit {
    /// A page request arrives. It takes a walker that finds its device context; the walk ends with
    /// [`Progress::Untranslated`], and [`Unit::last_page_request`] says what became of the request.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_page_request(&mut self, request: PageRequest) -> Result<WalkId, Busy> {
        let page = PageRequestPayload::from_bits(request.payload).page();
        let transaction = Transaction {
            device: request.device,
            iova: Iova(page << PAGE_SHIFT),
            access: Access::Read,
            execute: request.execute,
            kind: AddressKind::Untranslated,
            process: request.process,
            privileged: request.privileged,
        };
        let origin = Origin::PageRequest { payload: request.payload, execute: request.execute };
        self.walkers.begin(transaction, origin, false).ok_or(Busy)
    }

    /// What became of the page request whose walk ended last.
    #[must_use]
    pub const fn last_page_request(&self) -> Option<PageRequestOutcome> {
        self.last_page_request
    }

    /// Ends the walk of a page request: its context was found and lets it pass, or not.
    #[cold]
    pub(crate) fn end_page_request(&mut self, slot: usize, failed: Option<Cause>, spent: u32, _: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let Origin::PageRequest { payload: bits, execute } = walk.origin else { return self.pass(slot, spent) };
        let (request, context, located) = (walk.request, walk.context, walk.has_device);
        let payload = PageRequestPayload::from_bits(bits);
        let answer = match failed {
            Some(cause) => {
                self.record_message_fault(slot, cause);
                Some(answer_to(cause))
            }
            None => {
                let record = PageRequestRecord::new()
                    .with_device(request.device.0 & DEVICE_MASK)
                    .with_process_valid(request.process.is_some())
                    .with_process(request.process.map_or(0, |process| process.0) & PROCESS_MASK)
                    .with_privileged(request.is_supervisor())
                    .with_execute(execute && request.process.is_some());
                match self.page_queue.push([record.into_bits(), bits, 0, 0]) {
                    Push::Accepted => None,
                    Push::Overflowed => {
                        self.page_overflow_pending = true;
                        Some(ResponseCode::Success)
                    }
                    Push::Stopped { overflow: true } => Some(ResponseCode::Success),
                    Push::Stopped { overflow: false } | Push::Off => Some(ResponseCode::Failure),
                }
            }
        };
        let is_stop_marker = payload.last() && !payload.read() && !payload.write() && request.process.is_some();
        self.last_page_request = Some(match answer {
            None => PageRequestOutcome::Queued,
            Some(_) if !payload.last() || is_stop_marker => PageRequestOutcome::Discarded,
            Some(code) => {
                let holds = code == ResponseCode::Failure || (located && context.response_pasid);
                PageRequestOutcome::Answered { code, process: request.process.filter(|_| holds) }
            }
        });
        let cost = self.walkers.at(slot).spend(spent.saturating_add(self.params.timing.bypass));
        self.end(slot);
        Progress::Untranslated { pa: Pa(request.iova.0), cost }
    }

    /// One step of the page-request queue.
    pub fn page_queue_advance(&mut self, input: RecordInput) -> RecordProgress {
        let done = match input {
            RecordInput::Continue => None,
            RecordInput::Written => self.page_queue.written(true),
            RecordInput::WriteFailed => self.page_queue.written(false),
        };
        let enabled = self.page_queue.control.interrupt_enable();
        if done.is_some() {
            let message = if enabled { self.interrupts.raise(Source::PageRequest) } else { None };
            return RecordProgress::Done { stored: input == RecordInput::Written, message, cost: 0 };
        }
        if core::mem::take(&mut self.page_overflow_pending) && enabled {
            return RecordProgress::Done { stored: false, message: self.interrupts.raise(Source::PageRequest), cost: 0 };
        }
        self.page_queue.write(self.params.timing.status_write).unwrap_or(RecordProgress::Idle)
    }

    /// Whether a page request waits to be written, or the queue has an overflow to tell.
    #[must_use]
    pub fn page_queue_has_work(&self) -> bool {
        self.page_queue.has_work() || self.page_overflow_pending
    }
}

/// The status of an answer to a request whose device context could not be found, or does not let it pass.
const fn answer_to(cause: Cause) -> ResponseCode {
    match cause {
        Cause::TYPE_DISALLOWED => ResponseCode::InvalidRequest,
        _ => ResponseCode::Failure,
    }
}
