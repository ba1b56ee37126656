//! What every architecture's unit is to a caller that only translates: a request goes in, fetches come out.
//!
//! Registers, queues and invalidations differ too much to be one interface; each architecture has its own. A request does
//! not: it begins, asks for words, and ends as [`Progress`] says. Code that drives walks (simulators, the referee's
//! comparison, benches) is written once against this trait.

use crate::decision::Decisions;
use crate::provenance::Provenance;
use crate::request::{Busy, Fetched, Progress, Request, WalkId};

/// A unit that translates requests, one look-up or one fetch at a time.
pub trait Translator {
    /// A request arrives and takes a walker.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    fn begin(&mut self, request: Request) -> Result<WalkId, Busy>;

    /// One look-up, or one answered fetch, of a walk. After a restart the answer to the fetch that was outstanding may
    /// still be brought; it is thrown away.
    ///
    /// # Panics
    ///
    /// If the walk is not in flight, or an answer is brought that was not asked for.
    fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress;

    /// Gives a walk up, without a trace. Returns whether it was in flight.
    fn cancel(&mut self, walk: WalkId) -> bool;

    /// The words of the walk that ended last, by translation or fault, outermost first.
    fn last_provenance(&self) -> Provenance;

    /// How many walks are in flight.
    fn in_flight_count(&self) -> usize;
}

/// Drives one request to its end; `memory` answers each fetch. Waits for nobody: a merged request is an error of the
/// caller that left its leader in flight.
///
/// # Errors
///
/// [`Busy`] if every walker is taken.
///
/// # Panics
///
/// If the request was merged with one in flight.
pub fn translate(
    unit: &mut impl Translator,
    request: Request,
    d: &mut dyn Decisions,
    mut memory: impl FnMut(&Progress) -> Fetched,
) -> Result<Progress, Busy> {
    let walk = unit.begin(request)?;
    let mut fetched = None;
    loop {
        let progress = unit.advance(walk, fetched.take(), d);
        match progress {
            Progress::Fetch { .. } | Progress::Update { .. } => fetched = Some(memory(&progress)),
            Progress::Lookup { .. } => {}
            Progress::Merged { .. } => panic!("the request waits for a walk that nobody drives"),
            end => return Ok(end),
        }
    }
}
