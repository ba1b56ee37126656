//! Ids that only this architecture has. A process_id is a [`Pasid`](crate::Pasid).

use crate::addr::{Bdf, hex_fmt};

/// A device_id, 24 bits. For PCIe: segment 23:16, requester id 15:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// The PCIe requester id: the low 16 bits.
    #[must_use]
    pub const fn bdf(self) -> Bdf {
        Bdf(self.0 as u16)
    }
}

impl From<Bdf> for DeviceId {
    fn from(bdf: Bdf) -> Self {
        Self(u32::from(bdf.0))
    }
}

/// A guest soft-context id, 16 bits: names a second-stage address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Gscid(pub u16);

/// A process soft-context id, 20 bits: names a first-stage address space, of the host or of one GSCID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pscid(pub u32);

hex_fmt!(DeviceId, Gscid, Pscid);
