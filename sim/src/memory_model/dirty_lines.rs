//! Dirty cache lines: what a walker that does not snoop reads instead of the coherent bytes.
//!
//! A line is dirty from the first store after a write-back until the next one. For a dirty line the words that memory proper still
//! holds are kept beside the coherent ones. Clean lines need nothing: a copy in some cache equals memory.

use iommu_model::addr::Pa;

use super::LINE_BYTES;
use crate::engine::ActorId;
use crate::memory::{FRAME_BYTES, Ram};

const WORDS_PER_LINE: usize = 8;
const LINES_PER_FRAME: usize = (FRAME_BYTES / LINE_BYTES) as usize;

/// All dirty lines of the machine.
pub(crate) struct DirtyLines {
    /// What memory proper holds; only the words of dirty lines count.
    behind: Vec<u64>,
    /// One bit a line, one word a frame.
    dirty: Vec<u64>,
    /// The CPU whose cache has the line, valid for dirty ones: the last to store there.
    owner: Vec<ActorId>,
}

const _: () = assert!(LINES_PER_FRAME == u64::BITS as usize);

impl DirtyLines {
    pub(crate) fn new(nr_frames: usize) -> DirtyLines {
        DirtyLines {
            behind: vec![0; nr_frames * LINES_PER_FRAME * WORDS_PER_LINE],
            dirty: vec![0; nr_frames],
            owner: vec![ActorId::default(); nr_frames * LINES_PER_FRAME],
        }
    }

    /// The CPU in whose cache the line of `pa` is dirty.
    pub(crate) fn owner(&self, pa: Pa) -> Option<ActorId> {
        self.is_dirty(pa).then(|| self.owner[line_of(pa)])
    }

    pub(super) fn is_dirty(&self, pa: Pa) -> bool {
        self.dirty.get((pa.0 / FRAME_BYTES) as usize).is_some_and(|lines| lines & bit_of(pa) != 0)
    }

    /// `cpu` is about to store to the line of `pa`.
    pub(super) fn dirty(&mut self, ram: &Ram, pa: Pa, cpu: ActorId) {
        let line = line_of(pa);
        if !self.is_dirty(pa) {
            let words = ram.frame_words(pa.0 / FRAME_BYTES);
            let first = (pa.0 % FRAME_BYTES / LINE_BYTES) as usize * WORDS_PER_LINE;
            self.behind[line * WORDS_PER_LINE..][..WORDS_PER_LINE].copy_from_slice(&words[first..first + WORDS_PER_LINE]);
            self.dirty[(pa.0 / FRAME_BYTES) as usize] |= bit_of(pa);
        }
        self.owner[line] = cpu;
    }

    /// The line of `pa` reaches memory.
    pub(super) fn write_back(&mut self, pa: Pa) {
        if let Some(lines) = self.dirty.get_mut((pa.0 / FRAME_BYTES) as usize) {
            *lines &= !bit_of(pa);
        }
    }

    /// All lines of the frame reach memory.
    pub(super) fn write_back_frame(&mut self, pfn: u64) {
        self.dirty[pfn as usize] = 0;
    }

    /// The word at `pa` as memory proper has it; none when the line is clean.
    pub(super) fn behind(&self, pa: Pa) -> Option<u64> {
        self.is_dirty(pa).then(|| self.behind[(pa.0 >> 3) as usize])
    }
}

const fn line_of(pa: Pa) -> usize {
    (pa.0 / LINE_BYTES) as usize
}

const fn bit_of(pa: Pa) -> u64 {
    1 << (pa.0 % FRAME_BYTES / LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dirty_line_keeps_what_memory_held_until_it_is_written_back() {
        let mut ram = Ram::new(2);
        let mut lines = DirtyLines::new(2);
        let pa = Pa(0x1048);
        ram.store(pa, 8, 1);
        assert_eq!(lines.behind(pa), None);
        for value in [2, 3] {
            lines.dirty(&ram, pa, ActorId(value as u8));
            ram.store(pa, 8, value);
            assert_eq!(lines.behind(pa), Some(1), "memory has what it had before the first store");
            assert_eq!(lines.owner(pa), Some(ActorId(value as u8)), "a line has one owner: the last writer");
        }
        assert_eq!(lines.behind(Pa(0x1040)), Some(0), "the whole line is behind");
        assert_eq!(lines.behind(Pa(0x1080)), None, "the next line is clean");
        lines.write_back(Pa(0x1050));
        assert_eq!(lines.behind(pa), None);
    }
}
