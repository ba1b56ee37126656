//! PCI configuration: enough to place one memory BAR and let a device do DMA. Devices are functions 0 of bus 0.

use super::qtest::{Qtest, Script};
use std::io;

/// Vendor and device id.
const IDENTITY: u16 = 0x00;
/// Command and status.
const COMMAND: u16 = 0x04;
/// First base address.
const BAR_0: u16 = 0x10;
/// Second base address: the upper half of a 64-bit first one.
const BAR_1: u16 = 0x14;
/// Memory space and bus master.
const COMMAND_ENABLE: u32 = 0x6;

/// How the machine reaches configuration space.
#[derive(Clone, Copy)]
pub(crate) enum Pci {
    /// The two ports of a PC.
    Ports,
    /// Memory, 4 KiB a function, from this address on.
    Memory(u64),
}

impl Pci {
    fn write(self, script: &mut Script, device: u8, register: u16, value: u32) {
        match self {
            Self::Ports => {
                script.out32(0xcf8, 0x8000_0000 | u32::from(device) << 11 | u32::from(register));
                script.out32(0xcfc, value);
            }
            Self::Memory(base) => script.write32(base + (u64::from(device) << 15) + u64::from(register), value),
        }
    }

    /// Places the first BAR and lets the device answer and do DMA; returns its vendor (low half) and device id.
    pub(crate) fn enable(self, qtest: &mut Qtest, device: u8, bar: u64) -> io::Result<u32> {
        let mut script = Script::default();
        match self {
            Self::Ports => {
                script.out32(0xcf8, 0x8000_0000 | u32::from(device) << 11 | u32::from(IDENTITY));
                script.in32(0xcfc);
            }
            Self::Memory(base) => script.read32(base + (u64::from(device) << 15) + u64::from(IDENTITY)),
        }
        self.write(&mut script, device, BAR_0, bar as u32);
        self.write(&mut script, device, BAR_1, (bar >> 32) as u32);
        self.write(&mut script, device, COMMAND, COMMAND_ENABLE);
        Ok(qtest.run(&script)?.first().copied().unwrap_or(0) as u32)
    }
}
