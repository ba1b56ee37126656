//! What a device sends: everything that the process to translate an IOVA looks at.

use super::id::DeviceId;
use crate::addr::{Iova, Pasid};
use crate::request::{Access, Request};
use crate::spec::riscv::fault::{TTYP_EXECUTE, TTYP_READ, TTYP_TRANSLATED, TTYP_TRANSLATION_REQUEST, TTYP_WRITE};

/// What kind of address a request holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressKind {
    /// An IOVA.
    Untranslated,
    /// What an ATS completion gave: a host address, or with T2GPA one of the guest.
    Translated,
    /// An IOVA that the device asks to have translated (ATS).
    TranslationRequest,
}

/// One request. It never crosses a 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Transaction {
    /// Who sends it.
    pub device: DeviceId,
    /// First byte.
    pub iova: Iova,
    /// Read or write. Of a translation request: whether writing is asked for too (No Write clear).
    pub access: Access,
    /// A read for execution. Counts only together with a process_id.
    pub execute: bool,
    /// Kind of address.
    pub kind: AddressKind,
    /// process_id, if it has one.
    pub process: Option<Pasid>,
    /// Supervisor privilege is asked for. Counts only together with a process_id.
    pub privileged: bool,
}

impl Transaction {
    /// An untranslated user request without process_id.
    #[must_use]
    pub const fn new(device: DeviceId, iova: Iova, access: Access) -> Self {
        Self { device, iova, access, execute: false, kind: AddressKind::Untranslated, process: None, privileged: false }
    }

    /// Whether it reads to execute.
    pub(crate) fn executes(&self) -> bool {
        self.execute && self.process.is_some() && self.access == Access::Read && self.kind != AddressKind::TranslationRequest
    }

    /// Whether it asks for supervisor privilege.
    pub(crate) const fn is_supervisor(&self) -> bool {
        self.privileged && self.process.is_some()
    }

    /// Whether it is an ATS translation request.
    pub(crate) fn is_ats(&self) -> bool {
        self.kind == AddressKind::TranslationRequest
    }

    /// TTYP of its fault record.
    pub(crate) fn transaction_type(&self) -> u8 {
        let plain = match self.access {
            Access::Read if self.executes() => TTYP_EXECUTE,
            Access::Read => TTYP_READ,
            Access::Write => TTYP_WRITE,
        };
        match self.kind {
            AddressKind::Untranslated => plain,
            AddressKind::Translated => plain + TTYP_TRANSLATED,
            AddressKind::TranslationRequest => TTYP_TRANSLATION_REQUEST,
        }
    }
}

impl From<Request> for Transaction {
    fn from(request: Request) -> Self {
        Self { process: request.pasid, ..Self::new(request.source.into(), request.iova, request.access) }
    }
}

/// A PCIe page request or stop marker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageRequest {
    /// Who sends it.
    pub device: DeviceId,
    /// The message's body: R, W, L, group, page address.
    pub payload: u64,
    /// PASID, if it has one.
    pub process: Option<Pasid>,
    /// Privileged Mode Requested.
    pub privileged: bool,
    /// Execute Requested.
    pub execute: bool,
}

/// Status of a page request group response that the unit makes up itself. The codes are those of PCIe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResponseCode {
    /// The queue was full: try again.
    Success,
    /// Page requests are not for this device.
    InvalidRequest,
    /// The interface does not work.
    Failure,
}

/// What became of a page request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageRequestOutcome {
    /// It waits for its place in the queue.
    Queued,
    /// It was not the last one of its group, or a stop marker: dropped.
    Discarded,
    /// The unit answers it itself.
    Answered {
        /// Status.
        code: ResponseCode,
        /// The answer holds this PASID.
        process: Option<Pasid>,
    },
}
