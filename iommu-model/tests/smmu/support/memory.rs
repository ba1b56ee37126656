//! Host memory by 64-bit words; what was never written reads 0.

use iommu_model::{Fetched, Pa};
use std::collections::BTreeMap;

/// The memory.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    words: BTreeMap<Pa, u64>,
    /// First address that has no memory behind it.
    pub(crate) end: Option<Pa>,
}

impl Memory {
    pub(crate) fn read(&self, pa: Pa) -> u64 {
        self.words.get(&pa).copied().unwrap_or(0)
    }

    pub(crate) fn write(&mut self, pa: Pa, value: u64) {
        assert!(pa.is_aligned(8));
        self.words.insert(pa, value);
    }

    /// The answer to a fetch.
    pub(crate) fn fetch(&self, pa: Pa, bytes: u8) -> Fetched {
        if self.end.is_some_and(|end| pa >= end) {
            return Fetched::NoMemory;
        }
        let word = |n: u64| if n * 8 < u64::from(bytes) { self.read(pa.offset(n * 8)) } else { 0 };
        if bytes > 16 {
            return Fetched::Wide(core::array::from_fn(|n| word(n as u64)));
        }
        Fetched::Words([word(0), word(1)])
    }

    /// An atomic compare-exchange: the answer is what was found.
    pub(crate) fn compare_exchange(&mut self, pa: Pa, old: u64, new: u64) -> Fetched {
        let found = self.read(pa);
        if found == old {
            self.write(pa, new);
        }
        Fetched::word(found)
    }
}
