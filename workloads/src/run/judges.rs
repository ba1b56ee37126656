//! Which oracles judge a run: all of them, except where their cost is measured.

use std::fmt;

use crate::oracle::CATALOGUE;

/// The oracles that judge a run, beside what `sim` judges itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Judges {
    /// All.
    #[default]
    All,
    /// All but the one of this name.
    Without(&'static str),
    /// None: only the record that the others share is kept.
    Record,
    /// None.
    Nobody,
}

/// Names of what is no judge: the shared record, and what writes to it.
const RECORD: [&str; 2] = ["ledger", "unexplained"];

impl Judges {
    /// For every oracle the others. Those that keep the shared record are never left out alone.
    pub fn each() -> impl Iterator<Item = Judges> {
        let judged_here = |name: &&str| !RECORD.contains(name) && !["LOCK", "LIFE", "P7"].contains(name);
        CATALOGUE.iter().map(|info| info.name).filter(judged_here).chain(["counter"]).map(Judges::Without)
    }

    /// True when the oracle of this name judges.
    pub(super) fn has(self, name: &str) -> bool {
        match self {
            Judges::All => true,
            Judges::Without(other) => name != other,
            Judges::Record => RECORD.contains(&name),
            Judges::Nobody => false,
        }
    }
}

impl fmt::Display for Judges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Judges::All => "all oracles".to_owned(),
            Judges::Without(name) => format!("without {name}"),
            Judges::Record => "the shared record alone".to_owned(),
            Judges::Nobody => "no oracle".to_owned(),
        };
        f.pad(&text)
    }
}
