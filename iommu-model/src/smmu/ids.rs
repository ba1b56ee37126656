//! Ids that only this architecture has. A SubstreamID is a [`Pasid`](crate::Pasid).

use crate::addr::hex_fmt;

/// StreamID: the stream table index of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId(pub u32);

/// VMID: the tag of a stage 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vmid(pub u16);

/// ASID: the tag of a stage 1 within a VMID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Asid(pub u16);

hex_fmt!(StreamId, Vmid, Asid);
