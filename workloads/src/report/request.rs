//! DMA requests, followed through the stream: how each was translated, from which words, and what the device did before.

use iommu_model::addr::{DomainId, Iova, Pa};
use sim::trace::{DeviceId, EventKind};

use super::history::History;

/// A DMA request, followed through the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The device.
    pub device: DeviceId,
    /// Its running number.
    pub serial: u32,
    /// Address it used.
    pub iova: Iova,
    /// Write or read.
    pub write: bool,
    /// Where it was issued, if the log has that.
    pub issued: usize,
    /// Where it was translated.
    pub translated: Option<usize>,
    /// Where it landed, returned, was lost or blocked.
    pub done: Option<usize>,
    /// What it was translated to.
    pub pa: Option<Pa>,
    /// Under which domain; none when it passed untranslated or was not translated.
    pub domain: Option<DomainId>,
    /// True when the answer came from the IOTLB.
    pub cached: bool,
}

impl Request {
    /// Whether it passed with translation off.
    pub fn is_untranslated(&self) -> bool {
        self.pa.is_some() && self.domain.is_none()
    }
}

/// The device and number of the request an event is about.
pub(super) fn request_id(kind: &EventKind) -> Option<(DeviceId, u32)> {
    match *kind {
        EventKind::DmaIssued { device, serial, .. }
        | EventKind::DmaTranslated { device, serial, .. }
        | EventKind::DmaFaulted { device, serial, .. }
        | EventKind::DmaLanded { device, serial, .. }
        | EventKind::DmaRead { device, serial, .. }
        | EventKind::DmaLost { device, serial, .. } => Some((device, serial)),
        _ => None,
    }
}

/// The request that the event at `at` is about, as far as the stream shows it until then.
pub(super) fn request_of(history: &History<'_>, at: usize) -> Option<Request> {
    let id = request_id(&history.event(at).kind)?;
    let mut request = Request {
        device: id.0,
        serial: id.1,
        iova: Iova(0),
        write: false,
        issued: at,
        translated: None,
        done: None,
        pa: None,
        domain: None,
        cached: false,
    };
    for position in (0..=at).rev() {
        let kind = &history.event(position).kind;
        if request_id(kind) != Some(id) {
            continue;
        }
        match *kind {
            EventKind::DmaIssued { iova, write, .. } => {
                (request.iova, request.write, request.issued) = (iova, write, position);
                return Some(request);
            }
            EventKind::DmaTranslated { iova, pa, domain, cached, .. } if request.translated.is_none() => {
                request.translated = Some(position);
                (request.iova, request.domain, request.cached) = (iova, domain, cached);
                request.pa.get_or_insert(pa);
            }
            EventKind::DmaFaulted { iova, write, .. } => {
                request.done.get_or_insert(position);
                (request.iova, request.write) = (iova, write);
            }
            EventKind::DmaLanded { iova, pa, .. } => {
                request.done.get_or_insert(position);
                (request.iova, request.pa, request.write) = (iova, Some(pa), true);
            }
            EventKind::DmaRead { iova, pa, .. } => {
                request.done.get_or_insert(position);
                (request.iova, request.pa) = (iova, Some(pa));
            }
            EventKind::DmaLost { pa, write, .. } => {
                request.done.get_or_insert(position);
                (request.pa, request.write) = (Some(pa), write);
            }
            _ => {}
        }
    }
    Some(request)
}

/// The request whose walk filled the cache entry that `request` used: the last walk of its page under its domain.
pub(super) fn filling(history: &History<'_>, request: &Request, before: usize) -> Option<Request> {
    let page = request.iova.page();
    let walked = history.last_before(before, |kind| match *kind {
        EventKind::DmaTranslated { iova, domain, cached: false, pa, .. } => {
            iova.page() == page && domain == request.domain && Some(pa.pfn()) == request.pa.map(|pa| pa.pfn())
        }
        _ => false,
    })?;
    request_of(history, walked)
}

/// The words that a request's walk fetched; one position for each word, the last.
pub(super) fn fetches(history: &History<'_>, request: &Request) -> Vec<usize> {
    let end = request.translated.or(request.done).unwrap_or(request.issued);
    let mut found = history.positions(
        request.issued..end,
        |event| matches!(event.kind, EventKind::Fetched { device: Some(device), .. } if device == request.device),
    );
    found.reverse();
    let mut seen = Vec::new();
    found.retain(|&at| {
        let pa = fetched_pa(history, at);
        let new = !seen.contains(&pa);
        seen.push(pa);
        new
    });
    found.reverse();
    found
}

/// The word that a fetch read, with its bytes: a paging entry has 8, a root or context entry 16.
pub(super) fn fetched_word(history: &History<'_>, at: usize) -> Option<(Pa, u64)> {
    match history.event(at).kind {
        EventKind::Fetched { pa, bytes, .. } => Some((pa, u64::from(bytes))),
        _ => None,
    }
}

pub(super) fn fetched_pa(history: &History<'_>, at: usize) -> Option<Pa> {
    match history.event(at).kind {
        EventKind::Fetched { pa, .. } => Some(pa),
        _ => None,
    }
}

/// The words behind a good request that itself was answered from the cache.
pub(super) fn good_walk(history: &History<'_>, good: &Request) -> Option<Vec<(Pa, u64)>> {
    let filled = filling(history, good, good.translated?)?;
    Some(fetches(history, &filled).into_iter().filter_map(|at| fetched_word(history, at)).collect())
}

/// The device's last access before `decided` that was answered otherwise than `request`; where none was, the last of its page, then the
/// last of all.
pub(super) fn last_good(history: &History<'_>, request: &Request, decided: usize) -> Option<Request> {
    let done = history.positions(0..decided, |event| match event.kind {
        EventKind::DmaLanded { device, serial, .. } | EventKind::DmaRead { device, serial, .. } => {
            device == request.device && serial != request.serial
        }
        _ => false,
    });
    let requests = || done.iter().rev().filter_map(|&at| request_of(history, at));
    let page = request.iova.page();
    let other_way = |good: &Request| {
        let same_page = good.iova.page() == page;
        good.domain.is_some()
            && (good.domain != request.domain || (same_page && good.pa.map(|pa| pa.pfn()) != request.pa.map(|pa| pa.pfn())))
    };
    requests().find(other_way).or_else(|| requests().find(|good| good.iova.page() == page)).or_else(|| requests().next())
}
