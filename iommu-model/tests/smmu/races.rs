//! Races that the hardware may lose: each test shows the legal bad outcome, and the command that forbids it.

use super::support::bench::{ASID, Bench, GUEST, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use super::support::tables::{commands, context_0, context_table, page_1, page_2, pointer, stream_2};
use super::support::{DEVICE, Scripted};
use iommu_model::smmu::{Asid, Capabilities, CommandInput, CommandProgress, ConfigFetch, Params, Register, StreamId, StreamTarget, Vmid};
use iommu_model::spec::smmu::event::EventId;
use iommu_model::spec::smmu::register::Control0;
use iommu_model::{Access, FetchKind, Iova, Pa, Plain, Progress, Question, Request};

const LEAF: FetchKind = FetchKind::Stage1 { level: 3 };

/// Race 1: the walk reads the pointer, the table is freed and its frame reused, the walk reads the leaf from the new content.
#[test]
fn race_1_a_walk_translates_from_a_table_that_was_freed_under_it() {
    for invalidated in [false, true] {
        let (mut bench, leaf) = Bench::mapped_1();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        assert_eq!(pa, leaf);
        let pointer_to_it = bench.unit.provenance(walk).expect("it is in flight").last().expect("it read something").pa;
        bench.memory.write(pointer_to_it, 0);
        if invalidated {
            bench.invalidate(&[commands::nh_va(VMID, ASID, IOVA, false).into_bits()]);
        }
        bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
        let answer = bench.memory.fetch(pa, bytes);
        let end = match bench.unit.advance(walk, Some(answer), &mut Plain) {
            Progress::Lookup { .. } => bench.finish(walk).progress,
            end => end,
        };
        match end {
            Progress::Done(translation) => assert_eq!((translation.pa, invalidated), (OTHER_PAGE, false)),
            Progress::Fault(fault) => assert_eq!((fault.reason.code(), invalidated), (0x10, true)),
            other => panic!("{other:?}"),
        }
    }
}

/// Race 2: a cached table descriptor leads to the old table, whatever memory says.
#[test]
fn race_2_a_walk_cache_leads_to_the_table_of_yesterday() {
    for (leaf_only, expected) in [(true, PAGE), (false, OTHER_PAGE)] {
        let mut bench = Bench::new();
        let (_, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        bench.map(stage, IOVA.0 + 4096, 3, page_1(PAGE).into_bits());
        let level_2 = bench.read(IOVA).provenance[9].pa;
        let table = bench.frames(1);
        bench.memory.write(level_2, pointer(table));
        bench.memory.write(table.offset(((IOVA.0 >> 12) % 512 + 1) * 8), page_1(OTHER_PAGE).into_bits());
        let next = IOVA.offset(4096);
        bench.invalidate(&[commands::nh_va(VMID, ASID, next, leaf_only).into_bits()]);
        assert_eq!(bench.read(next).translation().pa, expected);
    }
}

/// Race 8: an STE that is changed while it is valid is read in parts.
#[test]
fn race_8_an_ste_is_read_torn_unless_it_is_made_invalid_first() {
    for (fetch, torn) in [(ConfigFetch::Words, true), (ConfigFetch::Pairs, true), (ConfigFetch::Whole, false)] {
        let params = Params { config_fetch: fetch, ..Params::default() };
        let mut bench = Bench::with(Capabilities::default(), params);
        let (old, new) = (bench.stage(12, 1), bench.stage(12, 1));
        bench.map(old, IOVA.0, 3, page_2(PAGE).into_bits());
        bench.map(new, IOVA.0, 3, page_2(OTHER_PAGE).into_bits());
        bench.set_stream(STREAM, stream_2(Vmid(1), old.root));
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, FetchKind::StreamEntry);
        let first = bench.memory.fetch(pa, bytes);
        // The new owner's entry, in one go, but between two fetches of the unit.
        bench.set_stream(STREAM, stream_2(Vmid(2), new.root));
        let mut progress = bench.unit.advance(walk, Some(first), &mut Plain);
        while let Progress::Fetch { pa, bytes, kind: FetchKind::StreamEntry, .. } = progress {
            // Half-way, the old words are still what the walk began with: bring VMID 1 with the new table.
            let mut answer = bench.memory.fetch(pa, bytes);
            if fetch == ConfigFetch::Words && pa == Bench::stream_pa(STREAM).offset(16) {
                let [_, _, vmid, _] = stream_2(Vmid(1), old.root);
                answer = iommu_model::Fetched::word(vmid);
            }
            progress = bench.unit.advance(walk, Some(answer), &mut Plain);
        }
        bench.unit.cancel(walk);
        let cached = bench.unit.caches().streams().next().expect("it was read").target;
        let StreamTarget::Translate(config) = cached else { panic!("{cached:?}") };
        let pair = (config.vmid, config.stage_2.tables.base);
        let expected = match fetch {
            ConfigFetch::Words => (Vmid(1), new.root),
            ConfigFetch::Pairs => (Vmid(2), new.root),
            ConfigFetch::Whole => (Vmid(1), old.root),
        };
        assert_eq!(pair, expected, "{fetch:?}, torn: {torn}");
    }
}

/// Race 10: the new owner of a VMID meets what the old one left in the TLB.
#[test]
fn race_10_a_reused_vmid_serves_the_previous_owners_translations() {
    for flushed in [false, true] {
        let (mut bench, _) = Bench::mapped_2();
        bench.read(IOVA);
        let newcomer = StreamId(STREAM.0 + 1);
        let stage = bench.stage(12, 1);
        bench.map(stage, IOVA.0, 3, page_2(OTHER_PAGE).into_bits());
        bench.set_stream(newcomer, stream_2(VMID, stage.root));
        if flushed {
            bench.invalidate(&[commands::s12_vmall(VMID)]);
        }
        let request = Request { source: iommu_model::Bdf(newcomer.0 as u16), iova: IOVA, access: Access::Read, pasid: None };
        let expected = if flushed { OTHER_PAGE } else { PAGE };
        assert_eq!(bench.request_with(request, &mut Plain).translation().pa, expected);
    }
}

/// Race 14: an invalid structure is cached, so that making it valid needs a command too.
#[test]
fn race_14_an_invalid_entry_may_be_cached_and_then_needs_a_command() {
    for (cached, flushed, works) in [(0, false, true), (1, false, false), (1, true, true)] {
        let mut bench = Bench::new();
        let mut d = Scripted::new(|q| matches!(q, Question::CacheInvalidConfig), cached);
        assert_eq!(bench.read_with(IOVA, &mut d).event(), EventId::BAD_STREAM_ENTRY);
        assert_eq!(d.asked, 1);
        let (_, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        if flushed {
            bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
        }
        assert_eq!(matches!(bench.read(IOVA).progress, Progress::Done(_)), works);
    }
}

/// Race 17: a stale STE goes on translating through tables that the stream no longer has.
#[test]
fn a_stale_ste_is_used_until_it_is_invalidated() {
    let (mut bench, _) = Bench::mapped_1();
    bench.read(IOVA);
    bench.set_stream(STREAM, [0; 4]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    bench.invalidate(&[commands::nsnh_all()]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "a TLB command is no configuration command");
    bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
    assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY);
}

#[test]
fn a_stale_cd_is_used_until_it_is_invalidated() {
    let (mut bench, _) = Bench::mapped_1();
    bench.read(IOVA);
    let stage = bench.stage(12, 0);
    bench.map(stage, IOVA.0, 3, page_1(OTHER_PAGE).into_bits());
    let context = Pa(0x300_0000);
    bench.set_words(context, &[context_0(Asid(9), 48).into_bits(), context_table(stage.root).into_bits()]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    bench.invalidate(&[commands::cfgi_cd(STREAM, iommu_model::Pasid(0), true)]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

/// The CD changes its table but keeps its ASID: without a TLB command the old translations serve the new table.
#[test]
fn a_new_table_under_an_old_asid_needs_a_tlb_command() {
    let (mut bench, _) = Bench::mapped_1();
    bench.read(IOVA);
    let stage = bench.stage(12, 0);
    bench.map(stage, IOVA.0, 3, page_1(OTHER_PAGE).into_bits());
    bench.memory.write(Pa(0x300_0008), context_table(stage.root).into_bits());
    bench.invalidate(&[commands::cfgi_cd(STREAM, iommu_model::Pasid(0), true)]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    bench.invalidate(&[commands::nh_asid(VMID, ASID)]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

/// A consumed invalidation promises nothing before CMD_SYNC.
#[test]
fn an_invalidation_may_take_effect_only_with_the_next_sync() {
    for deferred in [0, 1] {
        let (mut bench, leaf) = Bench::mapped_1();
        bench.read(IOVA);
        bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
        bench.submit(&[commands::nh_va(VMID, ASID, IOVA, true).into_bits()]);
        let mut d = Scripted::new(|q| matches!(q, Question::DeferInvalidation), deferred);
        let done = bench.run_commands_with(&mut d);
        assert!(matches!(done[0], CommandProgress::Consumed { done: Some(done), .. } if done.deferred == (deferred == 1)));
        assert_eq!(bench.unit.read_register(Register::CmdqCons), 1, "consumed all the same");
        assert_eq!(bench.read(IOVA).translation().pa, if deferred == 1 { PAGE } else { OTHER_PAGE });
        bench.submit(&[commands::sync().into_bits()]);
        bench.run_commands_with(&mut Plain);
        assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
    }
}

/// Race 4: a write that was translated before lands before CMD_SYNC is complete, because CMD_SYNC waits for it.
#[test]
fn race_4_a_sync_waits_for_requests_that_were_translated_before() {
    let (mut bench, _) = Bench::mapped_1();
    bench.write(IOVA);
    bench.submit(&[commands::nh_asid(VMID, ASID), commands::sync().into_bits()]);
    bench.step_commands(CommandInput::Continue, &mut Plain);
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Drain { .. }));
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Drain { cost: 0 }));
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 1, "not consumed");
    assert!(matches!(bench.step_commands(CommandInput::Drained, &mut Plain), CommandProgress::Synchronised { .. }));
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 2);
}

/// The handover of a VMID while a nested walk is between its stages.
#[test]
fn a_nested_walk_in_flight_restarts_when_stage_2_is_invalidated() {
    for (command, restarted) in [(commands::s2_ipa(VMID, Iova(GUEST), false), true), (commands::s2_ipa(Vmid(8), Iova(GUEST), false), false)]
    {
        let (mut bench, leaf_1, _) = Bench::mapped_nested();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        assert_eq!(pa, leaf_1);
        bench.invalidate(&[command]);
        let answer = bench.memory.fetch(pa, bytes);
        let next = bench.unit.advance(walk, Some(answer), &mut Plain);
        assert_eq!(matches!(next, Progress::Lookup { cache: iommu_model::CacheKind::Context, .. }), restarted);
        assert_eq!(bench.finish(walk).translation().pa, PAGE);
    }
}

#[test]
fn every_covering_command_restarts_the_walk_and_no_other_does() {
    let cases = [
        (commands::nh_va(VMID, ASID, IOVA, true).into_bits(), true),
        (commands::nh_va(VMID, ASID, IOVA.offset(4096), false).into_bits(), true),
        (commands::nh_va(VMID, ASID, IOVA.offset(4096), true).into_bits(), false),
        (commands::nh_va(VMID, ASID, Iova(IOVA.0 + (4 << 20)), false).into_bits(), false),
        (commands::nh_va(Vmid(8), ASID, IOVA, false).into_bits(), false),
        (commands::nh_asid(VMID, ASID), true),
        (commands::nh_asid(VMID, Asid(6)), false),
        (commands::nh_all(VMID), true),
        (commands::s12_vmall(VMID), true),
        (commands::s12_vmall(Vmid(8)), false),
        (commands::nsnh_all(), true),
        (commands::cfgi_ste(STREAM, true), true),
        (commands::cfgi_cd_all(STREAM), true),
        (commands::cfgi_cd(STREAM, iommu_model::Pasid(1), true), false),
        (commands::cfgi_ste(StreamId(1), false), false),
        (commands::cfgi_all(), true),
    ];
    for (n, (command, restarted)) in cases.into_iter().enumerate() {
        let (mut bench, leaf) = Bench::mapped_1();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        let old = bench.memory.fetch(pa, bytes);
        bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
        bench.invalidate(&[command]);
        let end = bench.unit.advance(walk, Some(old), &mut Plain);
        if restarted {
            assert!(!end.is_end(), "case {n}: {end:?}");
            assert_eq!(bench.finish(walk).translation().pa, OTHER_PAGE, "case {n}");
            assert!(bench.unit.caches().tlb().all(|entry| entry.frame == OTHER_PAGE), "case {n}");
        } else {
            assert!(matches!(&end, Progress::Done(t) if t.pa == PAGE), "case {n}: {end:?}");
        }
    }
}

/// Switching SMMUEN off and on again keeps what was cached: the next kernel meets it.
#[test]
fn a_new_stream_table_does_not_drop_what_the_old_one_led_to() {
    for flushed in [false, true] {
        let (mut bench, _) = Bench::mapped_1();
        bench.read(IOVA);
        bench.control(Control0::new().with_command_queue(true));
        bench.unit.write_register(Register::StrtabBase, 0x500_0000);
        if flushed {
            bench.invalidate(&[commands::cfgi_all(), commands::nsnh_all()]);
        }
        bench.control(Control0::new().with_command_queue(true).with_enable(true));
        let request = Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: None };
        let ended = bench.request_with(request, &mut Plain);
        assert_eq!(matches!(ended.progress, Progress::Done(_)), !flushed);
    }
}

/// Race 12: a record that was committed lands after the queue was switched off; only CR0ACK says that none will.
#[test]
fn race_12_a_committed_event_is_written_into_memory_that_was_handed_over() {
    for waited in [false, true] {
        let mut bench = Bench::new();
        bench.read(IOVA);
        bench.unit.write_register(Register::Cr0, Control0::new().with_enable(true).into_bits().into());
        let queue = Pa(0x210_0000);
        if waited {
            assert!(Control0::from_bits(bench.unit.read_register(Register::Cr0Ack) as u32).event_queue());
            bench.run_events();
            assert!(!Control0::from_bits(bench.unit.read_register(Register::Cr0Ack) as u32).event_queue());
        }
        // The frame belongs to somebody else from here on.
        bench.memory.write(queue, 0x5afe);
        bench.run_events();
        assert_eq!(bench.memory.read(queue) == 0x5afe, waited);
    }
}

/// Race 3: between a command for the TLB and one for the configuration, the TLB is filled again from the stale CD.
#[test]
fn race_3_the_tlb_is_refilled_from_a_stale_cd_if_it_goes_first() {
    for (config_first, expected) in [(false, PAGE), (true, OTHER_PAGE)] {
        let (mut bench, _) = Bench::mapped_1();
        bench.read(IOVA);
        let stage = bench.stage(12, 0);
        bench.map(stage, IOVA.0, 3, page_1(OTHER_PAGE).into_bits());
        bench.memory.write(Pa(0x300_0008), context_table(stage.root).into_bits());
        let (tlb, config) = (commands::nh_asid(VMID, ASID), commands::cfgi_cd(STREAM, iommu_model::Pasid(0), true));
        let order = if config_first { [config, tlb] } else { [tlb, config] };
        for command in order {
            bench.invalidate(&[command]);
            bench.read(IOVA);
        }
        assert_eq!(bench.read(IOVA).translation().pa, expected);
    }
}

/// Race 11: the queue is switched off while a CMD_SYNC is under way; its message still lands, and CR0ACK tells when none will.
#[test]
fn race_11_the_message_of_a_sync_lands_after_the_queue_was_switched_off() {
    let mut bench = Bench::new();
    bench.submit(&[commands::sync().with_signal(1).with_address(0x8000 >> 2).with_data(42).into_bits()]);
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::WriteMessage { .. }));
    bench.unit.write_register(Register::Cr0, Control0::new().with_enable(true).into_bits().into());
    let acknowledged = |bench: &Bench| Control0::from_bits(bench.unit.read_register(Register::Cr0Ack) as u32).command_queue();
    assert!(acknowledged(&bench), "still on");
    bench.run_commands_with(&mut Plain);
    assert_eq!(bench.memory.read(Pa(0x8000)), 42);
    assert!(!acknowledged(&bench));
}
