//! Device and process directories: formats, levels, widths, and every field that makes an entry wrong.

use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, leaf};
use iommu_model::riscv::{Capabilities, DeviceId, Pscid, Transaction};
use iommu_model::spec::riscv::device_context::{DirectoryEntry, MODE_PD8, MODE_PD17, MODE_PD20, TablePointer, TranslationControl};
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::spec::riscv::process_context::ProcessAttributes;
use iommu_model::{Access, FetchKind, Pa, Params, Pasid};

fn request(device: DeviceId) -> Transaction {
    Transaction::new(device, IOVA, Access::Read)
}

fn of_process(process: u32) -> Transaction {
    Transaction { process: Some(Pasid(process)), ..request(DEVICE) }
}

/// A process directory of `levels` levels at `root`, as the device sees it `above` its host addresses.
fn set_process(world: &mut World, root: Pa, levels: usize, process: u32, pc: [u64; 2], above: u64) -> Pa {
    let bits = [8u32, 9, 3];
    let mut table = root;
    for level in (1..levels).rev() {
        let below: u32 = bits[..level].iter().sum();
        let slot = table.offset(u64::from(process >> below) % (1 << bits[level]) * 8);
        let entry = DirectoryEntry::from_bits(world.memory.read(slot));
        table = if entry.valid() {
            Pa((entry.ppn() << 12) - above)
        } else {
            let fresh = world.frames(1);
            world.memory.write(slot, DirectoryEntry::new().with_valid(true).with_ppn((fresh.0 + above) >> 12).into_bits());
            fresh
        };
    }
    let pa = table.offset(u64::from(process % 256) * 16);
    world.memory.write(pa, pc[0]);
    world.memory.write(pa.offset(8), pc[1]);
    pa
}

fn pc(first: TablePointer, pscid: Pscid) -> [u64; 2] {
    [ProcessAttributes::new().with_valid(true).with_pscid(pscid.0).into_bits(), first.into_bits()]
}

/// One device with a process directory that leads process 5 to a first stage with one page.
fn with_processes(mode: u8) -> (World, Pa, TablePointer) {
    let mut world = World::new();
    let root = world.frames(1);
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE), 12);
    world.set_device(DEVICE, Dc::bare().directory(root, mode));
    let first = crate::support::pointer(tables);
    set_process(&mut world, root, usize::from(mode), 5, pc(first, PSCID), 0);
    (world, root, first)
}

#[test]
fn a_device_is_found_through_one_two_or_three_levels_in_both_formats() {
    for msi_flat in [false, true] {
        for (levels, device) in [(1, 0x2a), (2, 0x1234), (3, 0xab_1234)] {
            let cap = Capabilities { msi_flat, msi_mrif: false, ..Capabilities::default() };
            let mut world = World::with(cap, Params::default(), levels);
            let tables = world.first_stage(3);
            world.map(tables, IOVA, leaf(PAGE), 12);
            world.set_device(DeviceId(device), Dc::bare().first(tables, PSCID));
            let ended = world.send(request(DeviceId(device)));
            assert_eq!(ended.translation().pa, PAGE);
            let mut expected: Vec<_> = (1..levels).rev().map(|level| FetchKind::DeviceDirectory { level }).collect();
            expected.push(if msi_flat { FetchKind::ExtendedDeviceContext } else { FetchKind::DeviceContext });
            assert_eq!(ended.fetched[..usize::from(levels)], expected);
        }
    }
}

#[test]
fn a_device_id_wider_than_the_directory_is_disallowed() {
    for (msi_flat, levels, wide) in [(false, 1, 1 << 7), (true, 1, 1 << 6), (false, 2, 1 << 16), (true, 2, 1 << 15)] {
        let cap = Capabilities { msi_flat, msi_mrif: false, ..Capabilities::default() };
        let mut world = World::with(cap, Params::default(), levels);
        let ended = world.send(request(DeviceId(wide)));
        assert_eq!((ended.cause(), ended.fetched.len()), (Cause::TYPE_DISALLOWED, 0));
        let ended = world.send(request(DeviceId(wide - 1)));
        assert_eq!(ended.cause(), Cause::DDT_INVALID);
    }
}

#[test]
fn a_wrong_device_directory_entry_is_told_by_its_cause() {
    let mut world = World::with(Capabilities::default(), Params::default(), 2);
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
    let slot = world.directory.offset(u64::from(DEVICE.0 >> 6) * 8);
    let good = world.memory.read(slot);
    for bit in (1..10).chain(54..64) {
        world.memory.write(slot, good | 1 << bit);
        assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_MISCONFIGURED, "bit {bit}");
    }
    world.memory.write(slot, good & !1);
    assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_INVALID);
    world.memory.write(slot, good);
    world.memory.end = Some(world.directory);
    assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_LOAD);
}

#[test]
fn every_reserved_bit_of_a_device_context_makes_it_misconfigured() {
    let mut world = World::new();
    let (first, second) = (world.first_stage(3), world.second_stage(3));
    let pa = world.set_device(DEVICE, Dc::bare().first(first, PSCID).second(second, GSCID));
    let good: Vec<_> = (0..8).map(|n| world.memory.read(pa.offset(8 * n))).collect();
    let reserved = [
        (0, (12..24).chain(32..64).collect::<Vec<_>>()),
        (2, (0..12).chain(32..64).collect()),
        (3, (44..60).collect()),
        (4, (44..60).collect()),
        (5, (52..64).collect()),
        (6, (52..64).collect()),
        (7, (0..64).collect()),
        // The low bits of a second-stage root, SBE, SXL.
        (1, vec![0, 1]),
        (0, vec![10, 11]),
    ];
    for (word, bits) in reserved {
        for bit in bits {
            world.memory.write(pa.offset(8 * word), good[word as usize] | 1 << bit);
            assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_MISCONFIGURED, "doubleword {word} bit {bit}");
            world.memory.write(pa.offset(8 * word), good[word as usize]);
        }
    }
    for bit in 24..32 {
        world.memory.write(pa, good[0] | 1 << bit);
        assert_eq!(world.send(request(DEVICE)).cause(), Cause::READ_GUEST_PAGE, "custom bit {bit} is ignored");
        world.unit.drop_cached(0);
    }
    world.memory.write(pa, good[0] & !1);
    assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_INVALID);
    world.memory.end = Some(pa);
    assert_eq!(world.send(request(DEVICE)).cause(), Cause::DDT_LOAD);
}

fn causes_of(cap: Capabilities, dc: Dc) -> Option<Cause> {
    let mut world = World::with(cap, Params::default(), 1);
    world.set_device(DEVICE, dc);
    match world.send(request(DEVICE)).progress {
        iommu_model::Progress::Fault(fault) => fault.reason.riscv(),
        _ => None,
    }
}

#[test]
fn fields_that_contradict_each_other_or_the_capabilities_make_a_context_misconfigured() {
    let all = Capabilities::default();
    let bare = Dc::bare();
    let wrong = |change: fn(&mut TranslationControl)| bare.control(change);
    let misconfigured = Some(Cause::DDT_MISCONFIGURED);
    assert_eq!(causes_of(all, bare), None);
    for change in [
        (|tc: &mut TranslationControl| tc.set_t2gpa(true)) as fn(&mut TranslationControl),
        |tc| tc.set_enable_pri(true),
        |tc| tc.set_response_pasid(true),
        |tc| tc.set_default_process(true),
        |tc| {
            tc.set_enable_ats(true);
            tc.set_response_pasid(true);
        },
        // T2GPA needs a second stage.
        |tc| {
            tc.set_enable_ats(true);
            tc.set_t2gpa(true);
        },
    ] {
        assert_eq!(causes_of(all, wrong(change)), misconfigured);
    }
    let no_ats = Capabilities { ats: false, t2gpa: false, ..all };
    assert_eq!(causes_of(no_ats, wrong(|tc| tc.set_enable_ats(true))), misconfigured);
    assert_eq!(causes_of(all, wrong(|tc| tc.set_enable_ats(true))), None);
    let no_updates = Capabilities { amo_hwad: false, ..all };
    assert_eq!(causes_of(no_updates, wrong(|tc| tc.set_first_stage_update(true))), misconfigured);
    assert_eq!(causes_of(no_updates, wrong(|tc| tc.set_second_stage_update(true))), misconfigured);
    assert_eq!(causes_of(all, wrong(|tc| tc.set_second_stage_update(true))), None);
}

#[test]
fn a_mode_that_is_reserved_or_that_the_unit_lacks_makes_a_context_misconfigured() {
    let all = Capabilities::default();
    let misconfigured = Some(Cause::DDT_MISCONFIGURED);
    for mode in 0..16u8 {
        let mut dc = Dc::bare();
        dc.fsc.set_mode(mode);
        let supported = matches!(mode, 0 | 8..=10);
        assert_eq!(causes_of(all, dc) == misconfigured, !supported, "iosatp {mode}");
        let lacking = Capabilities { sv39: mode != 8, sv48: false, sv57: false, ..all };
        assert_eq!(causes_of(lacking, dc) == misconfigured, mode != 0, "iosatp {mode}");
        let dc = dc.control(|tc| tc.set_process_directory(true));
        assert_eq!(causes_of(all, dc) == misconfigured, mode > 3, "pdtp {mode}");
        let lacking = Capabilities { pd8: false, pd17: false, pd20: false, ..all };
        assert_eq!(causes_of(lacking, dc) == misconfigured, mode != 0, "pdtp {mode}");
        let mut dc = Dc::bare();
        dc.iohgatp.set_mode(mode);
        assert_eq!(causes_of(all, dc) == misconfigured, !supported, "iohgatp {mode}");
        let lacking = Capabilities { sv39x4: false, sv48x4: false, sv57x4: false, ..all };
        assert_eq!(causes_of(lacking, dc) == misconfigured, mode != 0, "iohgatp {mode}");
        let mut dc = Dc::bare();
        dc.msiptp.set_mode(mode);
        dc.pattern = 1;
        assert_eq!(causes_of(all, dc) == misconfigured, mode > 1, "msiptp {mode}");
    }
}

#[test]
fn a_process_is_found_through_one_two_or_three_levels() {
    for (mode, process) in [(MODE_PD8, 0x5a), (MODE_PD17, 0x1_5a5a), (MODE_PD20, 0xb_5a5a)] {
        let (mut world, root, first) = with_processes(mode);
        set_process(&mut world, root, usize::from(mode), process, pc(first, PSCID), 0);
        let ended = world.send(of_process(process));
        assert_eq!(ended.translation().pa, PAGE);
        let mut expected = vec![FetchKind::ExtendedDeviceContext];
        expected.extend((1..mode).rev().map(|level| FetchKind::ProcessDirectory { level }));
        expected.push(FetchKind::ProcessContext);
        assert_eq!(ended.fetched[..=usize::from(mode)], expected);
        assert!(world.send(of_process(process)).fetched.is_empty());
    }
}

#[test]
fn a_process_directory_on_a_second_stage_is_translated_at_every_level() {
    let mut world = World::new();
    let second = world.second_stage(3);
    let first = world.guest_stage(3, second);
    world.map(first, IOVA, leaf(Pa(crate::support::world::GUEST + PAGE.0)), 12);
    let root = world.frames(1);
    let seen = Pa(root.0 + crate::support::world::GUEST);
    world.set_device(DEVICE, Dc::bare().directory(seen, MODE_PD17).second(second, GSCID));
    set_process(&mut world, root, 2, 5, pc(crate::support::pointer(first), PSCID), crate::support::world::GUEST);
    let ended = world.send(of_process(5));
    assert_eq!(ended.translation().pa, PAGE);
    let before: Vec<_> = ended.fetched.iter().take_while(|kind| **kind != FetchKind::ProcessContext).collect();
    assert_eq!(before.len(), 1 + 2 + 1, "the context, two second-stage entries, the directory entry; then the IOTLB helps");
    // Unmapped, the directory faults as a read, whatever the request is.
    world.command(crate::support::commands::inval_ddt(None).into_bits());
    world.command(crate::support::commands::gvma(None, None).into_bits());
    let mut dc = Dc::bare().directory(Pa(seen.0 + (1 << 36)), MODE_PD17).second(second, GSCID);
    dc.ta.set_pscid(0);
    world.set_device(DEVICE, dc);
    let mut write = of_process(5);
    write.access = Access::Write;
    assert_eq!(world.send(write).cause(), Cause::READ_GUEST_PAGE);
    let record = world.fault();
    assert_eq!((record.iotval, record.iotval2), (IOVA.0, (seen.0 + (1 << 36)) | 1));
}

#[test]
fn a_wrong_process_directory_entry_or_context_is_told_by_its_cause() {
    let (mut world, root, first) = with_processes(MODE_PD17);
    let slot = root;
    let good = world.memory.read(slot);
    for bit in (1..10).chain(54..64) {
        world.memory.write(slot, good | 1 << bit);
        assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_MISCONFIGURED, "bit {bit}");
    }
    world.memory.write(slot, good & !1);
    assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_INVALID);
    world.memory.write(slot, good);
    let [ta, fsc] = pc(first, PSCID);
    for bit in (3..12).chain(32..64) {
        set_process(&mut world, root, 2, 5, [ta | 1 << bit, fsc], 0);
        assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_MISCONFIGURED, "ta bit {bit}");
    }
    for bit in 44..60 {
        set_process(&mut world, root, 2, 5, [ta, fsc | 1 << bit], 0);
        assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_MISCONFIGURED, "fsc bit {bit}");
    }
    for mode in (1..8u8).chain(11..16) {
        set_process(&mut world, root, 2, 5, [ta, TablePointer::from_bits(fsc).with_mode(mode).into_bits()], 0);
        assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_MISCONFIGURED, "mode {mode}");
    }
    set_process(&mut world, root, 2, 5, [ta & !1, fsc], 0);
    assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_INVALID);
    world.memory.end = Some(root);
    assert_eq!(world.send(of_process(5)).cause(), Cause::PDT_LOAD);
}

#[test]
fn a_process_id_must_be_expected_and_fit() {
    let (mut world, ..) = with_processes(MODE_PD8);
    assert_eq!(world.send(of_process(256)).cause(), Cause::TYPE_DISALLOWED);
    // Without process_id and DPE there is no first stage.
    assert!(world.send(request(DEVICE)).translation().pass_through);
    // However many levels the first stage has: they are no levels of a directory.
    for levels in 3..=5 {
        let (mut world, ..) = World::mapped_first(levels);
        assert_eq!(world.send(of_process(5)).cause(), Cause::TYPE_DISALLOWED, "no process directory");
    }
    // A Bare process directory takes any process_id.
    let mut world = World::new();
    world.set_device(DEVICE, Dc::bare().directory(Pa(0), 0));
    assert!(world.send(of_process(0xf_ffff)).translation().pass_through);
}

#[test]
fn with_dpe_a_request_without_process_id_is_of_process_0() {
    let (mut world, root, first) = with_processes(MODE_PD8);
    set_process(&mut world, root, 1, 0, pc(first, PSCID), 0);
    world.set_device(DEVICE, Dc::bare().directory(root, MODE_PD8).control(|tc| tc.set_default_process(true)));
    assert_eq!(world.send(request(DEVICE)).translation().pa, PAGE);
}

#[test]
fn supervisor_requests_need_ens_and_touch_user_pages_only_with_sum() {
    let (mut world, root, first) = with_processes(MODE_PD8);
    let supervisor = Transaction { privileged: true, ..of_process(5) };
    let execute = Transaction { execute: true, ..supervisor };
    assert_eq!(world.send(supervisor).cause(), Cause::TYPE_DISALLOWED);
    let forget = |world: &mut World| {
        world.command(crate::support::commands::inval_ddt(None).into_bits());
    };
    let [ta, fsc] = pc(first, PSCID);
    let ens = ProcessAttributes::from_bits(ta).with_enable_supervisor(true);
    set_process(&mut world, root, 1, 5, [ens.into_bits(), fsc], 0);
    forget(&mut world);
    assert_eq!(world.send(supervisor).cause(), Cause::READ_PAGE, "the page is a user's");
    assert_eq!(world.send(execute).cause(), Cause::INSTRUCTION_PAGE);
    set_process(&mut world, root, 1, 5, [ens.with_supervisor_user_memory(true).into_bits(), fsc], 0);
    forget(&mut world);
    assert_eq!(world.send(supervisor).translation().pa, PAGE);
    assert_eq!(world.send(execute).cause(), Cause::INSTRUCTION_PAGE, "never executed, from the IOTLB either");
    assert_eq!(world.send(of_process(5)).translation().pa, PAGE);
}
