//! RAM of real bytes.
//!
//! One flat array of 4 KiB frames from physical address 0 up, stored as little-endian 64-bit words. Holes exist as frames of
//! state [`FrameState::Absent`](super::FrameState::Absent) in the shadow; here they have bytes like the rest. Frames are
//! cleared between runs only when they were touched, so that a small run in a large machine stays cheap.

use iommu_model::addr::Pa;

/// Bytes of a frame.
pub const FRAME_BYTES: u64 = 4096;
const FRAME_WORDS: usize = 512;

/// The bytes, with one bit per byte that tells whether it was ever written.
pub struct Ram {
    words: Vec<u64>,
    defined: Vec<u8>,
    touched: Vec<bool>,
    touched_list: Vec<u32>,
}

impl Ram {
    /// `nr_frames` frames, all bytes zero and undefined.
    pub fn new(nr_frames: usize) -> Ram {
        Ram {
            words: vec![0; nr_frames * FRAME_WORDS],
            defined: vec![0; nr_frames * FRAME_WORDS],
            touched: vec![false; nr_frames],
            touched_list: Vec::with_capacity(nr_frames),
        }
    }

    /// Number of frames.
    pub fn nr_frames(&self) -> usize {
        self.touched.len()
    }

    /// Forgets everything: as [`Ram::new`], at the cost of the frames touched since.
    pub fn reset(&mut self) {
        for pfn in std::mem::take(&mut self.touched_list) {
            let at = pfn as usize * FRAME_WORDS;
            self.words[at..at + FRAME_WORDS].fill(0);
            self.defined[at..at + FRAME_WORDS].fill(0);
            self.touched[pfn as usize] = false;
        }
    }

    /// Loads `bytes` (1, 2, 4 or 8, not crossing an 8-byte word) at `pa`, zero-extended.
    #[inline]
    pub fn load(&self, pa: Pa, bytes: u8) -> u64 {
        let word = self.words[(pa.0 >> 3) as usize];
        (word >> ((pa.0 & 7) * 8)) & mask(bytes)
    }

    /// The 512 words of a frame.
    #[inline]
    pub fn frame_words(&self, pfn: u64) -> &[u64] {
        let at = pfn as usize * FRAME_WORDS;
        &self.words[at..at + FRAME_WORDS]
    }

    /// The first word from `from` on, and before `end`, that is not 0 (both inside RAM, `from` word aligned).
    pub fn next_nonzero(&self, from: Pa, end: Pa) -> Option<(Pa, u64)> {
        let (first, last) = ((from.0 >> 3) as usize, (end.0.div_ceil(8)) as usize);
        // Eight at a time: most of a page that was cleared a moment ago is zero.
        let mut at = first;
        while at + 8 <= last && self.words[at..at + 8].iter().fold(0, |all, word| all | word) == 0 {
            at += 8;
        }
        let (place, value) = self.words.get(at..last)?.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some((Pa(((at + place) as u64) << 3), *value))
    }

    /// Loads `bytes` at `pa` where the value may cross a word, as packed ABI structures make it do.
    pub fn load_unaligned(&self, pa: Pa, bytes: u8) -> u64 {
        (0..u64::from(bytes)).fold(0, |value, i| value | self.load(Pa(pa.0 + i), 1) << (8 * i))
    }

    /// Stores the low `bytes` bytes of `value`; returns what was there. The bytes count as defined from now on.
    #[inline]
    pub fn store(&mut self, pa: Pa, bytes: u8, value: u64) -> u64 {
        self.touch(pa);
        let index = (pa.0 >> 3) as usize;
        let shift = (pa.0 & 7) * 8;
        let mask = mask(bytes);
        let old = (self.words[index] >> shift) & mask;
        self.words[index] = self.words[index] & !(mask << shift) | (value & mask) << shift;
        self.defined[index] |= (((1u16 << bytes) - 1) << (pa.0 & 7)) as u8;
        old
    }

    /// Stores a value that may cross a word.
    pub fn store_unaligned(&mut self, pa: Pa, bytes: u8, value: u64) -> u64 {
        (0..u64::from(bytes)).fold(0, |old, i| old | self.store(Pa(pa.0 + i), 1, value >> (8 * i)) << (8 * i))
    }

    /// True when all `bytes` bytes at `pa` were written since they were last undefined.
    #[inline]
    pub fn is_defined(&self, pa: Pa, bytes: u8) -> bool {
        let word = (pa.0 >> 3) as usize;
        let want = ((1u16 << bytes) - 1) << (pa.0 & 7);
        let (here, next) = (want as u8, (want >> 8) as u8);
        self.defined[word] & here == here && (next == 0 || self.defined[word + 1] & next == next)
    }

    /// The bytes of the word at `pa` that were written since they were last undefined: bit n is byte n.
    #[inline]
    pub fn defined_bytes(&self, pa: Pa) -> u8 {
        self.defined[(pa.0 >> 3) as usize]
    }

    /// The first byte of the frame that was not written since it was last undefined.
    pub fn first_undefined(&self, pfn: u64) -> Option<Pa> {
        let first = pfn as usize * FRAME_WORDS;
        let defined = &self.defined[first..first + FRAME_WORDS];
        if defined.iter().fold(u8::MAX, |all, bits| all & bits) == u8::MAX {
            return None;
        }
        let word = defined.iter().position(|bits| *bits != u8::MAX).expect("some byte is undefined");
        Some(Pa(((first + word) as u64) << 3 | u64::from(defined[word].trailing_ones())))
    }

    /// Makes `bytes` bytes at `pa` undefined without changing them: a fresh allocation that nobody cleared.
    pub fn undefine(&mut self, pa: Pa, bytes: u64) {
        self.touch(pa);
        if (pa.0 | bytes) & 7 == 0 {
            self.defined[(pa.0 >> 3) as usize..((pa.0 + bytes) >> 3) as usize].fill(0);
            return;
        }
        for at in pa.0..pa.0 + bytes {
            self.defined[(at >> 3) as usize] &= !(1 << (at & 7));
        }
    }

    /// Makes the whole frame at `pa` (frame aligned) undefined without changing its bytes.
    pub fn undefine_frame(&mut self, pa: Pa) {
        self.touch(pa);
        let at = (pa.0 >> 3) as usize;
        self.defined[at..at + FRAME_WORDS].fill(0);
    }

    /// Fills `bytes` bytes (a multiple of 8, word aligned, inside one frame) with `word`.
    pub fn fill(&mut self, pa: Pa, bytes: u64, word: u64, defined: bool) {
        self.touch(pa);
        let range = (pa.0 >> 3) as usize..((pa.0 + bytes) >> 3) as usize;
        self.words[range.clone()].fill(word);
        self.defined[range].fill(if defined { 0xff } else { 0 });
    }

    /// True when the frame was stored to, filled or undefined since the last reset.
    pub fn is_touched(&self, pfn: u64) -> bool {
        self.touched[pfn as usize]
    }

    #[inline]
    fn touch(&mut self, pa: Pa) {
        let pfn = (pa.0 / FRAME_BYTES) as usize;
        if !self.touched[pfn] {
            self.touched[pfn] = true;
            self.touched_list.push(pfn as u32);
        }
    }
}

#[inline]
const fn mask(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_value_is_loaded_at_every_size_and_offset() {
        let mut ram = Ram::new(2);
        for bytes in [1u8, 2, 4, 8] {
            for offset in 0..8u64 {
                let pa = Pa(0x100 + offset);
                let value = 0x8877_6655_4433_2211 & mask(bytes);
                ram.store_unaligned(pa, bytes, value);
                assert_eq!(ram.load_unaligned(pa, bytes), value);
                assert!(ram.is_defined(pa, bytes));
            }
        }
    }

    #[test]
    fn only_written_bytes_are_defined_and_reset_forgets_them() {
        let mut ram = Ram::new(2);
        ram.store(Pa(0x1004), 4, 7);
        assert!(ram.is_defined(Pa(0x1004), 4));
        assert!(!ram.is_defined(Pa(0x1000), 8));
        ram.reset();
        assert!(!ram.is_defined(Pa(0x1004), 4));
        assert_eq!(ram.load(Pa(0x1004), 4), 0);
    }
}
