//! A clock around a unit: memory that needs no storing, requests that overlap, and a link and a memory behind them.
//!
//! Time is counted from what each step of the unit says that it costs; nothing else knows any latency of the unit.

use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, Capabilities, Fetched, Geometry, Iova, Pa, Params, Plain, Progress, Register, Request, Timing, Translation, Unit, WalkId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub(crate) const DEVICE: Bdf = Bdf::new(0, 3, 0);
/// Cycles of one table fetch: four of them are the 330 ns that a cold walk is said to add.
pub(crate) const FETCH: u32 = 82;
/// Nanoseconds of a memory read without any translation. A figure of the shape, not of a part.
pub(crate) const MEMORY_READ: u64 = 430;

/// Look-ups cost nothing, so that closed forms have one term a fetch.
pub(crate) fn params() -> Params {
    let timing = Timing { context_lookup: 0, iotlb_lookup: 0, psc_lookup: 0, table_fetch: FETCH, ..Timing::default() };
    Params { psc: [OFF; 4], timing, merge_same_page: false, ..Params::default() }
}

pub(crate) const OFF: Geometry = Geometry { sets: 1, ways: 0 };

/// What memory holds: root table in frame 1, context table in 2, one table a level in 3 to 6, each entry leading to the one
/// below; leaves map any frame. `large` makes level-2 entries leaves of 2 MiB.
pub(crate) fn fetch(pa: Pa, large: bool) -> Fetched {
    let wide = |bits: u128| Fetched::Words([bits as u64, (bits >> 64) as u64]);
    let entry = |frame| SecondStageEntry::new().with_read(true).with_write(true).with_frame(frame);
    match pa.pfn().0 {
        1 => wide(RootEntry::new().with_present(true).with_context_table(2).into_bits()),
        2 => wide(ContextEntry::new().with_present(true).with_second_stage(3).with_address_width(AW_48).with_domain(5).into_bits()),
        5 if large => Fetched::word(entry(0).with_page_size(true).into_bits()),
        frame => Fetched::word(entry(frame + 1).into_bits()),
    }
}

/// A unit in use, after one request so that the context entry is cached.
pub(crate) fn unit(params: Params) -> Unit {
    let mut unit = Unit::new(Capabilities::default(), params);
    unit.write_register(Register::Rtaddr, 1 << 12, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    unit
}

/// One request from begin to end, alone.
pub(crate) fn translate(unit: &mut Unit, iova: Iova, large: bool) -> Translation {
    if let Some(translation) = unit.translate_cached(&request(iova)) {
        return translation;
    }
    let walk = unit.begin(request(iova)).expect("a walker is free");
    let mut answer = None;
    loop {
        match unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, .. } => answer = Some(fetch(pa, large)),
            Progress::Done(translation) => return translation,
            Progress::Lookup { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn request(iova: Iova) -> Request {
    Request { source: DEVICE, iova, access: Access::Read, pasid: None }
}

/// Numbers that look random, the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a device reads: so many requests at a time, of so many bytes, over a link of so many bytes a microsecond.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) outstanding: u64,
    pub(crate) bytes: u64,
    pub(crate) link_bytes_per_us: u64,
    /// Every request needs a walk; else none does.
    pub(crate) misses: bool,
}

/// What happens at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The walk takes its next step.
    Step { walk: u16 },
    /// Memory has answered; the data waits for the link.
    Answered,
    /// The device has the data and sends the next request.
    Sent,
}

/// What was measured.
pub(crate) struct Measured {
    /// Bytes a microsecond, which is megabytes a second.
    pub(crate) bytes_per_us: f64,
    /// Most requests that waited for a walker.
    pub(crate) waiting_max: usize,
    /// Most walks in flight.
    pub(crate) walks_max: usize,
}

/// Runs `count` reads and measures the second half of them.
pub(crate) fn read(params: Params, load: Load, count: u64) -> Measured {
    let iotlb = if load.misses { OFF } else { params.iotlb };
    let walkers = params.walks_max;
    let mut unit = unit(Params { iotlb, ..params });
    translate(&mut unit, Iova(0), false);
    let mut events = BinaryHeap::new();
    let mut walks: Vec<Option<(WalkId, Option<Fetched>)>> = vec![None; usize::from(walkers)];
    let mut waiting: VecDeque<Iova> = VecDeque::new();
    let (mut sent, mut done, mut link_free_at, mut half_at) = (0u64, 0u64, 0u64, 0u64);
    let (mut waiting_max, mut walks_max) = (0, 0);
    for _ in 0..load.outstanding {
        events.push(Reverse((0, 0, Event::Sent)));
    }
    let mut serial = 1;
    let mut last = 0;
    while let Some(Reverse((now, _, event))) = events.pop() {
        let mut at = |time: u64, event| {
            serial += 1;
            events.push(Reverse((time, serial, event)));
        };
        match event {
            Event::Sent if done >= count => {}
            Event::Sent => {
                sent += 1;
                waiting.push_back(Iova(if load.misses { (sent % 0x10_0000) << 12 } else { 0 }));
            }
            Event::Step { walk } => {
                let (id, answer) = walks[usize::from(walk)].take().expect("it is in flight");
                let progress = unit.advance(id, answer, &mut Plain);
                let then = now + u64::from(progress.cost());
                match progress {
                    Progress::Done(_) => at(then + MEMORY_READ, Event::Answered),
                    Progress::Fetch { pa, .. } => {
                        walks[usize::from(walk)] = Some((id, Some(fetch(pa, false))));
                        at(then, Event::Step { walk });
                    }
                    Progress::Lookup { .. } => {
                        walks[usize::from(walk)] = Some((id, None));
                        at(then, Event::Step { walk });
                    }
                    other => panic!("{other:?}"),
                }
            }
            Event::Answered => {
                link_free_at = link_free_at.max(now * 1000) + load.bytes * 1_000_000 / load.link_bytes_per_us;
                at(link_free_at / 1000, Event::Sent);
                done += 1;
                last = link_free_at;
                if done == count / 2 {
                    half_at = link_free_at;
                }
            }
        }
        // A walker that became free takes the request that has waited longest.
        while let Some(&iova) = waiting.front() {
            let Ok(id) = unit.begin(request(iova)) else { break };
            waiting.pop_front();
            walks[usize::from(id.slot())] = Some((id, None));
            at(now, Event::Step { walk: id.slot() });
        }
        waiting_max = waiting_max.max(waiting.len());
        walks_max = walks_max.max(unit.in_flight_count());
    }
    let bytes = (done - count / 2) * load.bytes;
    Measured { bytes_per_us: bytes as f64 * 1e6 / (last - half_at) as f64, waiting_max, walks_max }
}
