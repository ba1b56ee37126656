//! Rights that translations claim, held against what requests of the other kind then get.
//!
//! A walk shows whether its own access is allowed. That the translation it ends in also says the truth about the other
//! access (a cache would serve it) shows when somebody asks for that one.

use crate::architecture::{Outcome, Request, Walked};
use std::collections::BTreeMap;

/// What is known of the pages of one image.
#[derive(Default)]
pub(crate) struct Claims {
    /// By page and kind of access, a write or not: whether a translation claims it, and whether it is so.
    pages: BTreeMap<(u64, bool), (Option<bool>, Option<bool>)>,
}

impl Claims {
    /// Takes in how the model's walk ended and what QEMU said; tells a claim that is not so.
    pub(crate) fn note(&mut self, request: Request, walked: Walked, theirs: Outcome) -> Option<String> {
        let page = request.iova >> 12;
        if let (Some(rights), true) = (walked.rights, walked.outcome == theirs) {
            for (write, claimed) in [(false, rights.read), (true, rights.write)] {
                self.pages.entry((page, write)).or_default().0.get_or_insert(claimed);
            }
        }
        // A fault for another reason than a denied right says nothing of rights, so both must have been heard of.
        let truth = matches!(theirs, Outcome::Passed(_));
        self.pages.entry((page, request.write)).or_default().1.get_or_insert(truth);
        let known = self.pages.get(&(page, request.write))?;
        match *known {
            (Some(claimed), Some(truth)) if claimed != truth => {
                Some(format!("{request:x?}: a translation of its page says allowed: {claimed}, QEMU: {truth}"))
            }
            _ => None,
        }
    }
}
