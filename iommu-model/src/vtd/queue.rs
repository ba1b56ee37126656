//! The invalidation queue: fetches descriptors from head to tail and carries them out strictly in order.
//!
//! Steps:
//!
//! 1. Head unlike tail, queue on, no error bit set: fetch the descriptor at the head. A tail outside the queue stops it.
//! 2. Decode: type, reserved fields, granularity, AM. What is wrong stops the queue, with the head on the descriptor.
//! 3. The head moves on. From here on head == tail does not mean that anything is complete.
//! 4. Remove from the caches; restart covered walks.
//! 5. Drain bits, where the unit honours them: wait for the caller.
//! 6. A wait descriptor writes its status and raises its interrupt; every earlier descriptor is complete by then.
//!
//! The caller drives it like a walk: it is told what is wanted and brings the answer. `Continue` asks for the next
//! step, or repeats what is still wanted; after [`QueueProgress::WriteStatus`] it counts as done, like `Written`.

use super::invalidate::{ContextScope, Invalidation, InvalidationDone, IotlbScope, PageRange, PasidIotlbScope, PasidScope, Target};
use super::registers::Drain;
use super::unit::Unit;
use crate::addr::{Bdf, DomainId, Iova, PAGE_SHIFT, Pa, Pasid, Pfn};
use crate::decision::Decisions;
use crate::request::Message;
use crate::spec::vtd::descriptor::{
    AnyDescriptor, ContextDescriptor, DESCRIPTOR_BYTES, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor,
    PASID_GRANULARITY_DOMAIN, PASID_GRANULARITY_GLOBAL, PASID_GRANULARITY_PASID, PasidCacheDescriptor, PasidIotlbDescriptor,
    STATUS_ADDRESS_UNIT, TYPE_CONTEXT, TYPE_DEVICE_TLB, TYPE_INTERRUPT_ENTRY, TYPE_IOTLB, TYPE_PASID_CACHE, TYPE_PASID_DEVICE_TLB,
    TYPE_PASID_IOTLB, TYPE_WAIT, WIDE_DESCRIPTOR_BYTES, WaitDescriptor,
};
use crate::spec::vtd::register::{
    IQEI_BAD_TAIL, IQEI_FETCH, IQEI_RESERVED, IQEI_TYPE, IQEI_WIDTH, QUEUE_SHIFT, QueueAddress, QueueErrorRecord,
};
use crate::spec::vtd::root::TTM_SCALABLE;

/// What the caller brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueInput {
    /// Nothing: next step, please.
    Continue,
    /// The descriptor, in address order.
    Descriptor([u64; 2]),
    /// The same, where 32 bytes were asked for.
    WideDescriptor([u64; 4]),
    /// There is no memory at the descriptor's address.
    DescriptorUnreadable,
    /// Every request that was translated before the drain was asked for has landed.
    Drained,
    /// The status is stored.
    Written,
}

/// What the queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueProgress {
    /// Nothing to do.
    Idle,
    /// Wants the bytes at this address: answer `Descriptor`, or `WideDescriptor` for 32, or `DescriptorUnreadable`.
    FetchDescriptor {
        /// First byte.
        pa: Pa,
        /// 16, or 32 with IQA.DW.
        bytes: u8,
        /// Cycles.
        cost: u32,
    },
    /// A descriptor is complete.
    Invalidated {
        /// What was removed.
        what: InvalidationDone,
        /// Cycles.
        cost: u32,
    },
    /// The caches are done; wants older translated requests to land: answer `Drained`.
    Drain {
        /// Reads.
        reads: bool,
        /// Writes.
        writes: bool,
        /// Cycles.
        cost: u32,
    },
    /// Wants this 32-bit store: answer `Written`.
    WriteStatus {
        /// 4-byte aligned.
        pa: Pa,
        /// Value.
        data: u32,
        /// Cycles.
        cost: u32,
    },
    /// The completion interrupt goes out; the wait descriptor itself completes with the next call.
    Interrupt {
        /// The message.
        message: Message,
        /// Cycles.
        cost: u32,
    },
    /// Stopped at an error until software clears it.
    Stopped(QueueError),
}

/// Why the queue stopped (IQE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueError {
    /// IQERCD.IQEI.
    pub info: u8,
    /// The descriptor that the head stands on.
    pub descriptor: Pa,
    /// The fault event message, if it goes out with this call.
    pub message: Option<Message>,
}

/// Where the queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Descriptor,
    Drain {
        done: InvalidationDone,
        drain: Drain,
        cost: u32,
    },
    Status {
        pa: Pa,
        data: u32,
        interrupt: bool,
    },
    /// The wait descriptor has nothing left to do.
    WaitDone,
}

/// The queue's registers and state.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) enabled: bool,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    pub(crate) address: QueueAddress,
    pub(crate) error: QueueErrorRecord,
    state: State,
    /// Software switched the queue off while a descriptor was under way.
    disabling: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            enabled: false,
            head: 0,
            tail: 0,
            address: QueueAddress::new(),
            error: QueueErrorRecord::new(),
            state: State::Idle,
            disabling: false,
        }
    }

    /// Size of the queue in units of 16 bytes, in which head and tail count.
    fn units(&self) -> u32 {
        1 << (QUEUE_SHIFT + u32::from(self.address.size()))
    }

    fn head_pa(&self) -> Pa {
        Pfn(self.address.base()).pa().offset(u64::from(self.head) * DESCRIPTOR_BYTES)
    }

    fn descriptor_bytes(&self) -> u64 {
        if self.address.wide() { WIDE_DESCRIPTOR_BYTES } else { DESCRIPTOR_BYTES }
    }

    /// GCMD.QIE. The status follows at once, or when the descriptor under way is complete.
    pub(crate) fn switch(&mut self, on: bool) {
        self.disabling = !on && self.state != State::Idle;
        if !self.disabling && on != self.enabled {
            self.enabled = on;
            self.head = 0;
        }
    }

    pub(crate) fn has_work(&self, stopped: bool) -> bool {
        self.enabled && (self.state != State::Idle || (!stopped && self.head != self.tail))
    }

    /// A descriptor is over, in one way or another.
    fn settle(&mut self) {
        self.state = State::Idle;
        if self.disabling {
            self.disabling = false;
            self.enabled = false;
            self.head = 0;
        }
    }
}

/// A decoded descriptor.
enum Command {
    Invalidate { what: Invalidation, drain: Drain },
    Wait { status: Option<(Pa, u32)>, interrupt: bool },
}

impl Unit {
    /// One step of the queue.
    pub(crate) fn step_queue(&mut self, input: QueueInput, d: &mut dyn Decisions) -> QueueProgress {
        match (self.queue.state, input) {
            (State::Idle, _) => self.fetch_descriptor(),
            (State::Descriptor, QueueInput::Descriptor([low, high])) => self.execute([low, high, 0, 0], d),
            (State::Descriptor, QueueInput::WideDescriptor(words)) => self.execute(words, d),
            (State::Descriptor, QueueInput::DescriptorUnreadable) => self.stop_queue(IQEI_FETCH),
            (State::Descriptor, _) => self.ask_descriptor(0),
            (State::Drain { done, cost, .. }, QueueInput::Drained) => {
                self.queue.settle();
                QueueProgress::Invalidated { what: done, cost }
            }
            (State::Drain { drain, .. }, _) => QueueProgress::Drain { reads: drain.reads, writes: drain.writes, cost: 0 },
            (State::Status { interrupt, .. }, QueueInput::Written | QueueInput::Continue) => self.complete_wait(interrupt),
            (State::Status { pa, data, .. }, _) => QueueProgress::WriteStatus { pa, data, cost: 0 },
            (State::WaitDone, _) => self.complete_wait(false),
        }
    }

    /// Step 1.
    fn fetch_descriptor(&mut self) -> QueueProgress {
        if !self.queue.has_work(self.faults.queue_is_stopped()) {
            return QueueProgress::Idle;
        }
        let misaligned = self.queue.address.wide() && !self.queue.tail.is_multiple_of(2);
        if u32::from(self.queue.tail) >= self.queue.units() || misaligned {
            return self.stop_queue(IQEI_BAD_TAIL);
        }
        if self.root.mode() == TTM_SCALABLE && self.cap.scalable.is_some() && !self.queue.address.wide() {
            return self.stop_queue(IQEI_WIDTH);
        }
        self.queue.state = State::Descriptor;
        self.ask_descriptor(self.params.timing.descriptor_fetch)
    }

    fn ask_descriptor(&self, cost: u32) -> QueueProgress {
        QueueProgress::FetchDescriptor { pa: self.queue.head_pa(), bytes: self.queue.descriptor_bytes() as u8, cost }
    }

    fn stop_queue(&mut self, info: u8) -> QueueProgress {
        let descriptor = self.queue.head_pa();
        self.queue.error = QueueErrorRecord::new().with_info(info);
        self.queue.settle();
        let message = self.faults.queue_error();
        QueueProgress::Stopped(QueueError { info, descriptor, message })
    }

    /// Steps 2 to 6.
    fn execute(&mut self, words: [u64; 4], d: &mut dyn Decisions) -> QueueProgress {
        let bits = u128::from(words[0]) | (u128::from(words[1]) << 64);
        let decoded = if words[2] == 0 && words[3] == 0 { self.decode(bits) } else { Err(IQEI_RESERVED) };
        let command = match decoded {
            Ok(command) => command,
            Err(info) => return self.stop_queue(info),
        };
        let units = (self.queue.descriptor_bytes() / DESCRIPTOR_BYTES) as u32;
        self.queue.head = ((u32::from(self.queue.head) + units) % self.queue.units()) as u16;
        match command {
            Command::Invalidate { what, drain } => self.invalidate_from_queue(what, drain, d),
            Command::Wait { status: Some((pa, data)), interrupt } => {
                self.queue.state = State::Status { pa, data, interrupt };
                QueueProgress::WriteStatus { pa, data, cost: self.params.timing.status_write }
            }
            Command::Wait { status: None, interrupt } => self.complete_wait(interrupt),
        }
    }

    fn invalidate_from_queue(&mut self, what: Invalidation, drain: Drain, d: &mut dyn Decisions) -> QueueProgress {
        let mut target = Target { cap: &self.cap, caches: &mut self.caches, walks: &mut self.walks };
        let done = target.invalidate(what, d);
        let cost = self.cost_of(what);
        if drain.is_needed() {
            self.queue.state = State::Drain { done, drain, cost };
            return QueueProgress::Drain { reads: drain.reads, writes: drain.writes, cost: self.params.timing.drain };
        }
        self.queue.settle();
        QueueProgress::Invalidated { what: done, cost }
    }

    /// Step 6, after the status write.
    fn complete_wait(&mut self, interrupt: bool) -> QueueProgress {
        if interrupt && !self.completion_status.wait_complete() {
            self.completion_status.set_wait_complete(true);
            if let Some(message) = self.completion_event.raise() {
                self.queue.state = State::WaitDone;
                return QueueProgress::Interrupt { message, cost: self.params.timing.interrupt };
            }
        }
        self.queue.settle();
        QueueProgress::Invalidated { what: InvalidationDone::nothing(Invalidation::Wait), cost: 0 }
    }

    /// Cycles of carrying out a command.
    pub(crate) fn cost_of(&self, what: Invalidation) -> u32 {
        let timing = &self.params.timing;
        match what {
            Invalidation::Context(_) => timing.invalidate_context,
            Invalidation::Pasid(_) => timing.invalidate_pasid,
            Invalidation::Iotlb(_) | Invalidation::PasidIotlb(_) => timing.invalidate_iotlb,
            Invalidation::All => timing.invalidate_context.saturating_add(timing.invalidate_iotlb),
            Invalidation::DeviceTlb => timing.invalidate_device_tlb,
            Invalidation::InterruptEntry => timing.invalidate_interrupt,
            Invalidation::Wait => 0,
        }
    }

    /// Step 2. The error is an IQEI value.
    fn decode(&self, bits: u128) -> Result<Command, u8> {
        let any = AnyDescriptor::from_bits(bits);
        if any.kind_high() != 0 {
            return Err(IQEI_TYPE);
        }
        match any.kind() {
            TYPE_CONTEXT => decode_context(ContextDescriptor::from_bits(bits)),
            TYPE_IOTLB => self.decode_iotlb(IotlbDescriptor::from_bits(bits)),
            TYPE_DEVICE_TLB if self.cap.device_tlb => Ok(no_op(Invalidation::DeviceTlb)),
            TYPE_INTERRUPT_ENTRY => Ok(no_op(Invalidation::InterruptEntry)),
            TYPE_PASID_IOTLB if self.cap.scalable.is_some() => self.decode_pasid_iotlb(PasidIotlbDescriptor::from_bits(bits)),
            TYPE_PASID_CACHE if self.cap.scalable.is_some() => decode_pasid_cache(PasidCacheDescriptor::from_bits(bits)),
            TYPE_PASID_DEVICE_TLB if self.cap.scalable.is_some() && self.cap.device_tlb => Ok(no_op(Invalidation::DeviceTlb)),
            TYPE_WAIT => decode_wait(WaitDescriptor::from_bits(bits)),
            _ => Err(IQEI_TYPE),
        }
    }

    fn decode_iotlb(&self, descriptor: IotlbDescriptor) -> Result<Command, u8> {
        let reserved =
            descriptor.reserved_8() || descriptor.reserved_12() != 0 || descriptor.reserved_32() != 0 || descriptor.reserved_71() != 0;
        if reserved {
            return Err(IQEI_RESERVED);
        }
        let range = PageRange { address: Iova(descriptor.page() << PAGE_SHIFT), order: descriptor.address_mask() };
        let scope = self.iotlb_scope(descriptor.granularity(), descriptor.domain(), range, descriptor.leaf_only()).ok_or(IQEI_RESERVED)?;
        let drain = self.drain_of(descriptor.drain_reads(), descriptor.drain_writes());
        Ok(Command::Invalidate { what: Invalidation::Iotlb(scope), drain })
    }

    fn decode_pasid_iotlb(&self, descriptor: PasidIotlbDescriptor) -> Result<Command, u8> {
        let reserved =
            descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_52() != 0 || descriptor.reserved_71() != 0;
        if reserved {
            return Err(IQEI_RESERVED);
        }
        let range = PageRange { address: Iova(descriptor.page() << PAGE_SHIFT), order: descriptor.address_mask() };
        let pages = match descriptor.granularity() {
            GRANULARITY_DOMAIN => None,
            GRANULARITY_NARROW if range.order <= self.cap.mask_max => Some((range, descriptor.leaf_only())),
            _ => return Err(IQEI_RESERVED),
        };
        let scope = PasidIotlbScope { domain: DomainId(descriptor.domain()), pasid: Pasid(descriptor.pasid()), pages };
        // It has no drain bits; that it always drains where the unit can is an assumption.
        let drain = self.drain_of(true, true);
        Ok(Command::Invalidate { what: Invalidation::PasidIotlb(scope), drain })
    }

    /// The scope of an IOTLB command; `None` for granularity 0 and for AM above MAMV.
    pub(crate) fn iotlb_scope(&self, granularity: u8, domain: u16, range: PageRange, leaf_only: bool) -> Option<IotlbScope> {
        let domain = DomainId(domain);
        match granularity {
            GRANULARITY_GLOBAL => Some(IotlbScope::Global),
            GRANULARITY_DOMAIN => Some(IotlbScope::Domain(domain)),
            GRANULARITY_NARROW if range.order <= self.cap.mask_max => Some(IotlbScope::Pages { domain, range, leaf_only }),
            _ => None,
        }
    }

    /// Drain bits as far as this unit honours them.
    pub(crate) fn drain_of(&self, reads: bool, writes: bool) -> Drain {
        Drain { reads: reads && self.cap.read_drain, writes: writes && self.cap.write_drain }
    }
}

fn no_op(what: Invalidation) -> Command {
    Command::Invalidate { what, drain: Drain::default() }
}

fn decode_context(descriptor: ContextDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_50() != 0 || descriptor.reserved_64() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let scope = context_scope(descriptor.granularity(), descriptor.domain(), descriptor.source(), descriptor.function_mask())
        .ok_or(IQEI_RESERVED)?;
    Ok(no_op(Invalidation::Context(scope)))
}

fn decode_pasid_cache(descriptor: PasidCacheDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_52() != 0 || descriptor.reserved_64() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let (domain, pasid) = (DomainId(descriptor.domain()), Pasid(descriptor.pasid()));
    let scope = match descriptor.granularity() {
        PASID_GRANULARITY_DOMAIN => PasidScope::Domain(domain),
        PASID_GRANULARITY_PASID => PasidScope::One { domain, pasid },
        PASID_GRANULARITY_GLOBAL => PasidScope::Global,
        _ => return Err(IQEI_RESERVED),
    };
    Ok(no_op(Invalidation::Pasid(scope)))
}

/// The scope of a context command; `None` for granularity 0.
pub(crate) fn context_scope(granularity: u8, domain: u16, source: u16, function_mask: u8) -> Option<ContextScope> {
    let domain = DomainId(domain);
    match granularity {
        GRANULARITY_GLOBAL => Some(ContextScope::Global),
        GRANULARITY_DOMAIN => Some(ContextScope::Domain(domain)),
        GRANULARITY_NARROW => Some(ContextScope::Device { domain, source: Bdf(source), function_mask }),
        _ => None,
    }
}

fn decode_wait(descriptor: WaitDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.page_request_drain() || descriptor.reserved_8() || descriptor.reserved_12() != 0 || descriptor.reserved_64() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let address = Pa(descriptor.address() * STATUS_ADDRESS_UNIT);
    let status = descriptor.status_write().then_some((address, descriptor.data()));
    Ok(Command::Wait { status, interrupt: descriptor.interrupt() })
}
