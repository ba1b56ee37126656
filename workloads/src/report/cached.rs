//! What a unit still keeps: from the word that a cached entry was made from to the walk that read it, and to the store that changed the
//! word since.
//!
//! The verdict names the word and what was read there (`made from pa X: V`).

use iommu_model::addr::Pa;
use sim::trace::EventKind;

use super::history::{History, overlap};

/// The story of a cached entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    /// The fetch that read the word: from it the entry was made.
    pub(super) filled: usize,
    /// The first store of another value since.
    pub(super) changed: Option<usize>,
}

/// The word and its value that a line of the verdict names.
fn source(line: &str) -> Option<(Pa, u64)> {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let (_, rest) = line.split_once("made from pa ")?;
    let mut words = rest.split([' ', ':', ',']).filter(|word| !word.is_empty());
    Some((Pa(hex(words.next()?)?), hex(words.next()?)?))
}

/// The entry that the verdict is about, if it is about one.
pub(super) fn follow(history: &History<'_>, finding: usize) -> Option<Kept> {
    let (word, value) = history.outcome().verdict.details.iter().find_map(|line| source(line))?;
    let filled = history.last_before(finding, |kind| match *kind {
        EventKind::Fetched { device: Some(_), pa, bytes, value: first, .. } => {
            overlap(pa, u64::from(bytes), word, 8) && (pa != word || first == value)
        }
        _ => false,
    })?;
    let changes = |kind: &EventKind| match *kind {
        EventKind::Store { pa, bytes, old, new, .. } => old != new && overlap(pa, u64::from(bytes), word, 8),
        _ => false,
    };
    let changed = (filled..finding).find(|&at| changes(&history.event(at).kind));
    Some(Kept { filled, changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_word_and_its_value() {
        assert_eq!(source("iommu0 still has an IOTLB entry made from pa 0x2f8000: 0xc00003"), Some((Pa(0x2f_8000), 0xc0_0003)));
        assert_eq!(source("iommu1 still has a context-cache entry made from pa 0x10: 0x1, now 0x0"), Some((Pa(0x10), 1)));
        assert_eq!(source("iommu0 still has a walk under way"), None);
        assert_eq!(source("made from pa "), None);
    }
}
