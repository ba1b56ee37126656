//! KHO, generation B: include/linux/kho/abi/kexec_handover.h and abi/block.h (linux-mm, 2026).

use super::{AbiStruct, member};

/// `compatible` of the root node. A kernel of another generation ignores the hand-over.
pub const COMPATIBLE: &str = "kho-v2";
/// Property: string, which format this is.
pub const PROP_COMPATIBLE: &str = "compatible";
/// Property of the root: u64, address of the tracker's root.
pub const PROP_PRESERVED_MEMORY_MAP: &str = "preserved-memory-map";
/// Property of a subtree: u64, address of its blob.
pub const PROP_PRESERVED_DATA: &str = "preserved-data";
/// Property of a subtree: u64, bytes of its blob.
pub const PROP_BLOB_SIZE: &str = "blob-size";
/// String table of the root page.
pub const STRINGS: &str = "compatible\0preserved-memory-map\0preserved-data\0blob-size\0";

/// `struct kho_vmalloc`.
pub const VMALLOC: AbiStruct = AbiStruct {
    name: "kho_vmalloc",
    bytes: 16,
    fields: &[member("first", 0, 8), member("total_pages", 8, 4), member("flags", 12, 2), member("order", 14, 2)],
};

/// Header of `struct kho_vmalloc_chunk`; 511 addresses of 8 bytes follow, ended by 0.
pub const VMALLOC_CHUNK: AbiStruct = AbiStruct { name: "kho_vmalloc_chunk", bytes: 4096, fields: &[member("next", 0, 8)] };

/// `struct kho_block_header_ser`; the entries of the set follow.
pub const BLOCK_HEADER: AbiStruct =
    AbiStruct { name: "kho_block_header_ser", bytes: 16, fields: &[member("next", 0, 8), member("count", 8, 8)] };

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 4096;
/// Most blocks of a set.
pub const BLOCKS_MAX: u64 = 10_000;

const _: () = assert!(VMALLOC.is_sound() && VMALLOC_CHUNK.is_sound() && BLOCK_HEADER.is_sound());
