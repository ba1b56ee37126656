//! Invalidations on their way to devices, and what devices answer.
//!
//! Each carries one of 32 tags. A wait descriptor completes only when all earlier ones are. A device may take as long as it
//! likes: when a time-out has passed (the caller's decision; PCIe recommends 60 to 90 s) the unit sets ITE, drops the wait
//! descriptor that waited, and fetches nothing until software clears the bit. A completion with a tag that is not under way
//! to that device sets ICE and stops nothing.

use super::unit::Unit;
use crate::addr::Bdf;
use crate::request::Message;

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
        let owned = self.devices.complete(source, itags);
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
        let Some(source) = self.devices.give_up(itag) else {
            return DeviceAnswer { queue_work: self.queue_has_work(), ..DeviceAnswer::default() };
        };
        self.queue.error.set_timeout_source(source.0);
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
