//! A hand-over written by hand: one session with a memfd, an iommufd and a vfio file, one unit, one device, one domain.

use super::super::testing::{self, Bench};
use super::*;
use crate::abi::iommu::{ARRAY_HDR, DELETED, IOMMU_TIP};
use crate::abi::{AbiStruct, iommufd, kho as kho_abi, luo as luo_abi, memfd, vfio};
use crate::verb::FileOp;

const D: u64 = 0x1000_0000;
const FDT: Pa = Pa(0x50_000);
const LUO: Pa = Pa(0x51_000);
const SESSIONS: Pa = Pa(0x52_000);
const FILES: Pa = Pa(0x53_000);
const FLBS: Pa = Pa(0x54_000);
const IOMMU: Pa = Pa(0x55_000);
const DOMAINS: Pa = Pa(0x56_000);
const DEVICES: Pa = Pa(0x57_000);
const UNITS: Pa = Pa(0x58_000);
const MEMFD: Pa = Pa(0x59_000);
const IOMMUFD: Pa = Pa(0x5a_000);
const VFIO: Pa = Pa(0x5b_000);
const TEST: Pa = Pa(0x5c_000);

/// First entry of a block or of a page of an array.
const fn entry(page: Pa) -> Pa {
    Pa(page.0 + ARRAY_HDR.bytes as u64)
}

struct Hand(Bench);

impl Hand {
    fn put(&mut self, layout: &AbiStruct, at: Pa, member: &str, value: u64) {
        let member = layout.member(member).expect("the revision has it");
        self.0.memory.ram.store_unaligned(Pa(at.0 + u64::from(member.offset)), member.bytes.min(8) as u8, value);
    }

    fn text(&mut self, at: Pa, text: &str) {
        for (byte, index) in text.bytes().zip(0..) {
            self.0.memory.ram.store(Pa(at.0 + index), 1, u64::from(byte));
        }
    }

    fn file(&mut self, index: u64, compatible: &str, data: Pa) {
        let at = Pa(entry(FILES).0 + index * u64::from(luo_abi::FILE.bytes));
        self.text(at, compatible);
        self.put(&luo_abi::FILE, at, "data", data.0);
        self.put(&luo_abi::FILE, at, "token", index + 1);
    }

    /// The root tree: a tracker without records, and LUO's blob.
    fn tree(&mut self) {
        let mut words = vec![1, 0, 3, 8, 0];
        words.extend([0, 0, 1, u32::from_be_bytes(*b"LUO\0"), 3, 8, 21, 0, LUO.0 as u32, 2, 2, 9]);
        let header = [0xd00d_feed, 4096, 56, 0x200, 40, 17, 16, 0, 40, words.len() as u32 * 4];
        for (index, word) in header.iter().zip((0..).step_by(4)).map(|(word, at)| (at, *word)).chain((56..).step_by(4).zip(words)) {
            // Values are native, the rest is big-endian.
            let stored = if word == LUO.0 as u32 { word } else { word.swap_bytes() };
            self.0.memory.ram.store(Pa(FDT.0 + index), 4, u64::from(stored));
        }
        // The high half of the value comes second.
        let value = Pa(FDT.0 + 56 + 12 * 4);
        self.0.memory.ram.store_unaligned(value, 8, LUO.0);
        self.text(Pa(FDT.0 + 0x200), "preserved-memory-map\0preserved-data");
    }

    fn new() -> Hand {
        let mut bench = Bench::new();
        bench.attach(D, 5);
        let topo = bench.topo.clone();
        let mut bench = bench.judge_with(|ledger| Box::new(Handover::new(ledger, &topo)));
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        for pfn in 0x50..0x60 {
            bench.memory.ram.fill(Pa(pfn << 12), 4096, 0, true);
        }
        bench.note(verb::DOMAIN_PRESERVED, [D, 0, 0, 0]);
        bench.preserve_device();
        for token in 1..4 {
            bench.note(verb::FILE_OP, [token, FileOp::Serialised as u64 | token << 8, 0, 7]);
        }
        let mut hand = Hand(bench);
        hand.tree();
        hand.put(&luo_abi::LUO, LUO, "sessions_pa", SESSIONS.0);
        hand.put(&luo_abi::LUO, LUO, "flbs_pa", FLBS.0);
        hand.put(&kho_abi::BLOCK_HEADER, SESSIONS, "count", 1);
        hand.text(entry(SESSIONS), "session-1");
        hand.put(&luo_abi::SESSION, entry(SESSIONS), "file_set_ser.files", FILES.0);
        hand.put(&luo_abi::SESSION, entry(SESSIONS), "file_set_ser.count", 3);
        hand.put(&kho_abi::BLOCK_HEADER, FILES, "count", 3);
        hand.file(0, memfd::COMPATIBLE, MEMFD);
        hand.file(1, iommufd::COMPATIBLE, IOMMUFD);
        hand.file(2, vfio::COMPATIBLE, VFIO);
        hand.put(&iommufd::IOMMUFD_SER, IOMMUFD, "nr_hwpts", 1);
        hand.put(&iommufd::HWPT_SER, Pa(IOMMUFD.0 + 4), "domain_data", entry(DOMAINS).0);
        hand.put(&vfio::VFIO_SER, VFIO, "bdf", u64::from(testing::DEVICE.0));
        hand.put(&vfio::VFIO_SER, VFIO, "iommufd_token", 2);
        hand.put(&luo_abi::FLB_HEADER, FLBS, "count", 2);
        for (index, name, data) in [(0, IOMMU_TIP.compatible, IOMMU), (1, luo_abi::TEST_FLB_COMPATIBLE, TEST)] {
            let at = Pa(entry(FLBS).0 + index * u64::from(luo_abi::FLB.bytes));
            hand.text(at, name);
            hand.put(&luo_abi::FLB, at, "data", data.0);
            hand.put(&luo_abi::FLB, at, "count", 1);
        }
        hand.records();
        hand
    }

    fn records(&mut self) {
        let abi = &IOMMU_TIP;
        self.put(&abi.flb.layout, IOMMU, "version", 1);
        let arrays = [("iommu_domain_array_phys", DOMAINS), ("device_array_phys", DEVICES), ("iommu_array_phys", UNITS)];
        for (member, page) in arrays {
            self.put(&abi.flb.layout, IOMMU, member, page.0);
            self.put(&ARRAY_HDR, page, "nr_objects", 1);
            self.put(&abi.domain.layout, entry(page), "hdr.ref_count", 1);
        }
        let at = entry(DOMAINS);
        for (member, value) in [("top_table_phys", testing::TOP.0), ("top_level", 2), ("vasz", 39)] {
            self.put(&abi.domain.layout, at, member, value);
        }
        let at = entry(DEVICES);
        let device = u64::from(testing::DEVICE.0);
        let references = [("map.domain_phys", entry(DOMAINS).0), ("map.iommu_phys", entry(UNITS).0)];
        for (member, value) in [("devid", device), ("map.attachment_id", 5)].into_iter().chain(references) {
            self.put(&abi.device.layout, at, member, value);
        }
        let registers = self.0.topo.units[0].register_base.0;
        let at = entry(UNITS);
        let unit = [("token", registers), ("type", 1), ("intel.phys_addr", registers), ("intel.root_table", testing::ROOT.0)];
        for (member, value) in unit {
            self.put(&abi.hw.layout, at, member, value);
        }
        self.0.memory.ram.store(Pa(at.0 + 48), 8, 1);
    }

    fn jump(&mut self) -> Option<String> {
        self.0.note(verb::BEFORE_JUMP, [FDT.0, Bench::SCRATCH.0, 8 * 4096, 0]).map(|found| found.title)
    }
}

// Goal: a sound hand-over passes; each lie in it is named. Method: one word changed at a time.
#[test]
fn every_word_of_a_hand_over_is_held_against_another() {
    assert_eq!(Hand::new().jump(), None);
    let abi = &IOMMU_TIP;
    let (domain, device, unit) = (entry(DOMAINS), entry(DEVICES), entry(UNITS));
    let lies: [(&AbiStruct, Pa, &str, u64, &str); 19] = [
        (&kho_abi::BLOCK_HEADER, FILES, "count", 2, "count-of-files-is-wrong"),
        (&kho_abi::BLOCK_HEADER, SESSIONS, "count", 0, "block-without-entries"),
        (&kho_abi::BLOCK_HEADER, FILES, "next", FILES.0, "chain-does-not-end"),
        (&luo_abi::FILE, entry(FILES), "token", 2, "token-named-twice"),
        (&luo_abi::FILE, entry(FILES), "token", 9, "entries-are-not-the-files"),
        (&luo_abi::FLB, entry(FLBS), "count", 2, "flb-counts-other-files"),
        (&vfio::VFIO_SER, VFIO, "iommufd_token", 1, "device-of-no-iommufd"),
        (&memfd::SER, MEMFD, "nr_folios", 1, "count-of-folios-is-wrong"),
        (&iommufd::HWPT_SER, Pa(IOMMUFD.0 + 4), "domain_data", 0x1000, "file-names-no-live-domain"),
        (&abi.domain.layout, domain, "top_level", 3, "domain-of-impossible-size"),
        (&abi.domain.layout, domain, "top_table_phys", 0x31_000, "record-is-not-what-hardware-walks"),
        (&abi.domain.layout, domain, "hdr.flags", DELETED as u64, "device-names-no-live-domain"),
        (&abi.device.layout, device, "hdr.flags", DELETED as u64, "unit-counts-other-devices"),
        (&abi.device.layout, device, "map.attachment_id", 6, "record-is-not-what-hardware-walks"),
        (&abi.device.layout, device, "map.iommu_phys", 0x1000, "device-names-no-live-unit"),
        (&abi.hw.layout, unit, "hdr.ref_count", 2, "unit-counts-other-devices"),
        (&abi.hw.layout, unit, "intel.root_table", 0x31_000, "unit-names-another-root"),
        (&abi.hw.layout, unit, "hdr.flags", 2, "object-marked-for-the-next-kernel"),
        (&ARRAY_HDR, DEVICES, "nr_objects", 57, "more-objects-than-fit"),
    ];
    for (layout, at, member, value, title) in lies {
        let mut hand = Hand::new();
        hand.put(layout, at, member, value);
        assert_eq!(hand.jump().as_deref(), Some(title), "{} of {}", member, layout.name);
    }
}

// Goal: a second live record of the same thing is found, and a record of what nobody preserved.
#[test]
fn a_record_stands_once_and_for_a_promise() {
    for (page, layout, title) in [
        (DOMAINS, &IOMMU_TIP.domain.layout, "domain-named-twice"),
        (DEVICES, &IOMMU_TIP.device.layout, "device-named-twice"),
        (UNITS, &IOMMU_TIP.hw.layout, "unit-named-twice"),
    ] {
        let mut hand = Hand::new();
        let (from, bytes) = (entry(page), u64::from(layout.bytes));
        for at in (0..bytes).step_by(8) {
            let word = hand.0.memory.ram.load(Pa(from.0 + at), 8);
            hand.0.memory.ram.store(Pa(from.0 + bytes + at), 8, word);
        }
        hand.put(&ARRAY_HDR, page, "nr_objects", 2);
        assert_eq!(hand.jump().as_deref(), Some(title));
    }
    let mut hand = Hand::new();
    hand.0.note(verb::DEVICE_UNPRESERVED, [u64::from(testing::DEVICE.0), 0, 0, 0]);
    assert_eq!(hand.jump().as_deref(), Some("records-are-not-the-preserved-devices"));
}
