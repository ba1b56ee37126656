//! The tags of cached translations.

use crate::addr::{DomainId, Pasid};

/// The address space that a cached translation belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// Host translation of a domain; in a nested one, of its guest-physical addresses.
    Host(DomainId),
    /// Guest translation of a PASID of a domain.
    Guest(DomainId, Pasid),
}

impl Space {
    /// The domain.
    #[must_use]
    pub const fn domain(self) -> DomainId {
        match self {
            Self::Host(domain) | Self::Guest(domain, _) => domain,
        }
    }

    /// The PASID of a guest translation.
    #[must_use]
    pub const fn pasid(self) -> Option<Pasid> {
        match self {
            Self::Host(_) => None,
            Self::Guest(_, pasid) => Some(pasid),
        }
    }

    /// What finds room above the size in a tag, and the other half of the key: 37 bits in all.
    #[inline(always)]
    pub(crate) const fn code(self) -> (u64, u32) {
        match self {
            Self::Host(domain) => (0, domain.0 as u32),
            Self::Guest(domain, pasid) => {
                let high = (pasid.0 >> LOW_PASID_BITS) as u64 & 0xf;
                ((1 | high << 1) << CODE_SHIFT, domain.0 as u32 | pasid.0 << LOW_PASID_BITS)
            }
        }
    }
}

/// PASID bits beside the domain in the second half of a key.
const LOW_PASID_BITS: u32 = 16;
/// Above a page number of 52 bits and a size of 6.
const CODE_SHIFT: u32 = 58;
/// Above a page number.
pub(crate) const SIZE_SHIFT: u32 = 52;
