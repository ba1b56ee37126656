//! Names of the registers, and which of them lies at a byte offset.

use crate::spec::vtd::page_request::{
    OFFSET_PEADDR, OFFSET_PECTL, OFFSET_PEDATA, OFFSET_PEUADDR, OFFSET_PQA, OFFSET_PQH, OFFSET_PQT, OFFSET_PRS,
};
use crate::spec::vtd::register::{
    OFFSET_CAP, OFFSET_CCMD, OFFSET_ECAP, OFFSET_FEADDR, OFFSET_FECTL, OFFSET_FEDATA, OFFSET_FEUADDR, OFFSET_FRCD, OFFSET_FSTS,
    OFFSET_GCMD, OFFSET_GSTS, OFFSET_ICS, OFFSET_IEADDR, OFFSET_IECTL, OFFSET_IEDATA, OFFSET_IEUADDR, OFFSET_IOTLB, OFFSET_IQA,
    OFFSET_IQERCD, OFFSET_IQH, OFFSET_IQT, OFFSET_IRTA, OFFSET_IVA, OFFSET_RTADDR, OFFSET_VER,
};

/// A register of the unit, by its manual mnemonic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Register {
    /// VER_REG, 0x00, read-only.
    Ver,
    /// CAP_REG, 0x08, read-only.
    Cap,
    /// ECAP_REG, 0x10, read-only.
    Ecap,
    /// GCMD_REG, 0x18, write-only, 32 bits.
    Gcmd,
    /// GSTS_REG, 0x1c, read-only, 32 bits.
    Gsts,
    /// RTADDR_REG, 0x20.
    Rtaddr,
    /// CCMD_REG, 0x28.
    Ccmd,
    /// FSTS_REG, 0x34, 32 bits, write 1 to clear.
    Fsts,
    /// FECTL_REG, 0x38, 32 bits.
    Fectl,
    /// FEDATA_REG, 0x3c, 32 bits.
    Fedata,
    /// FEADDR_REG, 0x40, 32 bits.
    Feaddr,
    /// FEUADDR_REG, 0x44, 32 bits.
    Feuaddr,
    /// IQH_REG, 0x80, read-only.
    Iqh,
    /// IQT_REG, 0x88.
    Iqt,
    /// IQA_REG, 0x90.
    Iqa,
    /// ICS_REG, 0x9c, 32 bits, write 1 to clear.
    Ics,
    /// IECTL_REG, 0xa0, 32 bits.
    Iectl,
    /// IEDATA_REG, 0xa4, 32 bits.
    Iedata,
    /// IEADDR_REG, 0xa8, 32 bits.
    Ieaddr,
    /// IEUADDR_REG, 0xac, 32 bits.
    Ieuaddr,
    /// IQERCD_REG, 0xb0, read-only.
    Iqercd,
    /// PQH_REG, 0xc0.
    Pqh,
    /// PQT_REG, 0xc8.
    Pqt,
    /// PQA_REG, 0xd0.
    Pqa,
    /// PRS_REG, 0xdc, 32 bits, write 1 to clear.
    Prs,
    /// PECTL_REG, 0xe0, 32 bits.
    Pectl,
    /// PEDATA_REG, 0xe4, 32 bits.
    Pedata,
    /// PEADDR_REG, 0xe8, 32 bits.
    Peaddr,
    /// PEUADDR_REG, 0xec, 32 bits.
    Peuaddr,
    /// IRTA_REG, 0xb8: stored, no effect.
    Irta,
    /// IVA_REG, 16 x ECAP.IRO; write-only.
    Iva,
    /// IOTLB_REG, 16 x ECAP.IRO + 8.
    Iotlb,
    /// Low half of FRCD_REG n, 16 x CAP.FRO + 16 n, read-only.
    FrcdLow(u8),
    /// High half of FRCD_REG n; F is write 1 to clear.
    FrcdHigh(u8),
}

/// Registers at fixed places, with their bytes.
const PLACES: [(u64, u8, Register); 32] = [
    (OFFSET_VER, 4, Register::Ver),
    (OFFSET_CAP, 8, Register::Cap),
    (OFFSET_ECAP, 8, Register::Ecap),
    (OFFSET_GCMD, 4, Register::Gcmd),
    (OFFSET_GSTS, 4, Register::Gsts),
    (OFFSET_RTADDR, 8, Register::Rtaddr),
    (OFFSET_CCMD, 8, Register::Ccmd),
    (OFFSET_FSTS, 4, Register::Fsts),
    (OFFSET_FECTL, 4, Register::Fectl),
    (OFFSET_FEDATA, 4, Register::Fedata),
    (OFFSET_FEADDR, 4, Register::Feaddr),
    (OFFSET_FEUADDR, 4, Register::Feuaddr),
    (OFFSET_IQH, 8, Register::Iqh),
    (OFFSET_IQT, 8, Register::Iqt),
    (OFFSET_IQA, 8, Register::Iqa),
    (OFFSET_ICS, 4, Register::Ics),
    (OFFSET_IECTL, 4, Register::Iectl),
    (OFFSET_IEDATA, 4, Register::Iedata),
    (OFFSET_IEADDR, 4, Register::Ieaddr),
    (OFFSET_IEUADDR, 4, Register::Ieuaddr),
    (OFFSET_IQERCD, 8, Register::Iqercd),
    (OFFSET_IRTA, 8, Register::Irta),
    (OFFSET_PQH, 8, Register::Pqh),
    (OFFSET_PQT, 8, Register::Pqt),
    (OFFSET_PQA, 8, Register::Pqa),
    (OFFSET_PRS, 4, Register::Prs),
    (OFFSET_PECTL, 4, Register::Pectl),
    (OFFSET_PEDATA, 4, Register::Pedata),
    (OFFSET_PEADDR, 4, Register::Peaddr),
    (OFFSET_PEUADDR, 4, Register::Peuaddr),
    (OFFSET_IVA, 8, Register::Iva),
    (OFFSET_IOTLB, 8, Register::Iotlb),
];

/// Bytes of the fault-recording area: 256 records.
const FRCD_AREA_BYTES: u64 = 256 * 16;

/// The register that holds the byte at `offset`, its first byte and its size in bytes; `None` in a hole.
#[must_use]
pub fn locate_register(offset: u64) -> Option<(Register, u64, u8)> {
    if (OFFSET_FRCD..OFFSET_FRCD + FRCD_AREA_BYTES).contains(&offset) {
        let index = ((offset - OFFSET_FRCD) / 16) as u8;
        let start = offset & !7;
        let register = if start.is_multiple_of(16) { Register::FrcdLow(index) } else { Register::FrcdHigh(index) };
        return Some((register, start, 8));
    }
    let holds = |&&(start, bytes, _): &&(u64, u8, Register)| offset >= start && offset - start < u64::from(bytes);
    PLACES.iter().find(holds).map(|&(start, bytes, register)| (register, start, bytes))
}

impl Register {
    /// Names of all registers but the fault records, in offset order.
    pub fn fixed() -> impl Iterator<Item = Self> {
        PLACES.iter().map(|&(_, _, register)| register)
    }

    /// Whether it says something only on units with page requests.
    #[must_use]
    pub const fn is_of_page_requests(self) -> bool {
        matches!(self, Self::Pqh | Self::Pqt | Self::Pqa | Self::Prs | Self::Pectl | Self::Pedata | Self::Peaddr | Self::Peuaddr)
    }

    /// First byte.
    #[must_use]
    pub fn offset(self) -> u64 {
        match self {
            Self::FrcdLow(index) => OFFSET_FRCD + 16 * u64::from(index),
            Self::FrcdHigh(index) => OFFSET_FRCD + 16 * u64::from(index) + 8,
            _ => PLACES.iter().find(|place| place.2 == self).map_or(0, |place| place.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_is_found_at_its_own_offset() {
        for register in Register::fixed().chain([Register::FrcdLow(0), Register::FrcdHigh(255)]) {
            let (found, start, _) = locate_register(register.offset()).expect("it has a place");
            assert_eq!((found, start), (register, register.offset()));
        }
        assert_eq!(locate_register(0x04), None);
        assert_eq!(locate_register(u64::MAX), None);
    }

    #[test]
    fn registers_do_not_overlap() {
        for pair in PLACES.windows(2) {
            assert!(pair[0].0 + u64::from(pair[0].1) <= pair[1].0);
        }
        const { assert!(OFFSET_IOTLB + 8 <= OFFSET_FRCD) }
    }
}
