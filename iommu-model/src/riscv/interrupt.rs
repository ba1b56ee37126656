//! Interrupts: ipsr, icvec and the MSI configuration table. Specification, "Interrupt pending status register", "MSI
//! configuration table".

use crate::addr::Pa;
use crate::request::Message;
use crate::spec::riscv::register::{InterruptPending, InterruptVectors, MSI_VECTORS, MessageAddress, VectorControl, WORD_BYTES};

/// Who raises an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Command,
    Fault,
    PageRequest,
}

/// An entry of the MSI configuration table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageEntry {
    pub(crate) address: MessageAddress,
    pub(crate) data: u32,
    pub(crate) control: VectorControl,
    /// A message waits until the vector is unmasked.
    held: bool,
}

/// The interrupt registers.
#[derive(Clone, Debug)]
pub(crate) struct Interrupts {
    pub(crate) pending: InterruptPending,
    pub(crate) vectors: InterruptVectors,
    pub(crate) table: [MessageEntry; MSI_VECTORS as usize],
    /// fctl.WSI.
    pub(crate) wires: bool,
}

impl Interrupts {
    pub(crate) fn new(wires: bool) -> Self {
        let entry = MessageEntry { address: MessageAddress::new(), data: 0, control: VectorControl::new(), held: false };
        Self { pending: InterruptPending::new(), vectors: InterruptVectors::new(), table: [entry; MSI_VECTORS as usize], wires }
    }

    /// Sets a pending bit; going from 0 to 1, it sends its message.
    pub(crate) fn raise(&mut self, source: Source) -> Option<Message> {
        let vector = match source {
            Source::Command if !self.pending.command() => {
                self.pending.set_command(true);
                self.vectors.command()
            }
            Source::Fault if !self.pending.fault() => {
                self.pending.set_fault(true);
                self.vectors.fault()
            }
            Source::PageRequest if !self.pending.page_request() => {
                self.pending.set_page_request(true);
                self.vectors.page_request()
            }
            _ => return None,
        };
        if self.wires {
            return None;
        }
        let entry = &mut self.table[usize::from(vector)];
        if entry.control.masked() {
            entry.held = true;
            return None;
        }
        Some(entry.message())
    }

    /// Software writes 1 to pending bits.
    pub(crate) fn clear(&mut self, value: InterruptPending) {
        self.pending = InterruptPending::from_bits(self.pending.into_bits() & !value.into_bits());
    }

    /// Software writes a vector control register; unmasking sends the message that waits.
    pub(crate) fn write_control(&mut self, vector: u8, value: VectorControl) -> Option<Message> {
        let entry = &mut self.table[usize::from(vector)];
        entry.control.set_masked(value.masked());
        if entry.control.masked() || !core::mem::take(&mut entry.held) {
            return None;
        }
        Some(entry.message())
    }

    /// Vectors whose wire is up, a bit each.
    pub(crate) fn wires_up(&self) -> u16 {
        let wire = |pending: bool, vector: u8| if pending && self.wires { 1 << vector } else { 0 };
        wire(self.pending.command(), self.vectors.command())
            | wire(self.pending.fault(), self.vectors.fault())
            | wire(self.pending.page_request(), self.vectors.page_request())
    }
}

impl MessageEntry {
    fn message(&self) -> Message {
        Message { address: Pa(self.address.address() * WORD_BYTES), data: self.data }
    }
}
