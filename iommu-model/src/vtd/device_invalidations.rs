//! Invalidations on their way to devices, and what devices answer.
//!
//! Each carries a tag (ITag) that is not used again before the device has completed it or it has timed out; so at most 32
//! are under way. A wait descriptor completes only when all earlier ones are. A device may take as long as it likes: when a
//! time-out has passed (the caller's decision; PCIe recommends 60 to 90 s) the unit sets ITE, drops the wait descriptor
//! that waited, and fetches nothing until software clears the bit. A completion with a tag that is not under way to that
//! device sets ICE and stops nothing.

use super::unit::Unit;
use crate::addr::Bdf;
use crate::request::Message;

/// Tags there are.
const ITAGS: u8 = 32;

/// The tags under way.
#[derive(Clone, Debug)]
pub(crate) struct DeviceInvalidations {
    /// Bit n: ITag n is under way.
    busy: u32,
    /// To whom, and which function's depth it counts for.
    to: [(Bdf, Bdf); ITAGS as usize],
}

impl DeviceInvalidations {
    pub(crate) const fn new() -> Self {
        Self { busy: 0, to: [(Bdf(0), Bdf(0)); ITAGS as usize] }
    }

    pub(crate) const fn under_way(&self) -> u32 {
        self.busy.count_ones()
    }

    /// Whether a tag is free, and the device takes one more.
    pub(crate) fn can_issue(&self, physical: Bdf, depth: u8) -> bool {
        let mine = self.tags().filter(|tag| self.to[usize::from(*tag)].1 == physical).count();
        self.busy != u32::MAX && mine < usize::from(depth)
    }

    /// A tag for one more invalidation, if neither tags nor the depth of the device are used up.
    pub(crate) fn issue(&mut self, source: Bdf, physical: Bdf, depth: u8) -> Option<u8> {
        if !self.can_issue(physical, depth) {
            return None;
        }
        let free = self.busy.trailing_ones() as u8;
        self.busy |= 1 << free;
        self.to[usize::from(free)] = (source, physical);
        Some(free)
    }

    fn tags(&self) -> impl Iterator<Item = u8> {
        let busy = self.busy;
        (0..ITAGS).filter(move |tag| busy & (1 << tag) != 0)
    }

    /// The tags among `itags` that are under way to `source`.
    fn owned(&self, source: Bdf, itags: u32) -> u32 {
        self.tags().filter(|tag| self.to[usize::from(*tag)].0 == source).fold(0, |all, tag| all | (1 << tag)) & itags
    }
}

/// What an answer of a device, or its absence, set off.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceAnswer {
    /// Invalidations that are over now.
    pub completed: u32,
    /// ICE or ITE was set.
    pub error: bool,
    /// The fault event message, if it goes out.
    pub message: Option<Message>,
    /// The queue has something to do: call `queue_advance`.
    pub queue_work: bool,
}

impl Unit {
    /// A device completes invalidations: bit n of `itags` names ITag n. By then it has removed what they cover, and its own
    /// accesses through removed translations have landed.
    pub fn device_completes(&mut self, source: Bdf, itags: u32) -> DeviceAnswer {
        let owned = self.devices.owned(source, itags);
        self.devices.busy &= !owned;
        let error = owned != itags;
        let mut message = None;
        if error {
            self.queue.error.set_completion_source(source.0);
            message = self.faults.completion_error();
        }
        DeviceAnswer { completed: owned.count_ones(), error, message, queue_work: self.queue_has_work() }
    }

    /// The device has not completed this invalidation for too long. Nothing happens if it is not under way.
    pub fn device_times_out(&mut self, itag: u8) -> DeviceAnswer {
        if itag >= ITAGS || self.devices.busy & (1 << itag) == 0 {
            return DeviceAnswer { queue_work: self.queue_has_work(), ..DeviceAnswer::default() };
        }
        self.devices.busy &= !(1 << itag);
        self.queue.error.set_timeout_source(self.devices.to[usize::from(itag)].0.0);
        self.queue.abort_wait();
        let message = self.faults.timeout_error();
        DeviceAnswer { completed: 0, error: true, message, queue_work: self.queue_has_work() }
    }

    /// Invalidations that devices have not completed yet.
    #[must_use]
    pub const fn device_invalidations_under_way(&self) -> u32 {
        self.devices.under_way()
    }
}
