//! Configuration caches: STE by StreamID; CD by StreamID and SubstreamID; level-1 descriptors of both tables.
//!
//! IHI 0070 section 3.21.3: each structure counts as cached on its own, a CD as local to the stream it was reached through.
//! Invalid structures may be cached too; failed fetches are not.

use crate::addr::Pasid;
use crate::cache::store::{Cached, Key, Place, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::smmu::context::ContextConfig;
use crate::smmu::ids::StreamId;
use crate::smmu::params::Params;
use crate::smmu::stream::StreamTarget;

/// One cached stream table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamEntryCached {
    /// Tag.
    pub stream: StreamId,
    /// What it says.
    pub target: StreamTarget,
    /// The words of the level-1 descriptor and the entry.
    pub provenance: ProvenanceId,
}

impl Cached for StreamEntryCached {
    const BLANK: Self = Self { stream: StreamId(0), target: StreamTarget::Abort, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// One cached context descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextEntryCached {
    /// Tag.
    pub stream: StreamId,
    /// Tag: index in the CD table; 0 for the only CD of a stream without substreams.
    pub substream: Pasid,
    /// What it says; `None` if it is invalid or illegal.
    pub config: Option<ContextConfig>,
    /// The words of the STE, of what led to the descriptor, and of the descriptor.
    pub provenance: ProvenanceId,
}

impl Cached for ContextEntryCached {
    const BLANK: Self = Self { stream: StreamId(0), substream: Pasid(0), config: None, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// What a level-1 descriptor leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level1 {
    /// Stream table entries of 2^`bits` streams from `first` on.
    Streams {
        /// First StreamID.
        first: StreamId,
        /// SPLIT.
        bits: u8,
    },
    /// Context descriptors of 2^`bits` SubstreamIDs of a stream, from `first` on.
    Contexts {
        /// The stream.
        stream: StreamId,
        /// First SubstreamID.
        first: Pasid,
        /// log2 of the CDs in a leaf table.
        bits: u8,
    },
}

/// One cached level-1 descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level1Cached {
    /// Tag: what it leads to.
    pub covers: Level1,
    /// The descriptor.
    pub word: u64,
    /// The words of what led to it, and the descriptor.
    pub provenance: ProvenanceId,
}

impl Cached for Level1Cached {
    const BLANK: Self = Self { covers: Level1::Streams { first: StreamId(0), bits: 0 }, word: 0, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

#[inline(always)]
const fn stream_key(stream: StreamId) -> Key {
    Key { tag: stream.0 as u64, space: 0 }
}

#[inline(always)]
const fn context_key(stream: StreamId, substream: Pasid) -> Key {
    Key { tag: ((substream.0 as u64) << 32) | stream.0 as u64, space: 0 }
}

const fn level_1_key(covers: Level1) -> Key {
    match covers {
        Level1::Streams { first, .. } => stream_key(first),
        Level1::Contexts { stream, first, .. } => Key { space: 1, ..context_key(stream, first) },
    }
}

/// The caches.
#[derive(Clone, Debug)]
pub(crate) struct ConfigCache {
    pub(crate) streams: Store<StreamEntryCached>,
    pub(crate) contexts: Store<ContextEntryCached>,
    pub(crate) level_1: Store<Level1Cached>,
}

impl ConfigCache {
    pub(crate) fn new(params: &Params) -> Self {
        Self { streams: Store::new(params.stream), contexts: Store::new(params.context), level_1: Store::new(params.level_1) }
    }

    #[inline(always)]
    pub(crate) fn stream(&mut self, stream: StreamId) -> Option<&StreamEntryCached> {
        let place = self.streams.find(stream_key(stream))?;
        self.streams.touch(place);
        Some(self.streams.get(place))
    }

    #[inline(always)]
    pub(crate) fn context(&mut self, stream: StreamId, substream: Pasid) -> Option<&ContextEntryCached> {
        let place = self.contexts.find(context_key(stream, substream))?;
        self.contexts.touch(place);
        Some(self.contexts.get(place))
    }

    /// The entry of a stream; does not count as use.
    #[inline(always)]
    pub(crate) fn find_stream(&self, stream: StreamId) -> Option<(Place, &StreamEntryCached)> {
        self.streams.find(stream_key(stream)).map(|place| (place, self.streams.get(place)))
    }

    /// The CD of a SubstreamID of a stream; does not count as use.
    #[inline(always)]
    pub(crate) fn find_context(&self, stream: StreamId, substream: Pasid) -> Option<(Place, &ContextEntryCached)> {
        self.contexts.find(context_key(stream, substream)).map(|place| (place, self.contexts.get(place)))
    }

    /// Marks an STE and a CD as used.
    #[inline(always)]
    pub(crate) fn touch(&mut self, stream: Place, context: Option<Place>) {
        self.streams.touch(stream);
        if let Some(context) = context {
            self.contexts.touch(context);
        }
    }

    pub(crate) fn level_1(&mut self, covers: Level1) -> Option<&Level1Cached> {
        let place = self.level_1.find(level_1_key(covers))?;
        self.level_1.touch(place);
        Some(self.level_1.get(place))
    }

    pub(crate) fn install_stream(&mut self, entry: StreamEntryCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = stream_key(entry.stream);
        self.streams.insert(key.tag, key, entry, words, |ways| ask(d, Question::EvictContext { ways }));
    }

    pub(crate) fn install_context(&mut self, entry: ContextEntryCached, words: &mut Words, d: &mut dyn Decisions) {
        let key = context_key(entry.stream, entry.substream);
        let index = u64::from(entry.stream.0 ^ entry.substream.0);
        self.contexts.insert(index, key, entry, words, |ways| ask(d, Question::EvictPasid { ways }));
    }

    pub(crate) fn install_level_1(&mut self, entry: Level1Cached, words: &mut Words, d: &mut dyn Decisions) {
        let key = level_1_key(entry.covers);
        self.level_1.insert(key.tag, key, entry, words, |ways| ask(d, Question::EvictLevel1 { ways }));
    }

    pub(crate) fn reset(&mut self) {
        self.streams.reset();
        self.contexts.reset();
        self.level_1.reset();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.streams.capacity() + self.contexts.capacity() + self.level_1.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len() + self.contexts.len() + self.level_1.len()
    }

    pub(crate) fn remove_nth(&mut self, n: usize, words: &mut Words) -> bool {
        let (streams, contexts) = (self.streams.len(), self.contexts.len());
        if n < streams {
            return self.streams.remove_nth(n, words);
        }
        if n - streams < contexts {
            return self.contexts.remove_nth(n - streams, words);
        }
        self.level_1.remove_nth(n - streams - contexts, words)
    }
}
