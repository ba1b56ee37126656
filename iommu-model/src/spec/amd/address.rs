//! Ranges of device addresses that are not memory. 48882 section 2.1.

/// First address of the range where writes are interrupts. QEMU and VirtualBox agree.
pub const INTERRUPT_RANGE_FIRST: u64 = 0xfee0_0000;
/// Last address of that range.
pub const INTERRUPT_RANGE_LAST: u64 = 0xfeef_ffff;
