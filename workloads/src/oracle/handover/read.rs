//! Bounded reading of what is handed over, and which memory it names.

use iommu_model::addr::Pa;
use sim::memory::{FRAME_BYTES, Memory};

use super::Fault;
use crate::abi::AbiStruct;

/// Most blocks, pages or chunks of one chain.
const CHAIN_MAX: usize = 1024;

/// Reads memory, and remembers the frames that structures name.
pub(super) struct Reader<'a> {
    memory: &'a Memory,
    named: Vec<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(memory: &'a Memory) -> Reader<'a> {
        Reader { memory, named: vec![false; memory.frames.len()] }
    }

    /// What is read.
    pub(super) fn memory(&self) -> &'a Memory {
        self.memory
    }

    /// A structure says that something of its own lies at `pa`.
    pub(super) fn name(&mut self, pa: Pa) {
        if let Some(named) = self.named.get_mut(pa.pfn().0 as usize) {
            *named = true;
        }
    }

    /// True when some frame of the block is named.
    pub(super) fn names(&self, pa: Pa, order: u8) -> bool {
        let first = (pa.pfn().0 as usize).min(self.named.len());
        let end = first.saturating_add(1usize.checked_shl(u32::from(order)).unwrap_or(usize::MAX)).min(self.named.len());
        self.named[first..end].contains(&true)
    }

    /// `bytes` (1 to 8) at `pa`; 0 outside of RAM.
    pub(super) fn load(&self, pa: Pa, bytes: u16) -> u64 {
        let end = pa.0.saturating_add(u64::from(bytes));
        let inside = end <= self.memory.ram.nr_frames() as u64 * FRAME_BYTES;
        if inside { self.memory.ram.load_unaligned(pa, bytes.min(8) as u8) } else { 0 }
    }

    /// A member; 0 where this revision has none.
    pub(super) fn member(&self, layout: &AbiStruct, at: Pa, member: &str) -> u64 {
        layout.member(member).map_or(0, |member| self.load(at.offset(u64::from(member.offset)), member.bytes.min(8)))
    }

    /// Text of at most `bytes` bytes.
    pub(super) fn text(&self, at: Pa, bytes: u64) -> String {
        let bytes: Vec<u8> = (0..bytes).map(|i| self.load(at.offset(i), 1) as u8).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The links of a chain from `first` on, each named; the word that leads on lies at the begin of each.
    pub(super) fn chain(&mut self, first: Pa, what: &str) -> Result<Vec<Pa>, Fault> {
        let mut links = Vec::new();
        let mut at = first;
        while at.0 != 0 {
            if links.contains(&at) || links.len() >= CHAIN_MAX {
                return Err(("chain-does-not-end", format!("{what}, at pa {at}")));
            }
            self.name(at);
            links.push(at);
            at = Pa(self.load(at, 8));
        }
        Ok(links)
    }
}

/// The first value that stands twice in a list, if any.
pub(super) fn twice<T: Ord + Clone>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}
