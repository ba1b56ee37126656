//! Goal: every finding in `seeds/` is still what its file says. Method: each file is replayed by its choices and, apart from them,
//! drawn again from policy and seed; the reports of those that are findings are snapshots in `snapshots/reports/`.
//!
//! After a change that is meant to change event streams: `lurch replay seeds/FILE.toml --rewrite`, then
//! `INSTA_UPDATE=always cargo test -p workloads --test seeds`.

use std::path::{Path, PathBuf};

use workloads::report::text::{Case, Form, report};
use workloads::run::{How, Outcome, VerdictKind, Workspace, run};
use workloads::seed_file::{self, SeedFile};

fn files() -> Vec<(PathBuf, SeedFile)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    let entries = std::fs::read_dir(dir).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(!paths.is_empty());
    let read = |path: PathBuf| {
        let file = seed_file::read(path.to_str().expect("UTF-8")).unwrap_or_else(|error| panic!("{error}"));
        (path, file)
    };
    paths.into_iter().map(read).collect()
}

fn check(path: &Path, file: &SeedFile, outcome: &Outcome) {
    let name = path.display();
    assert_eq!(Some(outcome.verdict.kind), file.expect, "{name}: {:?}", outcome.verdict);
    assert_eq!((&outcome.verdict.property, &outcome.verdict.title), (&file.property, &file.title), "{name}");
    assert_eq!(Some(outcome.trace_hash), file.trace_hash, "{name}: meant? see the head of this file");
}

#[test]
fn every_seed_replays_by_its_choices_and_by_its_seed() {
    let mut workspace = Workspace::new();
    for (path, file) in files() {
        let choices = file.choices.as_deref().unwrap_or_else(|| panic!("{}: no choices", path.display()));
        let replayed = run(&mut workspace, &file.spec, &How { replay: Some(choices), ..How::default() });
        assert_eq!(replayed.divergence, None, "{}", path.display());
        check(&path, &file, &replayed);
        check(&path, &file, &run(&mut workspace, &file.spec, &How::default()));
    }
}

#[test]
fn every_seed_tells_its_story() {
    for (path, file) in files() {
        let name = path.display();
        assert!(file.story.split_whitespace().count() > 25, "{name}: why does it happen?");
        assert!(!file.first_seen.is_empty(), "{name}: where was it seen?");
        assert!(file.story.lines().all(|line| line.chars().count() <= 120), "{name}: long lines");
    }
}

#[test]
fn reports_of_the_findings() {
    let mut workspace = Workspace::new();
    for (path, file) in files() {
        if file.expect == Some(VerdictKind::Clean) {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8").to_owned();
        let how = How { keep_log: true, replay: file.choices.as_deref(), ..How::default() };
        let outcome = run(&mut workspace, &file.spec, &how);
        let source = format!("seeds/{stem}.toml");
        let text = report(&Case { spec: &file.spec, outcome: &outcome, source: &source }, Form::Terminal);
        insta::with_settings!({ snapshot_path => "../../snapshots/reports", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("seed-{stem}"), text);
        });
    }
}
