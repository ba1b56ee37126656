//! Where a result comes from: the words that were read for it.
//!
//! A plain array with a length: it is copied for every cached entry and every translation, and never allocates.

use crate::addr::Pa;
use crate::request::FetchKind;
use core::fmt;
use core::ops::Deref;

/// One 64-bit word that a result was made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Source {
    /// Where it was read.
    pub pa: Pa,
    /// What was read there.
    pub value: u64,
    /// As part of which entry.
    pub kind: FetchKind,
}

/// Most words that a translation can come from: two of the root entry, two of the context entry, five levels.
pub const SOURCES_MAX: usize = 9;

/// Every word that a cached entry or a translation was made from, outermost first. Reads as a slice.
#[derive(Clone, Copy)]
pub struct Provenance {
    sources: [Source; SOURCES_MAX],
    len: u8,
}

impl Provenance {
    /// No word.
    #[must_use]
    pub const fn new() -> Self {
        let none = Source { pa: Pa(0), value: 0, kind: FetchKind::Root };
        Self { sources: [none; SOURCES_MAX], len: 0 }
    }

    /// One word more.
    pub(crate) fn push(&mut self, source: Source) {
        self.sources[usize::from(self.len)] = source;
        self.len += 1;
    }

    /// Forgets every word.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

impl Default for Provenance {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Provenance {
    type Target = [Source];

    fn deref(&self) -> &[Source] {
        &self.sources[..usize::from(self.len)]
    }
}

impl<'a> IntoIterator for &'a Provenance {
    type Item = &'a Source;
    type IntoIter = core::slice::Iter<'a, Source>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Provenance {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Provenance {}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
