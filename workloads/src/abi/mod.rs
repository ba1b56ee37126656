//! Layouts of what one kernel hands to the next, as plain tables: names, offsets and sizes, nothing that behaves.
//!
//! Each structure is declared once per revision; kernels take their [`Field`]s from the same table that the decoder prints.

use sim::memory::{Field, field};

pub mod iommu;
pub mod iommufd;
pub mod kho;
pub mod luo;
pub mod memfd;
pub mod vfio;

/// One member of a handed-over structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbiField {
    /// Name as the kernel spells it.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: u16,
    /// Bytes of the member.
    pub bytes: u16,
}

/// One handed-over structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbiStruct {
    /// Name as the kernel spells it.
    pub name: &'static str,
    /// Bytes of the structure.
    pub bytes: u16,
    /// Its members in order of offset; bytes between them are padding.
    pub fields: &'static [AbiField],
}

/// A member, in short.
pub(crate) const fn member(name: &'static str, offset: u16, bytes: u16) -> AbiField {
    AbiField { name, offset, bytes }
}

impl AbiStruct {
    /// True when the members ascend, do not overlap and lie inside the structure.
    pub const fn is_sound(&self) -> bool {
        let mut end = 0;
        let mut i = 0;
        while i < self.fields.len() {
            if self.fields[i].offset < end {
                return false;
            }
            end = self.fields[i].offset + self.fields[i].bytes;
            i += 1;
        }
        end <= self.bytes
    }

    /// The member called `name`, if this revision has it.
    pub const fn member(&self, name: &str) -> Option<AbiField> {
        let mut i = 0;
        while i < self.fields.len() {
            if same(self.fields[i].name, name) {
                return Some(self.fields[i]);
            }
            i += 1;
        }
        None
    }

    /// Offset of the member `name`, if this revision has it.
    pub const fn offset_of(&self, name: &str) -> Option<u16> {
        match self.member(name) {
            Some(member) => Some(member.offset),
            None => None,
        }
    }

    /// The member `name` for a kernel to access.
    ///
    /// # Panics
    /// When this revision has no such member.
    pub const fn field<T>(&self, name: &'static str) -> Field<T> {
        match self.offset_of(name) {
            Some(offset) => field(offset, name),
            None => panic!("no such member"),
        }
    }
}

/// String equality, in const.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
