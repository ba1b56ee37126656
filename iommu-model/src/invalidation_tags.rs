//! The tags (ITag) of invalidations that are on their way to devices.
//!
//! A tag is not used again before the device has completed the invalidation or it has timed out; so at most 32 are under
//! way. Source: PCI Express base specification, chapter 10. The same for every architecture; what a unit does with a
//! completion, or with the lack of one, is its own matter.

use crate::addr::Bdf;

/// Tags there are.
pub(crate) const ITAGS: u8 = 32;

/// The tags under way.
#[derive(Clone, Debug)]
pub(crate) struct InvalidationTags {
    /// Bit n: ITag n is under way.
    busy: u32,
    /// To whom, and which function's depth it counts for.
    to: [(Bdf, Bdf); ITAGS as usize],
}

impl InvalidationTags {
    pub(crate) const fn new() -> Self {
        Self { busy: 0, to: [(Bdf(0), Bdf(0)); ITAGS as usize] }
    }

    /// How many are under way.
    pub(crate) const fn under_way(&self) -> u32 {
        self.busy.count_ones()
    }

    /// Bit n: ITag n is under way.
    pub(crate) const fn busy(&self) -> u32 {
        self.busy
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

    /// `source` completes the tags in `itags` that are under way to it; returns those.
    pub(crate) fn complete(&mut self, source: Bdf, itags: u32) -> u32 {
        let to_it = self.tags().filter(|tag| self.to[usize::from(*tag)].0 == source);
        let owned = to_it.fold(0, |all, tag| all | (1 << tag)) & itags;
        self.busy &= !owned;
        owned
    }

    /// Gives up a tag; returns whom it was under way to.
    pub(crate) fn give_up(&mut self, itag: u8) -> Option<Bdf> {
        let bit = 1u32.checked_shl(u32::from(itag))?;
        if self.busy & bit == 0 {
            return None;
        }
        self.busy &= !bit;
        Some(self.to[usize::from(itag)].0)
    }

    fn tags(&self) -> impl Iterator<Item = u8> + use<> {
        let busy = self.busy;
        (0..ITAGS).filter(move |tag| busy & (1 << tag) != 0)
    }
}
