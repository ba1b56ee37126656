//! memfd: include/linux/kho/abi/memfd.h, version 2.

use super::{AbiStruct, member};

/// `compatible` of the memfd file handler.
pub const COMPATIBLE: &str = "memfd-v2";

/// `struct memfd_luo_ser`; the last member is a `kho_vmalloc`.
pub const SER: AbiStruct = AbiStruct {
    name: "memfd_luo_ser",
    bytes: 48,
    fields: &[
        member("pos", 0, 8),
        member("size", 8, 8),
        member("seals", 16, 4),
        member("flags", 20, 4),
        member("nr_folios", 24, 8),
        member("folios", 32, 16),
    ],
};

/// `struct memfd_luo_folio_ser`: pfn in the low 52 bits, flags above.
pub const FOLIO: AbiStruct = AbiStruct { name: "memfd_luo_folio_ser", bytes: 16, fields: &[member("pfn", 0, 8), member("index", 8, 8)] };

/// Bits of the frame number in a [`FOLIO`].
pub const FOLIO_PFN_MASK: u64 = (1 << 52) - 1;
/// The folio was dirty.
pub const FOLIO_DIRTY: u64 = 1 << 52;
/// The folio's content was valid.
pub const FOLIO_UPTODATE: u64 = 1 << 53;

const _: () = assert!(SER.is_sound() && FOLIO.is_sound());
