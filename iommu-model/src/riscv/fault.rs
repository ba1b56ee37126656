//! How a walk ends with a fault: what is recorded, and what a device that asked for a translation is told.

use super::interrupt::Source;
use super::record_queue::{Push, RecordInput, RecordProgress};
use super::unit::Unit;
use super::walk::Origin;
use crate::addr::{DomainId, PAGE_SIZE, Pa};
use crate::ats::AtsAnswer;
use crate::decision::Decisions;
use crate::request::{CacheHit, Fault, FaultInfo, Message, Progress, Translation};
use crate::spec::riscv::fault::{Cause, FaultRecord, TTYP_MESSAGE, TTYP_NONE};
use crate::spec::riscv::page_request::PAGE_REQUEST_CODE;

impl AtsAnswer {
    /// The answer for a cause of a RISC-V IOMMU. Specification, "PCIe ATS translation request handling".
    #[must_use]
    pub const fn of(cause: Cause) -> Self {
        match cause {
            Cause::INSTRUCTION_PAGE
            | Cause::READ_PAGE
            | Cause::WRITE_PAGE
            | Cause::INSTRUCTION_GUEST_PAGE
            | Cause::READ_GUEST_PAGE
            | Cause::WRITE_GUEST_PAGE
            | Cause::PDT_INVALID
            | Cause::MSI_INVALID => Self::NoAccess,
            Cause::ALL_DISALLOWED | Cause::DDT_LOAD | Cause::DDT_INVALID | Cause::DDT_MISCONFIGURED | Cause::TYPE_DISALLOWED => {
                Self::UnsupportedRequest
            }
            _ => Self::CompleterAbort,
        }
    }
}

/// Whether a fault is recorded although DTF is set. Specification, table "Fault record CAUSE field encodings".
const fn is_recorded_despite_dtf(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::ALL_DISALLOWED
            | Cause::DDT_LOAD
            | Cause::DDT_INVALID
            | Cause::DDT_MISCONFIGURED
            | Cause::DDT_CORRUPTED
            | Cause::INTERNAL
            | Cause::MESSAGE_ACCESS
    )
}

impl Unit {
    /// Ends the walk with a fault. `value2` is its iotval2, `spent` the cost of the step before it failed.
    #[cold]
    pub(crate) fn fault(&mut self, slot: usize, cause: Cause, value2: u64, spent: u32, d: &mut dyn Decisions) -> Progress {
        if self.walkers.at(slot).outer_words.is_some() {
            // What the whole walk read, if its second stage failed.
            self.join_words(slot);
        }
        let walk = self.walkers.at(slot);
        let cost = walk.spend(spent.saturating_add(self.params.timing.fault));
        let (request, origin) = (walk.request, walk.origin);
        if let Origin::PageRequest { .. } = origin {
            return self.end_page_request(slot, Some(cause), 0, d);
        }
        if origin == Origin::Debug {
            self.debug_done(Err(cause));
        }
        let walk = self.walkers.at(slot);
        let (cost_total, fetches) = (walk.cost_total, walk.fetches);
        let disabled = walk.has_device && walk.context.disable_faults && !is_recorded_despite_dtf(cause);
        self.end(slot);
        if request.is_ats() && AtsAnswer::of(cause) == AtsAnswer::NoAccess {
            return Progress::Done(Translation {
                pa: Pa(0),
                readable: false,
                writable: false,
                page_bytes: PAGE_SIZE,
                domain: DomainId(0),
                pass_through: false,
                cost,
                cost_total,
                fetches,
                from: CacheHit::None,
            });
        }
        let record = FaultRecord::new()
            .with_cause(cause.0)
            .with_process_valid(request.process.is_some())
            .with_process(request.process.map_or(0, |process| process.0) & PROCESS_MASK)
            .with_privileged(request.is_supervisor())
            .with_transaction_type(request.transaction_type())
            .with_device(request.device.0 & DEVICE_MASK);
        let (recorded, interrupt) = match disabled || origin == Origin::Prefetch {
            true => (false, None),
            false => self.record([record.into_bits(), 0, request.iova.0, value2]),
        };
        Progress::Fault(FaultInfo {
            reason: Fault::Riscv(cause),
            source: request.device.bdf(),
            iova: request.iova,
            access: request.access,
            recorded,
            interrupt,
            cost,
        })
    }

    /// Hands a record to the fault queue. Returns whether it was accepted, and the message that goes out.
    pub(crate) fn record(&mut self, record: [u64; 4]) -> (bool, Option<Message>) {
        match self.fault_queue.push(record) {
            Push::Accepted => (true, None),
            Push::Overflowed if self.fault_queue.control.interrupt_enable() => (false, self.interrupts.raise(Source::Fault)),
            _ => (false, None),
        }
    }

    /// Records that a page request met a fault before its queue. The specification gives the message code as iotval.
    pub(crate) fn record_message_fault(&mut self, slot: usize, cause: Cause) -> Option<Message> {
        let walk = self.walkers.at(slot);
        let (request, disabled) = (walk.request, walk.has_device && walk.context.disable_faults);
        if disabled && !is_recorded_despite_dtf(cause) {
            return None;
        }
        let record = FaultRecord::new()
            .with_cause(cause.0)
            .with_process_valid(request.process.is_some())
            .with_process(request.process.map_or(0, |process| process.0) & PROCESS_MASK)
            .with_privileged(request.is_supervisor())
            .with_transaction_type(TTYP_MESSAGE)
            .with_device(request.device.0 & DEVICE_MASK);
        self.record([record.into_bits(), 0, PAGE_REQUEST_CODE, 0]).1
    }

    /// One step of the fault queue.
    pub fn fault_queue_advance(&mut self, input: RecordInput) -> RecordProgress {
        let done = match input {
            RecordInput::Continue => None,
            RecordInput::Written => self.fault_queue.written(true),
            RecordInput::WriteFailed => self.fault_queue.written(false),
        };
        if done.is_none() {
            return self.fault_queue.write(self.params.timing.status_write).unwrap_or(RecordProgress::Idle);
        }
        let message = if self.fault_queue.control.interrupt_enable() { self.interrupts.raise(Source::Fault) } else { None };
        RecordProgress::Done { stored: input == RecordInput::Written, message, cost: 0 }
    }

    /// Whether a fault record waits to be written.
    #[must_use]
    pub fn fault_queue_has_work(&self) -> bool {
        self.fault_queue.has_work()
    }

    /// An interrupt message of the unit found no memory: recorded as cause 273. Returns what another message goes out.
    pub fn message_failed(&mut self, message: Message) -> Option<Message> {
        let record = FaultRecord::new().with_cause(Cause::MESSAGE_ACCESS.0).with_transaction_type(TTYP_NONE);
        self.record([record.into_bits(), 0, message.address.0, 0]).1
    }
}

/// Bits of a process_id in a record.
pub(crate) const PROCESS_MASK: u32 = (1 << crate::spec::riscv::process_context::PROCESS_ID_BITS) - 1;
/// Bits of a device_id in a record.
pub(crate) const DEVICE_MASK: u32 = (1 << crate::spec::riscv::device_context::DEVICE_ID_BITS) - 1;
