//! CMD_ATC_INV: invalidations on their way to devices, and what devices answer. IHI 0070 sections 4.5.1 and 3.9.1.4.
//! CMD_PRI_RESP: answers to page requests. Section 4.5.2.
//!
//! The command is consumed when it has left, which promises nothing: the next CMD_SYNC waits until every device has completed.
//! A device may take as long as it likes; when a time-out has passed (the caller's decision) its invalidation is given up, and
//! the CMD_SYNC that waits for it stops the queue with CERROR_ATC_INV_SYNC. Repeated, it finds nothing to wait for.
//!
//! Unlike an invalidation of the SMMU itself the command is never put off, but it overtakes those that are: a device may be
//! told before the SMMU's own caches are clean, and take the stale translation again. That is why section 4.5.1 wants a
//! CMD_SYNC between both. While SMMUEN is clear, and where no device has the StreamID, nothing is sent.

use super::command::CommandProgress;
use super::ids::StreamId;
use super::unit::Unit;
use crate::addr::{Bdf, Iova, PAGE_SHIFT, Pasid};
use crate::ats::{DeviceInvalidation, PageRange, PageResponse, ResponseCode};
use crate::invalidation_tags::ITAGS;
use crate::spec::smmu::command::{ATC_SIZE_ALL, AtcCommand, PageResponseCommand, RESPONSE_FAILURE, RESPONSE_INVALID, RESPONSE_SUCCESS};

/// A decoded CMD_ATC_INV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceTarget {
    stream: StreamId,
    pasid: Option<Pasid>,
    every_pasid: bool,
    range: PageRange,
}

impl DeviceTarget {
    /// `None` if the command is illegal. A SubstreamID on a unit without is left out, one of two allowed behaviours.
    pub(crate) fn decode(command: AtcCommand, substream_bits: u8) -> Option<Self> {
        if command.secure() || command.size() > ATC_SIZE_ALL {
            return None;
        }
        let tagged = command.substream_valid() && substream_bits != 0;
        let all = command.size() == ATC_SIZE_ALL;
        let range = PageRange { address: Iova(command.page() << PAGE_SHIFT), order: command.size() };
        Some(Self {
            stream: StreamId(command.stream()),
            pasid: tagged.then(|| Pasid(command.substream())),
            every_pasid: tagged && command.global(),
            range: if all { PageRange::ALL } else { range },
        })
    }
}

impl Unit {
    /// The device of a StreamID, if there is one.
    fn device_of(&self, stream: StreamId) -> Option<Bdf> {
        u16::try_from(stream.0.wrapping_sub(self.params.stream_base.0)).ok().map(Bdf)
    }

    /// `None` if the command is illegal; `Some(None)` if no device has the StreamID.
    pub(crate) fn decode_response(&self, command: PageResponseCommand) -> Option<Option<PageResponse>> {
        let code = match command.response() {
            RESPONSE_FAILURE => ResponseCode::FAILURE,
            RESPONSE_INVALID => ResponseCode::INVALID,
            RESPONSE_SUCCESS => ResponseCode::SUCCESS,
            _ => return None,
        };
        let tagged = command.substream_valid() && self.cap.substream_bits != 0;
        let pasid = tagged.then(|| Pasid(command.substream()));
        let device = self.device_of(StreamId(command.stream()));
        (!command.secure()).then(|| device.map(|source| PageResponse { source, pasid, group: command.group(), code }))
    }

    /// Sends a response; nothing is sent while SMMUEN is clear.
    pub(crate) fn respond(&mut self, response: PageResponse) -> CommandProgress {
        let cost = self.params.timing.invalidate_device_tlb;
        if self.enabled { CommandProgress::Respond { response, cost } } else { CommandProgress::Consumed { done: None, cost } }
    }

    /// Sends the invalidation; `None` if it waits for a tag.
    pub(crate) fn invalidate_device(&mut self, target: DeviceTarget) -> Option<CommandProgress> {
        let cost = self.params.timing.invalidate_device_tlb;
        let (true, Some(source)) = (self.enabled, self.device_of(target.stream)) else {
            return Some(CommandProgress::Consumed { done: None, cost });
        };
        let itag = self.commands.devices.issue(source, source, ITAGS)?;
        let DeviceTarget { pasid, every_pasid, range, .. } = target;
        let request = DeviceInvalidation { source, pasid, every_pasid, range, itag };
        Some(CommandProgress::InvalidateDevice { request, cost })
    }

    /// A device completes invalidations: bit n of `itags` names ITag n. By then it has removed what they cover, and its own
    /// accesses through removed translations have landed. Returns how many are over; tags that are not under way to it count
    /// for nothing.
    pub fn device_completes(&mut self, source: Bdf, itags: u32) -> u32 {
        self.commands.devices.complete(source, itags).count_ones()
    }

    /// The device has not completed this invalidation for too long. Returns whether it was under way.
    pub fn device_times_out(&mut self, itag: u8) -> bool {
        let known = self.commands.devices.give_up(itag).is_some();
        self.commands.device_timed_out |= known;
        known
    }

    /// Invalidations that devices have not completed yet.
    #[must_use]
    pub const fn device_invalidations_under_way(&self) -> u32 {
        self.commands.devices.under_way()
    }
}
