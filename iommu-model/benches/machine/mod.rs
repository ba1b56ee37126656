//! A unit over a flat memory, so that a fetch costs next to nothing and what is measured is the unit.

use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, Capabilities, DomainId, Fetched, Iova, Pa, Params, Plain, Progress, QueueInput, QueueProgress, Register, Request, Unit,
};

pub(crate) const DEVICE: Bdf = Bdf::new(0, 3, 0);
pub(crate) const DOMAIN: DomainId = DomainId(5);
/// Frames of the tables: root, context, levels 4 to 1.
const ROOT: u64 = 1;
const LEVEL_1: u64 = 6;
const FRAMES: usize = 8;
pub(crate) const PAGES: u64 = 512;

/// A unit over a flat memory in which one device has 512 pages.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) unit: Unit,
    words: Vec<u64>,
}

impl Machine {
    pub(crate) fn new(params: Params) -> Self {
        let mut machine = Self { unit: Unit::new(Capabilities::default(), params), words: vec![0; FRAMES * 512] };
        machine.store_wide(ROOT, 0, RootEntry::new().with_present(true).with_context_table(2).into_bits());
        let context = ContextEntry::new().with_present(true).with_second_stage(3).with_address_width(AW_48).with_domain(DOMAIN.0);
        machine.store_wide(2, u64::from(DEVICE.devfn()) * 2, context.into_bits());
        let entry = |frame| SecondStageEntry::new().with_read(true).with_write(true).with_frame(frame).into_bits();
        for frame in 3..LEVEL_1 {
            machine.words[(frame * 512) as usize] = entry(frame + 1);
        }
        for page in 0..PAGES {
            machine.words[(LEVEL_1 * 512 + page) as usize] = entry(0x100 + page);
        }
        machine.start();
        machine
    }

    fn store_wide(&mut self, frame: u64, word: u64, bits: u128) {
        let index = (frame * 512 + word) as usize;
        (self.words[index], self.words[index + 1]) = (bits as u64, (bits >> 64) as u64);
    }

    /// Root table set, queue and translation on.
    pub(crate) fn start(&mut self) {
        self.unit.write_register(Register::Rtaddr, ROOT << 12, &mut Plain);
        self.unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
        self.unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
        self.unit.register_drained();
    }

    pub(crate) fn translate(&mut self, iova: Iova) -> Pa {
        let request = Request { source: DEVICE, iova, access: Access::Read, pasid: None };
        let walk = self.unit.begin(request).expect("a walker is free");
        let mut answer = None;
        loop {
            answer = match self.unit.advance(walk, answer, &mut Plain) {
                Progress::Fetch { pa, .. } => {
                    let index = (pa.0 / 8) as usize & (FRAMES * 512 - 1);
                    Some(Fetched::Words([self.words[index], self.words[index | 1]]))
                }
                Progress::Done(translation) => return translation.pa,
                Progress::Lookup { .. } => None,
                other => panic!("{other:?}"),
            };
        }
    }

    #[allow(dead_code, reason = "not every bench invalidates")]
    pub(crate) fn invalidate(&mut self, descriptor: u128) {
        let mut tail = self.unit.read_register(Register::Iqt) + 16;
        tail %= 4096;
        self.unit.write_register(Register::Iqt, tail, &mut Plain);
        let mut input = QueueInput::Continue;
        loop {
            input = match self.unit.queue_advance(input, &mut Plain) {
                QueueProgress::Idle => return,
                QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor([descriptor as u64, (descriptor >> 64) as u64]),
                QueueProgress::Drain { .. } => QueueInput::Drained,
                _ => QueueInput::Continue,
            };
        }
    }
}

pub(crate) fn page(n: u64) -> Iova {
    Iova((n % PAGES) << 12)
}
