//! Names of the registers, and which of them lies at a byte offset.

use crate::spec::riscv::register::{
    MSI_CFG_CONTROL, MSI_CFG_DATA, MSI_CFG_ENTRY_BYTES, MSI_VECTORS, OFFSET_CAPABILITIES, OFFSET_CQB, OFFSET_CQCSR, OFFSET_CQH, OFFSET_CQT,
    OFFSET_DDTP, OFFSET_FCTL, OFFSET_FQB, OFFSET_FQCSR, OFFSET_FQH, OFFSET_FQT, OFFSET_ICVEC, OFFSET_IPSR, OFFSET_MSI_CFG_TBL, OFFSET_PQB,
    OFFSET_PQCSR, OFFSET_PQH, OFFSET_PQT, OFFSET_TR_REQ_CTL, OFFSET_TR_REQ_IOVA, OFFSET_TR_RESPONSE,
};

/// A register, by its name in the specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Register {
    /// capabilities, read-only.
    Capabilities,
    /// fctl, 32 bits.
    Fctl,
    /// ddtp.
    Ddtp,
    /// cqb.
    Cqb,
    /// cqh, 32 bits, read-only.
    Cqh,
    /// cqt, 32 bits.
    Cqt,
    /// fqb.
    Fqb,
    /// fqh, 32 bits.
    Fqh,
    /// fqt, 32 bits, read-only.
    Fqt,
    /// pqb.
    Pqb,
    /// pqh, 32 bits.
    Pqh,
    /// pqt, 32 bits, read-only.
    Pqt,
    /// cqcsr, 32 bits.
    Cqcsr,
    /// fqcsr, 32 bits.
    Fqcsr,
    /// pqcsr, 32 bits.
    Pqcsr,
    /// ipsr, 32 bits, write 1 to clear.
    Ipsr,
    /// tr_req_iova.
    TrReqIova,
    /// tr_req_ctl.
    TrReqCtl,
    /// tr_response, read-only.
    TrResponse,
    /// icvec.
    Icvec,
    /// msi_addr of a vector below 16.
    MsiAddress(u8),
    /// msi_data of a vector, 32 bits.
    MsiData(u8),
    /// msi_vec_ctl of a vector, 32 bits.
    MsiControl(u8),
}

/// Offset and bytes of the registers outside the MSI configuration table.
const FIXED: [(u64, u8, Register); 20] = [
    (OFFSET_CAPABILITIES, 8, Register::Capabilities),
    (OFFSET_FCTL, 4, Register::Fctl),
    (OFFSET_DDTP, 8, Register::Ddtp),
    (OFFSET_CQB, 8, Register::Cqb),
    (OFFSET_CQH, 4, Register::Cqh),
    (OFFSET_CQT, 4, Register::Cqt),
    (OFFSET_FQB, 8, Register::Fqb),
    (OFFSET_FQH, 4, Register::Fqh),
    (OFFSET_FQT, 4, Register::Fqt),
    (OFFSET_PQB, 8, Register::Pqb),
    (OFFSET_PQH, 4, Register::Pqh),
    (OFFSET_PQT, 4, Register::Pqt),
    (OFFSET_CQCSR, 4, Register::Cqcsr),
    (OFFSET_FQCSR, 4, Register::Fqcsr),
    (OFFSET_PQCSR, 4, Register::Pqcsr),
    (OFFSET_IPSR, 4, Register::Ipsr),
    (OFFSET_TR_REQ_IOVA, 8, Register::TrReqIova),
    (OFFSET_TR_REQ_CTL, 8, Register::TrReqCtl),
    (OFFSET_TR_RESPONSE, 8, Register::TrResponse),
    (OFFSET_ICVEC, 8, Register::Icvec),
];

impl Register {
    /// Registers outside the MSI configuration table.
    pub fn fixed() -> impl Iterator<Item = Self> {
        FIXED.iter().map(|(_, _, register)| *register)
    }
}

/// The register that holds the byte at an offset, where it starts, and how many bytes it has.
#[must_use]
pub fn locate_register(offset: u64) -> Option<(Register, u64, u8)> {
    let found = FIXED.iter().find(|(start, bytes, _)| (*start..*start + u64::from(*bytes)).contains(&offset));
    if let Some(&(start, bytes, register)) = found {
        return Some((register, start, bytes));
    }
    let inside = offset.checked_sub(OFFSET_MSI_CFG_TBL)?;
    let vector = inside / MSI_CFG_ENTRY_BYTES;
    if vector >= u64::from(MSI_VECTORS) {
        return None;
    }
    let start = OFFSET_MSI_CFG_TBL + vector * MSI_CFG_ENTRY_BYTES;
    let vector = vector as u8;
    Some(match inside % MSI_CFG_ENTRY_BYTES {
        at if at < MSI_CFG_DATA => (Register::MsiAddress(vector), start, 8),
        at if at < MSI_CFG_CONTROL => (Register::MsiData(vector), start + MSI_CFG_DATA, 4),
        _ => (Register::MsiControl(vector), start + MSI_CFG_CONTROL, 4),
    })
}
