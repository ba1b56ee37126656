//! Kernel pointers as numbers.
//!
//! A [`Ptr`] is the 64-bit value a C pointer would have: [`PAGE_OFFSET`] plus the physical address; 0 is NULL and the top 4095
//! values are error pointers. A [`Field`] is a typed offset inside a structure.

use std::fmt;
use std::marker::PhantomData;

use iommu_model::addr::Pa;

/// Start of the direct map (x86-64, four-level paging, no randomisation: Linux `Documentation/arch/x86/x86_64/mm.rst`).
pub const PAGE_OFFSET: u64 = 0xffff_8880_0000_0000;

/// A value a CPU loads or stores in one access.
pub trait Scalar: Copy {
    /// Bytes of the access.
    const BYTES: u8;
    /// The value from the low [`Scalar::BYTES`] bytes of `bits`.
    fn from_bits(bits: u64) -> Self;
    /// The value in the low bytes of the result.
    fn to_bits(self) -> u64;
}

macro_rules! scalar {
    ($($type:ty: $bytes:literal),*) => {$(
        impl Scalar for $type {
            const BYTES: u8 = $bytes;
            fn from_bits(bits: u64) -> Self { bits as $type }
            fn to_bits(self) -> u64 { self as u64 }
        }
    )*};
}
scalar!(u8: 1, u16: 2, u32: 4, u64: 8);

impl Scalar for i32 {
    const BYTES: u8 = 4;
    fn from_bits(bits: u64) -> Self {
        bits as u32 as i32
    }
    fn to_bits(self) -> u64 {
        u64::from(self as u32)
    }
}

impl Scalar for Pa {
    const BYTES: u8 = 8;
    fn from_bits(bits: u64) -> Self {
        Pa(bits)
    }
    fn to_bits(self) -> u64 {
        self.0
    }
}

/// A kernel pointer to a `T`.
pub struct Ptr<T> {
    value: u64,
    target: PhantomData<fn() -> T>,
}

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ptr<T> {}
impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}
impl<T> Eq for Ptr<T> {}
impl<T> fmt::Debug for Ptr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)
    }
}

impl<T> Scalar for Ptr<T> {
    const BYTES: u8 = 8;
    fn from_bits(bits: u64) -> Self {
        Ptr::new(bits)
    }
    fn to_bits(self) -> u64 {
        self.value
    }
}

impl<T> Ptr<T> {
    /// The NULL pointer.
    pub const NULL: Ptr<T> = Ptr::new(0);

    /// A pointer of the given value.
    pub const fn new(value: u64) -> Ptr<T> {
        Ptr { value, target: PhantomData }
    }
    /// The direct-map pointer to `pa` (`phys_to_virt`).
    pub const fn from_pa(pa: Pa) -> Ptr<T> {
        Ptr::new(PAGE_OFFSET.wrapping_add(pa.0))
    }
    /// An error pointer (`ERR_PTR`); `errno` is positive here.
    pub const fn err(errno: i32) -> Ptr<T> {
        Ptr::new((-(errno as i64)) as u64)
    }
    /// The value.
    pub const fn value(self) -> u64 {
        self.value
    }
    /// The physical address (`virt_to_phys`), as arithmetic: nothing is checked.
    pub const fn pa(self) -> Pa {
        Pa(self.value.wrapping_sub(PAGE_OFFSET))
    }
    /// True for NULL.
    pub const fn is_null(self) -> bool {
        self.value == 0
    }
    /// The positive errno when this is an error pointer (`IS_ERR`).
    pub const fn errno(self) -> Option<i32> {
        if self.value > u64::MAX - 4095 { Some((self.value.wrapping_neg()) as i32) } else { None }
    }
    /// The member at `field`.
    pub const fn at<F>(self, field: Field<F>) -> Ptr<F> {
        Ptr::new(self.value.wrapping_add(field.offset as u64))
    }
    /// The address `bytes` bytes further on, as a pointer to another type.
    pub const fn byte_add<U>(self, bytes: u64) -> Ptr<U> {
        Ptr::new(self.value.wrapping_add(bytes))
    }
    /// The same address as a pointer to another type.
    pub const fn cast<U>(self) -> Ptr<U> {
        Ptr::new(self.value)
    }
}

/// A member of a structure: offset in bytes, type, name.
pub struct Field<T> {
    /// Bytes from the start of the structure.
    pub offset: u16,
    /// Name as the kernel spells it.
    pub name: &'static str,
    target: PhantomData<fn() -> T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Field<T> {}
impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.offset)
    }
}

/// The member `name` at `offset` bytes.
pub const fn field<T>(offset: u16, name: &'static str) -> Field<T> {
    Field { offset, name, target: PhantomData }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_pointers_carry_their_errno_and_null_is_not_one() {
        assert_eq!(Ptr::<u64>::err(12).errno(), Some(12));
        assert_eq!(Ptr::<u64>::NULL.errno(), None);
        assert_eq!(Ptr::<u64>::from_pa(Pa(0x1000)).errno(), None);
    }
}
