//! An input: a stream of bytes, and what hardware chooses.

use iommu_model::{Decisions, Question};

/// An input.
pub(crate) struct Bytes<'a> {
    source: Source<'a>,
    /// One answer of so many is not what belongs there.
    pub(crate) hostility: u64,
}

/// Where the bytes of an input come from.
enum Source<'a> {
    /// A list, over and over; zeros if it is empty.
    Given(&'a [u8], usize),
    /// A generator (SplitMix64), by its state.
    Made(u64),
}

impl<'a> Bytes<'a> {
    /// A list, over and over.
    pub(crate) const fn given(bytes: &'a [u8]) -> Self {
        Self { source: Source::Given(bytes, 0), hostility: 1 }
    }
}

impl Bytes<'_> {
    /// The input of a number: inputs are told apart by it alone, so that a failure names itself.
    pub(crate) const fn numbered(n: u64) -> Self {
        Self { source: Source::Made(n.wrapping_mul(0xd134_2543_de82_ef95)), hostility: 1 }
    }

    pub(crate) fn word(&mut self) -> u64 {
        match &mut self.source {
            Source::Given(bytes, next) => (0..8).fold(0, |word, _| {
                let byte = if bytes.is_empty() { 0 } else { bytes[*next % bytes.len()] };
                *next += 1;
                word << 8 | u64::from(byte)
            }),
            Source::Made(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// A word that often looks like a table entry of some kind.
    pub(crate) fn entry(&mut self) -> u64 {
        let word = self.word();
        match word % 8 {
            0 => self.word(),
            1 => 0,
            // A pointer or a leaf with everything allowed; present in every format.
            2 | 3 => (self.word() & 0xf_ffff_f000) | 0x27,
            4 => (self.word() & 0xf_ffff_f000) | 3,
            5 => (self.word() & 0xf_c000_0000) | 0xa7,
            // A PASID entry's or context entry's first word.
            6 => (self.word() & 0xf_ffff_f000) | (self.word() & 0x3ff) | 1,
            _ => self.word() & 0xf_ffff_ffff,
        }
    }

    pub(crate) fn frame(&mut self) -> u64 {
        self.word() & 0x3f_ffff_f000
    }
}

/// What hardware chooses, out of range included.
pub(crate) struct Choices(pub(crate) u64);

impl Decisions for Choices {
    fn decide(&mut self, question: Question) -> u32 {
        assert!(question.options() >= 2, "an empty choice");
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if self.0 >> 60 == 0 { u32::MAX } else { ((self.0 >> 33) % u64::from(question.options())) as u32 }
    }
}
