//! Registers: commands, status, root switch, register-based invalidation, access by offset.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::{Bench, Scripted, Tables};
use iommu_model::spec::vtd::capability::{Cap, Ecap, SSLPS_1G, SSLPS_2M};
use iommu_model::spec::vtd::register::{ContextCommand, InvalidateAddress, IotlbCommand, QueueIndex};
use iommu_model::{Access, Capabilities, FetchKind, Geometry, Pa, Params, Pfn, Plain, Question, Register, Unit, locate_register};

/// A second world: other tables, where the page is another frame.
fn other_root(bench: &mut Bench) -> Pa {
    let mut tables = Tables::new(Pfn(0x2000));
    let stage = tables.second_stage(4);
    tables.attach(&mut bench.memory, DEVICE, DOMAIN, stage);
    tables.map(&mut bench.memory, stage, IOVA, OTHER_PAGE, 12);
    tables.root
}

fn queue_off(bench: &mut Bench) {
    bench.command(|command| command.set_queue_enable(false));
}

#[test]
fn capabilities_read_as_they_were_given() {
    let given = Capabilities {
        root_switch_invalidates: true,
        caching_mode: true,
        guest_width: 48,
        fault_records: 8,
        superpage_1g: false,
        ..Default::default()
    };
    let unit = Unit::new(given, Params::default());
    let cap = Cap::from_bits(unit.read_register(Register::Cap));
    assert!(cap.root_switch_invalidates() && cap.caching_mode() && cap.page_selective());
    assert!(cap.read_drain() && cap.write_drain() && !cap.write_buffer_flush());
    assert_eq!((cap.mgaw(), cap.fault_records(), cap.mask_max(), cap.domains()), (47, 7, 18, 6));
    assert_eq!((cap.superpages(), cap.sagaw()), (SSLPS_2M, 0b1110));
    assert_eq!(u64::from(cap.fault_offset()) * 16, Register::FrcdLow(0).offset());
    let full = Cap::from_bits(Capabilities::default().cap());
    assert_eq!(full.superpages(), SSLPS_2M | SSLPS_1G);
    let ecap = Ecap::from_bits(unit.read_register(Register::Ecap));
    assert!(ecap.coherent() && ecap.queued_invalidation() && ecap.pass_through() && ecap.snoop_control());
    assert_eq!(u64::from(ecap.iotlb_offset()) * 16, Register::Iva.offset());
}

#[test]
fn the_root_pointer_takes_effect_with_srtp_only() {
    let (mut bench, _) = Bench::mapped();
    let root = other_root(&mut bench);
    bench.write(Register::Rtaddr, root.0);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    assert_eq!(bench.unit.read_register(Register::Rtaddr), root.0);
    assert!(bench.command(|command| command.set_set_root_table(true)).root_switched);
    assert!(bench.status().set_root_table());
}

#[test]
fn srtp_with_esrtps_drops_every_cache_and_restarts_every_walk() {
    let cap = Capabilities { root_switch_invalidates: true, ..Default::default() };
    let (mut bench, _) = Bench::mapped_with(cap, Params::default());
    bench.read(IOVA);
    let walk = bench.begin(IOVA.offset(4096), Access::Read);
    bench.run_to_fetch(walk, FetchKind::Table { level: 1 });
    let root = other_root(&mut bench);
    let effect = bench.switch_root(root);
    let done = effect.invalidated.expect("everything was invalidated");
    assert_eq!((done.entries_dropped, done.walks_restarted), (5, 1));
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn srtp_without_esrtps_keeps_everything_unless_the_caller_says_otherwise() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let root = other_root(&mut bench);
    assert_eq!(bench.switch_root(root).invalidated, None);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    bench.write(Register::Rtaddr, root.0);
    let mut d = Scripted::new(|q| q == Question::RootSwitchDropsAll, 1);
    bench.command_with(|command| command.set_set_root_table(true), &mut d);
    assert_eq!(d.asked, 1);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn caches_survive_translation_off_and_on() {
    let (mut bench, slot) = Bench::mapped();
    bench.read(IOVA);
    bench.memory.write(slot, 0);
    bench.enable(false);
    bench.enable(true);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "old entries are served again");
}

#[test]
fn translation_changes_only_after_older_requests_landed() {
    let (mut bench, _) = Bench::mapped();
    let effect = bench.command(|command| command.set_translation_enable(false));
    assert!(effect.drain.reads && effect.drain.writes);
    assert!(bench.unit.register_drain_pending());
    assert!(bench.status().translation_enable());
    bench.read(IOVA).translation();
    assert_eq!(bench.unit.register_drained().translation, Some(false));
    assert!(!bench.status().translation_enable());
    let cap = Capabilities { read_drain: false, write_drain: false, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    let effect = bench.command(|command| command.set_translation_enable(false));
    assert_eq!(effect.translation, Some(false), "at once on a unit that does not drain");
}

#[test]
fn one_shot_commands_and_mirrored_bits_show_in_the_status() {
    let mut bench = Bench::new();
    assert!(bench.command(|command| command.set_write_buffer_flush(true)).flushes_write_buffer);
    assert!(!bench.status().write_buffer_flush(), "the flush is over");
    bench.command(|command| command.set_set_interrupt_table(true));
    bench.command(|command| command.set_interrupt_remapping(true));
    assert!(bench.status().set_interrupt_table() && bench.status().interrupt_remapping());
}

#[test]
fn a_register_based_context_invalidation_says_what_it_did() {
    for (granularity, answer, actual) in [(1, 0, 1), (2, 0, 2), (3, 0, 3), (3, 1, 1), (0, 0, 0)] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        queue_off(&mut bench);
        let command = ContextCommand::new().with_granularity(granularity).with_domain(DOMAIN.0).with_source(DEVICE.0).with_invalidate(true);
        let mut d = Scripted::new(|q| matches!(q, Question::OverInvalidate { .. }), answer);
        bench.unit.write_register(Register::Ccmd, command.into_bits(), &mut d);
        let after = ContextCommand::from_bits(bench.unit.read_register(Register::Ccmd));
        assert_eq!((after.invalidate(), after.actual()), (false, actual));
        assert_eq!(bench.unit.caches().contexts().count(), usize::from(actual == 0));
    }
}

#[test]
fn a_register_based_iotlb_invalidation_completes_after_its_drain() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    queue_off(&mut bench);
    bench.write(Register::Iva, InvalidateAddress::new().with_page(IOVA.page_number()).into_bits());
    let command = IotlbCommand::new().with_granularity(3).with_domain(DOMAIN.0).with_drain_writes(true).with_invalidate(true);
    let effect = bench.write(Register::Iotlb, command.into_bits());
    assert!(effect.drain.writes && !effect.drain.reads);
    let after = |bench: &Bench| IotlbCommand::from_bits(bench.unit.read_register(Register::Iotlb));
    assert!(after(&bench).invalidate());
    assert_eq!(bench.unit.caches().iotlb().count(), 0);
    bench.unit.register_drained();
    assert_eq!((after(&bench).invalidate(), after(&bench).actual()), (false, 3));
}

#[test]
fn register_based_invalidation_is_refused_while_the_queue_is_on() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let before = bench.unit.caches().len();
    bench.write(Register::Ccmd, ContextCommand::new().with_granularity(1).with_invalidate(true).into_bits());
    bench.write(Register::Iotlb, IotlbCommand::new().with_granularity(1).with_invalidate(true).into_bits());
    assert_eq!(bench.unit.caches().len(), before);
    let ccmd = ContextCommand::from_bits(bench.unit.read_register(Register::Ccmd));
    assert_eq!((ccmd.invalidate(), ccmd.actual()), (false, 0));
}

#[test]
fn a_context_command_starts_with_its_high_half_only() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    queue_off(&mut bench);
    let offset = Register::Ccmd.offset();
    let command = ContextCommand::new().with_granularity(2).with_domain(DOMAIN.0).with_invalidate(true).into_bits();
    bench.unit.write_register_at(offset, 4, command & 0xffff_ffff, &mut Plain);
    assert_eq!(bench.unit.caches().contexts().count(), 1);
    bench.unit.write_register_at(offset + 4, 4, command >> 32, &mut Plain);
    assert_eq!(bench.unit.caches().contexts().count(), 0);
}

#[test]
fn access_by_offset_sees_the_same_registers() {
    let (mut bench, _) = Bench::mapped();
    for register in Register::fixed() {
        let (_, start, bytes) = locate_register(register.offset()).expect("it has a place");
        assert_eq!(bench.unit.read_register_at(start, bytes), bench.unit.read_register(register));
    }
    let low_and_high = bench.unit.read_register_at(Register::Gcmd.offset(), 8);
    assert_eq!(low_and_high >> 32, bench.unit.read_register(Register::Gsts));
    for (offset, bytes) in [(0x1a, 4), (0x18, 2), (0x20, 16), (0x24, 8)] {
        assert_eq!(bench.unit.read_register_at(offset, bytes), 0);
        let effect = bench.unit.write_register_at(offset, bytes, u64::MAX, &mut Plain);
        assert_eq!(effect, Default::default());
    }
    let fault = bench.read_from(iommu_model::Bdf(0), IOVA).fault();
    assert!(fault.recorded);
    let high = Register::FrcdHigh(0).offset();
    bench.unit.write_register_at(high, 4, u64::MAX, &mut Plain);
    assert!(bench.unit.fault_records()[0].fault(), "F is in the other half");
    bench.unit.write_register_at(high + 4, 4, 1 << 31, &mut Plain);
    assert!(!bench.unit.fault_records()[0].fault());
}

#[test]
fn reset_is_power_on() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    bench.read_from(iommu_model::Bdf(0), IOVA);
    let walk = bench.begin(IOVA, Access::Read);
    bench.unit.reset();
    let fresh = Unit::new(*bench.unit.capabilities(), bench.unit.params().clone());
    assert_eq!(bench.unit.snapshot().to_string(), fresh.snapshot().to_string());
    assert!(!bench.unit.cancel(walk));
}

#[test]
fn only_the_fields_of_the_tail_count() {
    let mut bench = Bench::new();
    bench.write(Register::Iqt, u64::MAX);
    let kept = QueueIndex::new().with_index(0x7fff).into_bits();
    assert_eq!(bench.unit.read_register(Register::Iqt), kept);
}

#[test]
#[should_panic(expected = "walks can be in flight")]
fn a_unit_without_walkers_cannot_be_made() {
    let _ = Unit::new(Capabilities::default(), Params { walks_max: 0, ..Params::default() });
}

#[test]
fn a_cache_of_several_sets_works_as_one() {
    let params = Params {
        iotlb: Geometry { sets: 16, ways: 4 },
        context: Geometry { sets: 4, ways: 1 },
        psc: [Geometry { sets: 2, ways: 2 }; 4],
        ..Params::default()
    };
    let (mut bench, _) = Bench::mapped_with(Capabilities::default(), params);
    bench.read(IOVA);
    assert!(bench.read(IOVA).fetched.is_empty());
}
