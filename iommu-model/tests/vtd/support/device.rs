//! A device with a device TLB, and the three kinds of requests it makes.

use super::Bench;
use super::bench::Ended;
use iommu_model::{
    Access, Attributes, Bdf, DeviceInvalidation, DeviceTlb, Geometry, Iova, Pa, Pasid, Plain, Progress, QueueInput, QueueProgress, Request,
};

/// One function and what it keeps.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) source: Bdf,
    pub(crate) tlb: DeviceTlb,
}

impl Device {
    pub(crate) fn new(source: Bdf) -> Self {
        Self { source, tlb: DeviceTlb::new(Geometry::fully_associative(4)) }
    }

    fn send(&self, bench: &mut Bench, attributes: Attributes, pasid: Option<Pasid>, iova: Iova, access: Access) -> Ended {
        let request = Request { source: self.source, iova, access, pasid };
        let walk = bench.unit.begin_as(request, attributes).expect("a walker is free");
        bench.finish(walk)
    }

    /// A translation request, whose answer is left to the test.
    pub(crate) fn ask(&self, bench: &mut Bench, pasid: Option<Pasid>, iova: Iova) -> Ended {
        self.send(bench, Attributes::translation(false), pasid, iova, Access::Read)
    }

    /// The same for one who will not write.
    pub(crate) fn ask_to_read(&self, bench: &mut Bench, pasid: Option<Pasid>, iova: Iova) -> Ended {
        self.send(bench, Attributes::translation(true), pasid, iova, Access::Read)
    }

    /// A translated request.
    pub(crate) fn send_translated(&self, bench: &mut Bench, pa: Pa) -> Ended {
        self.send(bench, Attributes::translated(), None, Iova(pa.0), Access::Read)
    }

    /// An access as such a device makes it: from what it keeps, or after asking. `None` if it is not allowed.
    pub(crate) fn read(&mut self, bench: &mut Bench, iova: Iova) -> Option<Pa> {
        if let Some(pa) = self.tlb.look_up(None, iova, Access::Read) {
            return Some(pa);
        }
        let tag = self.tlb.ask(None, iova).expect("a question is free");
        let end = self.ask(bench, None, iova);
        let answer = *end.translation();
        self.tlb.keep(tag, &answer, &end.provenance, &mut Plain);
        answer.readable.then_some(answer.pa)
    }
}

/// Submits descriptors and runs the queue as far as it goes; `device` removes what it is told to, and completes if `completes`.
pub(crate) fn invalidate(bench: &mut Bench, device: &mut Device, completes: bool, descriptors: &[u128]) -> Vec<QueueProgress> {
    bench.submit(descriptors);
    run(bench, device, completes)
}

/// The same for descriptors that are in the queue already.
pub(crate) fn run(bench: &mut Bench, device: &mut Device, completes: bool) -> Vec<QueueProgress> {
    let mut all = Vec::new();
    let mut input = QueueInput::Continue;
    while all.len() < 512 {
        let progress = bench.step_queue(input, &mut Plain);
        input = match progress {
            QueueProgress::Idle => return all,
            QueueProgress::Drain { .. } => QueueInput::Drained,
            QueueProgress::WriteStatus { pa, data, .. } => {
                bench.memory.write(Pa(pa.0 & !7), u64::from(data));
                QueueInput::Written
            }
            QueueProgress::InvalidateDevice { request, .. } => {
                if completes {
                    obey(bench, device, &request);
                }
                QueueInput::Continue
            }
            _ => QueueInput::Continue,
        };
        all.push(progress);
        if let QueueProgress::Stopped(_) | QueueProgress::Blocked { .. } = progress {
            return all;
        }
    }
    panic!("a queue without end");
}

/// The device removes what it is told to and says so.
pub(crate) fn obey(bench: &mut Bench, device: &mut Device, request: &DeviceInvalidation) {
    device.tlb.invalidate(request);
    let answer = bench.unit.device_completes(device.source, 1 << request.itag);
    assert_eq!((answer.completed, answer.error), (1, false));
}

pub(crate) fn granted(end: &Ended) -> (bool, bool) {
    match &end.progress {
        Progress::Done(translation) => (translation.readable, translation.writable),
        other => panic!("no answer: {other:?}"),
    }
}

/// Queue descriptors.
pub(crate) mod commands {
    use iommu_model::spec::vtd::descriptor::{TYPE_DEVICE_TLB, TYPE_PASID_DEVICE_TLB};
    use iommu_model::spec::vtd::device_tlb::{DeviceTlbDescriptor, PasidDeviceTlbDescriptor};
    use iommu_model::{Bdf, Iova, Pasid};

    pub(crate) fn device_page(source: Bdf, iova: Iova) -> u128 {
        DeviceTlbDescriptor::new().with_kind(TYPE_DEVICE_TLB).with_source(source.0).with_page(iova.page_number()).into_bits()
    }

    pub(crate) fn device_all(source: Bdf) -> u128 {
        let descriptor = DeviceTlbDescriptor::new().with_kind(TYPE_DEVICE_TLB).with_source(source.0);
        descriptor.with_sized(true).with_page(u64::MAX >> 13).into_bits()
    }

    pub(crate) fn device_pasid(source: Bdf, pasid: Pasid, global: bool) -> u128 {
        let descriptor = PasidDeviceTlbDescriptor::new().with_kind(TYPE_PASID_DEVICE_TLB).with_source(source.0).with_pasid(pasid.0);
        descriptor.with_global(global).with_sized(true).with_page(u64::MAX >> 13).into_bits()
    }
}
