//! Names of the registers, and which of them lies at a byte offset.

use crate::spec::smmu::register::{
    OFFSET_AIDR, OFFSET_CMDQ_BASE, OFFSET_CMDQ_CONS, OFFSET_CMDQ_PROD, OFFSET_CR0, OFFSET_CR0ACK, OFFSET_CR1, OFFSET_CR2,
    OFFSET_EVENTQ_BASE, OFFSET_EVENTQ_CONS, OFFSET_EVENTQ_IRQ_CFG0, OFFSET_EVENTQ_IRQ_CFG1, OFFSET_EVENTQ_IRQ_CFG2, OFFSET_EVENTQ_PROD,
    OFFSET_GBPA, OFFSET_GERROR, OFFSET_GERROR_IRQ_CFG0, OFFSET_GERROR_IRQ_CFG1, OFFSET_GERROR_IRQ_CFG2, OFFSET_GERRORN, OFFSET_IDR0,
    OFFSET_IDR1, OFFSET_IDR3, OFFSET_IDR5, OFFSET_IRQ_CTRL, OFFSET_IRQ_CTRLACK, OFFSET_PRIQ_BASE, OFFSET_PRIQ_CONS, OFFSET_PRIQ_IRQ_CFG0,
    OFFSET_PRIQ_IRQ_CFG1, OFFSET_PRIQ_IRQ_CFG2, OFFSET_PRIQ_PROD, OFFSET_STRTAB_BASE, OFFSET_STRTAB_BASE_CFG,
};

/// A register of the unit, by its manual mnemonic without the prefix SMMU_.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Register {
    /// IDR0, 0x00, read-only.
    Idr0,
    /// IDR1, 0x04, read-only.
    Idr1,
    /// IDR3, 0x0c, read-only.
    Idr3,
    /// IDR5, 0x14, read-only.
    Idr5,
    /// AIDR, 0x1c, read-only.
    Aidr,
    /// CR0, 0x20.
    Cr0,
    /// CR0ACK, 0x24, read-only.
    Cr0Ack,
    /// CR1, 0x28: stored, no effect.
    Cr1,
    /// CR2, 0x2c.
    Cr2,
    /// GBPA, 0x44.
    Gbpa,
    /// IRQ_CTRL, 0x50.
    IrqCtrl,
    /// IRQ_CTRLACK, 0x54, read-only.
    IrqCtrlAck,
    /// GERROR, 0x60, read-only.
    Gerror,
    /// GERRORN, 0x64.
    Gerrorn,
    /// GERROR_IRQ_CFG0, 0x68, 64 bits.
    GerrorIrqCfg0,
    /// GERROR_IRQ_CFG1, 0x70.
    GerrorIrqCfg1,
    /// GERROR_IRQ_CFG2, 0x74: stored, no effect.
    GerrorIrqCfg2,
    /// STRTAB_BASE, 0x80, 64 bits.
    StrtabBase,
    /// STRTAB_BASE_CFG, 0x88.
    StrtabBaseCfg,
    /// CMDQ_BASE, 0x90, 64 bits.
    CmdqBase,
    /// CMDQ_PROD, 0x98.
    CmdqProd,
    /// CMDQ_CONS, 0x9c.
    CmdqCons,
    /// EVENTQ_BASE, 0xa0, 64 bits.
    EventqBase,
    /// EVENTQ_IRQ_CFG0, 0xb0, 64 bits.
    EventqIrqCfg0,
    /// EVENTQ_IRQ_CFG1, 0xb8.
    EventqIrqCfg1,
    /// EVENTQ_IRQ_CFG2, 0xbc: stored, no effect.
    EventqIrqCfg2,
    /// PRIQ_BASE, 0xc0, 64 bits.
    PriqBase,
    /// PRIQ_IRQ_CFG0, 0xd0, 64 bits.
    PriqIrqCfg0,
    /// PRIQ_IRQ_CFG1, 0xd8.
    PriqIrqCfg1,
    /// PRIQ_IRQ_CFG2, 0xdc: stored, no effect.
    PriqIrqCfg2,
    /// EVENTQ_PROD, 0x100a8.
    EventqProd,
    /// EVENTQ_CONS, 0x100ac.
    EventqCons,
    /// PRIQ_PROD, 0x100c8.
    PriqProd,
    /// PRIQ_CONS, 0x100cc.
    PriqCons,
}

/// Places of all registers, with their bytes.
const PLACES: [(u64, u8, Register); 34] = [
    (OFFSET_IDR0, 4, Register::Idr0),
    (OFFSET_IDR1, 4, Register::Idr1),
    (OFFSET_IDR3, 4, Register::Idr3),
    (OFFSET_IDR5, 4, Register::Idr5),
    (OFFSET_AIDR, 4, Register::Aidr),
    (OFFSET_CR0, 4, Register::Cr0),
    (OFFSET_CR0ACK, 4, Register::Cr0Ack),
    (OFFSET_CR1, 4, Register::Cr1),
    (OFFSET_CR2, 4, Register::Cr2),
    (OFFSET_GBPA, 4, Register::Gbpa),
    (OFFSET_IRQ_CTRL, 4, Register::IrqCtrl),
    (OFFSET_IRQ_CTRLACK, 4, Register::IrqCtrlAck),
    (OFFSET_GERROR, 4, Register::Gerror),
    (OFFSET_GERRORN, 4, Register::Gerrorn),
    (OFFSET_GERROR_IRQ_CFG0, 8, Register::GerrorIrqCfg0),
    (OFFSET_GERROR_IRQ_CFG1, 4, Register::GerrorIrqCfg1),
    (OFFSET_GERROR_IRQ_CFG2, 4, Register::GerrorIrqCfg2),
    (OFFSET_STRTAB_BASE, 8, Register::StrtabBase),
    (OFFSET_STRTAB_BASE_CFG, 4, Register::StrtabBaseCfg),
    (OFFSET_CMDQ_BASE, 8, Register::CmdqBase),
    (OFFSET_CMDQ_PROD, 4, Register::CmdqProd),
    (OFFSET_CMDQ_CONS, 4, Register::CmdqCons),
    (OFFSET_EVENTQ_BASE, 8, Register::EventqBase),
    (OFFSET_EVENTQ_IRQ_CFG0, 8, Register::EventqIrqCfg0),
    (OFFSET_EVENTQ_IRQ_CFG1, 4, Register::EventqIrqCfg1),
    (OFFSET_EVENTQ_IRQ_CFG2, 4, Register::EventqIrqCfg2),
    (OFFSET_PRIQ_BASE, 8, Register::PriqBase),
    (OFFSET_PRIQ_IRQ_CFG0, 8, Register::PriqIrqCfg0),
    (OFFSET_PRIQ_IRQ_CFG1, 4, Register::PriqIrqCfg1),
    (OFFSET_PRIQ_IRQ_CFG2, 4, Register::PriqIrqCfg2),
    (OFFSET_EVENTQ_PROD, 4, Register::EventqProd),
    (OFFSET_EVENTQ_CONS, 4, Register::EventqCons),
    (OFFSET_PRIQ_PROD, 4, Register::PriqProd),
    (OFFSET_PRIQ_CONS, 4, Register::PriqCons),
];

/// The register that holds the byte at `offset`, its first byte and its size in bytes; `None` in a hole.
#[must_use]
pub fn locate_register(offset: u64) -> Option<(Register, u64, u8)> {
    let holds = |&&(start, bytes, _): &&(u64, u8, Register)| offset >= start && offset - start < u64::from(bytes);
    PLACES.iter().find(holds).map(|&(start, bytes, register)| (register, start, bytes))
}

impl Register {
    /// All of them, in offset order.
    pub fn all() -> impl Iterator<Item = Self> {
        PLACES.iter().map(|&(_, _, register)| register)
    }

    /// First byte.
    #[must_use]
    pub fn offset(self) -> u64 {
        PLACES.iter().find(|place| place.2 == self).map_or(0, |place| place.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_is_found_at_its_own_offset_and_none_overlap() {
        for register in Register::all() {
            let (found, start, _) = locate_register(register.offset()).expect("it has a place");
            assert_eq!((found, start), (register, register.offset()));
        }
        for pair in PLACES.windows(2) {
            assert!(pair[0].0 + u64::from(pair[0].1) <= pair[1].0);
        }
        assert_eq!(locate_register(0x08), None);
        assert_eq!(locate_register(u64::MAX), None);
    }
}
