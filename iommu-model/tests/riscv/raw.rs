//! Tables and commands as plain numbers, from the figures of the specification and not from this crate's layouts, so that
//! model and test cannot share a slip of a layout.

use crate::support::Memory;
use iommu_model::riscv::{Capabilities, CommandInput, CommandProgress, DeviceId, Transaction, Unit};
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::{Access, Iova, Pa, Params, Pasid, Plain, Progress};

const DDT: u64 = 0x8001_0000;
const DEVICE: u64 = 0x10;
const IOVA: u64 = 0x2345_6000;
const DATA: u64 = 0x8040_0000;
/// V R W U A D.
const LEAF: u64 = 1 | 2 | 4 | 16 | 64 | 128;

struct Raw {
    unit: Unit,
    memory: Memory,
    next: u64,
}

impl Raw {
    fn new() -> Self {
        let mut unit = Unit::new(Capabilities::default(), Params::default());
        unit.write_register_at(0x18, 8, (0x8001_1000 >> 12) << 10 | 7);
        unit.write_register_at(0x48, 4, 1);
        unit.write_register_at(0x28, 8, (0x8001_2000 >> 12) << 10 | 6);
        unit.write_register_at(0x4c, 4, 1);
        unit.write_register_at(0x10, 8, (DDT >> 12) << 10 | 2);
        assert_eq!(unit.read_register_at(0x10, 8), (DDT >> 12) << 10 | 1 << 4 | 2);
        unit.register_drained();
        Self { unit, memory: Memory::default(), next: 0x8010_0000 }
    }

    fn table(&mut self, bytes: u64) -> u64 {
        self.next = self.next.next_multiple_of(bytes) + bytes;
        self.next - bytes
    }

    /// Maps a page; the root has as many index bits as `root_bits`.
    fn map(&mut self, root: u64, levels: u64, root_bits: u64, address: u64, entry: u64) -> u64 {
        let mut table = root;
        for level in (0..levels).rev() {
            let bits = if level == levels - 1 { root_bits } else { 9 };
            let slot = table + (address >> (12 + 9 * level) & ((1 << bits) - 1)) * 8;
            if level == 0 {
                self.memory.write(Pa(slot), entry);
                return slot;
            }
            let word = self.memory.read(Pa(slot));
            table = if word & 1 == 1 {
                (word >> 10 & ((1 << 44) - 1)) << 12
            } else {
                let fresh = self.table(4096);
                self.memory.write(Pa(slot), (fresh >> 12) << 10 | 1);
                fresh
            };
        }
        unreachable!("the last level returns")
    }

    fn context(&mut self, words: [u64; 4]) {
        for (n, word) in words.into_iter().enumerate() {
            self.memory.write(Pa(DDT + 64 * DEVICE + 8 * n as u64), word);
        }
    }

    fn send(&mut self, iova: u64, access: Access, process: Option<u32>) -> Result<u64, Cause> {
        let request = Transaction { process: process.map(Pasid), ..Transaction::new(DeviceId(DEVICE as u32), Iova(iova), access) };
        let walk = self.unit.begin(request).expect("a walker is free");
        let mut answer = None;
        loop {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => answer = Some(self.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => answer = Some(self.memory.compare_exchange(pa, old, new)),
                Progress::Lookup { .. } => {}
                Progress::Done(translation) => return Ok(translation.pa.0),
                Progress::Fault(fault) => return Err(fault.reason.riscv().expect("a RISC-V unit")),
                other => panic!("{other:?}"),
            }
        }
    }

    fn command(&mut self, words: [u64; 2]) {
        let tail = self.unit.read_register_at(0x24, 4);
        self.unit.write_register_at(0x24, 4, tail + 1);
        let mut input = CommandInput::Continue;
        loop {
            input = match self.unit.command_queue_advance(input, &mut Plain) {
                CommandProgress::Idle => break,
                CommandProgress::Fetch { pa, .. } => {
                    assert_eq!(pa, Pa(0x8001_1000 + 16 * tail));
                    CommandInput::Command(words)
                }
                CommandProgress::Stopped(error) => panic!("{error:?}"),
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Write { .. } => CommandInput::Written,
                _ => CommandInput::Continue,
            };
        }
        assert_eq!(self.unit.read_register_at(0x20, 4), tail + 1);
    }
}

#[test]
fn a_first_stage_of_three_levels() {
    let mut raw = Raw::new();
    let root = raw.table(4096);
    let slot = raw.map(root, 3, 9, IOVA, DATA >> 12 << 10 | LEAF);
    raw.context([1, 0, 3 << 12, root >> 12 | 8 << 60]);
    assert_eq!(raw.send(IOVA + 0x18, Access::Read, None), Ok(DATA + 0x18));
    raw.memory.write(Pa(slot), (DATA + 0x1000) >> 12 << 10 | LEAF);
    assert_eq!(raw.send(IOVA, Access::Read, None), Ok(DATA));
    // IOTINVAL.VMA with AV and PSCV: PSCID 3.
    raw.command([1 | 1 << 10 | 3 << 12 | 1 << 32, (IOVA >> 12) << 10]);
    assert_eq!(raw.send(IOVA, Access::Read, None), Ok(DATA + 0x1000));
    raw.memory.write(Pa(slot), DATA >> 12 << 10 | LEAF & !4);
    raw.command([1 | 1 << 10 | 3 << 12 | 1 << 32, (IOVA >> 12) << 10]);
    assert_eq!(raw.send(IOVA, Access::Write, None), Err(Cause(15)));
    assert_eq!(raw.send(0x500_0000, Access::Read, None), Err(Cause(13)));
}

#[test]
fn a_second_stage_of_four_levels_with_its_wide_root() {
    let mut raw = Raw::new();
    let root = raw.table(16384);
    let high = IOVA | 3 << 48;
    let slot = raw.map(root, 4, 11, high, DATA >> 12 << 10 | LEAF);
    raw.context([1, root >> 12 | 9 << 44 | 9 << 60, 0, 0]);
    assert_eq!(raw.send(high, Access::Write, None), Ok(DATA));
    raw.memory.write(Pa(slot), 0);
    // IOTINVAL.GVMA with AV and GV: GSCID 9.
    raw.command([1 | 1 << 7 | 1 << 10 | 1 << 33 | 9 << 44, (high >> 12) << 10]);
    assert_eq!(raw.send(high, Access::Write, None), Err(Cause(23)));
}

#[test]
fn both_stages_with_a_process_directory() {
    let mut raw = Raw::new();
    let (second, first, directory) = (raw.table(16384), raw.table(4096), raw.table(4096));
    raw.map(first, 3, 9, IOVA, DATA >> 12 << 10 | LEAF);
    for page in (0x8000_0000..0x8050_0000u64).step_by(4096) {
        raw.map(second, 3, 11, page, page >> 12 << 10 | LEAF);
    }
    // PC of process 5: ta.V, PSCID 3; fsc.
    raw.memory.write(Pa(directory + 16 * 5), 1 | 3 << 12);
    raw.memory.write(Pa(directory + 16 * 5 + 8), first >> 12 | 8 << 60);
    // tc.V, PDTV; fsc is a PD8.
    raw.context([1 | 1 << 5, second >> 12 | 9 << 44 | 8 << 60, 0, directory >> 12 | 1 << 60]);
    assert_eq!(raw.send(IOVA, Access::Read, Some(5)), Ok(DATA));
    assert_eq!(raw.send(IOVA, Access::Read, Some(6)), Err(Cause(266)));
    raw.memory.write(Pa(directory + 16 * 5), 0);
    assert_eq!(raw.send(IOVA + 0x1000, Access::Read, Some(5)), Err(Cause(13)));
    // IODIR.INVAL_PDT with DV: process 5.
    raw.command([3 | 1 << 7 | 5 << 12 | 1 << 33 | DEVICE << 40, 0]);
    assert_eq!(raw.send(IOVA + 0x1000, Access::Read, Some(5)), Err(Cause(266)));
}

#[test]
fn updates_of_a_and_d_in_both_stages() {
    let mut raw = Raw::new();
    let (second, first) = (raw.table(16384), raw.table(4096));
    let leaf = raw.map(first, 3, 9, IOVA, DATA >> 12 << 10 | LEAF & !0xc0);
    let mut slots = Vec::new();
    for page in (0x8000_0000..0x8050_0000u64).step_by(4096) {
        slots.push((page, raw.map(second, 3, 11, page, page >> 12 << 10 | LEAF & !0xc0)));
    }
    // tc.V, GADE, SADE.
    raw.context([1 | 1 << 7 | 1 << 8, second >> 12 | 9 << 44 | 8 << 60, 3 << 12, first >> 12 | 8 << 60]);
    assert_eq!(raw.send(IOVA, Access::Write, None), Ok(DATA));
    assert_eq!(raw.memory.read(Pa(leaf)), DATA >> 12 << 10 | LEAF);
    let changed: Vec<_> = slots.iter().filter(|(_, slot)| raw.memory.read(Pa(*slot)) & 0xc0 != 0).map(|(page, _)| *page).collect();
    // The root, the two tables below it, and the page.
    assert_eq!(changed.len(), 4);
    assert!(changed.contains(&first) && changed.contains(&DATA) && changed.contains(&(leaf >> 12 << 12)));
    assert!(slots.iter().all(|(page, slot)| !changed.contains(page) || raw.memory.read(Pa(*slot)) & 0xc0 == 0xc0));
}

#[test]
fn a_fence_stores_its_data_and_drains() {
    let mut raw = Raw::new();
    raw.command([2 | 1 << 10 | 3 << 12 | 0xc0de << 32, 0x8001_3000 >> 2]);
    let mut unit = raw.unit;
    unit.write_register_at(0x24, 4, 2);
    unit.command_queue_advance(CommandInput::Continue, &mut Plain);
    let words = [2 | 1 << 10 | 3 << 12 | 0xc0de << 32, 0x8001_3004 >> 2];
    let drain = unit.command_queue_advance(CommandInput::Command(words), &mut Plain);
    assert!(matches!(drain, CommandProgress::Drain { reads: true, writes: true, .. }));
    let store = unit.command_queue_advance(CommandInput::Drained, &mut Plain);
    assert!(matches!(store, CommandProgress::Write { pa: Pa(0x8001_3004), data: 0xc0de, .. }));
}
