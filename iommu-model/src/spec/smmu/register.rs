//! Register offsets and layouts, chapter 6: the non-secure programming interface.

use bitfield_struct::bitfield;

/// SMMU_IDR0.
pub const OFFSET_IDR0: u64 = 0x00;
/// SMMU_IDR1.
pub const OFFSET_IDR1: u64 = 0x04;
/// SMMU_IDR3.
pub const OFFSET_IDR3: u64 = 0x0c;
/// SMMU_IDR5.
pub const OFFSET_IDR5: u64 = 0x14;
/// SMMU_AIDR.
pub const OFFSET_AIDR: u64 = 0x1c;
/// SMMU_CR0.
pub const OFFSET_CR0: u64 = 0x20;
/// SMMU_CR0ACK.
pub const OFFSET_CR0ACK: u64 = 0x24;
/// SMMU_CR1.
pub const OFFSET_CR1: u64 = 0x28;
/// SMMU_CR2.
pub const OFFSET_CR2: u64 = 0x2c;
/// SMMU_GBPA.
pub const OFFSET_GBPA: u64 = 0x44;
/// SMMU_IRQ_CTRL.
pub const OFFSET_IRQ_CTRL: u64 = 0x50;
/// SMMU_IRQ_CTRLACK.
pub const OFFSET_IRQ_CTRLACK: u64 = 0x54;
/// SMMU_GERROR.
pub const OFFSET_GERROR: u64 = 0x60;
/// SMMU_GERRORN.
pub const OFFSET_GERRORN: u64 = 0x64;
/// SMMU_GERROR_IRQ_CFG0, 64 bits.
pub const OFFSET_GERROR_IRQ_CFG0: u64 = 0x68;
/// SMMU_GERROR_IRQ_CFG1.
pub const OFFSET_GERROR_IRQ_CFG1: u64 = 0x70;
/// SMMU_GERROR_IRQ_CFG2.
pub const OFFSET_GERROR_IRQ_CFG2: u64 = 0x74;
/// SMMU_STRTAB_BASE, 64 bits.
pub const OFFSET_STRTAB_BASE: u64 = 0x80;
/// SMMU_STRTAB_BASE_CFG.
pub const OFFSET_STRTAB_BASE_CFG: u64 = 0x88;
/// SMMU_CMDQ_BASE, 64 bits.
pub const OFFSET_CMDQ_BASE: u64 = 0x90;
/// SMMU_CMDQ_PROD.
pub const OFFSET_CMDQ_PROD: u64 = 0x98;
/// SMMU_CMDQ_CONS.
pub const OFFSET_CMDQ_CONS: u64 = 0x9c;
/// SMMU_EVENTQ_BASE, 64 bits.
pub const OFFSET_EVENTQ_BASE: u64 = 0xa0;
/// SMMU_EVENTQ_IRQ_CFG0, 64 bits.
pub const OFFSET_EVENTQ_IRQ_CFG0: u64 = 0xb0;
/// SMMU_EVENTQ_IRQ_CFG1.
pub const OFFSET_EVENTQ_IRQ_CFG1: u64 = 0xb8;
/// SMMU_EVENTQ_IRQ_CFG2.
pub const OFFSET_EVENTQ_IRQ_CFG2: u64 = 0xbc;
/// SMMU_PRIQ_BASE, 64 bits.
pub const OFFSET_PRIQ_BASE: u64 = 0xc0;
/// SMMU_PRIQ_IRQ_CFG0, 64 bits.
pub const OFFSET_PRIQ_IRQ_CFG0: u64 = 0xd0;
/// SMMU_PRIQ_IRQ_CFG1.
pub const OFFSET_PRIQ_IRQ_CFG1: u64 = 0xd8;
/// SMMU_PRIQ_IRQ_CFG2.
pub const OFFSET_PRIQ_IRQ_CFG2: u64 = 0xdc;
/// SMMU_PRIQ_PROD, in page 1.
pub const OFFSET_PRIQ_PROD: u64 = 0x100c8;
/// SMMU_PRIQ_CONS, in page 1.
pub const OFFSET_PRIQ_CONS: u64 = 0x100cc;
/// SMMU_EVENTQ_PROD, in page 1.
pub const OFFSET_EVENTQ_PROD: u64 = 0x100a8;
/// SMMU_EVENTQ_CONS, in page 1.
pub const OFFSET_EVENTQ_CONS: u64 = 0x100ac;

/// SMMU_CR0 and SMMU_CR0ACK, section 6.3.9.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Control0 {
    /// SMMUEN, bit 0.
    pub enable: bool,
    /// PRIQEN, bit 1.
    pub page_requests: bool,
    /// EVENTQEN, bit 2.
    pub event_queue: bool,
    /// CMDQEN, bit 3.
    pub command_queue: bool,
    /// ATSCHK, bit 4.
    pub ats_check: bool,
    /// Bits 31:5.
    #[bits(27)]
    pub reserved_5: u32,
}

/// SMMU_CR2, section 6.3.12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Control2 {
    /// E2H, bit 0.
    pub e2h: bool,
    /// RECINVSID, bit 1: C_BAD_STREAMID is recorded.
    pub record_bad_stream: bool,
    /// PTM, bit 2: broadcast invalidation is ignored.
    pub private_tlb: bool,
    /// REC_CFG_ATS, bit 3: with IDR0.ATSRECERR, what is wrong with a configuration is recorded for ATS requests too.
    pub record_ats: bool,
    /// Bits 31:4.
    #[bits(28)]
    pub reserved_4: u32,
}

/// SMMU_GBPA, section 6.3.14.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalBypass {
    /// Attributes, bits 19:0.
    #[bits(20)]
    pub attributes: u32,
    /// ABORT, bit 20: requests are aborted while SMMUEN = 0.
    pub abort: bool,
    /// Bits 30:21.
    #[bits(10)]
    pub reserved_21: u16,
    /// UPDATE, bit 31: the write takes effect; reads 0 when it has.
    pub update: bool,
}

/// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptControl {
    /// GERROR_IRQEN, bit 0.
    pub global_error: bool,
    /// PRIQ_IRQEN, bit 1.
    pub page_requests: bool,
    /// EVENTQ_IRQEN, bit 2.
    pub event_queue: bool,
    /// Bits 31:3.
    #[bits(29)]
    pub reserved_3: u32,
}

/// SMMU_GERROR and SMMU_GERRORN, section 6.3.17: an error is active while the two differ.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalError {
    /// CMDQ_ERR, bit 0.
    pub command_queue: bool,
    /// Bit 1.
    pub reserved_1: bool,
    /// EVENTQ_ABT_ERR, bit 2.
    pub event_queue_abort: bool,
    /// PRIQ_ABT_ERR, bit 3.
    pub page_request_abort: bool,
    /// MSI_CMDQ_ABT_ERR, bit 4.
    pub command_message_abort: bool,
    /// MSI_EVENTQ_ABT_ERR, bit 5.
    pub event_message_abort: bool,
    /// MSI_PRIQ_ABT_ERR, bit 6.
    pub page_request_message_abort: bool,
    /// MSI_GERROR_ABT_ERR, bit 7.
    pub error_message_abort: bool,
    /// SFM_ERR, bit 8.
    pub service_failure: bool,
    /// Bits 31:9.
    #[bits(23)]
    pub reserved_9: u32,
}

/// SMMU_STRTAB_BASE, section 6.3.24.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamTableBase {
    /// Bits 5:0.
    #[bits(6)]
    pub reserved_0: u8,
    /// ADDR, bits 55:6: address in units of 64 bytes; aligned to the table's size by the SMMU.
    #[bits(50)]
    pub address: u64,
    /// Bits 61:56.
    #[bits(6)]
    pub reserved_56: u8,
    /// RA, bit 62.
    pub read_allocate: bool,
    /// Bit 63.
    pub reserved_63: bool,
}

/// SMMU_STRTAB_BASE_CFG, section 6.3.25.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StreamTableConfig {
    /// LOG2SIZE, bits 5:0: log2 of the number of streams.
    #[bits(6)]
    pub size: u8,
    /// SPLIT, bits 10:6: StreamID bits that index the level-2 table; 6, 8 or 10, others behave as 6.
    #[bits(5)]
    pub split: u8,
    /// Bits 15:11.
    #[bits(5)]
    pub reserved_11: u8,
    /// FMT, bits 17:16: 1 two levels, others linear.
    #[bits(2)]
    pub format: u8,
    /// Bits 31:18.
    #[bits(14)]
    pub reserved_18: u16,
}

/// FMT of a two-level stream table.
pub const STREAM_TABLE_2_LEVEL: u8 = 1;
/// What a reserved SPLIT behaves as.
pub const SPLIT_DEFAULT: u8 = 6;
/// The values of SPLIT that are not reserved.
pub const SPLITS: [u8; 3] = [6, 8, 10];

/// SMMU_CMDQ_BASE and SMMU_EVENTQ_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    /// LOG2SIZE, bits 4:0: log2 of the number of entries.
    #[bits(5)]
    pub size: u8,
    /// ADDR, bits 55:5: address in units of 32 bytes; aligned to the queue's size by the SMMU.
    #[bits(51)]
    pub address: u64,
    /// Bits 61:56.
    #[bits(6)]
    pub reserved_56: u8,
    /// RA or WA, bit 62.
    pub allocate: bool,
    /// Bit 63.
    pub reserved_63: bool,
}

/// SMMU_CMDQ_PROD, SMMU_CMDQ_CONS, SMMU_EVENTQ_PROD, SMMU_EVENTQ_CONS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct QueueIndex {
    /// WR or RD, bits 19:0: index, and the wrap bit above it.
    #[bits(20)]
    pub index: u32,
    /// Bits 23:20.
    #[bits(4)]
    pub reserved_20: u8,
    /// ERR, bits 30:24, of SMMU_CMDQ_CONS.
    #[bits(7)]
    pub error: u8,
    /// OVFLG of SMMU_EVENTQ_PROD, OVACKFLG of SMMU_EVENTQ_CONS, bit 31.
    pub overflow: bool,
}

/// CERROR_ILL: illegal command.
pub const ERROR_ILLEGAL: u8 = 1;
/// CERROR_ABT: abort on command fetch.
pub const ERROR_ABORT: u8 = 2;
/// CERROR_ATC_INV_SYNC: a CMD_SYNC could not complete an earlier CMD_ATC_INV, as a device did not answer.
pub const ERROR_ATC_INV_SYNC: u8 = 3;

/// SMMU_*_IRQ_CFG0: address of an interrupt message.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MessageAddress {
    /// Bits 1:0.
    #[bits(2)]
    pub reserved_0: u8,
    /// ADDR, bits 55:2, in units of 4 bytes; 0 for none.
    #[bits(54)]
    pub address: u64,
    /// Bits 63:56.
    pub reserved_56: u8,
}

const _: () = assert!(GlobalBypass::ABORT_OFFSET == 20 && StreamTableConfig::FORMAT_OFFSET == 16 && QueueIndex::ERROR_OFFSET == 24);
