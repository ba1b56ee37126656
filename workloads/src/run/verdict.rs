//! From the end of a run to its verdict.

use iommu_model::addr::Pa;
use sim::engine::{Burst, Engine, Object};
use sim::machine::{Machine, StopKind};
use sim::memory::Tag;

use super::{Counts, RunSpec, Verdict, VerdictKind};
use crate::mark::Mark;
use crate::revision::Iommu;
use crate::{known, tag};

/// Properties that `sim` judges by itself: their titles get the kernel function, as a kernel's own checkers print it.
const OF_THE_MACHINE: [&str; 4] = ["LIFE", "LOCK", "P7", "definedness"];

/// The verdict of a run that ended with `ended`.
pub(super) fn of(spec: &RunSpec, machine: &Machine, engine: &Engine, ended: Burst, counts: &Counts) -> Verdict {
    let judge = machine.judge();
    if let Some(finding) = judge.finding() {
        let function = judge.found_in();
        let title = match function {
            Some(function) if OF_THE_MACHINE.contains(&finding.property) => format!("{} in {function}", finding.title),
            _ => finding.title.clone(),
        };
        let listed = known::lookup(spec, finding, &title, function, counts);
        return Verdict { listed, ..plain(VerdictKind::Violation, finding.property, title, named(engine, &finding.details)) };
    }
    if let Some(stop) = machine.stopped() {
        let what = match stop.kind {
            StopKind::Bug => "BUG",
            StopKind::Panic => "panic",
        };
        let title = format!("{what} in {}", stop.title);
        let details = vec![format!("{} stopped the kernel of generation {} at step {}", engine.name(stop.actor), stop.era, stop.step)];
        // Legal only in an incoming kernel, and only when something in this run gave it cause.
        let provoked = !counts.injected.is_empty() || spec.outgoing != spec.incoming;
        return if stop.era > 0 && provoked {
            plain(VerdictKind::SafeStop, "safe-stop", title, details)
        } else {
            plain(VerdictKind::Violation, "unexplained", title, details)
        };
    }
    match ended {
        Burst::Finished => plain(VerdictKind::Clean, "", String::new(), Vec::new()),
        Burst::Deadlock => plain(VerdictKind::Violation, "LOCK", "endless wait".to_owned(), deadlock(machine, engine)),
        Burst::Spent | Burst::Halted => {
            plain(VerdictKind::Bound, "steps", "bound on steps reached; raise it with --set steps=N".to_owned(), Vec::new())
        }
    }
}

/// Details with actors and tags, which `sim` knows by number, in words.
fn named(engine: &Engine, details: &[String]) -> Vec<String> {
    let actors: Vec<(String, &str)> = engine.actors().map(|(id, name, _)| (format!(" by {id}"), name)).collect();
    let named = |line: &String| match actors.iter().find(|(id, _)| line.ends_with(id.as_str())) {
        Some((id, name)) => format!("{} by {name}", line.strip_suffix(id.as_str()).unwrap_or(line)),
        None => line.clone(),
    };
    details.iter().map(named).map(|line| tag_named(&line)).collect()
}

/// The line with `tag 7` as what the tag is called.
fn tag_named(line: &str) -> String {
    let parts: Vec<&str> = line.split(", ").collect();
    let tag = |part: &&str| part.strip_prefix("tag ").and_then(|number| number.parse().ok()).map(|number| tag::name(Tag(number)));
    parts.iter().map(|part| tag(part).unwrap_or(part)).collect::<Vec<_>>().join(", ")
}

fn plain(kind: VerdictKind, property: &str, title: String, details: Vec<String>) -> Verdict {
    Verdict { kind, property: property.to_owned(), title, details, listed: None }
}

/// Who waits for what, and who holds it.
fn deadlock(machine: &Machine, engine: &Engine) -> Vec<String> {
    engine
        .blocked()
        .map(|(actor, object)| {
            let holders: Vec<String> =
                machine.lock_holders(Pa(object.0)).into_iter().map(|holder| engine.name(holder).to_owned()).collect();
            let what = match (object.is_memory(), holders.is_empty()) {
                (true, false) => format!("the lock at pa {:#x}, held by {}", object.0, holders.join(", ")),
                (true, true) => format!("the word at pa {:#x} to change", object.0),
                (false, _) if object == Object::nothing() => "nothing: it has stopped".to_owned(),
                (false, _) => "hardware or another program".to_owned(),
            };
            format!("{} waits for {what}", engine.name(actor))
        })
        .collect()
}

/// The named assumptions a run of this spec depends on.
pub(super) fn assumptions(spec: &RunSpec, counts: &Counts) -> Vec<&'static str> {
    let mut list = Vec::new();
    if spec.incoming.reclaim || spec.outgoing.reclaim {
        list.push("reclaim: iommufd retrieve, replace and finish follow the sketch of RFC v2 (2025-12-02); no posted code");
    }
    if counts.marks[Mark::DeviceNotRestored as usize] > 0 && spec.incoming.iommu == Iommu::Tip {
        list.push("restore: tip goes on without a restored domain when probe or restore fails, as v2 does; tip's text was not seen");
    }
    if [spec.outgoing, spec.incoming].iter().any(|revision| revision.iommu == Iommu::V2) {
        list.push(
            "abi of v2: iommu_device_ser as in patch 02 (37 bytes), iommu_hw_ser with the VT-d members of tip; the final v2 was not seen",
        );
    }
    if spec.outgoing.name == "v1" {
        list.push("v1: only its immutability rule; the rest is v2");
    }
    list
}
