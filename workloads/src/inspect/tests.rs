//! Goal: the decoder shows what a real run hands over, and survives anything. Method: the memory of a run in the step before
//! its jump, as it is and with words overwritten.

use std::sync::OnceLock;

use iommu_model::addr::Pa;
use proptest::prelude::*;
use sim::memory::Ram;

use super::*;
use crate::run::{How, Run, RunSpec, Workspace};

/// A run that comes to its jump, of both generations of layouts.
fn spec(kernel: &str) -> RunSpec {
    crate::token::decode(&crate::token::encode(&plain(kernel)).expect("a plain run has a token")).expect("reads back")
}

fn plain(kernel: &str) -> RunSpec {
    let revision = crate::revision::Revision::by_name(kernel).expect("a revision");
    RunSpec {
        scenario: crate::scenario::by_name("update-with-dma").expect("a scenario"),
        outgoing: revision,
        incoming: revision,
        defects: crate::defect::Defects::NONE,
        policy: "uniform".parse().expect("a policy"),
        seed: 0,
        fail_nth: None,
        settings: crate::scenario::Settings::new(),
    }
}

/// Handed-over bytes: root FDT, frames that are not all zero.
type Bytes = (u64, Vec<(u64, Vec<u64>)>);

fn handed_over(kernel: &str) -> Bytes {
    let spec = spec(kernel);
    let mut workspace = Workspace::new();
    let mut begin = || {
        let policy = spec.policy.build(spec.seed, &Default::default(), sim::policy::FaultPlan::Never);
        Run::start(&mut workspace, &spec, policy, &How::default())
    };
    let mut run = begin();
    let mut steps = 0;
    while run.machine().memory().era == 0 {
        assert!(run.burst(1), "the run comes to its jump");
        steps += 1;
    }
    let mut run = begin();
    assert!(run.burst(steps - 1));
    let memory = run.machine().memory();
    let fdt = outgoing_fdt(&memory).expect("KHO is on");
    let frame = |pfn: u64| (0..512).map(|word| memory.ram.load(Pa(pfn * 4096 + word * 8), 8)).collect::<Vec<_>>();
    let frames = (0..memory.ram.nr_frames() as u64).map(|pfn| (pfn, frame(pfn))).filter(|(_, words)| words.iter().any(|word| *word != 0));
    (fdt.0, frames.collect())
}

fn of_v2() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| handed_over("v2"))
}

fn of_tip() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| handed_over("tip-reclaim"))
}

fn ram(bytes: &Bytes) -> Ram {
    let mut ram = Ram::new(1024);
    for (pfn, words) in &bytes.1 {
        for (index, word) in words.iter().enumerate() {
            ram.store(Pa(pfn * 4096 + index as u64 * 8), 8, *word);
        }
    }
    ram
}

#[test]
fn each_generation_is_decoded_to_the_guest_page() {
    for (bytes, words) in [
        (of_v2(), ["\"luo-v1\"", "luo_session_header_ser", "\"iommu-liveupdate-v1\"", "iommu_domain_ser[0] at +0x10"]),
        (of_tip(), ["luo_ser at", "kho_block_header_ser at", "\"iommu-liveupdate\"", "+0x000 version = 1"]),
    ] {
        let text = decode(&ram(bytes), Pa(bytes.0));
        let common = ["\"session-", "\"memfd-v2\"", "\"iommufd-v1\"", "\"vfio-pci-v1\"", "-> memfd folio#1 pa", "00:02.0: did", "records"];
        for word in words.into_iter().chain(common) {
            assert!(text.contains(word), "{word} in\n{text}");
        }
        // On a sound kernel the two agree: everything a structure names is preserved, and every record is named.
        for word in ["NOT PRESERVED", "named by nothing", "not readable", "no RAM", "cut off", "not known"] {
            assert!(!text.contains(word), "{word} in\n{text}");
        }
    }
}

#[test]
fn a_page_that_no_record_keeps_is_said_to_be_lost() {
    let bytes = of_tip();
    let mut ram = ram(bytes);
    let text = decode(&ram, Pa(bytes.0));
    let root = text.lines().find_map(|line| line.trim().strip_prefix("preserved-memory-map = ")).expect("the root FDT has it");
    let root = u64::from_str_radix(root.rsplit_once("0x").expect("an address").1, 16).expect("hex");
    ram.fill(Pa(root), 4096, 0, true);
    let text = decode(&ram, Pa(bytes.0));
    assert!(text.contains("NOT PRESERVED  iommu_flb_ser#1"), "{text}");
    assert!(text.contains(", 0 records"), "{text}");
}

#[test]
fn memory_of_nothing_and_of_ones_is_no_handover() {
    for word in [0, u64::MAX, 0x6b6b_6b6b_6b6b_6b6b] {
        let mut ram = Ram::new(8);
        for pfn in 0..8 {
            ram.fill(Pa(pfn * 4096), 4096, word, true);
        }
        for fdt in [0, 0x1000, 0x1004, 0x7000, 0x8000, !0xfff, u64::MAX] {
            assert!(decode(&ram, Pa(fdt)).contains("not readable"), "{word:#x} at {fdt:#x}");
        }
    }
}

#[test]
fn marks_are_named_as_the_lists_name_them() {
    assert_eq!(At::parse("kexec"), Ok(At::Kexec));
    assert_eq!(At::parse("adoption"), At::parse("adoption-done"));
    assert_eq!(At::parse("finish"), At::parse("finish-reached"));
    assert!(At::parse("adopton").expect_err("no such mark").contains("did you mean `adoption`?"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn overwritten_words_neither_panic_nor_run_away(
        tip in any::<bool>(),
        places in prop::collection::vec((any::<prop::sample::Index>(), 0..512u64), 1..6),
        values in prop::collection::vec(prop_oneof![any::<u64>(), 0..20u64, (0..1100u64).prop_map(|pfn| pfn << 12 | 3)], 6),
    ) {
        let bytes = if tip { of_tip() } else { of_v2() };
        let mut ram = ram(bytes);
        for ((frame, word), value) in places.iter().zip(&values) {
            let (pfn, _) = &bytes.1[frame.index(bytes.1.len())];
            ram.store(Pa(pfn * 4096 + word * 8), 8, *value);
        }
        prop_assert!(decode(&ram, Pa(bytes.0)).len() < 4 << 20);
    }
}
