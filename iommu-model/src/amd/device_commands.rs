//! INVALIDATE_IOTLB_PAGES and COMPLETE_PPR_REQUEST: what goes to devices, and what they answer. 48882 sections 2.4.4, 2.4.7.
//!
//! An invalidation is sent when its command is carried out; the next COMPLETION_WAIT waits until every device has completed.
//! It is never put off, but it overtakes invalidations of the unit's own caches that are: software that does not wait between
//! both lets the device take the stale translation again. At most 32 are under way, and Maxpend to one queue id.
//!
//! When the time-out of the control register has passed (the caller's decision), IOTLB_INV_TIMEOUT is logged. That the
//! invalidation then counts as over, so that a COMPLETION_WAIT goes on, is an assumption.

use super::command_buffer::CommandProgress;
use super::unit::Unit;
use crate::addr::{Bdf, Pa, Pasid};
use crate::ats::{DeviceInvalidation, PageRange, PageResponse, ResponseCode};
use crate::invalidation_tags::ITAGS;
use crate::request::Message;
use crate::spec::amd::command::{CompletePpr, InvalidateIotlb};
use crate::spec::amd::event::{EventCode, EventWord};

/// A decoded INVALIDATE_IOTLB_PAGES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceTarget {
    device: Bdf,
    pasid: Option<Pasid>,
    range: PageRange,
    queue: Bdf,
    /// Most that may be under way to the queue; Maxpend 0 is no limit (assumption).
    depth: u8,
    /// Where the command lies.
    command: Pa,
}

impl DeviceTarget {
    /// `None` if a reserved bit is set.
    pub(crate) fn decode(command: InvalidateIotlb) -> Option<Self> {
        if command.reserved_65() || command.reserved_67() || command.reserved_70() != 0 {
            return None;
        }
        let depth = if command.pending_max() == 0 { ITAGS } else { command.pending_max().min(ITAGS) };
        Some(Self {
            device: Bdf(command.device()),
            pasid: command.guest().then(|| Pasid(command.pasid())),
            range: PageRange::of_size_bit(command.page(), command.sized()),
            queue: Bdf(command.queue()),
            depth,
            command: Pa(0),
        })
    }

    /// The same, with the place of its command.
    pub(crate) fn at(self, command: Pa) -> Self {
        Self { command, ..self }
    }
}

/// The answer that COMPLETE_PPR_REQUEST sends.
pub(crate) fn decode_response(command: CompletePpr) -> PageResponse {
    PageResponse {
        source: Bdf(command.device()),
        pasid: command.guest().then(|| Pasid(command.pasid())),
        group: command.tag(),
        code: ResponseCode(command.status()),
    }
}

impl Unit {
    /// Sends the invalidation; `None` if it waits for others to be completed.
    pub(crate) fn invalidate_device_tlb(&mut self, target: DeviceTarget) -> Option<CommandProgress> {
        let DeviceTarget { device, pasid, range, queue, depth, command } = target;
        let itag = self.commands.devices.issue(device, queue, depth)?;
        self.commands.sent[usize::from(itag)] = command;
        let request = DeviceInvalidation { source: device, pasid, every_pasid: false, range, itag };
        Some(CommandProgress::InvalidateDevice { request, cost: self.params.timing.invalidate_device_tlb })
    }

    /// Whether the device takes one more.
    pub(crate) fn device_takes(&self, target: &DeviceTarget) -> bool {
        self.commands.devices.can_issue(target.queue, target.depth)
    }

    /// A device completes invalidations: bit n of `itags` names ITag n. By then it has removed what they cover, and its own
    /// accesses through removed translations have landed. Returns how many are over; tags that are not under way to it count
    /// for nothing.
    pub fn device_completes(&mut self, source: Bdf, itags: u32) -> u32 {
        self.commands.devices.complete(source, itags).count_ones()
    }

    /// The device has not completed this invalidation for too long. Nothing happens if it is not under way. Returns the event
    /// interrupt message, if it goes out.
    pub fn device_times_out(&mut self, itag: u8) -> Option<Message> {
        let source = self.commands.devices.give_up(itag)?;
        let word = EventWord::new().with_device(source.0).with_code(EventCode::IOTLB_TIMEOUT.0);
        let command = self.commands.sent[usize::from(itag)];
        self.log([word.into_bits(), command.0]).1
    }

    /// Invalidations that devices have not completed yet.
    #[must_use]
    pub const fn device_invalidations_under_way(&self) -> u32 {
        self.commands.devices.under_way()
    }
}
