//! The command queue: fetches commands from CONS to PROD and carries them out in order.
//!
//! Steps:
//!
//! 1. CONS unlike PROD, CMDQEN, no command error active: fetch the command at CONS.
//! 2. Decode. An unknown opcode, one that the unit does not have, or an invalid value stops the queue with CERROR_ILL and CONS
//!    on the command; so does a failed fetch with CERROR_ABT. Reserved bits are ignored.
//! 3. CONS moves on. Of an invalidation this promises nothing (IHI 0070 section 4.3.8): whether it takes effect now or only
//!    with the next CMD_SYNC is asked.
//! 4. CMD_SYNC: what was put off takes effect; devices complete their invalidations (`device_commands`); requests that used what was invalidated land; committed event records are
//!    written; then the signal; then CONS moves on.
//!
//! The caller drives it like a walk: it is told what is wanted and brings the answer. `Continue` asks for the next step, or
//! repeats what is still wanted.

use super::device_commands::DeviceTarget;
use super::event::Ring;
use super::ids::{Asid, StreamId, Vmid};
use super::invalidate::{AddressRange, Invalidation, InvalidationDone};
use super::registers::Signal;
use super::unit::Unit;
use crate::addr::{Iova, PAGE_SHIFT, Pa, Pasid};
use crate::ats::{DeviceInvalidation, PageResponse};
use crate::decision::{Decisions, Question, ask_bool};
use crate::invalidation_tags::InvalidationTags;
use crate::spec::smmu::command::{
    ATC_INV, AnyCommand, AtcCommand, CFGI_CD, CFGI_CD_ALL, CFGI_STE, CFGI_STE_RANGE, COMMAND_BYTES, CONFIG_LEAF, ConfigCommand,
    PREFETCH_ADDRESS, PREFETCH_CONFIG, PRI_RESP, PageResponseCommand, RANGE_GRANULE_4K, RANGE_GRANULE_16K, SIGNAL_EVENT, SIGNAL_INTERRUPT,
    SIGNAL_NONE, SYNC, SyncCommand, TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA, TLBI_NSNH_ALL, TLBI_S2_IPA, TLBI_S12_VMALL,
    TlbCommand,
};
use crate::spec::smmu::register::{ERROR_ABORT, ERROR_ATC_INV_SYNC, ERROR_ILLEGAL};
use smallvec::SmallVec;

/// Invalidations that can be put off at a time; with more, the next one takes effect with all before it.
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
    /// The message is stored.
    Written,
    /// There is no memory at the message's address.
    Aborted,
}

/// What the command queue did or wants. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandProgress {
    /// Nothing to do.
    Idle,
    /// Wants these 16 bytes: answer `Command` or `Unreadable`.
    Fetch {
        /// First byte.
        pa: Pa,
        /// Cycles.
        cost: u32,
    },
    /// A command was consumed. `None` for one that changes nothing in this unit.
    Consumed {
        /// What was removed, or put off.
        done: Option<InvalidationDone>,
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
    /// CMD_SYNC waits for devices, or a CMD_ATC_INV for one of 32 tags: [`Unit::device_completes`], [`Unit::device_times_out`].
    AwaitDevices {
        /// Invalidations under way, a bit a tag.
        itags: u32,
    },
    /// CMD_SYNC wants older translated requests to land: answer `Drained`.
    Drain {
        /// Cycles.
        cost: u32,
    },
    /// CMD_SYNC wants the event records that are committed to be written: drive `event_advance`, then call again.
    AwaitEvents,
    /// CMD_SYNC wants this 32-bit store: answer `Written` or `Aborted`.
    WriteMessage {
        /// 4-byte aligned.
        pa: Pa,
        /// Value.
        data: u32,
        /// Cycles.
        cost: u32,
    },
    /// A CMD_SYNC is complete.
    Synchronised {
        /// How it says so.
        signal: Completion,
        /// GERROR's interrupt, if the message was aborted.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
    /// Stopped at an error until software acknowledges it in GERRORN.
    Stopped {
        /// CMDQ_CONS.ERR.
        error: u8,
        /// GERROR's interrupt.
        interrupt: Option<Signal>,
        /// Cycles.
        cost: u32,
    },
}

/// How a CMD_SYNC tells that it is complete, besides CONS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Not at all.
    Silent,
    /// By a message, which is stored by now, or was aborted.
    Message,
    /// By its wired interrupt.
    Wired,
    /// By an event to the processors (SEV).
    Event,
}

/// Where the queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Fetching,
    /// A CMD_ATC_INV waits for a tag.
    AwaitingTag(DeviceTarget),
    AwaitingDevices(SyncCommand),
    Draining(SyncCommand),
    AwaitingEvents(SyncCommand),
    Writing {
        pa: Pa,
        data: u32,
    },
}

/// The queue.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    pub(crate) ring: Ring,
    pub(crate) enabled: bool,
    /// CONS.ERR.
    pub(crate) error: u8,
    state: State,
    /// Invalidations that were consumed but did not take effect yet.
    deferred: SmallVec<[Invalidation; DEFERRED_MAX]>,
    /// Something was invalidated since the last CMD_SYNC.
    needs_drain: bool,
    /// Invalidations under way to devices.
    pub(crate) devices: InvalidationTags,
    /// A device has not completed one in time since the last CMD_SYNC.
    pub(crate) device_timed_out: bool,
}

impl Commands {
    pub(crate) fn new(bits_max: u8) -> Self {
        Self {
            ring: Ring::new(bits_max),
            enabled: false,
            error: 0,
            state: State::Idle,
            deferred: SmallVec::new(),
            needs_drain: false,
            devices: InvalidationTags::new(),
            device_timed_out: false,
        }
    }

    pub(crate) fn has_work(&self, error: bool) -> bool {
        match self.state {
            State::Idle => self.enabled && !error && self.ring.used() != 0,
            State::AwaitingTag(_) => self.devices.busy() != u32::MAX,
            State::AwaitingDevices(_) => self.devices.busy() == 0,
            _ => true,
        }
    }

    /// Whether a command is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.state != State::Idle
    }

    fn consume(&mut self) {
        self.state = State::Idle;
        self.ring.consumer = self.ring.next(self.ring.consumer);
    }

    fn head(&self) -> Pa {
        self.ring.entry(self.ring.consumer, COMMAND_BYTES)
    }
}

/// A decoded command.
enum Command {
    Invalidate(Invalidation),
    InvalidateDevice(DeviceTarget),
    Respond(PageResponse),
    Nothing,
    Sync(SyncCommand),
}

impl Unit {
    /// One step of the command queue.
    pub(crate) fn step_commands(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        match (self.commands.state, input) {
            (State::Idle, _) => self.fetch_command(),
            (State::Fetching, CommandInput::Command(words)) => self.execute(words, d),
            (State::Fetching, CommandInput::Unreadable) => self.stop_commands(ERROR_ABORT),
            (State::Fetching, _) => CommandProgress::Fetch { pa: self.commands.head(), cost: 0 },
            (State::AwaitingTag(target), _) => self.send_to_device(target),
            (State::AwaitingDevices(sync), _) => self.await_devices(sync),
            (State::Draining(sync), CommandInput::Drained) => self.await_events(sync),
            (State::Draining(_), _) => CommandProgress::Drain { cost: 0 },
            (State::AwaitingEvents(sync), _) => self.await_events(sync),
            (State::Writing { .. }, CommandInput::Written) => {
                self.commands.consume();
                CommandProgress::Synchronised { signal: Completion::Message, interrupt: None, cost: 0 }
            }
            (State::Writing { .. }, CommandInput::Aborted) => {
                self.commands.consume();
                let interrupt = self.raise_error(|error| error.set_command_message_abort(true));
                CommandProgress::Synchronised { signal: Completion::Message, interrupt, cost: self.params.timing.fault }
            }
            (State::Writing { pa, data }, _) => CommandProgress::WriteMessage { pa, data, cost: 0 },
        }
    }

    /// Step 1.
    fn fetch_command(&mut self) -> CommandProgress {
        if !self.commands_have_work() {
            return CommandProgress::Idle;
        }
        self.commands.state = State::Fetching;
        CommandProgress::Fetch { pa: self.commands.head(), cost: self.params.timing.descriptor_fetch }
    }

    fn stop_commands(&mut self, error: u8) -> CommandProgress {
        self.commands.state = State::Idle;
        self.commands.error = error;
        let interrupt = self.raise_error(|error| error.set_command_queue(true));
        CommandProgress::Stopped { error, interrupt, cost: self.params.timing.fault }
    }

    /// Steps 2 to 4.
    fn execute(&mut self, words: [u64; 2], d: &mut dyn Decisions) -> CommandProgress {
        let bits = u128::from(words[0]) | (u128::from(words[1]) << 64);
        match self.decode(bits) {
            None => self.stop_commands(ERROR_ILLEGAL),
            Some(Command::Nothing) => {
                self.commands.consume();
                CommandProgress::Consumed { done: None, cost: self.params.timing.invalidate_device_tlb }
            }
            Some(Command::Invalidate(what)) => self.invalidate_or_defer(what, d),
            Some(Command::InvalidateDevice(target)) => {
                self.commands.consume();
                self.send_to_device(target)
            }
            Some(Command::Respond(response)) => {
                self.commands.consume();
                self.respond(response)
            }
            Some(Command::Sync(sync)) => {
                self.apply_deferred(d);
                self.await_devices(sync)
            }
        }
    }

    /// Step 3, of CMD_ATC_INV.
    fn send_to_device(&mut self, target: DeviceTarget) -> CommandProgress {
        let sent = self.invalidate_device(target);
        self.commands.state = if sent.is_some() { State::Idle } else { State::AwaitingTag(target) };
        sent.unwrap_or(CommandProgress::AwaitDevices { itags: self.commands.devices.busy() })
    }

    /// Step 4, up to the drain.
    fn await_devices(&mut self, sync: SyncCommand) -> CommandProgress {
        let itags = self.commands.devices.busy();
        if itags != 0 {
            self.commands.state = State::AwaitingDevices(sync);
            return CommandProgress::AwaitDevices { itags };
        }
        if core::mem::take(&mut self.commands.device_timed_out) {
            return self.stop_commands(ERROR_ATC_INV_SYNC);
        }
        if core::mem::take(&mut self.commands.needs_drain) {
            self.commands.state = State::Draining(sync);
            return CommandProgress::Drain { cost: self.params.timing.drain };
        }
        self.await_events(sync)
    }

    /// Step 3.
    fn invalidate_or_defer(&mut self, what: Invalidation, d: &mut dyn Decisions) -> CommandProgress {
        self.commands.consume();
        self.commands.needs_drain = true;
        let timing = &self.params.timing;
        let cost = if what.is_config() { timing.invalidate_context } else { timing.invalidate_iotlb };
        // An invalidation must not overtake one that was put off, or its effect could be undone in between.
        let full = self.commands.deferred.len() == DEFERRED_MAX;
        if !full && (!self.commands.deferred.is_empty() || ask_bool(d, Question::DeferInvalidation)) {
            self.commands.deferred.push(what);
            return CommandProgress::Consumed { done: Some(InvalidationDone::deferred(what)), cost };
        }
        self.apply_deferred(d);
        CommandProgress::Consumed { done: Some(self.invalidate(what, d)), cost }
    }

    fn apply_deferred(&mut self, d: &mut dyn Decisions) {
        let deferred = core::mem::take(&mut self.commands.deferred);
        for what in deferred {
            self.invalidate(what, d);
        }
    }

    /// Invalidations that were consumed and will take effect with the next CMD_SYNC.
    #[must_use]
    pub fn deferred_invalidations(&self) -> &[Invalidation] {
        &self.commands.deferred
    }

    /// Step 4, after the drain.
    fn await_events(&mut self, sync: SyncCommand) -> CommandProgress {
        if self.events.pending() != 0 {
            self.commands.state = State::AwaitingEvents(sync);
            return CommandProgress::AwaitEvents;
        }
        let timing = self.params.timing;
        let signal = match sync.signal() {
            SIGNAL_INTERRUPT => match self.signal(sync.address() * MESSAGE_UNIT, sync.data()) {
                Signal::Message(message) => {
                    let (pa, data) = (message.address, message.data);
                    self.commands.state = State::Writing { pa, data };
                    return CommandProgress::WriteMessage { pa, data, cost: timing.status_write };
                }
                Signal::Wired => Completion::Wired,
            },
            SIGNAL_EVENT if self.cap.send_event => Completion::Event,
            _ => Completion::Silent,
        };
        self.commands.consume();
        let cost = if signal == Completion::Silent { 0 } else { timing.interrupt };
        CommandProgress::Synchronised { signal, interrupt: None, cost }
    }

    /// Step 2.
    fn decode(&self, bits: u128) -> Option<Command> {
        let any = AnyCommand::from_bits(bits);
        let stages = (self.cap.stage_1, self.cap.stage_2);
        match any.opcode() {
            PREFETCH_CONFIG | PREFETCH_ADDRESS => (!any.secure()).then_some(Command::Nothing),
            CFGI_STE | CFGI_STE_RANGE => self.decode_config(ConfigCommand::from_bits(bits)),
            CFGI_CD | CFGI_CD_ALL if stages.0 => self.decode_config(ConfigCommand::from_bits(bits)),
            TLBI_NH_ALL | TLBI_NH_ASID | TLBI_NH_VA | TLBI_NH_VAA if stages.0 => self.decode_tlb(TlbCommand::from_bits(bits)),
            TLBI_S12_VMALL | TLBI_S2_IPA if stages.1 => self.decode_tlb(TlbCommand::from_bits(bits)),
            TLBI_NSNH_ALL => Some(Command::Invalidate(Invalidation::TlbAll)),
            ATC_INV if self.cap.ats => {
                DeviceTarget::decode(AtcCommand::from_bits(bits), self.cap.substream_bits).map(Command::InvalidateDevice)
            }
            PRI_RESP if self.cap.has_page_requests() => {
                let response = self.decode_response(PageResponseCommand::from_bits(bits))?;
                Some(response.map_or(Command::Nothing, Command::Respond))
            }
            SYNC => {
                let sync = SyncCommand::from_bits(bits);
                matches!(sync.signal(), SIGNAL_NONE | SIGNAL_INTERRUPT | SIGNAL_EVENT).then_some(Command::Sync(sync))
            }
            _ => None,
        }
    }

    fn decode_config(&self, command: ConfigCommand) -> Option<Command> {
        if command.secure() {
            return None;
        }
        let stream = StreamId(command.stream());
        let leaf_only = command.range() & CONFIG_LEAF != 0;
        Some(Command::Invalidate(match command.opcode() {
            CFGI_STE => Invalidation::Stream { stream, leaf_only },
            CFGI_CD => Invalidation::Context { stream, substream: Pasid(command.substream()), leaf_only },
            CFGI_CD_ALL => Invalidation::Contexts { stream },
            _ => {
                let mask = (2u64 << command.range()) - 1;
                let first = u64::from(stream.0) & !mask;
                Invalidation::Streams { first: StreamId(first as u32), last: StreamId((first | mask) as u32) }
            }
        }))
    }

    fn decode_tlb(&self, command: TlbCommand) -> Option<Command> {
        // Without stage 2 the VMID is RES0, and every entry has VMID 0.
        let vmid = Vmid(if self.cap.stage_2 { command.vmid() } else { 0 });
        let asid = Asid(command.asid());
        Some(Command::Invalidate(match command.opcode() {
            TLBI_NH_ALL => Invalidation::Stage1 { vmid },
            TLBI_NH_ASID => Invalidation::Stage1Asid { vmid, asid },
            TLBI_NH_VA => Invalidation::Stage1Range { vmid, asid: Some(asid), range: self.range_of(command)? },
            TLBI_NH_VAA => Invalidation::Stage1Range { vmid, asid: None, range: self.range_of(command)? },
            TLBI_S2_IPA => Invalidation::Stage2Range { vmid, range: self.range_of(command)? },
            _ => Invalidation::Vmid { vmid },
        }))
    }

    /// The addresses that a command names, section 4.4.1.1; `None` for the reserved combination.
    fn range_of(&self, command: TlbCommand) -> Option<AddressRange> {
        let first = Iova(command.frame() << PAGE_SHIFT);
        let leaf_only = command.leaf();
        if !self.cap.range_invalidation || command.granule() == 0 {
            return Some(AddressRange { first, last: first, leaf_only, granule: None, level: None });
        }
        let granule = match command.granule() {
            RANGE_GRANULE_4K => super::tables::GRANULE_4K,
            RANGE_GRANULE_16K => super::tables::GRANULE_16K,
            _ => super::tables::GRANULE_64K,
        };
        // Level 1 of the 16 KiB granule has no leaves here and counts as any.
        let level = match command.level() {
            1 if granule == super::tables::GRANULE_16K => 0,
            level => level,
        };
        if command.number() == 0 && command.scale() == 0 && level == 0 {
            return None;
        }
        let granules = (u128::from(command.number()) + 1) << command.scale();
        let last = (u128::from(first.0) + (granules << granule) - 1).min(u128::from(u64::MAX)) as u64;
        let level = (level != 0).then_some(level);
        Some(AddressRange { first, last: Iova(last), leaf_only, granule: Some(granule), level })
    }
}

/// Bytes of one unit of a message address.
const MESSAGE_UNIT: u64 = 4;
