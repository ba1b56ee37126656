//! What each descriptor of the invalidation queue says, and what is wrong with it.
//!
//! A descriptor is refused for an unknown type (IQEI 3), a set reserved field, a granularity that does not exist, or AM above
//! MAMV (IQEI 4). Types that the unit has no use for are unknown to it: PASID-based ones without scalable mode, device-TLB ones
//! without ECAP.DT, page group responses without ECAP.PRS.

use super::invalidate::{ContextScope, Invalidation, IotlbScope, PasidIotlbScope, PasidScope};
use super::registers::Drain;
use super::unit::Unit;
use crate::addr::{Bdf, DomainId, Iova, PAGE_SHIFT, Pa, Pasid};
use crate::ats::{DeviceInvalidation, PageRange, PageResponse, ResponseCode};
use crate::spec::vtd::descriptor::{
    AnyDescriptor, ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor,
    PASID_GRANULARITY_DOMAIN, PASID_GRANULARITY_GLOBAL, PASID_GRANULARITY_PASID, PasidCacheDescriptor, PasidIotlbDescriptor,
    STATUS_ADDRESS_UNIT, TYPE_CONTEXT, TYPE_DEVICE_TLB, TYPE_INTERRUPT_ENTRY, TYPE_IOTLB, TYPE_PAGE_RESPONSE, TYPE_PASID_CACHE,
    TYPE_PASID_DEVICE_TLB, TYPE_PASID_IOTLB, TYPE_WAIT, WaitDescriptor,
};
use crate::spec::vtd::device_tlb::{DEPTH_MAX, DeviceTlbDescriptor, PasidDeviceTlbDescriptor};
use crate::spec::vtd::page_request::PageResponseDescriptor;
use crate::spec::vtd::register::{IQEI_RESERVED, IQEI_TYPE};

/// A decoded descriptor.
pub(crate) enum Command {
    Invalidate { what: Invalidation, drain: Drain },
    Device(DeviceTarget),
    Respond(PageResponse),
    Wait(Wait),
}

/// A wait descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) status: Option<(Pa, u32)>,
    pub(crate) interrupt: bool,
    pub(crate) page_requests: bool,
}

/// A device-TLB descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceTarget {
    pub(crate) request: DeviceInvalidation,
    pub(crate) physical: Bdf,
    pub(crate) depth: u8,
}

impl Unit {
    /// Step 2. The error is an IQEI value.
    pub(crate) fn decode(&self, bits: u128) -> Result<Command, u8> {
        let any = AnyDescriptor::from_bits(bits);
        if any.kind_high() != 0 {
            return Err(IQEI_TYPE);
        }
        match any.kind() {
            TYPE_CONTEXT => decode_context(ContextDescriptor::from_bits(bits)),
            TYPE_IOTLB => self.decode_iotlb(IotlbDescriptor::from_bits(bits)),
            TYPE_DEVICE_TLB if self.cap.device_tlb => decode_device_tlb(DeviceTlbDescriptor::from_bits(bits)),
            TYPE_INTERRUPT_ENTRY => Ok(no_op(Invalidation::InterruptEntry)),
            TYPE_PASID_IOTLB if self.cap.scalable.is_some() => self.decode_pasid_iotlb(PasidIotlbDescriptor::from_bits(bits)),
            TYPE_PASID_CACHE if self.cap.scalable.is_some() => decode_pasid_cache(PasidCacheDescriptor::from_bits(bits)),
            TYPE_PASID_DEVICE_TLB if self.cap.scalable.is_some() && self.cap.device_tlb => {
                decode_pasid_device_tlb(PasidDeviceTlbDescriptor::from_bits(bits))
            }
            TYPE_PAGE_RESPONSE if self.cap.page_requests => decode_response(PageResponseDescriptor::from_bits(bits)),
            TYPE_WAIT => self.decode_wait(WaitDescriptor::from_bits(bits)),
            _ => Err(IQEI_TYPE),
        }
    }

    fn decode_iotlb(&self, descriptor: IotlbDescriptor) -> Result<Command, u8> {
        let reserved =
            descriptor.reserved_8() || descriptor.reserved_12() != 0 || descriptor.reserved_32() != 0 || descriptor.reserved_71() != 0;
        if reserved {
            return Err(IQEI_RESERVED);
        }
        let range = PageRange { address: Iova(descriptor.page() << PAGE_SHIFT), order: descriptor.address_mask() };
        let scope = self.iotlb_scope(descriptor.granularity(), descriptor.domain(), range, descriptor.leaf_only()).ok_or(IQEI_RESERVED)?;
        let drain = self.drain_of(descriptor.drain_reads(), descriptor.drain_writes());
        Ok(Command::Invalidate { what: Invalidation::Iotlb(scope), drain })
    }

    fn decode_pasid_iotlb(&self, descriptor: PasidIotlbDescriptor) -> Result<Command, u8> {
        let reserved =
            descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_52() != 0 || descriptor.reserved_71() != 0;
        if reserved {
            return Err(IQEI_RESERVED);
        }
        let range = PageRange { address: Iova(descriptor.page() << PAGE_SHIFT), order: descriptor.address_mask() };
        let pages = match descriptor.granularity() {
            GRANULARITY_DOMAIN => None,
            GRANULARITY_NARROW if range.order <= self.cap.mask_max => Some((range, descriptor.leaf_only())),
            _ => return Err(IQEI_RESERVED),
        };
        let scope = PasidIotlbScope { domain: DomainId(descriptor.domain()), pasid: Pasid(descriptor.pasid()), pages };
        // It has no drain bits; that it always drains where the unit can is an assumption.
        let drain = self.drain_of(true, true);
        Ok(Command::Invalidate { what: Invalidation::PasidIotlb(scope), drain })
    }

    fn decode_wait(&self, descriptor: WaitDescriptor) -> Result<Command, u8> {
        let drains = descriptor.page_request_drain();
        let reserved = (drains && !self.cap.page_requests)
            || descriptor.reserved_8()
            || descriptor.reserved_12() != 0
            || descriptor.reserved_64() != 0;
        if reserved {
            return Err(IQEI_RESERVED);
        }
        let address = Pa(descriptor.address() * STATUS_ADDRESS_UNIT);
        let status = descriptor.status_write().then_some((address, descriptor.data()));
        Ok(Command::Wait(Wait { status, interrupt: descriptor.interrupt(), page_requests: drains }))
    }

    /// The scope of an IOTLB command; `None` for granularity 0 and for AM above MAMV.
    pub(crate) fn iotlb_scope(&self, granularity: u8, domain: u16, range: PageRange, leaf_only: bool) -> Option<IotlbScope> {
        let domain = DomainId(domain);
        match granularity {
            GRANULARITY_GLOBAL => Some(IotlbScope::Global),
            GRANULARITY_DOMAIN => Some(IotlbScope::Domain(domain)),
            GRANULARITY_NARROW if range.order <= self.cap.mask_max => Some(IotlbScope::Pages { domain, range, leaf_only }),
            _ => None,
        }
    }

    /// Drain bits as far as this unit honours them.
    pub(crate) fn drain_of(&self, reads: bool, writes: bool) -> Drain {
        Drain { reads: reads && self.cap.read_drain, writes: writes && self.cap.write_drain }
    }
}

fn no_op(what: Invalidation) -> Command {
    Command::Invalidate { what, drain: Drain::default() }
}

fn decode_context(descriptor: ContextDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_50() != 0 || descriptor.reserved_64() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let scope = context_scope(descriptor.granularity(), descriptor.domain(), descriptor.source(), descriptor.function_mask())
        .ok_or(IQEI_RESERVED)?;
    Ok(no_op(Invalidation::Context(scope)))
}

fn decode_pasid_cache(descriptor: PasidCacheDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_6() != 0 || descriptor.reserved_12() != 0 || descriptor.reserved_52() != 0 || descriptor.reserved_64() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let (domain, pasid) = (DomainId(descriptor.domain()), Pasid(descriptor.pasid()));
    let scope = match descriptor.granularity() {
        PASID_GRANULARITY_DOMAIN => PasidScope::Domain(domain),
        PASID_GRANULARITY_PASID => PasidScope::One { domain, pasid },
        PASID_GRANULARITY_GLOBAL => PasidScope::Global,
        _ => return Err(IQEI_RESERVED),
    };
    Ok(no_op(Invalidation::Pasid(scope)))
}

/// The scope of a context command; `None` for granularity 0.
pub(crate) fn context_scope(granularity: u8, domain: u16, source: u16, function_mask: u8) -> Option<ContextScope> {
    let domain = DomainId(domain);
    match granularity {
        GRANULARITY_GLOBAL => Some(ContextScope::Global),
        GRANULARITY_DOMAIN => Some(ContextScope::Domain(domain)),
        GRANULARITY_NARROW => Some(ContextScope::Device { domain, source: Bdf(source), function_mask }),
        _ => None,
    }
}

fn decode_device_tlb(descriptor: DeviceTlbDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_4() != 0 || descriptor.reserved_21() != 0 || descriptor.reserved_48() != 0 || descriptor.reserved_65() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    let request = DeviceInvalidation {
        source: Bdf(descriptor.source()),
        pasid: None,
        every_pasid: false,
        range: PageRange::of_size_bit(descriptor.page(), descriptor.sized()),
        itag: 0,
    };
    let physical = Bdf(descriptor.physical_high() << 4 | u16::from(descriptor.physical_low()));
    Ok(Command::Device(DeviceTarget { request, physical, depth: depth_of(descriptor.depth()) }))
}

fn decode_pasid_device_tlb(descriptor: PasidDeviceTlbDescriptor) -> Result<Command, u8> {
    if descriptor.reserved_65() != 0 {
        return Err(IQEI_RESERVED);
    }
    let request = DeviceInvalidation {
        source: Bdf(descriptor.source()),
        pasid: Some(Pasid(descriptor.pasid())),
        every_pasid: descriptor.global(),
        range: PageRange::of_size_bit(descriptor.page(), descriptor.sized()),
        itag: 0,
    };
    let physical = Bdf(descriptor.physical_high() << 4 | u16::from(descriptor.physical_low()));
    Ok(Command::Device(DeviceTarget { request, physical, depth: depth_of(descriptor.depth()) }))
}

const fn depth_of(field: u8) -> u8 {
    if field == 0 { DEPTH_MAX } else { field }
}

fn decode_response(descriptor: PageResponseDescriptor) -> Result<Command, u8> {
    let reserved =
        descriptor.reserved_5() != 0 || descriptor.reserved_52() != 0 || descriptor.reserved_64() != 0 || descriptor.reserved_76() != 0;
    if reserved {
        return Err(IQEI_RESERVED);
    }
    Ok(Command::Respond(PageResponse {
        source: Bdf(descriptor.source()),
        pasid: descriptor.pasid_present().then_some(Pasid(descriptor.pasid())),
        group: descriptor.group(),
        code: ResponseCode(descriptor.code()),
    }))
}
