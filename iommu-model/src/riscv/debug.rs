//! The translation-request registers: a translation without a device. Specification, "Debug support".

use super::cache::iotlb::TlbEntry;
use super::id::DeviceId;
use super::request::{AddressKind, Transaction};
use super::unit::Unit;
use super::walk::Origin;
use crate::addr::{Iova, PAGE_SHIFT, Pa, Pasid};
use crate::request::{Access, Busy, WalkId};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::register::{TranslationRequestControl, TranslationRequestIova, TranslationResponse};

/// The registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DebugRegisters {
    pub(crate) iova: TranslationRequestIova,
    pub(crate) control: TranslationRequestControl,
    pub(crate) response: TranslationResponse,
    /// Go was set; no walker has it yet.
    pub(crate) waiting: bool,
}

impl DebugRegisters {
    pub(crate) fn new() -> Self {
        Self {
            iova: TranslationRequestIova::new(),
            control: TranslationRequestControl::new(),
            response: TranslationResponse::new(),
            waiting: false,
        }
    }

    /// Software writes tr_req_ctl. Ignored while a request is under way. Returns whether one begins.
    pub(crate) fn write_control(&mut self, value: TranslationRequestControl) -> bool {
        if self.control.go() {
            return false;
        }
        self.control = value.with_reserved_4(0).with_reserved_33(0).with_custom(0);
        self.waiting = value.go();
        self.waiting
    }
}

impl Unit {
    /// Whether a request in the translation-request registers waits for a walker.
    #[must_use]
    pub const fn debug_request_waits(&self) -> bool {
        self.debug.waiting
    }

    /// Gives the request in the translation-request registers a walker. Its walk is driven as every other; the response
    /// register holds the result when it has ended. `None` if no request waits.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_debug(&mut self) -> Result<Option<WalkId>, Busy> {
        if !self.debug.waiting {
            return Ok(None);
        }
        let control = self.debug.control;
        let request = Transaction {
            device: DeviceId(control.device()),
            iova: Iova(self.debug.iova.page() << PAGE_SHIFT),
            access: if control.no_write() { Access::Read } else { Access::Write },
            execute: control.execute(),
            kind: AddressKind::Untranslated,
            process: control.process_valid().then(|| Pasid(control.process())),
            privileged: control.privileged(),
        };
        let walk = self.walkers.begin(request, Origin::Debug, false).ok_or(Busy)?;
        self.debug.waiting = false;
        Ok(Some(walk))
    }

    /// The walk has ended.
    pub(crate) fn debug_done(&mut self, result: Result<(&TlbEntry, Pa), Cause>) {
        self.debug.control.set_go(false);
        self.debug.response = match result {
            Err(_) => TranslationResponse::new().with_fault(true),
            Ok((entry, pa)) => {
                let frame = pa.pfn().0;
                let low = (1u64 << (u32::from(entry.shift) - PAGE_SHIFT)) - 1;
                // The lowest 0 among the low bits gives the size.
                let ppn = if low == 0 { frame } else { (frame & !low) | (low >> 1) };
                TranslationResponse::new()
                    .with_memory_type(entry.memory_type)
                    .with_large(low != 0)
                    .with_ppn(ppn & TranslationResponse::PPN_MASK)
            }
        };
    }
}
