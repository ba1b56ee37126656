//! The command buffer: fetches commands from head to tail and carries them out. 48882 section 2.4.
//!
//! 1. Head unlike tail, buffer running: fetch the command at the head.
//! 2. Decode; an illegal command, or one that cannot be read, is logged and stops the buffer, with the head on it.
//! 3. The head moves on. An invalidation may be carried out later, in any case before the next COMPLETION_WAIT is
//!    complete: head == tail does not mean that anything is.
//! 4. INVALIDATE_*: remove from the caches, restart covered walks.
//!    INVALIDATE_IOTLB_PAGES goes to its device (`device_commands`), which answers in its own time.
//! 5. COMPLETION_WAIT: everything before it; then the answers of devices; then requests that were translated before an invalidation land; then the
//!    store; then ComWaitInt.
//!
//! The caller drives it like a walk: it is told what is wanted and brings the answer. `Continue` asks for the next
//! step, or repeats what is still wanted.

use super::command::{Command, PrefetchHint, Wait, decode};
use super::device_commands::DeviceTarget;
use super::event_log::index_mask;
use super::invalidate::{Invalidation, InvalidationDone, Target};
use super::unit::Unit;
use crate::addr::{Pa, Pfn};
use crate::ats::{DeviceInvalidation, PageResponse};
use crate::decision::{Decisions, Question, ask_bool};
use crate::invalidation_tags::{ITAGS, InvalidationTags};
use crate::request::Message;
use crate::spec::amd::command::COMMAND_BYTES;
use crate::spec::amd::event::EventCode;
use crate::spec::amd::register::{BUFFER_LENGTH_MIN, BufferBase, BufferPointer};
use smallvec::SmallVec;

/// Most invalidations that were taken and not carried out yet. Knob.
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
}

/// What the buffer did or wants. Every `cost` is that of this call, in cycles.
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
    /// An invalidation was taken; it is carried out later.
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
    /// An invalidation goes to a device. It is complete when the device says so: [`Unit::device_completes`].
    InvalidateDevice {
        /// The message.
        request: DeviceInvalidation,
        /// Cycles.
        cost: u32,
    },
    /// A page request group response goes to a device.
    Respond {
        /// The message.
        response: PageResponse,
        /// Cycles.
        cost: u32,
    },
    /// A COMPLETION_WAIT waits for devices, or an INVALIDATE_IOTLB_PAGES until earlier ones are complete.
    AwaitDevices {
        /// Invalidations under way, a bit a tag.
        itags: u32,
    },
    /// A prefetch was asked for; the caller may [`Unit::begin_prefetch`].
    Prefetch {
        /// Which.
        hint: PrefetchHint,
        /// Cycles.
        cost: u32,
    },
    /// A COMPLETION_WAIT wants older translated requests to land: answer `Drained`.
    Drain {
        /// Cycles.
        cost: u32,
    },
    /// A COMPLETION_WAIT wants this 64-bit store: answer `Written`.
    Write {
        /// 8-byte aligned.
        pa: Pa,
        /// Value.
        data: u64,
        /// Cycles.
        cost: u32,
    },
    /// A COMPLETION_WAIT is complete.
    Completed {
        /// The interrupt message that goes out.
        message: Option<Message>,
        /// Cycles.
        cost: u32,
    },
    /// Stopped at an error until software switches the buffer off and on.
    Stopped(CommandError),
}

/// Why the buffer stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// ILLEGAL_COMMAND_ERROR or COMMAND_HARDWARE_ERROR.
    pub code: EventCode,
    /// The command that the head stands on.
    pub command: Pa,
    /// The event interrupt message, if it goes out with this call.
    pub message: Option<Message>,
}

/// Where the buffer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Fetching,
    /// An INVALIDATE_IOTLB_PAGES that cannot be sent yet.
    Sending(DeviceTarget),
    /// A COMPLETION_WAIT, from the deferred commands on.
    Waiting(Wait),
    Draining(Wait),
    Storing(Wait),
}

/// The buffer's registers and state.
#[derive(Clone, Debug)]
pub(crate) struct CommandBuffer {
    pub(crate) base: BufferBase,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// CmdBufRun.
    pub(crate) running: bool,
    state: State,
    deferred: SmallVec<[Invalidation; DEFERRED_MAX]>,
    /// Something was invalidated since the last drain.
    owes_drain: bool,
    /// Software switched the buffer off while a command was under way.
    stopping: bool,
    /// Invalidations under way to devices.
    pub(crate) devices: InvalidationTags,
    /// Where the command of each lies.
    pub(crate) sent: [Pa; ITAGS as usize],
}

impl CommandBuffer {
    pub(crate) fn new() -> Self {
        Self {
            base: BufferBase::new().with_length(BUFFER_LENGTH_MIN),
            head: 0,
            tail: 0,
            running: false,
            state: State::Idle,
            deferred: SmallVec::new(),
            owes_drain: false,
            stopping: false,
            devices: InvalidationTags::new(),
            sent: [Pa(0); ITAGS as usize],
        }
    }

    fn head_pa(&self) -> Pa {
        Pfn(self.base.frame()).pa().offset(u64::from(self.head) * COMMAND_BYTES)
    }

    fn is_at_tail(&self) -> bool {
        self.head == self.tail & index_mask(self.base)
    }

    fn advance_head(&mut self) {
        self.head = self.head.wrapping_add(1) & index_mask(self.base);
    }

    /// CmdBufEn, together with IommuEn. Switched off, a command under way is carried out first, those deferred are too
    /// (assumption).
    pub(crate) fn switch(&mut self, on: bool) {
        if on {
            self.running = true;
            self.stopping = false;
        } else if self.running {
            self.stopping = true;
            self.settle_if_idle();
        }
    }

    fn settle_if_idle(&mut self) {
        if self.stopping && self.state == State::Idle && self.deferred.is_empty() {
            self.running = false;
            self.stopping = false;
        }
    }

    /// A command is over, in one way or another.
    fn settle(&mut self) {
        self.state = State::Idle;
        self.settle_if_idle();
    }

    pub(crate) fn has_work(&self) -> bool {
        self.running && (self.state != State::Idle || !self.deferred.is_empty() || (!self.is_at_tail() && !self.stopping))
    }

    /// Software writes the base: both pointers go to 0. Ignored while the buffer runs (assumption).
    pub(crate) fn write_base(&mut self, value: BufferBase) {
        if !self.running {
            self.base = BufferBase::new().with_frame(value.frame()).with_length(value.length());
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Software writes the head. Ignored while the buffer runs (assumption).
    pub(crate) fn write_head(&mut self, value: BufferPointer) {
        if !self.running {
            self.head = value.index() & index_mask(self.base);
        }
    }

    /// Software writes the tail.
    pub(crate) fn write_tail(&mut self, value: BufferPointer) {
        self.tail = value.index() & index_mask(self.base);
    }
}

impl Unit {
    /// Whether `command_advance` would do more than say [`CommandProgress::Idle`].
    #[must_use]
    pub fn command_has_work(&self) -> bool {
        let buffer = &self.commands;
        buffer.has_work()
            && match buffer.state {
                State::Sending(target) => self.device_takes(&target),
                State::Waiting(_) => !buffer.deferred.is_empty() || buffer.devices.busy() == 0,
                _ => true,
            }
    }

    /// One step of the command buffer.
    pub fn command_advance(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        match (self.commands.state, input) {
            (State::Idle, _) => self.fetch_command(d),
            (State::Fetching, CommandInput::Command(words)) => self.execute(words, d),
            (State::Fetching, CommandInput::Unreadable) => self.stop(EventCode::COMMAND_HARDWARE),
            (State::Fetching, _) => CommandProgress::Fetch { pa: self.commands.head_pa(), cost: 0 },
            (State::Sending(target), _) => self.send(target),
            (State::Waiting(wait), _) => self.wait(wait, d),
            (State::Draining(wait), CommandInput::Drained) => self.store(wait),
            (State::Draining(_), _) => CommandProgress::Drain { cost: 0 },
            (State::Storing(wait), CommandInput::Written) => self.complete(wait),
            (State::Storing(wait), _) => {
                let (pa, data) = wait.store.unwrap_or((Pa(0), 0));
                CommandProgress::Write { pa, data, cost: 0 }
            }
        }
    }

    /// Step 1.
    fn fetch_command(&mut self, d: &mut dyn Decisions) -> CommandProgress {
        let buffer = &mut self.commands;
        if !buffer.has_work() {
            return CommandProgress::Idle;
        }
        if buffer.is_at_tail() || buffer.stopping {
            return self.run_deferred(d).unwrap_or(CommandProgress::Idle);
        }
        buffer.state = State::Fetching;
        CommandProgress::Fetch { pa: buffer.head_pa(), cost: self.params.timing.descriptor_fetch }
    }

    /// Step 2, the failure.
    fn stop(&mut self, code: EventCode) -> CommandProgress {
        let command = self.commands.head_pa();
        self.commands.state = State::Idle;
        self.commands.running = false;
        self.commands.stopping = false;
        let message = self.log_command(code, command);
        CommandProgress::Stopped(CommandError { code, command, message })
    }

    /// Steps 2 to 5.
    fn execute(&mut self, words: [u64; 2], d: &mut dyn Decisions) -> CommandProgress {
        let Some(command) = decode(words, &self.cap) else { return self.stop(EventCode::ILLEGAL_COMMAND) };
        let place = self.commands.head_pa();
        self.commands.advance_head();
        match command {
            Command::Wait(wait) => {
                self.commands.state = State::Waiting(wait);
                self.wait(wait, d)
            }
            Command::Invalidate(what) => {
                let room = self.commands.deferred.len() < DEFERRED_MAX;
                if room && ask_bool(d, Question::DelayCommand) {
                    self.commands.deferred.push(what);
                    self.commands.settle();
                    return CommandProgress::Deferred { cost: 0 };
                }
                let progress = self.invalidate(what, d);
                self.commands.settle();
                progress
            }
            Command::InvalidateDevice(target) => self.send(target.at(place)),
            Command::Respond(response) => {
                self.commands.settle();
                CommandProgress::Respond { response, cost: self.params.timing.invalidate_device_tlb }
            }
            Command::Prefetch(hint) => {
                self.commands.settle();
                CommandProgress::Prefetch { hint, cost: 0 }
            }
        }
    }

    /// Step 4.
    fn invalidate(&mut self, what: Invalidation, d: &mut dyn Decisions) -> CommandProgress {
        let what = Target { caches: &mut self.caches, walkers: &mut self.walkers }.invalidate(what, d);
        let timing = &self.params.timing;
        let (cost, owes) = match what.done {
            Invalidation::Device(_) => (timing.invalidate_context, true),
            Invalidation::Pages(_) => (timing.invalidate_iotlb, true),
            Invalidation::All => (timing.invalidate_context.saturating_add(timing.invalidate_iotlb), true),
            Invalidation::Interrupts(_) => (timing.invalidate_interrupt, false),
        };
        self.commands.owes_drain |= owes;
        CommandProgress::Invalidated { what, cost }
    }

    fn run_deferred(&mut self, d: &mut dyn Decisions) -> Option<CommandProgress> {
        if self.commands.deferred.is_empty() {
            return None;
        }
        let what = self.commands.deferred.remove(0);
        let progress = self.invalidate(what, d);
        self.commands.settle_if_idle();
        Some(progress)
    }

    /// Step 4, of INVALIDATE_IOTLB_PAGES.
    fn send(&mut self, target: DeviceTarget) -> CommandProgress {
        match self.invalidate_device_tlb(target) {
            Some(sent) => {
                self.commands.settle();
                sent
            }
            None => {
                self.commands.state = State::Sending(target);
                CommandProgress::AwaitDevices { itags: self.commands.devices.busy() }
            }
        }
    }

    /// Step 5, up to the drain.
    fn wait(&mut self, wait: Wait, d: &mut dyn Decisions) -> CommandProgress {
        if let Some(progress) = self.run_deferred(d) {
            return progress;
        }
        if self.commands.devices.busy() != 0 {
            return CommandProgress::AwaitDevices { itags: self.commands.devices.busy() };
        }
        if self.commands.owes_drain && self.cap.wait_drains {
            self.commands.state = State::Draining(wait);
            return CommandProgress::Drain { cost: self.params.timing.drain };
        }
        self.store(wait)
    }

    /// Step 5, the store.
    fn store(&mut self, wait: Wait) -> CommandProgress {
        self.commands.owes_drain = false;
        let Some((pa, data)) = wait.store else { return self.complete(wait) };
        self.commands.state = State::Storing(wait);
        CommandProgress::Write { pa, data, cost: self.params.timing.status_write }
    }

    /// Step 5, the end. That a message goes out only as ComWaitInt goes from 0 to 1 is an assumption.
    fn complete(&mut self, wait: Wait) -> CommandProgress {
        self.commands.settle();
        if !wait.interrupt || self.status.wait_interrupt() {
            return CommandProgress::Completed { message: None, cost: 0 };
        }
        self.status.set_wait_interrupt(true);
        let message = if self.control.wait_interrupt() { self.message() } else { None };
        let cost = if message.is_some() { self.params.timing.interrupt } else { 0 };
        CommandProgress::Completed { message, cost }
    }
}
