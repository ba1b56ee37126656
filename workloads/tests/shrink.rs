//! Goal: every finding in `seeds/` shrinks to a run that fails the same way, replays anywhere, costs about a second, and has at most
//! twice the context switches of the smallest run known. Method: each file that fails is shrunk, and so are other runs with the same
//! finding: the smallest of all of them is the bound.

use std::path::Path;

use sim::shrink::{Budget, Measure};
use workloads::run::{How, Outcome, RunSpec, VerdictKind, Workspace, run};
use workloads::seed_file::{self, SeedFile};
use workloads::shrink::{ShrunkRun, shrink_run};

fn seed(name: &str) -> SeedFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(format!("{name}.toml"));
    seed_file::read(path.to_str().expect("UTF-8")).unwrap_or_else(|error| panic!("{error}"))
}

fn shrunk(file: &SeedFile) -> ShrunkRun {
    shrink_run(&mut Workspace::new(), file, Budget::default()).unwrap_or_else(|error| panic!("{}: {error}", file.title))
}

fn same(a: &Outcome, b: &Outcome) -> bool {
    (a.verdict.kind, &a.verdict.property, &a.verdict.title) == (b.verdict.kind, &b.verdict.property, &b.verdict.title)
}

/// Shrinks the file, and `nr_others` other runs with the same finding; checks what must be true of each.
fn check(name: &str, nr_others: usize) {
    check_among(name, nr_others, 0..4000);
}

/// As [`check`], with the seeds to look for other runs in.
fn check_among(name: &str, nr_others: usize, seeds: impl IntoIterator<Item = u64>) {
    let file = seed(name);
    let first = shrunk(&file);
    assert_eq!((&first.outcome.verdict.property, &first.outcome.verdict.title), (&file.property, &file.title), "{name}");
    let mut workspace = Workspace::new();
    let runs = seeds.into_iter().map(|seed| RunSpec { seed, policy: "portfolio".parse().expect("a policy"), ..file.spec.clone() });
    let others = runs.filter(|spec| same(&run(&mut workspace, spec, &How::default()), &first.outcome));
    let others: Vec<_> = others.take(nr_others).map(|spec| shrunk(&SeedFile::bare(spec))).collect();
    assert_eq!(others.len(), nr_others, "{name}");
    assert!(first.shrunk.complete, "{name}: the budget does not suffice for the seed file");
    let all: Vec<_> = std::iter::once(&first).chain(&others).collect();
    // The same finding: another cause may well take more.
    let alike: Vec<_> = all.into_iter().filter(|other| other.signatures.1 == first.signatures.1).collect();
    let fewest = alike.iter().map(|run| run.shrunk.to.switches).min().expect("the file's own");
    for run in alike {
        let Measure { switches, steps, .. } = run.shrunk.to;
        println!("{name}: {:?} -> {:?}, {} runs of {} steps", run.shrunk.from, run.shrunk.to, run.shrunk.runs, run.shrunk.steps);
        assert!(switches <= 2 * fewest, "{name}: {switches} switches where {fewest} do");
        assert!(run.shrunk.steps <= Budget::default().steps + 100_000, "{name}: {} steps of search", run.shrunk.steps);
        assert_eq!(steps, run.outcome.steps);
    }
}

#[test]
fn flb_retrieve_enomem_shrinks() {
    check("flb-retrieve-enomem--device-writes-foreign-memory", 2);
}

#[test]
fn a_safe_stop_shrinks() {
    check("flb-retrieve-enomem--tip-stops-safely", 2);
}

#[test]
fn v1_rule_is_passed_shrinks() {
    check("map-vs-preserve--v1-rule-is-passed", 2);
}

#[test]
fn map_in_flight_shrinks() {
    check("preserve-iommufd--map-in-flight", 2);
}

#[test]
fn a_session_given_up_while_serialised_shrinks() {
    check("session-changes-while-serialised--given-up-files-handed-over", 2);
}

#[test]
fn table_freed_before_flush_shrinks() {
    check("unmap-vs-dma--table-freed-before-flush", 2);
}

#[test]
fn a_failed_retrieve_shrinks() {
    check("retrieve-memfd-fails--guest-page-freed", 2);
}

#[test]
fn a_failed_restore_shrinks() {
    check("restore-fails--device-walks-tables-nobody-restored", 2);
}

#[test]
fn a_failed_reservation_shrinks() {
    // One run in some thousands: where another is is known.
    check_among("reserve-domain-id-fails--id-given-out-again", 1, [0x1739b]);
}

#[test]
fn an_address_space_that_is_mutable_too_early_shrinks() {
    // One run in some thousands: where others are is known.
    check_among("close-session--mutable-with-first-hwpt", 2, [0x31268, 0x6216c]);
}

#[test]
fn every_seed_that_fails_is_shrunk_by_a_test() {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shrink.rs")).expect("this file");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for entry in std::fs::read_dir(dir).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8").to_owned();
        let fails = path.extension().is_some_and(|extension| extension == "toml") && seed(&name).expect != Some(VerdictKind::Clean);
        assert!(!fails || source.contains(&format!("(\"{name}\"")), "{name}: add a test here");
    }
}

#[test]
fn a_shrunk_run_is_written_to_a_file_that_replays_by_its_choices() {
    let file = seed("preserve-iommufd--map-in-flight");
    let run1 = shrunk(&file);
    let kept = SeedFile { shrunk_from: "lu1-x".to_owned(), ..SeedFile::of(&file.spec, &run1.outcome) };
    let read = seed_file::parse(&seed_file::write(&kept)).expect("what is written reads back");
    assert_eq!((read.shrunk_from.as_str(), &read.choices), ("lu1-x", &Some(run1.shrunk.list.clone())));
    let again = run(&mut Workspace::new(), &read.spec, &How { replay: read.choices.as_deref(), ..How::default() });
    assert_eq!((again.trace_hash, again.divergence.clone()), (run1.outcome.trace_hash, None));
    assert!(same(&again, &run1.from));
    // A shrunk run shrinks no further.
    let twice = shrunk(&read);
    assert_eq!((twice.shrunk.to, twice.shrunk.list), (run1.shrunk.to, run1.shrunk.list));
}
