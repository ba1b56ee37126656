//! The one source of randomness: ChaCha8, one named stream per consumer.
//!
//! The key of a stream is 32 bytes long: the run's seed in bytes 0..8, little endian, then the stream's name
//! ([`Stream::name`]) in ASCII, padded with zeros. Block counter and nonce start at 0. ChaCha8's output is specified, the
//! integer draws below are our own, and a known-answer test pins both: no crate upgrade can move a seed. Streams share
//! nothing, so drawing more from one never moves another.
//!
//! [`Entropy`] refills 64 words at a time (four blocks, as wide as the processor computes them); a draw in between is a load and a
//! compare. The first refill comes with the first draw.

use rand_chacha::ChaCha8Core;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::rand_core::block::Generator;

/// Who draws. One independent stream each, so that a change in one consumer leaves the draws of the others alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stream {
    /// Who goes next.
    Schedule,
    /// Which fallible calls fail.
    Faults,
    /// Which frame or slot is handed out.
    Placement,
    /// Eviction, prefetch, coarser invalidation.
    Hardware,
    /// Which operations programs and devices issue.
    Workload,
    /// What forgotten memory contains.
    Poison,
    /// Which policy a portfolio picks, before the run begins.
    Policy,
    /// When daemons get their turns.
    Turns,
    /// Which plan of failures a run has, before it begins.
    FaultPlan,
}

impl Stream {
    /// All streams.
    pub const ALL: [Stream; 9] = [
        Stream::Schedule,
        Stream::Faults,
        Stream::Placement,
        Stream::Hardware,
        Stream::Workload,
        Stream::Poison,
        Stream::Policy,
        Stream::Turns,
        Stream::FaultPlan,
    ];

    /// The name that goes into the key. At most 24 bytes; never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Schedule => "sim/schedule",
            Stream::Faults => "sim/faults",
            Stream::Placement => "sim/placement",
            Stream::Hardware => "sim/hardware",
            Stream::Workload => "sim/workload",
            Stream::Poison => "sim/poison",
            Stream::Policy => "sim/policy",
            Stream::Turns => "sim/turns",
            Stream::FaultPlan => "sim/fault-plan",
        }
    }

    /// The ChaCha key of this stream in the run with `seed`.
    pub fn key(self, seed: u64) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = self.name().as_bytes();
        key[8..8 + name.len()].copy_from_slice(name);
        key
    }
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub struct Entropy {
    /// Number of words of the buffer that are used up.
    used: usize,
    words: [u32; REFILL_WORDS],
    blocks: ChaCha8Core,
}

/// Words of a refill.
const REFILL_WORDS: usize = 64;

impl Entropy {
    /// The start of `stream` in the run with `seed`.
    pub fn new(seed: u64, stream: Stream) -> Entropy {
        Entropy { used: REFILL_WORDS, words: [0; REFILL_WORDS], blocks: ChaCha8Core::from_seed(stream.key(seed)) }
    }

    /// The next 32 bits.
    #[inline(always)]
    pub fn u32(&mut self) -> u32 {
        match self.words.get(self.used) {
            Some(word) => {
                self.used += 1;
                *word
            }
            None => self.refill(),
        }
    }

    /// The first of the next 64 words.
    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> u32 {
        self.blocks.generate(&mut self.words);
        self.used = 1;
        self.words[0]
    }

    /// The next 64 bits: two words of the stream, the low half first.
    #[inline]
    pub fn u64(&mut self) -> u64 {
        let low = self.u32();
        u64::from(self.u32()) << 32 | u64::from(low)
    }

    /// A number below `n`, every one equally likely (Lemire, TOMACS 2019: multiply, shift, reject the short slice). Takes one word,
    /// and with probability below n / 2^32 one more.
    ///
    /// # Panics
    /// When `n` is 0.
    #[inline(always)]
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "a draw below 0");
        let product = u64::from(self.u32()) * u64::from(n);
        if (product as u32) < n { self.below_again(product, n) } else { (product >> 32) as u32 }
    }

    /// The rest of [`Entropy::below`] when `product` may lie in the short slice.
    #[cold]
    #[inline(never)]
    fn below_again(&mut self, mut product: u64, n: u32) -> u32 {
        let short = n.wrapping_neg() % n;
        while (product as u32) < short {
            product = u64::from(self.u32()) * u64::from(n);
        }
        (product >> 32) as u32
    }

    /// True once in `n` times on average; always for `n` of 0 or 1.
    #[inline]
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n.max(1)) == 0
    }

    /// True `per_1024` times in 1024 on average. Takes one word, whatever the odds.
    #[inline]
    pub fn odds_1024(&mut self, per_1024: u32) -> bool {
        self.u32() >> 22 < per_1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_of_every_stream_never_change() {
        // Known answers: a change here moves every seed ever written down. It must not happen.
        let first = Stream::ALL.map(|stream| {
            let mut entropy = Entropy::new(0x0123_4567_89ab_cdef, stream);
            (stream, [entropy.u32(), entropy.u32(), entropy.u32()])
        });
        assert_eq!(first.map(|(_, words)| words), KNOWN_WORDS);
    }

    #[test]
    fn the_integer_draws_never_change() {
        let mut entropy = Entropy::new(7, Stream::Schedule);
        let below: Vec<u32> = (0..8).map(|_| entropy.below(10)).collect();
        let wide = entropy.u64();
        let odds: Vec<bool> = (0..8).map(|_| entropy.odds_1024(512)).collect();
        let one_in: Vec<bool> = (0..8).map(|_| entropy.one_in(4)).collect();
        // 64 words a refill: draw across the border too.
        let across = (0..200).fold(0u32, |sum, _| sum.wrapping_mul(31).wrapping_add(entropy.below(1000)));
        assert_eq!(below, [4, 8, 3, 0, 8, 0, 4, 0]);
        assert_eq!(wide, 15321424447353922193);
        assert_eq!(odds, [false, false, true, true, false, true, true, true]);
        assert_eq!(one_in, [false; 8]);
        assert_eq!(across, 1507406988);
    }

    #[test]
    fn a_draw_below_n_hits_every_value_about_equally_often() {
        let mut entropy = Entropy::new(1, Stream::Workload);
        let mut hits = [0u32; 7];
        for _ in 0..70_000 {
            hits[entropy.below(7) as usize] += 1;
        }
        assert!(hits.iter().all(|&n| (9_500..10_500).contains(&n)), "{hits:?}");
    }

    #[test]
    fn odds_of_0_never_and_of_1024_always() {
        let mut entropy = Entropy::new(1, Stream::Faults);
        assert!((0..1000).all(|_| !entropy.odds_1024(0)));
        assert!((0..1000).all(|_| entropy.odds_1024(1024)));
        assert!((0..1000).all(|_| entropy.one_in(1) && entropy.one_in(0)));
    }

    #[test]
    fn no_two_streams_or_seeds_share_a_key() {
        let mut keys: Vec<_> = Stream::ALL.iter().flat_map(|stream| [0, 1, u64::MAX].map(|seed| stream.key(seed))).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), Stream::ALL.len() * 3);
    }

    #[test]
    fn drawing_from_one_stream_does_not_move_another() {
        let mut alone = Entropy::new(5, Stream::Faults);
        let mut beside = Entropy::new(5, Stream::Faults);
        let mut other = Entropy::new(5, Stream::Schedule);
        for draw in 0..500 {
            for _ in 0..draw % 7 {
                other.u64();
            }
            assert_eq!(alone.u32(), beside.u32());
        }
    }

    /// Computed by an independent implementation of ChaCha8 from the keys.
    const KNOWN_WORDS: [[u32; 3]; 9] = [
        [0x443c_7cc2, 0x2884_b3dc, 0xf5c7_4bad],
        [0x021c_1606, 0xf2ff_5f0c, 0x08a8_32fb],
        [0x0be8_cc4b, 0x3094_0662, 0xf160_2b6f],
        [0x04f5_b166, 0x07b7_778e, 0xc650_afc8],
        [0x0339_ebd2, 0x1066_5496, 0xa4a8_ec60],
        [0xd94c_0864, 0x368b_b426, 0x8e01_7e3c],
        [0xc451_b31e, 0xa6e5_cd1b, 0xc280_8cf9],
        [0x520b_b887, 0x9862_042d, 0x638a_8766],
        [0xb15c_1b92, 0x5a25_9ce0, 0xf87e_9288],
    ];
}
