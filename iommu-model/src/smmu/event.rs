//! How a walk ends badly, and the event queue.
//!
//! An event commits to being recorded if the queue is writable: enabled, not full, no unacknowledged abort (IHI 0070 section
//! 7.2.1). Committed records wait in the unit until the caller has written them; what the queue cannot take is lost, and if
//! that is because it is full, an overflow is flagged once software can see the full queue (section 7.4).

use super::ids::StreamId;
use super::registers::Signal;
use super::unit::Unit;
use super::walk::Purpose;
use crate::addr::Pa;
use crate::ats::{AtsAnswer, RequestKind};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{Access, Fault, FaultInfo, Progress, Request};
use crate::spec::smmu::event::{EventId, FaultClass, RECORD_BYTES, Record0, Record1, Termination};
use crate::spec::smmu::register::QueueBase;

/// What the caller brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventInput {
    /// Nothing: next step, please.
    Continue,
    /// The record is stored.
    Written,
    /// There is no memory at its address.
    Aborted,
}

/// What the event queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventProgress {
    /// Nothing to do.
    Idle,
    /// Wants these 32 bytes stored: answer `Written` or `Aborted`.
    Write {
        /// 32-byte aligned.
        pa: Pa,
        /// The record.
        record: [u64; 4],
        /// Cycles.
        cost: u32,
    },
    /// The record can be seen through PROD.
    Recorded {
        /// The queue was empty before, and this is its interrupt.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
    /// The record, and all that waited behind it, is lost; delivery stops until GERRORN acknowledges.
    Aborted {
        /// The interrupt of GERROR.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
}

/// An index register with its wrap bit, and the size that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ring {
    pub(crate) base: QueueBase,
    /// log2 of the largest size that the unit has.
    pub(crate) bits_max: u8,
    /// PROD, without flags.
    pub(crate) producer: u32,
    /// CONS, without flags.
    pub(crate) consumer: u32,
}

/// Bytes of one unit of ADDR.
const BASE_UNIT: u64 = 32;

impl Ring {
    pub(crate) fn new(bits_max: u8) -> Self {
        Self { base: QueueBase::new(), bits_max, producer: 0, consumer: 0 }
    }

    fn bits(&self) -> u8 {
        self.base.size().min(self.bits_max)
    }

    /// The index after `index`, its wrap bit included.
    pub(crate) fn next(&self, index: u32) -> u32 {
        index.wrapping_add(1) & self.mask()
    }

    fn mask(&self) -> u32 {
        (2u32 << self.bits()) - 1
    }

    /// How many entries lie between CONS and PROD, at most what the index can count.
    pub(crate) fn used(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer) & self.mask()
    }

    pub(crate) fn entries(&self) -> u32 {
        1 << self.bits()
    }

    /// Where an entry lies; the base is aligned to the queue's size.
    pub(crate) fn entry(&self, index: u32, bytes: u64) -> Pa {
        let size = (bytes << self.bits()).max(BASE_UNIT);
        let base = (self.base.address() * BASE_UNIT) & !(size - 1);
        Pa(base + u64::from(index & (self.entries() - 1)) * bytes)
    }
}

/// Committed records in order, in a buffer that never grows.
#[derive(Clone, Debug)]
struct Pending {
    slots: Vec<[u64; 4]>,
    first: usize,
    count: usize,
}

impl Pending {
    fn nth(&self, n: usize) -> Option<&[u64; 4]> {
        (n < self.count).then(|| &self.slots[(self.first + n) % self.slots.len()])
    }

    fn last(&self) -> Option<&[u64; 4]> {
        self.nth(self.count.checked_sub(1)?)
    }

    /// The caller knows that there is room.
    fn push(&mut self, record: [u64; 4]) {
        let end = (self.first + self.count) % self.slots.len();
        self.slots[end] = record;
        self.count += 1;
    }

    fn drop_first(&mut self) {
        self.first = (self.first + 1) % self.slots.len();
        self.count -= 1;
    }
}

/// The event queue.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    pub(crate) ring: Ring,
    /// OVFLG.
    pub(crate) overflow: bool,
    /// OVACKFLG.
    pub(crate) overflow_acknowledged: bool,
    /// Committed records.
    pending: Pending,
    /// A record was lost to a full queue while records were pending.
    lost: bool,
    /// The record at the front was handed out.
    writing: bool,
}

impl Events {
    pub(crate) fn new(bits_max: u8, capacity: u16) -> Self {
        Self {
            ring: Ring::new(bits_max),
            overflow: false,
            overflow_acknowledged: false,
            pending: Pending { slots: vec![[0; 4]; usize::from(capacity)], first: 0, count: 0 },
            lost: false,
            writing: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.ring = Ring::new(self.ring.bits_max);
        (self.overflow, self.overflow_acknowledged, self.lost, self.writing) = (false, false, false, false);
        self.pending.count = 0;
    }

    /// Records that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.pending.count
    }

    /// Whether a walk more could find the buffer full.
    pub(crate) fn is_crowded(&self, walks: usize) -> bool {
        self.pending.count + walks >= self.pending.slots.len()
    }

    /// Commits a record, if there is room for it; otherwise it is lost.
    fn commit(&mut self, record: [u64; 4]) -> bool {
        let committed = self.pending.count as u32;
        if self.ring.used() + committed >= self.ring.entries() || self.pending.count == self.pending.slots.len() {
            self.lost = true;
            self.flag_overflow();
            return false;
        }
        self.pending.push(record);
        true
    }

    /// Software must not see the overflow before it can see the full queue.
    fn flag_overflow(&mut self) {
        if self.lost && self.pending.count == 0 {
            self.lost = false;
            self.overflow = !self.overflow_acknowledged;
        }
    }
}

impl Unit {
    /// One step of the event queue.
    pub(crate) fn step_events(&mut self, input: EventInput) -> EventProgress {
        let events = &mut self.events;
        let Some(&record) = events.pending.nth(0) else { return EventProgress::Idle };
        match input {
            EventInput::Written if events.writing => {
                events.writing = false;
                events.pending.drop_first();
                let was_empty = events.ring.used() == 0;
                events.ring.producer = events.ring.next(events.ring.producer);
                events.flag_overflow();
                let interrupt = if was_empty { self.event_interrupt() } else { None };
                let cost = if interrupt.is_some() { self.params.timing.interrupt } else { 0 };
                EventProgress::Recorded { interrupt, cost }
            }
            EventInput::Aborted if events.writing => {
                events.writing = false;
                events.pending.count = 0;
                events.lost = false;
                let interrupt = self.raise_error(|error| error.set_event_queue_abort(true));
                EventProgress::Aborted { interrupt, cost: self.params.timing.fault }
            }
            _ => {
                let again = core::mem::replace(&mut events.writing, true);
                let pa = events.ring.entry(events.ring.producer, RECORD_BYTES);
                EventProgress::Write { pa, record, cost: if again { 0 } else { self.params.timing.status_write } }
            }
        }
    }

    /// Ends the walk with an event that has no address. `spent` is the cost of the step before it failed.
    #[cold]
    pub(crate) fn terminate(&mut self, slot: usize, event: EventId, spent: u32, d: &mut dyn Decisions) -> Progress {
        self.terminate_walk_after(slot, Termination { event, stage_2: false, class: FaultClass::Input }, 0, spent, d)
    }

    /// The same, for a structure that could not be fetched.
    #[cold]
    pub(crate) fn terminate_at(&mut self, slot: usize, event: EventId, address: u64, d: &mut dyn Decisions) -> Progress {
        self.terminate_walk_after(slot, Termination { event, stage_2: false, class: FaultClass::Input }, address, 0, d)
    }

    /// Ends the walk. `address` is the IPA of a stage-2 fault, or what could not be fetched.
    #[cold]
    pub(crate) fn terminate_walk_after(
        &mut self,
        slot: usize,
        why: Termination,
        address: u64,
        spent: u32,
        d: &mut dyn Decisions,
    ) -> Progress {
        let walk = self.walks.at(slot);
        if walk.asks() && AtsAnswer::of_event(why.event) == AtsAnswer::NoAccess {
            return self.answer_nothing(slot, spent);
        }
        let request = walk.request;
        let recorded = !walk.prefetch && self.is_recorded(slot, why) && self.record(slot, why, address, d);
        let walk = self.walks.at(slot);
        let all = walk.take_words(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, all));
        self.walks.free(slot);
        Progress::Fault(FaultInfo {
            reason: Fault::Smmu(why),
            source: request.source,
            iova: request.iova,
            access: request.access,
            recorded,
            interrupt: None,
            cost: spent.saturating_add(self.params.timing.fault),
        })
    }

    /// Whether configuration lets an event of this kind be recorded: RECINVSID, REC_CFG_ATS, CD.R, STE.S2R.
    fn is_recorded(&mut self, slot: usize, why: Termination) -> bool {
        let ats_errors = self.cap.ats_errors && self.registers.cr2.record_ats();
        let walk = self.walks.at(slot);
        if walk.kind != RequestKind::Untranslated && is_of_configuration(why.event) {
            // Of translated requests, RECINVSID does not matter.
            return ats_errors && (!walk.asks() || why.event != EventId::BAD_STREAM_ID || self.registers.cr2.record_bad_stream());
        }
        match why.event {
            EventId::NONE => false,
            EventId::BAD_STREAM_ID => self.registers.cr2.record_bad_stream(),
            EventId::TRANSLATION | EventId::ADDRESS_SIZE | EventId::ACCESS | EventId::PERMISSION if why.stage_2 => {
                walk.config.stage_2.records
            }
            EventId::TRANSLATION | EventId::ADDRESS_SIZE | EventId::ACCESS | EventId::PERMISSION => {
                !walk.has_context || walk.context.records
            }
            _ => true,
        }
    }

    /// Commits the record of an event; returns whether it, or one that it was merged with, will be seen.
    fn record(&mut self, slot: usize, why: Termination, address: u64, d: &mut dyn Decisions) -> bool {
        if !self.events_writable() {
            return false;
        }
        let walk = self.walks.at(slot);
        let read_refused = walk.stage_2.purpose != Purpose::TableUpdate;
        let record = record_of(&walk.request, walk.stream, why, address, read_refused, self.params.privileged);
        // Merging is allowed by the STE, and always before there is one; all but the page offset must agree.
        let mergeable = !walk.has_stream || walk.config.merges_events;
        let same =
            |other: &[u64; 4]| [other[0], other[1], other[2] | 0xfff, other[3]] == [record[0], record[1], record[2] | 0xfff, record[3]];
        if mergeable && self.events.pending.last().is_some_and(same) && ask_bool(d, Question::MergeEvent) {
            return true;
        }
        self.events.commit(record)
    }
}

/// Whether an event of a translation request or translated request is recorded only under REC_CFG_ATS: section 3.9.1.2, 3.9.1.3.
const fn is_of_configuration(event: EventId) -> bool {
    let of_page = matches!(event, EventId::TRANSLATION | EventId::ADDRESS_SIZE | EventId::ACCESS | EventId::PERMISSION);
    let of_ats = matches!(event, EventId::BAD_ATS_REQUEST | EventId::TRANSLATION_FORBIDDEN | EventId::NONE);
    !of_page && !of_ats
}

/// The four words of a record.
fn record_of(request: &Request, stream: StreamId, why: Termination, address: u64, read_refused: bool, privileged: bool) -> [u64; 4] {
    let head = Record0::new()
        .with_event(why.event.0)
        .with_substream_valid(request.pasid.is_some() && why.event != EventId::BAD_SUBSTREAM_ID)
        .with_substream(request.pasid.map_or(0, |pasid| pasid.0 & SUBSTREAM_MASK))
        .with_stream(stream.0);
    let of_walk = matches!(
        why.event,
        EventId::WALK_ABORT | EventId::TRANSLATION | EventId::ADDRESS_SIZE | EventId::ACCESS | EventId::PERMISSION | EventId::TLB_CONFLICT
    );
    if why.event == EventId::BAD_ATS_REQUEST {
        // The places of the rights that were asked for, and of Span, could not be read: 0 (assumption).
        return [head.into_bits(), 0, request.iova.0, 0];
    }
    if why.event == EventId::TRANSLATION_FORBIDDEN {
        return [head.into_bits(), Record1::new().with_read(request.access == Access::Read).into_bits(), request.iova.0, 0];
    }
    if !of_walk {
        return [head.into_bits(), 0, 0, address];
    }
    let access = Record1::new()
        .with_privileged(privileged)
        .with_read(request.access == Access::Read)
        .with_stage_2(why.stage_2)
        .with_class(why.class.bits())
        .with_table_read(why.event == EventId::PERMISSION && why.class == FaultClass::Table && read_refused);
    [head.into_bits(), access.into_bits(), request.iova.0, address]
}

/// SubstreamIDs have 20 bits.
const SUBSTREAM_MASK: u32 = 0xf_ffff;
