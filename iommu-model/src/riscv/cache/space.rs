//! The tags of cached translations. Specification, "Identifiers used to tag IOATC entries".

use crate::riscv::id::{Gscid, Pscid};

/// The address space that a cached translation belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// First stage of the host.
    Host(Pscid),
    /// What the host's first stages mark as global: serves every PSCID.
    HostGlobal,
    /// First stage on a second one.
    Guest(Gscid, Pscid),
    /// What the first stages of one guest mark as global: serves every PSCID of it.
    GuestGlobal(Gscid),
    /// Second stage alone: guest-physical addresses.
    GuestPhysical(Gscid),
    /// MSI page table: guest-physical addresses of interrupt files.
    GuestMessages(Gscid),
}

impl Space {
    /// The GSCID, unless it is of the host.
    #[must_use]
    pub const fn gscid(self) -> Option<Gscid> {
        match self {
            Self::Host(_) | Self::HostGlobal => None,
            Self::Guest(gscid, _) | Self::GuestGlobal(gscid) | Self::GuestPhysical(gscid) | Self::GuestMessages(gscid) => Some(gscid),
        }
    }

    /// The PSCID, if it is of one.
    #[must_use]
    pub const fn pscid(self) -> Option<Pscid> {
        match self {
            Self::Host(pscid) | Self::Guest(_, pscid) => Some(pscid),
            _ => None,
        }
    }

    /// Whether a first stage was walked.
    #[must_use]
    pub const fn has_first_stage(self) -> bool {
        !matches!(self, Self::GuestPhysical(_) | Self::GuestMessages(_))
    }

    /// Where global pages of this space are.
    pub(crate) const fn global(self) -> Self {
        match self {
            Self::Host(_) => Self::HostGlobal,
            Self::Guest(gscid, _) => Self::GuestGlobal(gscid),
            other => other,
        }
    }

    /// GSCID, and kind with PSCID.
    #[inline(always)]
    pub(crate) const fn code(self) -> (u64, u32) {
        match self {
            Self::Host(pscid) => (0, pscid.0),
            Self::HostGlobal => (0, 1 << KIND_SHIFT),
            Self::Guest(gscid, pscid) => (gscid.0 as u64, pscid.0 | 2 << KIND_SHIFT),
            Self::GuestGlobal(gscid) => (gscid.0 as u64, 3 << KIND_SHIFT),
            Self::GuestPhysical(gscid) => (gscid.0 as u64, 4 << KIND_SHIFT),
            Self::GuestMessages(gscid) => (gscid.0 as u64, 5 << KIND_SHIFT),
        }
    }
}

/// Above the 20 bits of a PSCID.
const KIND_SHIFT: u32 = 20;
/// Above the three bits of a kind.
pub(crate) const SPACE_BITS: u32 = 23;
