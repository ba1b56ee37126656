//! Queued invalidation (`intel/dmar.c`): descriptors in a ring of 256 slots, a status word a slot in RAM.
//!
//! A submission copies its descriptors, appends a wait descriptor that makes hardware write DONE into its own status word, moves
//! the tail, and spins on that word with `q_lock` dropped, so that descriptors of several CPUs are outstanding together. The
//! result is looked at by nobody: the flush functions return void.
//!
//! Not modelled: device-TLB time-outs (ITE) and with them the aborted wait and the restart; there are no device TLBs.

use iommu_model::addr::{Bdf, DomainId};
use iommu_model::spec::vtd::descriptor::{
    ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor, TYPE_CONTEXT, TYPE_IOTLB, TYPE_WAIT,
    WaitDescriptor,
};
use iommu_model::spec::vtd::register::{
    ContextCommand, FaultStatus, InvalidateAddress, IotlbCommand, OFFSET_FSTS, OFFSET_IQA, OFFSET_IQH, OFFSET_IQT, QueueIndex,
};
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu_pages::{iommu_alloc_pages, iommu_free_pages};
use super::super::mm::{Gfp, kfree, kzalloc};
use super::{IntelIommu, cap, registers, seq_id};
use crate::defect::Defect;
use crate::errno::{EINVAL, ENOMEM, Errno};
use crate::tag;

/// `QI_LENGTH`: slots of the ring.
pub const QI_LENGTH: u32 = 256;

/// Values of a status word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// The slot can be filled.
    Free = 0,
    /// Submitted.
    InUse = 1,
    /// Written by hardware through a wait descriptor.
    Done = 2,
}

/// A context-cache invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextFlush {
    /// Everything.
    Global,
    /// One device, cached under this domain.
    Device(DomainId, Bdf),
}

/// An IOTLB invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IotlbFlush {
    /// Everything.
    Global,
    /// All of a domain.
    Domain(DomainId),
    /// 2^order pages at an address; only leaves changed, or tables as well.
    Pages {
        /// Domain.
        did: DomainId,
        /// First address, aligned to the block.
        address: u64,
        /// log2 of the pages.
        order: u8,
        /// `ih`.
        leaf_only: bool,
    },
}

/// `dmar_enable_qi()`: queue and status words, then `__dmar_enable_qi()`. -ENOMEM leaves the unit on its registers.
pub async fn dmar_enable_qi(t: &Task, iommu: Ptr<IntelIommu>) -> Errno {
    let _in = t.call("dmar_enable_qi");
    let desc = iommu_alloc_pages(t, Gfp::Atomic, tag::VTD_QUEUE).await;
    if desc.is_null() {
        return ENOMEM;
    }
    let status: Ptr<u32> = kzalloc(t, QI_LENGTH as u16 * 4, Gfp::Atomic, tag::VTD_STATUS).await;
    if status.is_null() {
        iommu_free_pages(t, desc).await;
        return ENOMEM;
    }
    t.write(iommu.at(IntelIommu::QI_DESC_STATUS), status).await;
    t.init_lock(iommu.at(IntelIommu::QI_LOCK)).await;
    t.write(iommu.at(IntelIommu::QI_FREE_HEAD), 0).await;
    t.write(iommu.at(IntelIommu::QI_FREE_TAIL), 0).await;
    t.write(iommu.at(IntelIommu::QI_FREE_CNT), QI_LENGTH).await;
    let unit = seq_id(t, iommu);
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.mmio_write(unit, OFFSET_IQT as u16, 8, 0).await;
    t.mmio_write(unit, OFFSET_IQA as u16, 8, desc.pa().0).await;
    let command = registers::load_gcmd(t, iommu).await.with_queue_enable(true);
    registers::store_gcmd(t, iommu, command).await;
    registers::gcmd(t, iommu, command, |status| status.queue_enable()).await;
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.write(iommu.at(IntelIommu::QI_DESC), desc).await;
    0
}

/// `dmar_disable_qi()`: gives hardware time to fetch what is queued, then switches the queue off. The kernel waits up to ten
/// seconds for the head; here the head always comes, unless the queue stopped at an error.
pub async fn dmar_disable_qi(t: &Task, iommu: Ptr<IntelIommu>) {
    let _in = t.call("dmar_disable_qi");
    let unit = seq_id(t, iommu);
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    if registers::gsts(t, iommu).await.queue_enable() {
        let tail = t.mmio_read(unit, OFFSET_IQT as u16, 8).await;
        while t.mmio_read(unit, OFFSET_IQH as u16, 8).await != tail && !fault_status(t, iommu).await.queue_error() {
            t.relax().await;
        }
        let command = registers::load_gcmd(t, iommu).await.with_queue_enable(false);
        registers::store_gcmd(t, iommu, command).await;
        registers::gcmd(t, iommu, command, |status| !status.queue_enable()).await;
    }
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
}

/// Frees queue and status words of a unit whose queue is off.
pub async fn free_qi(t: &Task, iommu: Ptr<IntelIommu>) {
    let desc = t.read(iommu.at(IntelIommu::QI_DESC)).await;
    if desc.is_null() {
        return;
    }
    t.write(iommu.at(IntelIommu::QI_DESC), Ptr::NULL).await;
    iommu_free_pages(t, desc).await;
    let status = t.read(iommu.at(IntelIommu::QI_DESC_STATUS)).await;
    kfree(t, status).await;
}

async fn fault_status(t: &Task, iommu: Ptr<IntelIommu>) -> FaultStatus {
    FaultStatus::from_bits(t.mmio_read(seq_id(t, iommu), OFFSET_FSTS as u16, 4).await as u32)
}

/// The wait descriptor of the slot `wait`.
fn wait_descriptor(status: Ptr<u32>, wait: u32) -> u128 {
    WaitDescriptor::new()
        .with_kind(TYPE_WAIT)
        .with_status_write(true)
        .with_data(Status::Done as u32)
        .with_address(status_word(status, wait).pa().0 >> 2)
        .into_bits()
}

fn status_word(status: Ptr<u32>, slot: u32) -> Ptr<u32> {
    status.byte_add(u64::from(slot) * 4)
}

async fn write_descriptor(t: &Task, desc: Ptr<u64>, slot: u32, descriptor: u128) {
    let at: Ptr<u64> = desc.byte_add(u64::from(slot) * 16);
    t.write(at, descriptor as u64).await;
    t.write(at.byte_add(8), (descriptor >> 64) as u64).await;
}

/// `qi_submit_sync()` of one descriptor: 0, or -EINVAL when hardware rejected it.
pub async fn qi_submit_sync(t: &Task, iommu: Ptr<IntelIommu>, descriptor: u128) -> Errno {
    let _in = t.call("qi_submit_sync");
    let unit = seq_id(t, iommu);
    let lock = iommu.at(IntelIommu::QI_LOCK);
    let desc = t.read(iommu.at(IntelIommu::QI_DESC)).await;
    let status = t.read(iommu.at(IntelIommu::QI_DESC_STATUS)).await;
    t.spin_lock(lock).await;
    let mut free_cnt = t.read(iommu.at(IntelIommu::QI_FREE_CNT)).await;
    while free_cnt < 3 {
        t.spin_unlock(lock).await;
        t.relax().await;
        t.spin_lock(lock).await;
        free_cnt = t.read(iommu.at(IntelIommu::QI_FREE_CNT)).await;
    }
    let index = t.read(iommu.at(IntelIommu::QI_FREE_HEAD)).await;
    let wait = (index + 1) % QI_LENGTH;
    write_descriptor(t, desc, index, descriptor).await;
    t.write(status_word(status, index), Status::InUse as u32).await;
    write_descriptor(t, desc, wait, wait_descriptor(status, wait)).await;
    t.write(status_word(status, wait), Status::InUse as u32).await;
    let head = (wait + 1) % QI_LENGTH;
    t.write(iommu.at(IntelIommu::QI_FREE_HEAD), head).await;
    t.write(iommu.at(IntelIommu::QI_FREE_CNT), free_cnt - 2).await;
    if t.k.has(Defect::DoorbellRelaxed) {
        t.mmio_write_relaxed(unit, OFFSET_IQT as u16, 8, queue_index(head)).await;
    } else {
        t.mmio_write(unit, OFFSET_IQT as u16, 8, queue_index(head)).await;
    }
    let mut ret = 0;
    while t.read_once(status_word(status, wait)).await != Status::Done as u32 {
        ret = qi_check_fault(t, iommu, desc, index, wait).await;
        if ret != 0 {
            break;
        }
        // Others queue and complete meanwhile.
        t.spin_unlock(lock).await;
        t.spin_until(status_word(status, wait), |value| value == Status::Done as u32).await;
        t.spin_lock(lock).await;
    }
    t.write(status_word(status, index), Status::Free as u32).await;
    t.write(status_word(status, wait), Status::Free as u32).await;
    reclaim_free_desc(t, iommu, status).await;
    t.spin_unlock(lock).await;
    ret
}

const fn queue_index(slot: u32) -> u64 {
    QueueIndex::new().with_index(slot as u16).into_bits()
}

/// `reclaim_free_desc()`: moves the tail over free slots. `q_lock` is held.
async fn reclaim_free_desc(t: &Task, iommu: Ptr<IntelIommu>, status: Ptr<u32>) {
    let mut tail = t.read(iommu.at(IntelIommu::QI_FREE_TAIL)).await;
    let mut free_cnt = t.read(iommu.at(IntelIommu::QI_FREE_CNT)).await;
    let head = t.read(iommu.at(IntelIommu::QI_FREE_HEAD)).await;
    while tail != head && t.read(status_word(status, tail)).await == Status::Free as u32 {
        tail = (tail + 1) % QI_LENGTH;
        free_cnt += 1;
    }
    t.write(iommu.at(IntelIommu::QI_FREE_TAIL), tail).await;
    t.write(iommu.at(IntelIommu::QI_FREE_CNT), free_cnt).await;
}

/// `qi_check_fault()`: a descriptor that hardware rejected is replaced by a copy of the wait descriptor; the invalidation is lost.
async fn qi_check_fault(t: &Task, iommu: Ptr<IntelIommu>, desc: Ptr<u64>, index: u32, wait: u32) -> Errno {
    let unit = seq_id(t, iommu);
    if !fault_status(t, iommu).await.queue_error() {
        return 0;
    }
    let head = t.mmio_read(unit, OFFSET_IQH as u16, 8).await;
    if head != queue_index(index) {
        return 0;
    }
    let at: Ptr<u64> = desc.byte_add(u64::from(wait) * 16);
    let low = t.read(at).await;
    let high = t.read(at.byte_add::<u64>(8)).await;
    write_descriptor(t, desc, index, u128::from(low) | u128::from(high) << 64).await;
    t.mmio_write(unit, OFFSET_FSTS as u16, 4, u64::from(FaultStatus::new().with_queue_error(true).into_bits())).await;
    EINVAL
}

/// A submission where the machine is down to one CPU: nobody else moves the tail any more, and `q_lock` may be held by a CPU that
/// was stopped. Slots are taken behind the tail that hardware has; a half-written submission of a stopped CPU is overwritten.
///
/// Assumed: live-update.md says only that the shutdown hook takes no lock and polls the queue by hand.
pub async fn qi_submit_on_last_cpu(t: &Task, iommu: Ptr<IntelIommu>, descriptor: u128, wait_for_it: bool) {
    let unit = seq_id(t, iommu);
    let desc = t.read(iommu.at(IntelIommu::QI_DESC)).await;
    let status = t.read(iommu.at(IntelIommu::QI_DESC_STATUS)).await;
    let tail = t.mmio_read(unit, OFFSET_IQT as u16, 8).await;
    let index = u32::from(QueueIndex::from_bits(tail).index());
    let wait = (index + 1) % QI_LENGTH;
    write_descriptor(t, desc, index, descriptor).await;
    write_descriptor(t, desc, wait, wait_descriptor(status, wait)).await;
    t.write(status_word(status, wait), Status::InUse as u32).await;
    t.mmio_write(unit, OFFSET_IQT as u16, 8, queue_index((wait + 1) % QI_LENGTH)).await;
    if wait_for_it {
        t.spin_until(status_word(status, wait), |value| value == Status::Done as u32).await;
    }
}

/// The descriptor of a context-cache invalidation.
pub fn context_descriptor(flush: ContextFlush) -> u128 {
    let descriptor = ContextDescriptor::new().with_kind(TYPE_CONTEXT);
    match flush {
        ContextFlush::Global => descriptor.with_granularity(GRANULARITY_GLOBAL),
        ContextFlush::Device(did, source) => descriptor.with_granularity(GRANULARITY_NARROW).with_domain(did.0).with_source(source.0),
    }
    .into_bits()
}

/// The descriptor of an IOTLB invalidation. Drains are asked for where the unit has them.
pub fn iotlb_descriptor(flush: IotlbFlush, drain_reads: bool, drain_writes: bool) -> u128 {
    let descriptor = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_drain_reads(drain_reads).with_drain_writes(drain_writes);
    match flush {
        IotlbFlush::Global => descriptor.with_granularity(GRANULARITY_GLOBAL),
        IotlbFlush::Domain(did) => descriptor.with_granularity(GRANULARITY_DOMAIN).with_domain(did.0),
        IotlbFlush::Pages { did, address, order, leaf_only } => descriptor
            .with_granularity(GRANULARITY_NARROW)
            .with_domain(did.0)
            .with_page(address >> 12)
            .with_address_mask(order)
            .with_leaf_only(leaf_only),
    }
    .into_bits()
}

/// `iommu->flush.flush_context`: `qi_flush_context()`, or through the register. The result is dropped.
pub async fn flush_context(t: &Task, iommu: Ptr<IntelIommu>, flush: ContextFlush) {
    let _in = t.call("flush_context");
    if !t.read(iommu.at(IntelIommu::QI_DESC)).await.is_null() {
        qi_submit_sync(t, iommu, context_descriptor(flush)).await;
        return;
    }
    let command = match flush {
        ContextFlush::Global => ContextCommand::new().with_granularity(GRANULARITY_GLOBAL),
        ContextFlush::Device(did, source) => {
            ContextCommand::new().with_granularity(GRANULARITY_NARROW).with_domain(did.0).with_source(source.0)
        }
    };
    registers::iommu_flush_context(t, iommu, command).await;
}

/// `iommu->flush.flush_iotlb`: `qi_flush_iotlb()`, or through the register. The result is dropped.
pub async fn flush_iotlb(t: &Task, iommu: Ptr<IntelIommu>, flush: IotlbFlush) {
    let _in = t.call("flush_iotlb");
    let cap = cap(t, iommu).await;
    if !t.read(iommu.at(IntelIommu::QI_DESC)).await.is_null() {
        qi_submit_sync(t, iommu, iotlb_descriptor(flush, cap.read_drain(), cap.write_drain())).await;
        return;
    }
    let command = IotlbCommand::new().with_drain_reads(cap.read_drain()).with_drain_writes(cap.write_drain());
    let (address, command) = match flush {
        IotlbFlush::Global => (0, command.with_granularity(GRANULARITY_GLOBAL)),
        IotlbFlush::Domain(did) => (0, command.with_granularity(GRANULARITY_DOMAIN).with_domain(did.0)),
        IotlbFlush::Pages { did, address, order, leaf_only } => {
            let range = InvalidateAddress::new().with_page(address >> 12).with_address_mask(order).with_leaf_only(leaf_only);
            (range.into_bits(), command.with_granularity(GRANULARITY_NARROW).with_domain(did.0))
        }
    };
    registers::iommu_flush_iotlb(t, iommu, address, command).await;
}
