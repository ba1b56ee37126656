//! The command queue: fetches commands from head to tail and carries them out.
//!
//! 1. Head unlike tail, queue on, no error bit set: fetch the command at the head.
//! 2. Decode; what is illegal or unsupported stops the queue, with the head on the command.
//! 3. The head moves on, but for a fence. A command other than a fence may be carried out later, in any case before
//!    the next fence is complete: head == tail does not mean that anything is complete.
//! 4. IOTINVAL, IODIR: remove from the caches, restart covered walks. ATS.INVAL: the device is asked, and answers
//!    in its own time.
//! 5. IOFENCE.C: everything before it; then the answers of devices, or their time-outs, which stop the queue; then the
//!    older translated requests that PR and PW name; then the store; then the wire. Then the head moves on.
//!
//! The caller drives it like a walk: it is told what is wanted and brings the answer. `Continue` asks for the next
//! step, or repeats what is still wanted.

use super::command::{Command, DeviceMessage, Fence};
use super::interrupt::Source;
use super::invalidate::{Invalidation, InvalidationDone, Target};
use super::unit::Unit;
use crate::addr::{Pa, Pfn};
use crate::decision::{Decisions, Question, ask_bool};
use crate::invalidation_tags::{ITAGS, InvalidationTags};
use crate::request::Message;
use crate::spec::riscv::command::COMMAND_BYTES;
use crate::spec::riscv::register::{CommandQueueControl, QueueBase};
use smallvec::SmallVec;

/// Most commands that were taken and not carried out yet. Knob.
const DEFERRED_MAX: usize = 8;

/// What the caller brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandInput {
    /// Nothing: next step, please.
    Continue,
    /// The command, in address order.
    Command([u64; 2]),
    /// There is no memory at the command's address.
    Unreadable,
    /// Every request that was translated before the drain was asked for has landed.
    Drained,
    /// The data are stored.
    Written,
    /// There is no memory for them.
    WriteFailed,
}

/// What the queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandProgress {
    /// Nothing to do.
    Idle,
    /// Wants the 16 bytes at this address: answer `Command` or `Unreadable`.
    Fetch {
        /// First byte.
        pa: Pa,
        /// Cycles.
        cost: u32,
    },
    /// A command was taken; it is carried out later.
    Deferred {
        /// Cycles.
        cost: u32,
    },
    /// A command was carried out.
    Invalidated {
        /// What was removed.
        what: InvalidationDone,
        /// Cycles.
        cost: u32,
    },
    /// An invalidation request goes to a device. It answers by [`Unit::device_answered`] or [`Unit::device_timed_out`].
    InvalidateDevice {
        /// The request.
        message: DeviceMessage,
        /// Its tag.
        tag: u8,
        /// Cycles.
        cost: u32,
    },
    /// A page request group response goes to a device.
    Respond {
        /// The response.
        message: DeviceMessage,
        /// Cycles.
        cost: u32,
    },
    /// Waits for devices to answer.
    AwaitDevices {
        /// Requests without answer, a bit a tag.
        tags: u32,
    },
    /// A fence wants older translated requests to land: answer `Drained`.
    Drain {
        /// Reads.
        reads: bool,
        /// Writes.
        writes: bool,
        /// Cycles.
        cost: u32,
    },
    /// A fence wants this 32-bit store: answer `Written` or `WriteFailed`.
    Write {
        /// 4-byte aligned.
        pa: Pa,
        /// Value.
        data: u32,
        /// Cycles.
        cost: u32,
    },
    /// A fence is complete.
    Fenced {
        /// The interrupt message that goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
    /// Stopped at an error until software clears it.
    Stopped(CommandError),
}

/// Why the queue stopped: the bits of cqcsr that are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// cqmf.
    pub memory_fault: bool,
    /// cmd_to.
    pub timeout: bool,
    /// cmd_ill.
    pub illegal: bool,
    /// The command that the head stands on.
    pub command: Pa,
    /// The interrupt message, if it goes out with this call.
    pub message: Option<Message>,
}

/// Where the queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Fetching,
    /// An invalidation request waits for a tag.
    AwaitTag(DeviceMessage),
    /// A fence, from the deferred commands on.
    Fencing(Fence),
    Draining(Fence),
    Storing(Fence),
}

/// The queue's registers and state.
#[derive(Clone, Debug)]
pub(crate) struct CommandQueue {
    pub(crate) base: QueueBase,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) control: CommandQueueControl,
    state: State,
    deferred: SmallVec<[Invalidation; DEFERRED_MAX]>,
    /// Requests without answer.
    unanswered: InvalidationTags,
    /// A request timed out since the last fence.
    timed_out: bool,
}

impl CommandQueue {
    pub(crate) fn new() -> Self {
        Self {
            base: QueueBase::new(),
            head: 0,
            tail: 0,
            control: CommandQueueControl::new(),
            state: State::Idle,
            deferred: SmallVec::new(),
            unanswered: InvalidationTags::new(),
            timed_out: false,
        }
    }

    fn mask(&self) -> u64 {
        (1 << (u32::from(self.base.log2_size_minus_1()) + 1)) - 1
    }

    fn head_pa(&self) -> Pa {
        Pfn(self.base.ppn()).pa().offset(u64::from(self.head) * COMMAND_BYTES)
    }

    fn has_error(&self) -> bool {
        self.control.memory_fault() || self.control.timeout() || self.control.illegal()
    }

    fn advance_head(&mut self) {
        self.head = ((u64::from(self.head) + 1) & self.mask()) as u32;
    }

    /// A command is over, in one way or another.
    fn settle(&mut self) {
        self.state = State::Idle;
        if !self.control.enable() {
            self.switch_off();
        }
    }

    /// Commands that were taken and not carried out are given up, as the specification allows.
    fn switch_off(&mut self) {
        self.deferred.clear();
        self.control.set_on(false);
        self.control.set_busy(false);
    }

    pub(crate) fn has_work(&self) -> bool {
        let commands = self.head != self.tail && !self.has_error();
        self.control.on() && (self.state != State::Idle || !self.deferred.is_empty() || (self.control.enable() && commands))
    }

    /// Software writes the control register. Ignored while the queue is being switched off.
    pub(crate) fn write_control(&mut self, value: CommandQueueControl) {
        if self.control.busy() {
            return;
        }
        if value.enable() && !self.control.enable() {
            self.head = 0;
            self.state = State::Idle;
            (self.unanswered, self.timed_out) = (InvalidationTags::new(), false);
            self.control = CommandQueueControl::new().with_on(true);
        }
        let cleared = |kept: bool, write_1: bool| kept && !write_1;
        self.control = self
            .control
            .with_enable(value.enable())
            .with_interrupt_enable(value.interrupt_enable())
            .with_memory_fault(cleared(self.control.memory_fault(), value.memory_fault()))
            .with_timeout(cleared(self.control.timeout(), value.timeout()))
            .with_illegal(cleared(self.control.illegal(), value.illegal()))
            .with_fence_pending(cleared(self.control.fence_pending(), value.fence_pending()));
        if !value.enable() && self.control.on() {
            match self.state {
                State::Idle => self.switch_off(),
                _ => self.control.set_busy(true),
            }
        }
    }

    /// Software writes the base. Ignored while the queue is on.
    pub(crate) fn write_base(&mut self, value: QueueBase) {
        if !self.control.on() {
            self.base = QueueBase::new().with_log2_size_minus_1(value.log2_size_minus_1()).with_ppn(value.ppn());
            self.write_tail(self.tail);
        }
    }

    /// Software writes the tail.
    pub(crate) fn write_tail(&mut self, value: u32) {
        self.tail = (u64::from(value) & self.mask()) as u32;
    }

    /// Whether an error or a fence keeps the interrupt pending.
    pub(crate) fn asserts_interrupt(&self) -> bool {
        self.control.interrupt_enable() && (self.has_error() || self.control.fence_pending())
    }
}

impl Unit {
    /// Whether `command_queue_advance` would do more than say [`CommandProgress::Idle`].
    #[must_use]
    pub fn command_queue_has_work(&self) -> bool {
        self.commands.has_work()
    }

    /// One step of the command queue.
    pub fn command_queue_advance(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        match (self.commands.state, input) {
            (State::Idle, _) => self.fetch_command(d),
            (State::Fetching, CommandInput::Command(words)) => self.execute(words, d),
            (State::Fetching, CommandInput::Unreadable) => self.stop(|control| control.set_memory_fault(true)),
            (State::Fetching, _) => CommandProgress::Fetch { pa: self.commands.head_pa(), cost: 0 },
            (State::AwaitTag(message), _) => self.invalidate_device(message),
            (State::Fencing(fence), _) => self.fence(fence, d),
            (State::Draining(fence), CommandInput::Drained) => self.store(fence),
            (State::Draining(fence), _) => CommandProgress::Drain { reads: fence.reads, writes: fence.writes, cost: 0 },
            (State::Storing(fence), CommandInput::Written) => self.complete(fence),
            (State::Storing(_), CommandInput::WriteFailed) => self.stop(|control| control.set_memory_fault(true)),
            (State::Storing(fence), _) => {
                let (pa, data) = fence.store.unwrap_or((Pa(0), 0));
                CommandProgress::Write { pa, data, cost: 0 }
            }
        }
    }

    /// A device has answered an invalidation request. Returns whether the tag was in use.
    pub fn device_answered(&mut self, tag: u8) -> bool {
        self.commands.unanswered.give_up(tag).is_some()
    }

    /// A device has not answered in time. Returns whether the tag was in use.
    pub fn device_timed_out(&mut self, tag: u8) -> bool {
        let known = self.device_answered(tag);
        self.commands.timed_out |= known;
        known
    }

    /// Step 1.
    fn fetch_command(&mut self, d: &mut dyn Decisions) -> CommandProgress {
        let queue = &mut self.commands;
        if !queue.has_work() {
            return CommandProgress::Idle;
        }
        if queue.head == queue.tail || queue.has_error() || !queue.control.enable() {
            return self.run_deferred(d).unwrap_or(CommandProgress::Idle);
        }
        queue.state = State::Fetching;
        CommandProgress::Fetch { pa: queue.head_pa(), cost: self.params.timing.descriptor_fetch }
    }

    fn stop(&mut self, error: impl FnOnce(&mut CommandQueueControl)) -> CommandProgress {
        error(&mut self.commands.control);
        self.commands.settle();
        let message = if self.commands.control.interrupt_enable() { self.interrupts.raise(Source::Command) } else { None };
        let control = self.commands.control;
        CommandProgress::Stopped(CommandError {
            memory_fault: control.memory_fault(),
            timeout: control.timeout(),
            illegal: control.illegal(),
            command: self.commands.head_pa(),
            message,
        })
    }

    /// Steps 2 to 5.
    fn execute(&mut self, words: [u64; 2], d: &mut dyn Decisions) -> CommandProgress {
        let Some(command) = self.decode_command(words) else { return self.stop(|control| control.set_illegal(true)) };
        match command {
            Command::Fence(fence) => {
                self.commands.state = State::Fencing(fence);
                self.fence(fence, d)
            }
            Command::Invalidate(what) => {
                self.commands.advance_head();
                let room = self.commands.deferred.len() < DEFERRED_MAX;
                if room && ask_bool(d, Question::DeferCommand) {
                    self.commands.deferred.push(what);
                    self.commands.settle();
                    return CommandProgress::Deferred { cost: 0 };
                }
                self.commands.settle();
                self.invalidate(what, d)
            }
            Command::InvalidateDevice(message) => {
                self.commands.advance_head();
                self.invalidate_device(message)
            }
            Command::Respond(message) => {
                self.commands.advance_head();
                self.commands.settle();
                CommandProgress::Respond { message, cost: self.params.timing.invalidate_device_tlb }
            }
        }
    }

    /// Step 4.
    fn invalidate(&mut self, what: Invalidation, d: &mut dyn Decisions) -> CommandProgress {
        let what = Target { caches: &mut self.caches, walkers: &mut self.walkers }.invalidate(what, d);
        let timing = &self.params.timing;
        let cost = match what.done {
            Invalidation::Ddt(_) => timing.invalidate_context,
            Invalidation::Pdt(..) => timing.invalidate_pasid,
            _ => timing.invalidate_iotlb,
        };
        CommandProgress::Invalidated { what, cost }
    }

    fn run_deferred(&mut self, d: &mut dyn Decisions) -> Option<CommandProgress> {
        if self.commands.deferred.is_empty() {
            return None;
        }
        let what = self.commands.deferred.remove(0);
        Some(self.invalidate(what, d))
    }

    fn invalidate_device(&mut self, message: DeviceMessage) -> CommandProgress {
        let queue = &mut self.commands;
        let Some(tag) = queue.unanswered.issue(message.requester, message.requester, ITAGS) else {
            queue.state = State::AwaitTag(message);
            return CommandProgress::AwaitDevices { tags: queue.unanswered.busy() };
        };
        queue.settle();
        CommandProgress::InvalidateDevice { message, tag, cost: self.params.timing.invalidate_device_tlb }
    }

    /// Step 5, up to the drain.
    fn fence(&mut self, fence: Fence, d: &mut dyn Decisions) -> CommandProgress {
        if let Some(progress) = self.run_deferred(d) {
            return progress;
        }
        if self.commands.unanswered.busy() != 0 {
            return CommandProgress::AwaitDevices { tags: self.commands.unanswered.busy() };
        }
        if core::mem::take(&mut self.commands.timed_out) {
            return self.stop(|control| control.set_timeout(true));
        }
        if fence.reads || fence.writes {
            self.commands.state = State::Draining(fence);
            return CommandProgress::Drain { reads: fence.reads, writes: fence.writes, cost: self.params.timing.drain };
        }
        self.store(fence)
    }

    fn store(&mut self, fence: Fence) -> CommandProgress {
        match fence.store {
            Some((pa, data)) => {
                self.commands.state = State::Storing(fence);
                CommandProgress::Write { pa, data, cost: self.params.timing.status_write }
            }
            None => self.complete(fence),
        }
    }

    fn complete(&mut self, fence: Fence) -> CommandProgress {
        self.commands.advance_head();
        if fence.wire {
            self.commands.control.set_fence_pending(true);
        }
        self.commands.settle();
        let raises = fence.wire && self.commands.control.interrupt_enable();
        let message = if raises { self.interrupts.raise(Source::Command) } else { None };
        CommandProgress::Fenced { message, cost: 0 }
    }
}
