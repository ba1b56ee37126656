//! What a walk has to find allowed.

use crate::ats::{Attributes, RequestKind};
use crate::cache::iotlb::IotlbEntry;
use crate::request::{Access, Request};

/// Permissions of which at least one must be granted, and whether execution must be too. A memory access needs its own
/// permission; a translation request is content with any that the device may want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need(u8);

/// Bits of [`Need`].
const READ: u8 = 1;
const WRITE: u8 = 2;
const EXECUTE: u8 = 4;

impl Need {
    pub(crate) const READ: Self = Self(READ);

    /// That an answer to a translation request says nothing of execution is an assumption.
    #[inline]
    pub(crate) const fn of(request: &Request, attributes: Attributes) -> Self {
        match attributes.kind {
            RequestKind::Translation { no_write: false } => Self(READ | WRITE),
            RequestKind::Translation { no_write: true } => Self(READ),
            _ => {
                let execute = if attributes.execute && request.pasid.is_some() { EXECUTE } else { 0 };
                match request.access {
                    Access::Read => Self(READ | execute),
                    Access::Write => Self(WRITE | execute),
                }
            }
        }
    }

    /// Whether these permissions serve it.
    #[inline(always)]
    pub(crate) const fn allowed_by(self, readable: bool, writable: bool) -> bool {
        self.0 & (readable as u8 | (writable as u8) << 1) != 0
    }

    /// Whether a cached page serves it without a walk.
    #[inline(always)]
    pub(crate) const fn served_by(self, page: &IotlbEntry) -> bool {
        self.allowed_by(page.readable, page.writable)
            && (page.dirty || !self.writes(page.writable))
            && (page.executable || !self.executes())
    }

    /// Whether a page with this permission is going to be written, so that D must be set.
    #[inline(always)]
    pub(crate) const fn writes(self, writable: bool) -> bool {
        writable && self.0 & WRITE != 0
    }

    /// Whether nothing but writing is wanted.
    #[inline(always)]
    pub(crate) const fn is_write(self) -> bool {
        self.0 & (READ | WRITE) == WRITE
    }

    /// Whether execution is wanted.
    #[inline(always)]
    pub(crate) const fn executes(self) -> bool {
        self.0 & EXECUTE != 0
    }

    /// The same without the wish to write, unless that is all it is.
    pub(crate) const fn unless_writable(self, writable: bool) -> Self {
        if writable || self.is_write() { self } else { Self(self.0 & !WRITE) }
    }
}
