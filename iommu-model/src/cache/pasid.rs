//! PASID cache: tag source-id and PASID, content the decoded PASID table entry with what the directory led to.
//!
//! That the source-id is part of the tag follows from what software is told: information of the context entry may tag
//! PASID-cache entries, so that a changed context entry needs a PASID-cache invalidation too.

use super::store::{Cached, Key, Place, Store};
use crate::addr::{Bdf, DomainId, Pa, Pasid};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::spec::vtd::fault::FaultReason;
use crate::timing::Geometry;

/// Through which stages requests of a PASID go (PGTT).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stages {
    /// First stage only.
    First,
    /// Second stage only.
    Second,
    /// First stage, whose tables and output are addresses of the second stage.
    Nested,
    /// None.
    PassThrough,
}

/// What a PASID table entry says, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasidTarget {
    /// Stages.
    pub stages: Stages,
    /// First-stage root table; an address of the second stage if nested.
    pub first_root: Pa,
    /// First-stage levels, 4 or 5.
    pub first_levels: u8,
    /// Second-stage root table.
    pub second_root: Pa,
    /// Second-stage levels, 3 to 5.
    pub second_levels: u8,
    /// SSADE: A and D of the second stage are maintained.
    pub second_update: bool,
    /// Walks snoop, so that A and D can be set.
    pub snoop: bool,
    /// SRE: privileged requests are allowed.
    pub supervisor: bool,
    /// WPE: privileged writes honour R/W.
    pub write_protect: bool,
    /// ERE: execute requests are allowed.
    pub execute: bool,
    /// NXE: XD counts.
    pub no_execute: bool,
    /// SMEP: privileged requests do not execute user pages.
    pub supervisor_no_execute: bool,
    /// EAFE: EA is maintained.
    pub extended_accessed: bool,
    /// SSEE: X of second-stage entries counts.
    pub second_execute: bool,
    /// Not present or erroneous; cached only under CM = 1.
    pub fault: Option<FaultReason>,
}

impl PasidTarget {
    /// Goes nowhere.
    pub(crate) const NOWHERE: Self = Self {
        stages: Stages::PassThrough,
        first_root: Pa(0),
        first_levels: 4,
        second_root: Pa(0),
        second_levels: 4,
        second_update: false,
        snoop: false,
        supervisor: false,
        write_protect: false,
        execute: false,
        no_execute: false,
        supervisor_no_execute: false,
        extended_accessed: false,
        second_execute: false,
        fault: None,
    };
}

/// One cached PASID table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasidEntryCached {
    /// Tag.
    pub source: Bdf,
    /// Tag.
    pub pasid: Pasid,
    /// DID of the entry; 0 for not-present entries.
    pub domain: DomainId,
    /// FPD of the directory entry or the table entry.
    pub fault_disable: bool,
    /// What it says.
    pub target: PasidTarget,
    /// The words of root, context, directory and table entry.
    pub provenance: ProvenanceId,
}

impl Cached for PasidEntryCached {
    const BLANK: Self = Self {
        source: Bdf(0),
        pasid: Pasid(0),
        domain: DomainId(0),
        fault_disable: false,
        target: PasidTarget::NOWHERE,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct PasidCache {
    store: Store<PasidEntryCached>,
}

fn key(source: Bdf, pasid: Pasid) -> Key {
    Key { tag: u64::from(pasid.0) << 16 | u64::from(source.0), space: 0 }
}

impl PasidCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry) }
    }

    /// The entry of a PASID of a source, marked as used.
    pub(crate) fn lookup(&mut self, source: Bdf, pasid: Pasid) -> Option<&PasidEntryCached> {
        let place: Place = self.store.find(key(source, pasid))?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    pub(crate) fn install(&mut self, entry: &PasidEntryCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = key(entry.source, entry.pasid);
        self.store.insert(u64::from(entry.pasid.0), key, *entry, words, |ways| ask(d, Question::EvictPasid { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&PasidEntryCached) -> bool) -> u32 {
        self.store.retain(words, keep)
    }

    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        self.store.clear(words)
    }

    pub(crate) fn reset(&mut self) {
        self.store.reset();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.store.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    pub(crate) fn remove_nth(&mut self, n: usize, words: &mut Words) -> bool {
        self.store.remove_nth(n, words)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PasidEntryCached> {
        self.store.iter()
    }
}
