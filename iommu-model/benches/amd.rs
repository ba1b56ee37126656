//! What one request costs an AMD-Vi unit on the host, in wall-clock time: `cargo bench -p iommu-model --bench amd`.
//!
//! Memory is a flat array, as in `translate`. Compare two states of the code on one machine and in one hour only.

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_model::amd::{Capabilities, Register, Unit};
use iommu_model::spec::amd::control::Control;
use iommu_model::spec::amd::device_table::DeviceEntryLow;
use iommu_model::spec::amd::guest_table::{GuestCr3Entry, GuestEntry};
use iommu_model::spec::amd::host_table::HostEntry;
use iommu_model::spec::amd::register::DeviceTableBase;
use iommu_model::{Access, Bdf, FetchKind, Fetched, Geometry, Iova, PAGE_SIZE, Pa, Params, Pasid, Plain, Progress, Request};
use std::hint::black_box;

const DEVICE: Bdf = Bdf::new(0, 3, 0);
/// Frames: device table, host tables of level 4 to 1, GCR3 table, guest tables of level 4 to 1.
const DEVICE_TABLE: u64 = 1;
const HOST: u64 = 2;
const GUEST_ROOT: u64 = 6;
const GUEST: u64 = 7;
const FRAMES: usize = 16;
const PAGES: u64 = 512;

/// A unit over a flat memory in which one device has 512 pages.
struct Machine {
    unit: Unit,
    words: Vec<u64>,
}

impl Machine {
    fn new(params: Params) -> Self {
        let mut words = vec![0; FRAMES * 512];
        let device = DeviceEntryLow::new()
            .with_valid(true)
            .with_translation_valid(true)
            .with_mode(4)
            .with_root(HOST)
            .with_read(true)
            .with_write(true)
            .with_domain(5)
            .with_guest_valid(true)
            .with_guest_root(GUEST_ROOT)
            .into_bits();
        let at = DEVICE_TABLE as usize * 512 + usize::from(DEVICE.0) * 4;
        (words[at], words[at + 1]) = (device as u64, (device >> 64) as u64);
        words[GUEST_ROOT as usize * 512 + 1] = GuestCr3Entry::new().with_valid(true).with_frame(GUEST).into_bits();
        let host = |next| HostEntry::new().with_present(true).with_read(true).with_write(true).with_next_level(next);
        let guest = GuestEntry::new().with_present(true).with_write(true).with_user(true).with_accessed(true);
        for (at, next) in (HOST..HOST + 3).zip([3, 2, 1]) {
            words[at as usize * 512] = host(next).with_frame(at + 1).into_bits();
        }
        for at in GUEST..GUEST + 3 {
            words[at as usize * 512] = guest.with_frame(at + 1).into_bits();
        }
        // The host has the guest's frames where they are.
        for page in 0..PAGES {
            words[((HOST + 3) * 512 + page) as usize] = host(0).with_frame(page).into_bits();
            words[((GUEST + 3) * 512 + page) as usize] = guest.with_frame(page).into_bits();
        }
        let mut unit = Unit::new(Capabilities::default(), params);
        unit.write_register(Register::DeviceTableBase, DeviceTableBase::new().with_frame(DEVICE_TABLE).into_bits());
        unit.write_register(Register::Control, Control::new().with_enable(true).with_guest_translation(true).into_bits());
        Self { unit, words }
    }

    fn fetch(&self, pa: Pa, kind: FetchKind) -> Fetched {
        let at = (pa.0 / 8) as usize & (FRAMES * 512 - 1);
        match kind {
            FetchKind::DeviceTableEntry => Fetched::Wide([self.words[at], self.words[at + 1], 0, 0, 0, 0, 0, 0]),
            _ => Fetched::word(self.words[at]),
        }
    }

    fn translate(&mut self, request: Request) -> Pa {
        let walk = self.unit.begin(request).expect("a walker is free");
        let mut answer = None;
        loop {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, kind, .. } => answer = Some(self.fetch(pa, kind)),
                Progress::Done(translation) => return translation.pa,
                Progress::Lookup { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn page(n: u64, pasid: Option<Pasid>) -> Request {
    Request { source: DEVICE, iova: Iova(n % PAGES * PAGE_SIZE), access: Access::Read, pasid }
}

fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("amd");
    let mut one = Machine::new(Params::default());
    one.translate(page(0, None));
    group.bench_function("cached, one page", |b| b.iter(|| one.translate(page(black_box(0), None))));
    group.bench_function("cached, one page, in one call", |b| b.iter(|| one.unit.translate_cached(&page(black_box(0), None))));
    let mut many = Machine::new(Params::default());
    for n in 0..64 {
        many.translate(page(n, None));
    }
    let mut n = 0;
    group.bench_function("cached, 64 pages in turn", |b| {
        b.iter(|| {
            n += 1;
            many.translate(page(black_box(n) % 64, None))
        });
    });
    group.bench_function("leaf fetch only, TLB full", |b| {
        b.iter(|| {
            n += 1;
            many.translate(page(black_box(n), None))
        });
    });
    let off = Geometry { sets: 1, ways: 0 };
    let mut bare = Machine::new(Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() });
    group.bench_function("uncached, five fetches, caches off", |b| b.iter(|| bare.translate(page(black_box(7), None))));
    let nested = Some(Pasid(1));
    group.bench_function("uncached nested, 26 fetches, caches off", |b| b.iter(|| bare.translate(page(black_box(7), nested))));
    group.finish();
}

criterion_group!(benches, translations);
criterion_main!(benches);
