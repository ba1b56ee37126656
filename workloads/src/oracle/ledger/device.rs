//! What the ledger knows of one device: where its requests may legally go, and the requests under way.

use iommu_model::addr::{Bdf, DomainId, Iova, Pa};
use sim::trace::UnitId;
use smallvec::SmallVec;

use super::mappings::Target;

/// Number of a domain record in the ledger.
pub(crate) type DomainIndex = u16;

/// One frame a request may legally reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Legal {
    domain: DomainIndex,
    pfn: u64,
    prot: u8,
    /// False once the mapping was taken away for good.
    live: bool,
}

/// Legal frames kept a request; one with more is not judged.
const LEGAL_MAX: usize = 4;

/// A request under way, with everything that was legal for its address at any time since it was issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Running number.
    pub(crate) serial: u32,
    /// Its address.
    pub(crate) iova: Iova,
    /// Write or read.
    pub(crate) write: bool,
    /// Generation that ran when it was issued.
    pub(crate) era: u8,
    /// The frame that, and only that, it must reach: its mapping was valid all the time so far.
    pub(crate) must: Option<u64>,
    /// Not to be judged: of a device that nobody preserved, while its kernel stops it.
    pub(crate) exempt: bool,
    /// What the unit answered.
    pub(crate) translated: Option<Pa>,
    /// Domain id of the answer; none when it passed untranslated.
    pub(crate) domain: Option<DomainId>,
    /// The answer came from the IOTLB.
    pub(crate) cached: bool,
    legal: [Legal; LEGAL_MAX],
    nr_legal: u8,
    overflow: bool,
}

/// How a frame stands to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Legal.
    Legal,
    /// The mapping is there, the permission is not.
    Forbidden,
    /// It was legal once; the mapping was taken away before.
    Stale,
    /// Never legal.
    Foreign,
}

impl Request {
    pub(super) fn new(serial: u32, iova: Iova, write: bool, era: u8) -> Request {
        let none = Legal { domain: 0, pfn: 0, prot: 0, live: false };
        Request {
            serial,
            iova,
            write,
            era,
            must: None,
            exempt: false,
            translated: None,
            domain: None,
            cached: false,
            legal: [none; LEGAL_MAX],
            nr_legal: 0,
            overflow: false,
        }
    }

    /// Page of its address.
    pub(crate) const fn page(&self) -> u64 {
        self.iova.0 >> 12
    }

    /// True when `prot` allows its access.
    pub(super) const fn allowed_by(&self, prot: u8) -> bool {
        prot & if self.write { 2 } else { 1 } != 0
    }

    pub(super) fn permit(&mut self, domain: DomainIndex, target: Target) {
        let known = &mut self.legal[..usize::from(self.nr_legal)];
        if let Some(legal) = known.iter_mut().find(|legal| legal.domain == domain && legal.pfn == target.pfn) {
            legal.live = true;
            legal.prot |= target.prot;
        } else if let Some(slot) = self.legal.get_mut(usize::from(self.nr_legal)) {
            *slot = Legal { domain, pfn: target.pfn, prot: target.prot, live: true };
            self.nr_legal += 1;
        } else {
            self.overflow = true;
        }
    }

    /// What came from a domain that `gone` names is legal no more. Returns whether there was anything.
    pub(super) fn forbid(&mut self, gone: impl Fn(DomainIndex) -> bool) -> bool {
        let mut any = false;
        for legal in self.legal[..usize::from(self.nr_legal)].iter_mut().filter(|legal| gone(legal.domain)) {
            legal.live = false;
            any = true;
        }
        any
    }

    /// How the frame stands to it.
    pub(crate) fn standing(&self, pfn: u64) -> Standing {
        if self.overflow {
            return Standing::Legal;
        }
        let known = || self.legal[..usize::from(self.nr_legal)].iter().filter(|legal| legal.pfn == pfn);
        if known().any(|legal| legal.live && self.allowed_by(legal.prot)) {
            Standing::Legal
        } else if known().any(|legal| legal.live) {
            Standing::Forbidden
        } else if known().next().is_some() {
            Standing::Stale
        } else {
            Standing::Foreign
        }
    }

    /// The legal frames, for reports.
    pub(crate) fn legal_frames(&self) -> impl Iterator<Item = u64> {
        self.legal[..usize::from(self.nr_legal)].iter().filter(|legal| legal.live).map(|legal| legal.pfn)
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Requester id.
    pub(crate) bdf: Bdf,
    /// Its unit.
    pub(crate) unit: UnitId,
    /// Domains whose tables hardware may walk for it now; none stands for "blocked". Several while a change is under way.
    pub(crate) domains: SmallVec<[Option<DomainIndex>; 4]>,
    /// A change is under way.
    pub(crate) changing: bool,
    /// Domain id of the last attach.
    pub(crate) domain_id: Option<u16>,
    /// Preserved by the running kernel.
    pub(crate) preserved: bool,
    /// Its domain came over the jump, and no user of this kernel asked for another one.
    pub(crate) inherited: bool,
    /// What is mapped for it must be served.
    pub(crate) promise: bool,
    /// A request that was about to be issued when the jump came may still follow.
    pub(crate) late: bool,
    /// Requests under way.
    pub(crate) requests: SmallVec<[Request; 8]>,
}

/// Requests kept a device; the hardware has at most one being translated and four posted.
const REQUESTS_MAX: usize = 8;

impl Device {
    pub(super) fn new(bdf: Bdf, unit: UnitId) -> Device {
        Device {
            bdf,
            unit,
            domains: SmallVec::new(),
            changing: false,
            domain_id: None,
            preserved: false,
            inherited: false,
            promise: false,
            late: false,
            requests: SmallVec::new(),
        }
    }

    /// The domain that hardware walks, when that is certain and not "blocked".
    pub(crate) fn domain(&self) -> Option<DomainIndex> {
        match (self.changing, self.domains.as_slice()) {
            (false, [Some(domain)]) => Some(*domain),
            _ => None,
        }
    }

    /// True when hardware may walk this domain for it.
    pub(crate) fn may_use(&self, domain: DomainIndex) -> bool {
        self.domains.contains(&Some(domain))
    }

    /// Its requests under way are not judged any more.
    pub(super) fn exempt_requests(&mut self) {
        for request in &mut self.requests {
            request.must = None;
            request.exempt = true;
        }
    }

    pub(super) fn add(&mut self, request: Request) {
        // One is translated at a time: an older one without an answer went elsewhere (an interrupt message).
        self.requests.retain(|other| other.translated.is_some());
        if self.requests.len() < REQUESTS_MAX {
            self.requests.push(request);
        }
    }

    pub(super) fn find(&mut self, serial: u32) -> Option<&mut Request> {
        self.requests.iter_mut().find(|request| request.serial == serial)
    }

    pub(super) fn take(&mut self, serial: u32) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.serial == serial)?;
        Some(self.requests.remove(at))
    }
}
