//! `lurch explain --window`: who has to be stalled where, and for how long.

use serde::Serialize;
use sim::engine::{ActorId, Op, OpKind};
use sim::shrink::Budget;
use sim::window::{After, Stall};

use super::console::Console;
use super::shrink::refuse;
use super::{CommandError, Exit};
use crate::report::history::History;
use crate::report::words;
use crate::run::Workspace;
use crate::seed_file::SeedFile;
use crate::shrink::{ShrinkError, shrink_run};
use crate::window::{WindowOf, window_of};

#[derive(Serialize)]
struct StallJson {
    actor: String,
    function: Option<String>,
    step: Option<u64>,
    what: String,
    ns: f64,
    after_step: Option<u64>,
    after_actor: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct WindowJson {
    r#type: &'static str,
    property: String,
    title: String,
    /// A run in which nothing but time and these stalls decides showed the same.
    confirmed: bool,
    stalls: Vec<StallJson>,
    total_ns: f64,
    longest_ns: f64,
    /// What keeping the whole order found would take, also where it does not matter.
    whole_order_ns: f64,
    runs: u64,
}

/// Nanoseconds, to one place, upwards.
fn ns(picoseconds: u64) -> f64 {
    picoseconds.div_ceil(100) as f64 / 10.0
}

pub(super) fn command(source: &str, file: &SeedFile, console: &mut Console) -> Result<Exit, CommandError> {
    let mut workspace = Workspace::new();
    // What was shrunk shrinks no further: this only looks whether it still fails.
    let shrunk = match shrink_run(&mut workspace, file, Budget::default()) {
        Ok(shrunk) => shrunk,
        Err(error) => return Ok(refuse(source, &error, console)),
    };
    let Some(found) = window_of(&mut workspace, &file.spec, &shrunk.shrunk.list) else {
        let error = ShrinkError::Diverged("the shrunk run came out differently when it was made again".to_owned());
        return Ok(refuse(source, &error, console));
    };
    tell(&found, console)?;
    Ok(Exit::Clean)
}

/// A step in words: who, where, what.
struct Words {
    actor: String,
    function: Option<String>,
    what: String,
}

impl Words {
    /// A step before which somebody is stalled; where it is never performed the place is that of the step before.
    fn stalled(history: &History<'_>, stall: &Stall) -> Words {
        match (stall.step, stall.own_before) {
            (Some(step), _) => Words::of(history, stall.actor, step, stall.op),
            (None, Some(before)) => {
                let what = format!("{}: has not happened when the run ends", in_words(stall.op));
                Words { what, ..Words::of(history, stall.actor, before, stall.op) }
            }
            (None, None) => Words { actor: stall.who.clone(), function: None, what: "its start".to_owned() },
        }
    }

    fn of(history: &History<'_>, actor: ActorId, step: u64, op: Op) -> Words {
        let at = history.events().iter().position(|event| event.step == step && event.actor == actor);
        let function = at.and_then(|at| history.function(at)).filter(|_| !history.is_hardware(actor));
        let what = at.map_or_else(|| in_words(op), |at| words::long(history, at));
        Words { actor: history.name(actor), function, what }
    }

    fn place(&self) -> String {
        self.function.as_ref().map_or_else(String::new, |function| format!(" in {function}"))
    }
}

/// An operation that left no event.
fn in_words(op: Op) -> String {
    let pa = op.object().0;
    match op.kind() {
        OpKind::Read => format!("loads from pa {pa:#x}"),
        OpKind::Write => format!("stores to pa {pa:#x}"),
        OpKind::Rmw => format!("changes the word at pa {pa:#x}"),
        OpKind::Lock => format!("takes the lock at pa {pa:#x}"),
        OpKind::Unlock => format!("releases the lock at pa {pa:#x}"),
        OpKind::Alloc => "calls the allocator".to_owned(),
        OpKind::Free => "gives memory back".to_owned(),
        OpKind::Fetch => format!("fetches a word at pa {pa:#x}"),
        OpKind::DmaRead => format!("DMA read at pa {pa:#x}"),
        OpKind::DmaWrite => format!("DMA write at pa {pa:#x}"),
        OpKind::Register => "uses the registers or caches of its unit".to_owned(),
        OpKind::Yield => "goes on after a pause".to_owned(),
        OpKind::Turn | OpKind::Begin => "begins".to_owned(),
    }
}

fn tell(found: &WindowOf, console: &mut Console) -> Result<(), CommandError> {
    let WindowOf { window, outcome } = found;
    let history = History::new(outcome);
    let total: u64 = window.stalls.iter().map(|stall| stall.picoseconds).sum();
    let longest = window.stalls.iter().map(|stall| stall.picoseconds).max().unwrap_or(0);
    if console.is_json() {
        let stalls = window.stalls.iter().map(|stall| {
            let words = Words::stalled(&history, stall);
            let after = stall.after.map(|after| (after.step, Words::of(&history, after.actor, after.step, after.op)));
            StallJson {
                actor: stall.who.clone(),
                function: words.function,
                step: stall.step,
                what: words.what,
                ns: ns(stall.picoseconds),
                after_step: after.as_ref().map(|(step, _)| *step),
                after_actor: after.as_ref().map(|(_, words)| words.actor.clone()),
                after: after.map(|(_, words)| words.what),
            }
        });
        return Ok(console.json(&WindowJson {
            r#type: "window",
            property: outcome.verdict.property.clone(),
            title: outcome.verdict.title.clone(),
            confirmed: window.confirmed,
            stalls: stalls.collect(),
            total_ns: ns(total),
            longest_ns: ns(longest),
            whole_order_ns: ns(window.all_picoseconds),
            runs: window.runs,
        })?);
    }
    let verdict = &outcome.verdict;
    console.say(&format!("window of {} ({})", verdict.title, verdict.property))?;
    match window.stalls.len() {
        0 => console.say("nobody has to be stalled: with the costs of the model this order comes about by itself")?,
        1 => console.say(&format!("one stall of {} ns:", ns(total)))?,
        nr => console.say(&format!("{nr} stalls, {} ns together, the longest {} ns:", ns(total), ns(longest)))?,
    }
    for stall in &window.stalls {
        let words = Words::stalled(&history, stall);
        let before = stall.step.map_or_else(|| "its next step".to_owned(), |step| format!("step {step}"));
        console.say(&format!("  {} for {} ns before {before}{}:", stall.who, ns(stall.picoseconds), words.place()))?;
        console.say(&format!("      {}", words.what))?;
        if let Some(After { step, actor, op }) = stall.after {
            let after = Words::of(&history, actor, step, op);
            console.say(&format!("    so that it comes after step {step} by {}{}:", after.actor, after.place()))?;
            console.say(&format!("      {}", after.what))?;
        }
    }
    console.say(match window.confirmed {
        true => "confirmed: in a run where nothing but time and these stalls decides who goes next, the same happens",
        false => "not confirmed: with these stalls, computed for the order found, the run came out otherwise",
    })?;
    console.say(&format!(
        "{} runs; keeping all of the order found, also where it does not matter, would take {} ns of stalls",
        window.runs,
        ns(window.all_picoseconds)
    ))?;
    console.say("step costs are the model's (CPU 3 GHz, iommu-model/src/timing.rs): knobs, not measurements; compare, do not quote")?;
    Ok(())
}
