//! Goal: the window of every finding in `seeds/` is tried, not only computed. Method: each file that fails is shrunk and its window
//! computed; the run with the stalls must show the finding when it is replayed by its choices alone.

use std::path::Path;

use sim::shrink::Budget;
use workloads::run::{How, VerdictKind, Workspace, run};
use workloads::seed_file;
use workloads::shrink::shrink_run;
use workloads::window::window_of;

/// Names of the actors that have to be stalled, and the sum of the stalls in nanoseconds.
fn check(name: &str) -> (Vec<String>, u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(format!("{name}.toml"));
    let file = seed_file::read(path.to_str().expect("UTF-8")).unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(file.expect, Some(VerdictKind::Clean));
    let mut workspace = Workspace::new();
    let shrunk = shrink_run(&mut workspace, &file, Budget::default()).expect("it shrinks");
    let found = window_of(&mut workspace, &file.spec, &shrunk.shrunk.list).expect("it is made again");
    let window = &found.window;
    assert!(window.confirmed, "{name}: {:?}", window.stalls);
    let replayed = run(&mut workspace, &file.spec, &How { replay: Some(&window.list), ..How::default() });
    assert_eq!((&replayed.verdict.property, &replayed.verdict.title), (&file.property, &file.title), "{name}");
    assert_eq!((replayed.divergence, replayed.trace_hash), (None, found.outcome.trace_hash), "{name}");
    let sum: u64 = window.stalls.iter().map(|stall| stall.picoseconds).sum();
    assert!(sum <= window.all_picoseconds, "{name}: {:?}", window.stalls);
    assert!(window.stalls.iter().all(|stall| stall.picoseconds > 0 && !stall.who.is_empty()));
    (window.stalls.iter().map(|stall| stall.who.clone()).collect(), sum.div_ceil(1000))
}

#[test]
fn a_map_in_flight_needs_the_mapper_stalled_between_its_two_sections() {
    let (who, ns) = check("preserve-iommufd--map-in-flight");
    assert!(who.contains(&"vmm0/map".to_owned()) && ns > 100, "{who:?} for {ns} ns");
}

#[test]
fn a_rule_that_is_passed_needs_the_mapper_stalled() {
    let (who, ns) = check("map-vs-preserve--v1-rule-is-passed");
    assert!(who.contains(&"vmm0/map".to_owned()) && ns > 100, "{who:?} for {ns} ns");
}

#[test]
fn a_failure_that_no_order_decides_needs_next_to_no_stall() {
    // A planted defect in the order of one function's own steps, and a stop that an injected failure alone brings about.
    for name in ["unmap-vs-dma--table-freed-before-flush", "flb-retrieve-enomem--tip-stops-safely"] {
        let (who, ns) = check(name);
        assert!(ns < 10, "{name}: {who:?} for {ns} ns");
    }
}

#[test]
fn dma_in_an_open_gate_and_a_session_that_changes_need_little() {
    // Both windows are wide: nobody has to wait for long.
    for name in ["flb-retrieve-enomem--device-writes-foreign-memory", "session-changes-while-serialised--given-up-files-handed-over"] {
        let (who, ns) = check(name);
        assert!(ns < 5_000, "{name}: {who:?} for {ns} ns");
    }
}
