//! The invalidation queue: fetches descriptors from head to tail and carries them out strictly in order.
//!
//! Steps:
//!
//! 1. Head unlike tail, queue on, no error bit set: fetch the descriptor at the head. A tail outside the queue stops it.
//! 2. Decode: type, reserved fields, granularity, AM. What is wrong stops the queue, with the head on the descriptor.
//! 3. The head moves on. From here on head == tail does not mean that anything is complete.
//! 4. Remove from the caches; restart covered walks.
//! 5. Drain bits, where the unit honours them: wait for the caller.
//! 6. Device-TLB invalidations go out to the device; the queue goes on, up to the next wait descriptor.
//! 7. A wait descriptor waits for the devices, and with PD for page requests. Then it writes its status and raises its
//!    interrupt; every earlier descriptor is complete by then.
//!
//! What a descriptor says is in `descriptors`.
//!
//! The caller drives it like a walk: it is told what is wanted and brings the answer. `Continue` asks for the next
//! step, or repeats what is still wanted; after [`QueueProgress::WriteStatus`] it counts as done, like `Written`.

use super::descriptors::{Command, DeviceTarget, Wait};
use super::invalidate::{Invalidation, InvalidationDone, Target};
use super::registers::Drain;
use super::unit::Unit;
use crate::addr::{Pa, Pfn};
use crate::ats::{DeviceInvalidation, PageResponse};
use crate::decision::Decisions;
use crate::request::Message;
use crate::spec::vtd::descriptor::{DESCRIPTOR_BYTES, WIDE_DESCRIPTOR_BYTES};
use crate::spec::vtd::device_tlb::DEPTH_MAX;
use crate::spec::vtd::register::{IQEI_BAD_TAIL, IQEI_FETCH, IQEI_RESERVED, IQEI_WIDTH, QUEUE_SHIFT, QueueAddress, QueueErrorRecord};
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
    /// Wants this sent to a device, which answers with [`Unit::device_completes`]; the descriptor is over.
    InvalidateDevice {
        /// The invalidation.
        request: DeviceInvalidation,
        /// Cycles.
        cost: u32,
    },
    /// Wants this sent to a device; the descriptor is over.
    Respond {
        /// The response.
        response: PageResponse,
        /// Cycles.
        cost: u32,
    },
    /// Nothing to do before a device completes an invalidation, or page requests are written.
    Blocked {
        /// Invalidations under way.
        devices: u32,
        /// Page requests not yet written.
        page_requests: u32,
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
    /// An invalidation that no tag is free for.
    Device {
        target: DeviceTarget,
    },
    /// A wait descriptor waits for devices or page requests.
    Wait {
        wait: Wait,
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

    /// A wait descriptor that waits for devices is dropped: its status is never written.
    pub(crate) fn abort_wait(&mut self) {
        if matches!(self.state, State::Wait { .. } | State::Device { .. }) {
            self.settle();
        }
    }

    /// IQERCD; each field is valid only while its error bit (IQE, ICE, ITE) is set.
    pub(crate) fn error_record(&self, (queue, completion, timeout): (bool, bool, bool)) -> u64 {
        QueueErrorRecord::new()
            .with_info(if queue { self.error.info() } else { 0 })
            .with_completion_source(if completion { self.error.completion_source() } else { 0 })
            .with_timeout_source(if timeout { self.error.timeout_source() } else { 0 })
            .into_bits()
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
            (State::Device { target }, _) => self.send_to_device(target),
            (State::Wait { wait }, _) => self.wait(wait, 0),
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
        self.queue.error.set_info(info);
        self.queue.settle();
        let message = self.faults.queue_error();
        QueueProgress::Stopped(QueueError { info, descriptor, message })
    }

    /// Steps 2 to 7.
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
            Command::Device(target) => self.send_to_device(target),
            Command::Respond(response) => {
                self.queue.settle();
                QueueProgress::Respond { response, cost: self.params.timing.invalidate_device_tlb }
            }
            Command::Wait(wait) => self.wait(wait, 0),
        }
    }

    /// Step 6.
    fn send_to_device(&mut self, target: DeviceTarget) -> QueueProgress {
        let DeviceTarget { mut request, physical, depth } = target;
        let depth = if self.cap.device_throttle { depth } else { DEPTH_MAX };
        match self.devices.issue(request.source, physical, depth) {
            Some(itag) => {
                request.itag = itag;
                self.queue.settle();
                QueueProgress::InvalidateDevice { request, cost: self.params.timing.invalidate_device_tlb }
            }
            None => {
                self.queue.state = State::Device { target };
                QueueProgress::Blocked { devices: self.devices.under_way(), page_requests: 0, cost: 0 }
            }
        }
    }

    /// Step 7.
    fn wait(&mut self, wait: Wait, cost: u32) -> QueueProgress {
        let devices = self.devices.under_way();
        let page_requests = if wait.page_requests { self.page_requests.pending() } else { 0 };
        if devices != 0 || page_requests != 0 {
            self.queue.state = State::Wait { wait };
            return QueueProgress::Blocked { devices, page_requests, cost };
        }
        match wait.status {
            Some((pa, data)) => {
                self.queue.state = State::Status { pa, data, interrupt: wait.interrupt };
                QueueProgress::WriteStatus { pa, data, cost: self.params.timing.status_write }
            }
            None => self.complete_wait(wait.interrupt),
        }
    }

    /// Whether the descriptor under way can only wait for devices or page requests.
    pub(crate) fn queue_is_blocked(&self) -> bool {
        match self.queue.state {
            State::Wait { wait } => self.devices.under_way() != 0 || (wait.page_requests && self.page_requests.pending() != 0),
            State::Device { target } => {
                let depth = if self.cap.device_throttle { target.depth } else { DEPTH_MAX };
                !self.devices.can_issue(target.physical, depth)
            }
            _ => false,
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

    /// Step 7, after the status write.
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
}
