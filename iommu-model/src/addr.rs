//! Typed addresses and ids shared by the whole workspace.
//!
//! All of them are plain numbers with a name: `Copy`, ordered, hashable, printed in hex. Arithmetic that may
//! leave the address space comes in a checked and a wrapping form; the model itself only uses forms that
//! cannot panic, because addresses come out of tables that may hold anything.

use core::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of the smallest page of every IOMMU modelled here.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A host-physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pa(pub u64);

impl Pa {
    /// The frame that holds this byte.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }

    /// The byte's place in its 4 KiB frame.
    #[must_use]
    pub const fn page_offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// This address plus `bytes`, wrapping at 2^64.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// This address plus `bytes`, or `None` beyond 2^64.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Whether the address is a multiple of `bytes`, a power of two.
    #[must_use]
    pub const fn is_aligned(self, bytes: u64) -> bool {
        self.0 & (bytes - 1) == 0
    }
}

/// A host-physical frame number: a [`Pa`] without its low [`PAGE_SHIFT`] bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The first byte of the frame. Frame numbers above 2^52 lose their top bits.
    #[must_use]
    pub const fn pa(self) -> Pa {
        Pa(self.0 << PAGE_SHIFT)
    }
}

/// An I/O virtual address as a device puts it on the bus, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Iova(pub u64);

impl Iova {
    /// The number of the 4 KiB page that holds this byte.
    #[must_use]
    pub const fn page_number(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }

    /// The address of the 4 KiB page that holds this byte.
    #[must_use]
    pub const fn page(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The byte's place in its 4 KiB page.
    #[must_use]
    pub const fn page_offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// This address plus `bytes`, wrapping at 2^64.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// A PCI requester id: bus 15:8, device 7:3, function 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bdf(pub u16);

impl Bdf {
    /// The id of `bus:dev.function`; only the low 5 bits of `dev` and 3 of `function` count.
    #[must_use]
    pub const fn new(bus: u8, dev: u8, function: u8) -> Self {
        Self(((bus as u16) << 8) | (((dev & 0x1f) as u16) << 3) | ((function & 7) as u16))
    }

    /// Bus number: the root-table index.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device and function together: the context-table index.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn dev(self) -> u8 {
        self.devfn() >> 3
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }
}

/// A domain id: the tag under which caches hold translations (VT-d DID).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DomainId(pub u16);

/// A process address-space id, 20 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pasid(pub u32);

/// Prints ids and addresses in hexadecimal: bare for people, with their type for debugging.
macro_rules! hex_fmt {
    ($($name:ident),*) => {$(
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    )*};
}
hex_fmt!(Pa, Pfn, Iova, DomainId, Pasid);
pub(crate) use hex_fmt;

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus(), self.dev(), self.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bdf({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requester_id_reads_as_lspci_prints_it() {
        let bdf = Bdf::new(0x3b, 2, 1);
        assert_eq!((bdf.bus(), bdf.devfn(), bdf.dev(), bdf.function()), (0x3b, 0x11, 2, 1));
        assert_eq!(bdf.to_string(), "3b:02.1");
        assert_eq!(format!("{:?}", Bdf(0x3b00)), "Bdf(3b:00.0)");
    }

    #[test]
    fn a_frame_and_its_offset_make_the_address_again() {
        let pa = Pa(0x1234_5678);
        assert_eq!(pa.pfn(), Pfn(0x12345));
        assert_eq!(pa.pfn().pa().offset(pa.page_offset()), pa);
        assert_eq!(pa.to_string(), "0x12345678");
        assert_eq!(Pa(u64::MAX).checked_add(1), None);
    }
}
