//! Mean schedules to the first bug, by policy, beside the published means. `cargo run --release -p sim --example search -- 100`
//!
//! Goal: see at one look what a policy is worth. Arguments: trials (20), most schedules a trial (10000), and which rows: `all`,
//! `published` (those with published figures) or names with commas between; then searches by name.

use sim::programs::{Program, Table};
use sim::search::Search;

fn main() {
    let mut args = std::env::args().skip(1);
    let trials = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(20);
    let runs_max = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(10_000);
    let rows = args.next().unwrap_or("published".to_owned());
    let named: Vec<Search> = args.map(|arg| arg.parse().expect("the name of a search")).collect();
    let searches = if named.is_empty() { Search::all() } else { named };
    let wanted = |program: &Program| match rows.as_str() {
        "all" => true,
        "published" => program.published().is_some(),
        names => names.split(',').any(|name| name == program.to_string()),
    };
    let programs: Vec<Program> = Program::ALL.into_iter().filter(wanted).collect();
    println!("{}", Table::heading(&searches));
    let table = Table::measure(searches, &programs, trials, runs_max, |row| println!("{}", Table::line(row)));
    println!("{}", table.summary(runs_max));
}
