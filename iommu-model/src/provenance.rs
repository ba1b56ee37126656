//! Where a result comes from: the words that were read for it.
//!
//! Words are held as chains in one bounded arena: an entry made from one word more points at the chain of what came
//! before it, so that a cached entry, a walk and a translation carry a number instead of a list. A chain lives as
//! long as something points at it. Who wants to read one asks for a [`Provenance`].

use crate::addr::Pa;
use crate::request::FetchKind;
use core::ops::Deref;
use smallvec::SmallVec;

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

impl Source {
    /// Fills buffers that nothing was read into yet.
    pub const BLANK: Self = Self { pa: Pa(0), value: 0, kind: FetchKind::Root };
}

/// Most words that a translation can come from: two of the root entry, two of the context entry, five levels.
pub const SOURCES_MAX: usize = 9;

/// Most words of a nested translation: two of root, two of context, one of the directory, three of the PASID entry, five
/// first-stage levels, and five second-stage levels below each of them and below the page.
pub const SOURCES_NESTED_MAX: usize = 8 + 5 + 6 * 5;

/// Every word that a cached entry or a translation was made from, outermost first. Reads as a slice.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Provenance(SmallVec<[Source; SOURCES_MAX]>);

impl Deref for Provenance {
    type Target = [Source];

    fn deref(&self) -> &[Source] {
        &self.0
    }
}

impl IntoIterator for Provenance {
    type Item = Source;
    type IntoIter = smallvec::IntoIter<[Source; SOURCES_MAX]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Provenance {
    type Item = &'a Source;
    type IntoIter = core::slice::Iter<'a, Source>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Names the words of a cached entry; good as long as the entry is cached. See [`Caches::provenance`](crate::Caches::provenance).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvenanceId(u32);

impl ProvenanceId {
    /// No word.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// Whether there is any word.
    pub(crate) const fn is_some(self) -> bool {
        self.0 != u32::MAX
    }
}

/// One or two neighbouring words of a chain.
#[derive(Clone, Copy, Debug)]
struct Link {
    pa: Pa,
    values: [u64; 2],
    kind: FetchKind,
    /// Both values count.
    wide: bool,
    /// What was read before; in a free link, the next free one.
    before: ProvenanceId,
    /// How many chains, entries and walks point here.
    holders: u32,
}

/// The chains of one unit. Allocated once; `capacity` is the caller's proof of how many words can be held at a time.
#[derive(Debug)]
pub(crate) struct Words {
    links: Vec<Link>,
    capacity: usize,
    free: ProvenanceId,
    /// The words of the walk that ended last.
    last: ProvenanceId,
    /// `last` is held on its own account; else only as long as somebody else holds it.
    last_held: bool,
}

impl Clone for Words {
    /// The copy has the whole capacity too, so that it never allocates either.
    fn clone(&self) -> Self {
        let mut links = Vec::with_capacity(self.capacity);
        links.extend_from_slice(&self.links);
        Self { links, ..*self }
    }
}

impl Words {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { links: Vec::with_capacity(capacity), capacity, free: ProvenanceId::NONE, last: ProvenanceId::NONE, last_held: false }
    }

    /// Forgets everything; every id is gone.
    pub(crate) fn reset(&mut self) {
        self.links.clear();
        self.free = ProvenanceId::NONE;
        (self.last, self.last_held) = (ProvenanceId::NONE, false);
    }

    /// The chain `before` with one word more. The caller's hold on `before` becomes the chain's.
    #[inline]
    pub(crate) fn push(&mut self, before: ProvenanceId, pa: Pa, value: u64, kind: FetchKind) -> ProvenanceId {
        self.push_link(Link { pa, values: [value, 0], kind, wide: false, before, holders: 1 })
    }

    /// The same with two neighbouring words.
    #[inline]
    pub(crate) fn push_wide(&mut self, before: ProvenanceId, pa: Pa, values: [u64; 2], kind: FetchKind) -> ProvenanceId {
        self.push_link(Link { pa, values, kind, wide: true, before, holders: 1 })
    }

    #[inline]
    fn push_link(&mut self, link: Link) -> ProvenanceId {
        let id = self.free;
        if let Some(slot) = self.links.get_mut(id.0 as usize) {
            self.free = slot.before;
            *slot = link;
            return id;
        }
        self.push_fresh(link)
    }

    /// A link that was never used.
    fn push_fresh(&mut self, link: Link) -> ProvenanceId {
        assert!(self.links.len() < self.capacity, "the capacity covers every holder");
        let id = ProvenanceId(self.links.len() as u32);
        self.links.push(link);
        id
    }

    /// Another value for the last word of a chain that nobody else holds yet.
    pub(crate) fn amend(&mut self, id: ProvenanceId, value: u64) {
        if let Some(link) = self.links.get_mut(id.0 as usize) {
            link.values[0] = value;
        }
    }

    /// `onto` with the paging entries of `from` appended. The hold on `onto` becomes the result's; that on `from` stays.
    pub(crate) fn append_tables(&mut self, onto: ProvenanceId, from: ProvenanceId) -> ProvenanceId {
        let mut found: SmallVec<[(Pa, u64, FetchKind); 6]> = SmallVec::new();
        let mut id = from;
        while let Some(link) =
            self.links.get(id.0 as usize).filter(|link| matches!(link.kind, FetchKind::Table { .. } | FetchKind::Stage2 { .. }))
        {
            found.push((link.pa, link.values[0], link.kind));
            id = link.before;
        }
        found.into_iter().rev().fold(onto, |onto, (pa, value, kind)| self.push(onto, pa, value, kind))
    }

    /// One holder more.
    #[inline]
    pub(crate) fn hold(&mut self, id: ProvenanceId) {
        if id.is_some() {
            self.links[id.0 as usize].holders += 1;
        }
    }

    /// One holder less; words that nobody holds any more are forgotten.
    #[inline]
    pub(crate) fn release(&mut self, mut id: ProvenanceId) {
        while id.is_some() {
            let link = &mut self.links[id.0 as usize];
            link.holders -= 1;
            if link.holders != 0 {
                return;
            }
            if id == self.last && !self.last_held {
                link.holders = 1;
                self.last_held = true;
                return;
            }
            let before = link.before;
            link.before = self.free;
            self.free = id;
            id = before;
        }
    }

    /// A walk ended with these words, which are the caller's to give.
    #[inline]
    pub(crate) fn end(&mut self, id: ProvenanceId) {
        let (last, held) = (self.last, self.last_held);
        (self.last, self.last_held) = (id, id.is_some());
        if held {
            self.release(last);
        }
    }

    /// A walk ended with the words of a cached entry. They are held only when the entry goes, which most often is never.
    #[inline(always)]
    pub(crate) fn end_with_cached(&mut self, id: ProvenanceId) {
        let (last, held) = (self.last, self.last_held);
        (self.last, self.last_held) = (id, false);
        if held {
            self.release(last);
        }
    }

    /// The words of the walk that ended last.
    pub(crate) fn last(&self) -> Provenance {
        self.read(self.last)
    }

    /// The words of a chain.
    pub(crate) fn read(&self, mut id: ProvenanceId) -> Provenance {
        let mut words = SmallVec::new();
        while id.is_some() {
            let link = &self.links[id.0 as usize];
            let kind = link.kind;
            if link.wide {
                words.push(Source { pa: link.pa.offset(8), value: link.values[1], kind });
            }
            words.push(Source { pa: link.pa, value: link.values[0], kind });
            id = link.before;
        }
        words.reverse();
        Provenance(words)
    }

    /// The words of the walk that ended last, into a buffer; never allocates.
    pub(crate) fn last_into<'a>(&self, buffer: &'a mut [Source; SOURCES_NESTED_MAX]) -> &'a [Source] {
        let mut first = buffer.len();
        let mut id = self.last;
        while id.is_some() {
            let link = &self.links[id.0 as usize];
            let values = if link.wide { &link.values[..] } else { &link.values[..1] };
            for (n, &value) in values.iter().enumerate().rev() {
                let Some(next) = first.checked_sub(1) else { break };
                first = next;
                buffer[first] = Source { pa: link.pa.offset(8 * n as u64), value, kind: link.kind };
            }
            id = link.before;
        }
        &buffer[first..]
    }

    /// Words held now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.links.iter().filter(|link| link.holders != 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FetchKind = FetchKind::Root;

    fn word(n: u64) -> Source {
        Source { pa: Pa(n * 8), value: n, kind: KIND }
    }

    #[test]
    fn a_chain_reads_outermost_first_and_lives_as_long_as_its_longest_holder() {
        let mut words = Words::new(8);
        let one = words.push_wide(ProvenanceId::NONE, Pa(0), [0, 1], KIND);
        words.hold(one);
        let two = words.push(one, Pa(16), 2, KIND);
        assert_eq!(*words.read(two), [word(0), word(1), word(2)]);
        words.release(two);
        assert_eq!((words.held(), words.read(one).len()), (1, 2));
        words.release(one);
        assert_eq!(words.held(), 0);
        let again = words.push(ProvenanceId::NONE, Pa(24), 3, KIND);
        assert_eq!((words.links.len(), words.read(again)[0]), (2, word(3)), "its place is used again");
    }
}
