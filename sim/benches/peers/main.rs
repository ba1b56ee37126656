//! Our engine beside shuttle, madsim and loom, in one process, on the same workload: `cargo bench -p sim --bench peers [-- --json]`.
//!
//! * `steps`: 4 actors of 1000 steps each; a step is one shared fetch-and-add and one scheduling point. Reported in steps.
//! * `tiny-run`: one whole run of 3 actors of 10 steps each: set-up, run and tear-down. Reported in runs.
//!
//! What the figures mean and how far they can be trusted is in the crate's documentation, under `figures`.

#[path = "../common/rounds.rs"]
mod rounds;
#[path = "../common/workload.rs"]
mod workload;

mod ours;
mod theirs;

use std::process::ExitCode;
use std::time::Duration;

use rounds::{Entrant, Figure, measure, median};
use sim::policy::PolicySpec;
use workload::Workload;

/// The peers that ratios are given to, by the names of their entrants.
const PEERS: [(&str, &str); 3] = [("shuttle", "shuttle:random"), ("madsim", "madsim"), ("loom", "loom")];

/// The policies of ours that are measured.
const POLICIES: [PolicySpec; 6] =
    [PolicySpec::Uniform, PolicySpec::Pct { depth: 3 }, PolicySpec::Pos, PolicySpec::Urw, PolicySpec::Surw, PolicySpec::Portfolio];

/// All entrants on `workload`; `per_step` tells whether steps or runs are counted.
fn entrants(workload: Workload, per_step: bool) -> Vec<Entrant<'static>> {
    let units_per_run = if per_step { workload.total() } else { 1 };
    let mut entrants = Vec::new();
    let mut add = |name: String, run| entrants.push(Entrant { name, units_per_run, run });
    for spec in POLICIES {
        add(spec.to_string(), ours::under(spec, workload));
    }
    add("replay".to_owned(), ours::replay(workload));
    add("uniform, through World".to_owned(), ours::through_world(workload));
    add("shuttle:random".to_owned(), theirs::shuttle_random(workload));
    add("shuttle:pct:3".to_owned(), theirs::shuttle_pct(workload));
    add("madsim".to_owned(), theirs::madsim(workload));
    add("loom".to_owned(), theirs::loom(workload));
    add("floor: bare polls in turn".to_owned(), theirs::nothing_but_polls(workload));
    entrants
}

/// True for an entrant that is not ours.
fn is_peer(name: &str) -> bool {
    ["shuttle", "madsim", "loom", "floor"].iter().any(|peer| name.starts_with(peer))
}

fn report_json(group: &str, figures: &[Figure]) {
    for figure in figures {
        let mut line = format!(r#"{{"format_version":1,"type":"bench","name":"{group}/{}","per_s":{:.0}"#, figure.name, per_s(figure));
        if !is_peer(&figure.name) {
            let ratios = ratios(figure, figures).map(|(peer, ratio)| format!(r#""{peer}":{ratio:.2}"#));
            line += &format!(r#","ratio_to":{{{}}}"#, ratios.join(","));
        }
        println!("{line}}}");
    }
}

fn report_table(what: &str, figures: &[Figure]) {
    println!("\n{what:<28} {:>12} {:>12} {:>10} {:>10} {:>10}", "ns each", "a second", "x shuttle", "x madsim", "x loom");
    for figure in figures {
        print!("{:<28} {:>12.1} {:>12.0}", figure.name, figure.ns_median(), per_s(figure));
        for (_, ratio) in ratios(figure, figures) {
            print!(" {ratio:>10.2}");
        }
        println!();
    }
}

/// How many times as fast as each peer: the median of the ratios of each round.
fn ratios(figure: &Figure, figures: &[Figure]) -> [(&'static str, f64); 3] {
    PEERS.map(|(peer, name)| {
        let theirs = figures.iter().find(|other| other.name == name).expect("every peer is an entrant");
        (peer, median(figure.ns.iter().zip(&theirs.ns).map(|(ours, theirs)| theirs / ours).collect()))
    })
}

/// Units a second, of the median.
fn per_s(figure: &Figure) -> f64 {
    1e9 / figure.ns_median()
}

fn main() -> ExitCode {
    let (mut json, mut rounds, mut benched) = (false, 15, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            // What cargo adds under `cargo bench`; without it this is `cargo test --benches`, which only wants to see it work.
            "--bench" => benched = true,
            "--rounds" => match words.next().and_then(|number| number.parse().ok()).filter(|rounds| (1..=1000).contains(rounds)) {
                Some(number) => rounds = number,
                None => return usage("--rounds takes a number from 1 to 1000"),
            },
            other => return usage(&format!("`{other}` is not known")),
        }
    }
    let (rounds, slice) = if benched { (rounds, Duration::from_millis(20)) } else { (1, Duration::from_millis(1)) };
    let groups = [
        ("steps", "4 actors x 1000 steps", Workload { actors: 4, steps: 1000 }, true),
        ("tiny-run", "whole run, 3 actors x 10", Workload { actors: 3, steps: 10 }, false),
    ];
    for (group, what, workload, per_step) in groups {
        let figures = measure(entrants(workload, per_step), rounds, slice);
        if json { report_json(group, &figures) } else { report_table(what, &figures) }
    }
    ExitCode::SUCCESS
}

fn usage(what: &str) -> ExitCode {
    eprintln!("peers: {what}; usage: cargo bench -p sim --bench peers -- [--json] [--rounds N]");
    ExitCode::from(2)
}
