//! Fault recording and the two event-message blocks (fault events, invalidation-completion events).
//!
//! A fault takes the record at the write index. If that is still full, the overflow bit is set and nothing more is
//! recorded until software clears it. A further fault of a source with an unread record may be collapsed. The event
//! goes out when the first record becomes pending, or when the queue stops.

use crate::addr::Pa;
use crate::ats::{Attributes, RequestKind};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{Access, Message, Request};
use crate::spec::vtd::fault::{AT_TRANSLATED, AT_TRANSLATION, AT_UNTRANSLATED, FaultReason, FaultRecord, PASID_MAX};
use crate::spec::vtd::register::{EventControl, FaultStatus};

/// The registers of one event message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventBlock {
    pub(crate) control: EventControl,
    pub(crate) data: u32,
    pub(crate) address: u32,
    pub(crate) address_upper: u32,
}

impl EventBlock {
    pub(crate) fn new() -> Self {
        Self { control: EventControl::default(), data: 0, address: 0, address_upper: 0 }
    }

    fn message(&self) -> Message {
        Message { address: Pa(u64::from(self.address) | (u64::from(self.address_upper) << 32)), data: self.data }
    }

    /// An event happened: sent, or kept pending while masked.
    pub(crate) fn raise(&mut self) -> Option<Message> {
        if self.control.masked() {
            self.control.set_pending(true);
            return None;
        }
        Some(self.message())
    }

    /// Software wrote the control register; unmasking sends a pending event.
    pub(crate) fn write_control(&mut self, value: u32) -> Option<Message> {
        self.control.set_masked(EventControl::from_bits(value).masked());
        if self.control.masked() || !self.control.pending() {
            return None;
        }
        self.control.set_pending(false);
        Some(self.message())
    }
}

/// What became of one fault.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Recorded {
    pub(crate) recorded: bool,
    pub(crate) message: Option<Message>,
}

/// Fault status, records and event.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    records: Vec<FaultRecord>,
    next: usize,
    /// The status register but PPF, which is derived from the records.
    status: FaultStatus,
    pub(crate) event: EventBlock,
}

/// Whether FPD suppresses this reason: the faults that come after a context entry was read well enough to trust it.
const fn is_qualified(reason: FaultReason) -> bool {
    matches!(
        reason,
        FaultReason::CONTEXT_NOT_PRESENT
            | FaultReason::CONTEXT_INVALID
            | FaultReason::BEYOND_WIDTH
            | FaultReason::NO_WRITE
            | FaultReason::NO_READ
            | FaultReason::TABLE_FETCH
            | FaultReason::TABLE_RESERVED
            | FaultReason::BLOCKED_BY_TYPE
            | FaultReason::INTERRUPT_RANGE
    ) || is_qualified_scalable(reason)
}

/// The same for scalable mode, by analogy: what is wrong with or beyond an entry that was read well enough.
const fn is_qualified_scalable(reason: FaultReason) -> bool {
    let structure = matches!(
        reason,
        FaultReason::SCALABLE_ROOT_FETCH
            | FaultReason::SCALABLE_ROOT_NOT_PRESENT
            | FaultReason::SCALABLE_ROOT_RESERVED
            | FaultReason::SCALABLE_CONTEXT_FETCH
            | FaultReason::SCALABLE_CONTEXT_RESERVED
            | FaultReason::DIRECTORY_FETCH
            | FaultReason::DIRECTORY_RESERVED
            | FaultReason::PASID_FETCH
            | FaultReason::PASID_RESERVED
    );
    reason.0 >= FaultReason::SCALABLE_CONTEXT_NOT_PRESENT.0 && !structure
}

const fn address_type(kind: RequestKind) -> u8 {
    match kind {
        RequestKind::Untranslated | RequestKind::PageRequest => AT_UNTRANSLATED,
        RequestKind::Translation { .. } => AT_TRANSLATION,
        RequestKind::Translated => AT_TRANSLATED,
    }
}

impl Faults {
    pub(crate) fn new(records: u16) -> Self {
        Self { records: vec![FaultRecord::new(); usize::from(records)], next: 0, status: FaultStatus::new(), event: EventBlock::new() }
    }

    pub(crate) fn reset(&mut self) {
        self.records.fill(FaultRecord::new());
        self.next = 0;
        self.status = FaultStatus::new();
        self.event = EventBlock::new();
    }

    fn any_pending(&self) -> bool {
        self.records.iter().any(FaultRecord::fault)
    }

    /// Records a fault of a request.
    pub(crate) fn record(
        &mut self,
        reason: FaultReason,
        request: &Request,
        attributes: Attributes,
        fault_disable: bool,
        d: &mut dyn Decisions,
    ) -> Recorded {
        if fault_disable && is_qualified(reason) {
            return Recorded::default();
        }
        if self.status.overflow() {
            return Recorded::default();
        }
        let seen = self.records.iter().any(|r| r.fault() && r.source() == request.source.0);
        if seen && !ask_bool(d, Question::RecordRepeatedFault) {
            return Recorded::default();
        }
        if self.records[self.next].fault() {
            self.status.set_overflow(true);
            return Recorded::default();
        }
        let was_pending = self.any_pending();
        let index = self.next;
        let pasid = request.pasid.map_or(0, |pasid| pasid.0);
        self.records[index] = FaultRecord::new()
            .with_page(request.iova.page_number())
            .with_source(request.source.0)
            .with_reason(reason.0)
            .with_pasid_present(request.pasid.is_some())
            .with_pasid(pasid & PASID_MAX)
            .with_type_1(request.access == Access::Read && attributes.kind != RequestKind::PageRequest)
            .with_type_2(attributes.kind == RequestKind::PageRequest)
            .with_address_type(address_type(attributes.kind))
            .with_privileged(request.pasid.is_some() && attributes.privileged)
            .with_execute(request.pasid.is_some() && attributes.execute)
            .with_fault(true);
        self.next = (index + 1) % self.records.len();
        let mut message = None;
        if !was_pending {
            self.status.set_record_index(index as u8);
            message = self.event.raise();
        }
        Recorded { recorded: true, message }
    }

    /// The queue stopped at a bad descriptor.
    pub(crate) fn queue_error(&mut self) -> Option<Message> {
        self.status.set_queue_error(true);
        self.event.raise()
    }

    /// A device did not complete an invalidation in time.
    pub(crate) fn timeout_error(&mut self) -> Option<Message> {
        self.status.set_timeout_error(true);
        self.event.raise()
    }

    /// A device completed what it was not asked for.
    pub(crate) fn completion_error(&mut self) -> Option<Message> {
        self.status.set_completion_error(true);
        self.event.raise()
    }

    /// IQE, ICE, ITE.
    pub(crate) fn queue_errors(&self) -> (bool, bool, bool) {
        (self.status.queue_error(), self.status.completion_error(), self.status.timeout_error())
    }

    /// Whether the queue may not fetch: IQE or ITE is set.
    pub(crate) fn queue_is_stopped(&self) -> bool {
        self.status.queue_error() || self.status.timeout_error()
    }

    pub(crate) fn read_status(&self) -> u32 {
        self.status.with_pending(self.any_pending()).into_bits()
    }

    /// Write 1 to clear, for the bits that work so.
    pub(crate) fn write_status(&mut self, value: u32) {
        let clear = FaultStatus::from_bits(value);
        self.status.set_overflow(self.status.overflow() && !clear.overflow());
        self.status.set_queue_error(self.status.queue_error() && !clear.queue_error());
        self.status.set_completion_error(self.status.completion_error() && !clear.completion_error());
        self.status.set_timeout_error(self.status.timeout_error() && !clear.timeout_error());
        self.settle();
    }

    /// Both halves of a record; zero beyond the last.
    pub(crate) fn read_record(&self, index: u8) -> [u64; 2] {
        let bits = self.records.get(usize::from(index)).map_or(0, |record| record.into_bits());
        [bits as u64, (bits >> 64) as u64]
    }

    /// A write to the high half of a record: F is write 1 to clear, all else read-only.
    pub(crate) fn write_record_high(&mut self, index: u8, value: u64) {
        let written = FaultRecord::from_bits(u128::from(value) << 64);
        if let Some(record) = self.records.get_mut(usize::from(index))
            && written.fault()
        {
            record.set_fault(false);
        }
        self.settle();
    }

    /// An event whose every cause was cleared is no longer pending.
    fn settle(&mut self) {
        let quiet = !self.any_pending()
            && !self.status.overflow()
            && !self.status.queue_error()
            && !self.status.completion_error()
            && !self.status.timeout_error();
        if quiet {
            self.event.control.set_pending(false);
        }
    }

    pub(crate) fn records(&self) -> &[FaultRecord] {
        &self.records
    }
}
