//! First-stage tables that another crate has encoded: VT-d takes the x86-64 format, so `x86_64`, made for CPUs, can build
//! them. Model and test then share no idea of where a bit lies. It chooses the entries' places and makes their bits; the
//! PASID entry and what leads to it are this crate's own.

use iommu_model::spec::vtd::pasid::{PGTT_FIRST, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, ScalableContextEntry};
use iommu_model::spec::vtd::register::GlobalCommand;
use iommu_model::spec::vtd::root::{RootTableAddress, ScalableRootEntry, TTM_SCALABLE};
use iommu_model::translator;
use iommu_model::{
    Access, Bdf, Capabilities, Fault, FaultReason, Fetched, Iova, Pa, Params, Plain, Progress, Register, Request, Scalable, Unit,
};
use std::collections::BTreeMap;
use x86_64::structures::paging::page_table::{PageTableEntry, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};

const DEVICE: Bdf = Bdf::new(0, 4, 0);
const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASIDS: u64 = 0x4000;
const TOP: u64 = 0x5000;

/// Page sizes that the format has.
#[derive(Clone, Copy)]
enum Page {
    Small,
    Middle,
    Large,
}

/// A unit, its memory, and tables that grow upwards.
struct World {
    unit: Unit,
    words: BTreeMap<u64, u64>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let cap = Capabilities { scalable: Some(Scalable::default()), ..Capabilities::default() };
        let mut world = Self { unit: Unit::new(cap, Params::default()), words: BTreeMap::new(), next: TOP + 0x1000 };
        world.store_wide(ROOT, ScalableRootEntry::new().with_lower_present(true).with_lower(CONTEXTS >> 12).into_bits());
        let context = ScalableContextEntry::new().with_present(true).with_directory(DIRECTORY >> 12);
        world.store_wide(CONTEXTS + 32 * u64::from(DEVICE.devfn()), context.into_bits());
        world.words.insert(DIRECTORY, PasidDirectoryEntry::new().with_present(true).with_table(PASIDS >> 12).into_bits());
        let low = PasidEntryLow::new().with_present(true).with_translation_type(PGTT_FIRST).with_domain(7).with_walk_snoop(true);
        world.store_wide(PASIDS, low.into_bits());
        world.words.insert(PASIDS + 16, PasidEntryFirstStage::new().with_first_stage(TOP >> 12).into_bits());
        let root = RootTableAddress::new().with_table(ROOT >> 12).with_mode(TTM_SCALABLE);
        world.unit.write_register(Register::Rtaddr, root.into_bits(), &mut Plain);
        for command in [GlobalCommand::new().with_set_root_table(true), GlobalCommand::new().with_translation_enable(true)] {
            world.unit.write_register(Register::Gcmd, u64::from(command.into_bits()), &mut Plain);
        }
        world.unit.register_drained();
        world
    }

    fn store_wide(&mut self, pa: u64, value: u128) {
        self.words.insert(pa, value as u64);
        self.words.insert(pa + 8, (value >> 64) as u64);
    }

    /// Maps a page; the foreign crate says where entries lie and what they are.
    fn map(&mut self, at: VirtAddr, page: Page, to: PhysAddr, flags: PageTableFlags) {
        let indices = [at.p4_index(), at.p3_index(), at.p2_index(), at.p1_index()];
        let (depth, huge) = match page {
            Page::Small => (4, PageTableFlags::empty()),
            Page::Middle => (3, PageTableFlags::HUGE_PAGE),
            Page::Large => (2, PageTableFlags::HUGE_PAGE),
        };
        let table_flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE;
        let mut table = TOP;
        for index in &indices[..depth - 1] {
            let slot = table + 8 * u64::from(*index);
            let next = self.next;
            let word = *self.words.entry(slot).or_insert_with(|| encode(PhysAddr::new(next), table_flags));
            if word == encode(PhysAddr::new(next), table_flags) {
                self.next += 0x1000;
            }
            table = decode(word);
        }
        self.words.insert(table + 8 * u64::from(indices[depth - 1]), encode(to, flags | huge));
    }

    fn request(&mut self, iova: u64, access: Access) -> Progress {
        let request = Request { source: DEVICE, iova: Iova(iova), access, pasid: None };
        let words = &mut self.words;
        let read = |words: &BTreeMap<u64, u64>, pa: u64| words.get(&pa).copied().unwrap_or(0);
        translator::translate(&mut self.unit, request, &mut Plain, |progress| match *progress {
            Progress::Fetch { pa, .. } => Fetched::Wide(core::array::from_fn(|n| read(words, pa.0 + 8 * n as u64))),
            Progress::Update { pa, old, new, .. } => {
                let found = read(words, pa.0);
                if found == old {
                    words.insert(pa.0, new);
                }
                Fetched::word(found)
            }
            _ => Fetched::NoMemory,
        })
        .expect("a walker is free")
    }

    fn target(&mut self, iova: u64, access: Access) -> Result<Pa, FaultReason> {
        match self.request(iova, access) {
            Progress::Done(translation) => Ok(translation.pa),
            Progress::Fault(fault) => match fault.reason {
                Fault::Vtd(reason) => Err(reason),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

fn encode(to: PhysAddr, flags: PageTableFlags) -> u64 {
    let mut entry = PageTableEntry::new();
    entry.set_addr(to, flags);
    entry.addr().as_u64() | entry.flags().bits()
}

/// The table that an entry leads to, by the foreign crate's own flags.
fn decode(word: u64) -> u64 {
    word & !PageTableFlags::all().bits() & !(0xfff << 52)
}

const USER: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::USER_ACCESSIBLE);

#[test]
fn pages_of_every_size_lead_where_the_foreign_crate_put_them() {
    let mut world = World::new();
    let pages = [
        (0x0000_1234_5678_9000, Page::Small, 0x0000_000a_bcde_f000, 0xfff),
        (0x0000_7fff_ffe0_0000, Page::Middle, 0x0000_0012_3460_0000, 0x1f_ffff),
        (0x0000_4000_4000_0000, Page::Large, 0x0000_01c0_4000_0000, 0x3fff_ffff),
        (0xffff_8000_0020_3000, Page::Small, 0x0000_0000_0077_7000, 0xfff),
    ];
    for (at, page, to, _) in pages {
        world.map(VirtAddr::new(at), page, PhysAddr::new(to), USER | PageTableFlags::WRITABLE);
    }
    for (at, _, to, mask) in pages {
        for offset in [0, 0x123, 0x1_2345, 0x123_4567].map(|offset| offset & mask) {
            assert_eq!(world.target(at + offset, Access::Read), Ok(Pa(to + offset)), "read of {at:#x} + {offset:#x}");
            assert_eq!(world.target(at + offset, Access::Write), Ok(Pa(to + offset)), "write of {at:#x} + {offset:#x}");
        }
    }
}

#[test]
fn flags_of_the_foreign_crate_allow_and_deny() {
    let mut world = World::new();
    let at = |n: u64| 0x40_0000_0000 + n * 0x1000;
    let to = PhysAddr::new(0x9_9000);
    world.map(VirtAddr::new(at(0)), Page::Small, to, USER);
    world.map(VirtAddr::new(at(1)), Page::Small, to, PageTableFlags::PRESENT | PageTableFlags::WRITABLE);
    world.map(VirtAddr::new(at(2)), Page::Small, to, PageTableFlags::USER_ACCESSIBLE | PageTableFlags::WRITABLE);
    assert_eq!(world.target(at(0), Access::Read), Ok(Pa(0x9_9000)));
    assert_eq!(world.target(at(0), Access::Write), Err(FaultReason::SCALABLE_NO_WRITE));
    assert_eq!(world.target(at(1), Access::Read), Err(FaultReason::NOT_USER));
    assert_eq!(world.target(at(2), Access::Read), Err(FaultReason::FIRST_NOT_PRESENT));
}

#[test]
fn accessed_and_dirty_are_the_foreign_crates_flags() {
    let mut world = World::new();
    let at = 0x1_2345_6000;
    world.map(VirtAddr::new(at), Page::Small, PhysAddr::new(0x9_9000), USER | PageTableFlags::WRITABLE);
    let leaf = |world: &World| {
        let is_leaf = |word: &&u64| decode(**word) == 0x9_9000;
        PageTableFlags::from_bits_truncate(*world.words.values().find(is_leaf).expect("the page is mapped"))
    };
    assert!(!leaf(&world).intersects(PageTableFlags::ACCESSED | PageTableFlags::DIRTY));
    world.target(at, Access::Read).expect("it is mapped");
    assert!(leaf(&world).contains(PageTableFlags::ACCESSED) && !leaf(&world).contains(PageTableFlags::DIRTY));
    world.target(at, Access::Write).expect("it is writable");
    assert!(leaf(&world).contains(PageTableFlags::ACCESSED | PageTableFlags::DIRTY));
}
