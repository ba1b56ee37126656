//! Register offsets and fields. Specification, "Memory-mapped register interface".

use bitfield_struct::bitfield;

/// capabilities.
pub const OFFSET_CAPABILITIES: u64 = 0;
/// fctl.
pub const OFFSET_FCTL: u64 = 8;
/// ddtp.
pub const OFFSET_DDTP: u64 = 16;
/// cqb.
pub const OFFSET_CQB: u64 = 24;
/// cqh.
pub const OFFSET_CQH: u64 = 32;
/// cqt.
pub const OFFSET_CQT: u64 = 36;
/// fqb.
pub const OFFSET_FQB: u64 = 40;
/// fqh.
pub const OFFSET_FQH: u64 = 48;
/// fqt.
pub const OFFSET_FQT: u64 = 52;
/// pqb.
pub const OFFSET_PQB: u64 = 56;
/// pqh.
pub const OFFSET_PQH: u64 = 64;
/// pqt.
pub const OFFSET_PQT: u64 = 68;
/// cqcsr.
pub const OFFSET_CQCSR: u64 = 72;
/// fqcsr.
pub const OFFSET_FQCSR: u64 = 76;
/// pqcsr.
pub const OFFSET_PQCSR: u64 = 80;
/// ipsr.
pub const OFFSET_IPSR: u64 = 84;
/// tr_req_iova.
pub const OFFSET_TR_REQ_IOVA: u64 = 600;
/// tr_req_ctl.
pub const OFFSET_TR_REQ_CTL: u64 = 608;
/// tr_response.
pub const OFFSET_TR_RESPONSE: u64 = 616;
/// icvec.
pub const OFFSET_ICVEC: u64 = 760;
/// msi_cfg_tbl: 16 entries of 16 bytes: address, data, vector control.
pub const OFFSET_MSI_CFG_TBL: u64 = 768;
/// Bytes of an entry of the MSI configuration table.
pub const MSI_CFG_ENTRY_BYTES: u64 = 16;
/// Byte of a message's data in its entry.
pub const MSI_CFG_DATA: u64 = 8;
/// Byte of the vector control in its entry.
pub const MSI_CFG_CONTROL: u64 = 12;
/// Entries of the MSI configuration table.
pub const MSI_VECTORS: u8 = 16;

/// iommu_mode: no request passes.
pub const MODE_OFF: u8 = 0;
/// iommu_mode: every untranslated request passes as it is.
pub const MODE_BARE: u8 = 1;
/// iommu_mode: a device directory of one level.
pub const MODE_1LVL: u8 = 2;
/// iommu_mode: two levels.
pub const MODE_2LVL: u8 = 3;
/// iommu_mode: three levels.
pub const MODE_3LVL: u8 = 4;

/// ddtp, offset 16.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DirectoryPointer {
    /// iommu_mode, bits 3:0.
    #[bits(4)]
    pub mode: u8,
    /// busy, bit 4, read-only.
    pub busy: bool,
    /// Bits 9:5, reserved.
    #[bits(5)]
    pub reserved_5: u8,
    /// PPN, bits 53:10: frame of the root table.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 63:54, reserved.
    #[bits(10)]
    pub reserved_54: u16,
}

/// cqb, fqb and pqb, offsets 24, 40 and 56.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    /// LOG2SZ-1, bits 4:0: the queue has 2^(this + 1) entries.
    #[bits(5)]
    pub log2_size_minus_1: u8,
    /// Bits 9:5, reserved.
    #[bits(5)]
    pub reserved_5: u8,
    /// PPN, bits 53:10: frame of the queue.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 63:54, reserved.
    #[bits(10)]
    pub reserved_54: u16,
}

/// cqcsr, offset 72.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CommandQueueControl {
    /// cqen, bit 0.
    pub enable: bool,
    /// cie, bit 1.
    pub interrupt_enable: bool,
    /// Bits 7:2, reserved.
    #[bits(6)]
    pub reserved_2: u8,
    /// cqmf, bit 8: a command could not be read, or its store failed. Write 1 to clear.
    pub memory_fault: bool,
    /// cmd_to, bit 9: a fence found a command that timed out. Write 1 to clear.
    pub timeout: bool,
    /// cmd_ill, bit 10: an illegal or unsupported command. Write 1 to clear.
    pub illegal: bool,
    /// fence_w_ip, bit 11: a fence with WSI is complete. Write 1 to clear.
    pub fence_pending: bool,
    /// Bits 15:12, reserved.
    #[bits(4)]
    pub reserved_12: u8,
    /// cqon, bit 16, read-only.
    pub on: bool,
    /// busy, bit 17, read-only.
    pub busy: bool,
    /// Bits 27:18, reserved.
    #[bits(10)]
    pub reserved_18: u16,
    /// Bits 31:28, custom.
    #[bits(4)]
    pub custom: u8,
}

/// fqcsr and pqcsr, offsets 76 and 80.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RecordQueueControl {
    /// fqen or pqen, bit 0.
    pub enable: bool,
    /// fie or pie, bit 1.
    pub interrupt_enable: bool,
    /// Bits 7:2, reserved.
    #[bits(6)]
    pub reserved_2: u8,
    /// fqmf or pqmf, bit 8: a record could not be stored. Write 1 to clear.
    pub memory_fault: bool,
    /// fqof or pqof, bit 9: a record found the queue full. Write 1 to clear.
    pub overflow: bool,
    /// Bits 15:10, reserved.
    #[bits(6)]
    pub reserved_10: u8,
    /// fqon or pqon, bit 16, read-only.
    pub on: bool,
    /// busy, bit 17, read-only.
    pub busy: bool,
    /// Bits 27:18, reserved.
    #[bits(10)]
    pub reserved_18: u16,
    /// Bits 31:28, custom.
    #[bits(4)]
    pub custom: u8,
}

/// ipsr, offset 84; every bit is write 1 to clear.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptPending {
    /// cip, bit 0: command queue.
    pub command: bool,
    /// fip, bit 1: fault queue.
    pub fault: bool,
    /// pmip, bit 2: performance monitor.
    pub monitor: bool,
    /// pip, bit 3: page-request queue.
    pub page_request: bool,
    /// Bits 31:4, reserved and custom.
    #[bits(28)]
    pub reserved: u32,
}

/// icvec, offset 760.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptVectors {
    /// civ, bits 3:0.
    #[bits(4)]
    pub command: u8,
    /// fiv, bits 7:4.
    #[bits(4)]
    pub fault: u8,
    /// pmiv, bits 11:8.
    #[bits(4)]
    pub monitor: u8,
    /// piv, bits 15:12.
    #[bits(4)]
    pub page_request: u8,
    /// Bits 63:16, reserved and custom.
    #[bits(48)]
    pub reserved: u64,
}

/// msi_addr_x.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MessageAddress {
    /// Bits 1:0, fixed 0.
    #[bits(2)]
    pub zero: u8,
    /// ADDR, bits 55:2: address in units of 4 bytes.
    #[bits(54)]
    pub address: u64,
    /// Bits 63:56, reserved.
    pub reserved: u8,
}

/// Bytes in a unit of [`MessageAddress::address`] and of a fence's address.
pub const WORD_BYTES: u64 = 4;

/// msi_vec_ctl_x.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VectorControl {
    /// M, bit 0: no message is sent; it stays pending.
    pub masked: bool,
    /// Bits 31:1, reserved.
    #[bits(31)]
    pub reserved: u32,
}

/// tr_req_iova, offset 600.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationRequestIova {
    /// Bits 11:0, reserved.
    #[bits(12)]
    pub reserved: u16,
    /// vpn, bits 63:12: page number.
    #[bits(52)]
    pub page: u64,
}

/// tr_req_ctl, offset 608.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationRequestControl {
    /// Go/Busy, bit 0: set by software, cleared at the end.
    pub go: bool,
    /// Priv, bit 1.
    pub privileged: bool,
    /// Exe, bit 2.
    pub execute: bool,
    /// NW, bit 3: read permission only; else read and write.
    pub no_write: bool,
    /// Bits 11:4, reserved.
    pub reserved_4: u8,
    /// PID, bits 31:12; counts only with PV.
    #[bits(20)]
    pub process: u32,
    /// PV, bit 32.
    pub process_valid: bool,
    /// Bits 35:33, reserved.
    #[bits(3)]
    pub reserved_33: u8,
    /// Bits 39:36, custom.
    #[bits(4)]
    pub custom: u8,
    /// DID, bits 63:40.
    #[bits(24)]
    pub device: u32,
}

/// tr_response, offset 616, read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationResponse {
    /// fault, bit 0.
    pub fault: bool,
    /// Bits 6:1, reserved.
    #[bits(6)]
    pub reserved_1: u8,
    /// PBMT, bits 8:7.
    #[bits(2)]
    pub memory_type: u8,
    /// S, bit 9: the page is larger than 4 KiB; its size is in the low bits of the PPN.
    pub large: bool,
    /// PPN, bits 53:10.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 59:54, reserved.
    #[bits(6)]
    pub reserved_54: u8,
    /// Bits 63:60, custom.
    #[bits(4)]
    pub custom: u8,
}

impl TranslationResponse {
    /// Bits of the PPN.
    pub const PPN_MASK: u64 = (1 << 44) - 1;
}
