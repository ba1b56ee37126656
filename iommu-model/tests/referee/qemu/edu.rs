//! QEMU's teaching device: DMA between memory and a 4 KiB buffer of its own, started by a timer of virtual time.

use super::qtest::Script;

/// Vendor (low half) and device id.
pub(crate) const IDENTITY: u32 = 0x11e8_1234;
/// Bytes of its buffer.
pub(crate) const BUFFER_BYTES: u64 = 4096;
/// Where the device sees its buffer.
const BUFFER: u64 = 0x4_0000;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// Start, from memory to the buffer.
const FROM_MEMORY: u64 = 1;
/// Start, from the buffer to memory.
const TO_MEMORY: u64 = 3;
/// The timer's 100 ms and a little more.
const RUN_NS: u64 = 101_000_000;

/// The device, by its BAR.
#[derive(Clone, Copy)]
pub(crate) struct Edu {
    pub(crate) bar: u64,
}

impl Edu {
    /// Bytes of every transfer from now on.
    pub(crate) fn set_count(self, script: &mut Script, bytes: u64) {
        script.write64(self.bar + COUNT, bytes);
    }

    /// Reads memory at `address` into the buffer at `offset`.
    pub(crate) fn read(self, script: &mut Script, address: u64, offset: u64) {
        self.run(script, address, BUFFER + offset, FROM_MEMORY);
    }

    /// Writes the buffer at `offset` to memory at `address`.
    pub(crate) fn write(self, script: &mut Script, address: u64, offset: u64) {
        self.run(script, BUFFER + offset, address, TO_MEMORY);
    }

    fn run(self, script: &mut Script, source: u64, destination: u64, command: u64) {
        script.write64(self.bar + SOURCE, source);
        script.write64(self.bar + DESTINATION, destination);
        script.write64(self.bar + COMMAND, command);
        script.clock_step(RUN_NS);
    }
}
