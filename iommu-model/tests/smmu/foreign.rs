//! Tables that another crate has built: a mistake in the layouts of `spec` cannot hide in both the builder and the walker.

use super::support::bench::{ASID, Bench, Scripted, VMID};
use super::support::tables::{context_0, context_table, stage_2_words, stream_1};
use aarch64_paging::descriptor::{El1Attributes, PagingAttributes, PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, RootTable, Stage2, TranslationRegime, VaRange};
use aarch64_paging::target::TargetAllocator;
use iommu_model::smmu::StreamId;
use iommu_model::spec::smmu::stream::{CONFIG_STAGE_2, StreamEntry0};
use iommu_model::{Access, Iova, Pa, Progress, Question, Request};
use proptest::prelude::*;

/// Where the tables of the other crate are loaded.
const LOADED: u64 = 0x800_0000;
const STREAM: StreamId = super::support::bench::STREAM;

/// One range that is mapped; the later one wins.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    first: u64,
    pages: u64,
    frame: u64,
    writable: bool,
}

impl Mapped {
    fn covers(&self, address: u64) -> bool {
        address >= self.first && address - self.first < self.pages << 12
    }
}

/// Ranges that often have room for blocks and runs.
fn mapped() -> impl Strategy<Value = Mapped> {
    let place = prop_oneof![(0u64..1 << 10).prop_map(|n| n << 9), 0u64..1 << 19, (0u64..1 << 15).prop_map(|n| n << 4)];
    let pages = prop_oneof![1u64..5, 16u64..40, 512u64..1600];
    (place.clone(), pages, place, any::<bool>()).prop_map(|(first, pages, frame, writable)| Mapped {
        first: first << 12,
        pages,
        frame: frame << 12,
        writable,
    })
}

/// Maps everything, later ranges over earlier ones, and loads the tables. The base is added to every address.
fn load<R: TranslationRegime>(
    bench: &mut Bench,
    mut root: RootTable<R, TargetAllocator<R::Attributes>>,
    base: u64,
    ranges: &[Mapped],
    flags: impl Fn(bool) -> R::Attributes,
) -> Pa
where
    R::Attributes: PagingAttributes,
{
    for range in ranges {
        let region = MemoryRegion::new((base + range.first) as usize, (base + range.first + (range.pages << 12)) as usize);
        root.map_range(&region, PhysicalAddress(range.frame as usize), flags(range.writable), Constraints::empty()).expect("it fits");
    }
    for (n, word) in root.translation().as_bytes().chunks_exact(8).enumerate() {
        bench.memory.write(Pa(LOADED + n as u64 * 8), u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    Pa(root.to_physical().0 as u64)
}

/// What the ranges say of each probe, and what the unit says.
fn compare(bench: &mut Bench, base: u64, ranges: &[Mapped], probes: &[(u64, bool)], use_runs: bool) -> Result<(), TestCaseError> {
    for &(probe, write) in probes {
        // Near a range more often than by chance.
        let range = ranges[(probe % ranges.len() as u64) as usize];
        let address = range.first + (probe >> 8) % ((range.pages + 2) << 12);
        let expected = ranges.iter().rev().find(|range| range.covers(address));
        let access = if write { Access::Write } else { Access::Read };
        let request = Request { source: super::support::DEVICE, iova: Iova(base + address), access, pasid: None };
        let mut d = Scripted::new(|q| matches!(q, Question::UseContiguous), use_runs.into());
        let ended = bench.request_with(request, &mut d);
        match (expected, &ended.progress) {
            (Some(range), Progress::Done(translation)) => {
                prop_assert!(range.writable || !write, "written: {:?}", range);
                prop_assert_eq!(translation.pa, Pa(range.frame + (address - range.first)));
                prop_assert_eq!(translation.writable, range.writable);
            }
            (Some(range), Progress::Fault(fault)) => prop_assert!(!range.writable && write && fault.reason.code() == 0x13, "{:?}", fault),
            (None, Progress::Fault(fault)) => prop_assert_eq!(fault.reason.code(), 0x10),
            (expected, end) => prop_assert!(false, "{:#x}: {:?} {:?}", address, expected, end),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn stage_1_tables_of_another_crate_translate_in_both_halves(
        ranges in prop::collection::vec(mapped(), 1..6),
        probes in prop::collection::vec((any::<u64>(), any::<bool>()), 1..24),
        level in 0usize..2,
        upper in any::<bool>(),
        use_runs in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let bits = 48 - 9 * level as u8;
        let base = if upper { u64::MAX << bits } else { 0 };
        let half = if upper { VaRange::Upper } else { VaRange::Lower };
        let flags = |writable: bool| {
            let common = El1Attributes::VALID | El1Attributes::ACCESSED | El1Attributes::USER | El1Attributes::NON_GLOBAL;
            if writable { common } else { common | El1Attributes::READ_ONLY }
        };
        let root = RootTable::with_va_range(TargetAllocator::new(LOADED), level, El1And0, half);
        let root = load(&mut bench, root, base, &ranges, flags);
        let context = bench.frames(1);
        let entry = context_0(ASID, bits);
        let table = context_table(root).into_bits();
        if upper {
            let entry = entry.with_disable_0(true).with_disable_1(false).with_size_1(64 - bits).with_granule_1(2);
            bench.set_words(context, &[entry.into_bits(), 0, table]);
        } else {
            bench.set_words(context, &[entry.into_bits(), table, 0]);
        }
        bench.set_stream(STREAM, stream_1(context));
        compare(&mut bench, base, &ranges, &probes, use_runs)?;
    }

    #[test]
    fn stage_2_tables_of_another_crate_translate(
        ranges in prop::collection::vec(mapped(), 1..6),
        probes in prop::collection::vec((any::<u64>(), any::<bool>()), 1..24),
        level in 0usize..2,
        use_runs in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let flags = |writable: bool| {
            let access = if writable { Stage2Attributes::S2AP_ACCESS_RW } else { Stage2Attributes::S2AP_ACCESS_RO };
            Stage2Attributes::VALID | Stage2Attributes::ACCESS_FLAG | access
        };
        let root = RootTable::new(TargetAllocator::new(LOADED), level, Stage2);
        let root = load(&mut bench, root, 0, &ranges, flags);
        let (entry, base) = stage_2_words(VMID, root);
        let entry = entry.with_input_size(16 + 9 * level as u8).with_start_level(2 - level as u8);
        let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_2);
        bench.set_stream(STREAM, [first.into_bits(), 0, entry.into_bits(), base.into_bits()]);
        compare(&mut bench, 0, &ranges, &probes, use_runs)?;
    }
}
