//! Goal: every subcommand, flag and exit code of `lurch` does what its documentation says. Method: the binary itself, in a
//! folder of its own, with an empty environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder that is there for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the target folder is writable");
        Folder(path)
    }

    fn lurch(&self, args: &[&str]) -> Output {
        self.lurch_with(args, &[])
    }

    fn lurch_with(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lurch"));
        command.args(args).current_dir(&self.0).env_clear().envs(env.iter().copied());
        command.output().expect("the binary starts")
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "stdout: {}\nstderr: {}", out(output), err(output));
}

/// The JSON lines of a command.
fn lines(output: &Output) -> Vec<Value> {
    out(output)
        .lines()
        .map(|line| {
            assert!(line.starts_with("{\"format_version\":1,"), "{line}");
            serde_json::from_str(line).expect("JSON")
        })
        .collect()
}

#[test]
fn list_shows_each_kind_and_json_has_a_line_for_each_thing() {
    let folder = Folder::new("list");
    let all = folder.lurch(&["list"]);
    code(&all, 0);
    for kind in ["scenarios", "kernels", "defects", "oracles", "policies", "marks", "settings"] {
        assert!(out(&all).contains(&format!("{kind}:")));
        let one = folder.lurch(&["list", kind, "--json"]);
        code(&one, 0);
        assert!(!lines(&one).is_empty(), "{kind}");
    }
    assert!(out(&all).contains("update-with-dma"));
}

#[test]
fn wrong_command_lines_are_usage_errors_with_a_hint() {
    let folder = Folder::new("usage");
    let typo = folder.lurch(&["run", "update-with-dna"]);
    code(&typo, 2);
    assert!(err(&typo).contains("did you mean `update-with-dma`?") && err(&typo).contains("lurch list scenarios"));
    for args in [
        &["run", "any", "--kernel", "v99"][..],
        &["run", "any", "--policy", "pso"],
        &["run", "any", "--defect", "LU-000"],
        &["run", "any", "--set", "pages"],
        &["run", "any", "--set", "pages=99999999"],
        &["run", "any", "--seed", "x"],
        &["run", "any", "--fail-nth", "-1"],
        &["sweep", "--runs", "1", "--time-budget", "1s"],
        &["sweep", "--partition", "slice:3/2"],
        &["sweep", "--jobs", "0"],
        &["sweep", "no-such-scenario"],
        &["bench", "--time-budget", "5"],
        &[],
    ] {
        code(&folder.lurch(args), 2);
    }
    code(&folder.lurch(&["sweep", "no-such-*"]), 4);
    code(&folder.lurch(&["--help"]), 0);
    code(&folder.lurch(&["--version"]), 0);
}

#[test]
fn bad_tokens_and_files_are_refused_with_the_place() {
    let folder = Folder::new("bad-input");
    let long = "lu1-".to_owned() + &"a".repeat(10_000);
    for token in ["lu1-any-pos-1-0000", "lu2-any-pos-1-0000", "lu1-", long.as_str(), "no-such-file.toml", "", "."] {
        for command in ["replay", "explain", "shrink"] {
            let output = folder.lurch(&[command, token]);
            code(&output, 103);
            assert!(err(&output).starts_with("lurch: "), "{}", err(&output));
            assert!(err(&output).len() < 1000);
        }
    }
    let file = folder.0.join("seed.toml");
    for text in [&b"format = 1\nscenario = \"any\"\nseeed = 1\n"[..], b"\xff\xfe", b"format = 1\nscenario = \"any\nseed = 1"] {
        std::fs::write(&file, text).expect("writable");
        let output = folder.lurch(&["replay", "seed.toml"]);
        code(&output, 103);
        assert!(err(&output).starts_with("lurch: seed.toml:"), "{}", err(&output));
    }
}

#[test]
fn a_run_prints_a_token_that_replays_to_the_same_trace() {
    let folder = Folder::new("run");
    let run = folder.lurch(&["run", "any", "--seed", "0x11", "--policy", "pct:2", "--message-format", "json"]);
    let line = &lines(&run)[0];
    assert_eq!(line["type"], "verdict");
    let token = line["token"].as_str().expect("a plain run has a token");
    let replay = folder.lurch(&["replay", token, "--message-format", "json"]);
    assert_eq!(replay.status.code(), run.status.code());
    for field in ["verdict", "property", "title", "trace_hash", "steps", "cycles", "token", "scenario", "kernel"] {
        assert_eq!(lines(&replay)[0][field], line[field], "{field}");
    }
    let human = folder.lurch(&["replay", token]);
    assert!(out(&human).contains(&format!("lurch replay {token}")));
    code(&folder.lurch(&["explain", token]), 0);
    code(&folder.lurch(&["explain", token, "--mail"]), 0);
    assert!(!lines(&folder.lurch(&["explain", token, "--message-format", "json"])).is_empty());
}

#[test]
fn what_a_token_cannot_carry_goes_into_a_file_that_replays() {
    let folder = Folder::new("file");
    let args = ["run", "any", "--set", "pages=3", "--kernel", "v2:tip", "--fail-nth", "5", "--message-format", "json"];
    let run = folder.lurch(&args);
    let line = &lines(&run)[0];
    assert_eq!(line["token"], Value::Null);
    let file = line["seed_file"].as_str().expect("a file instead of a token");
    let replay = folder.lurch(&["replay", file, "--message-format", "json"]);
    assert_eq!(replay.status.code(), run.status.code(), "{}", err(&replay));
    assert_eq!(lines(&replay)[0]["trace_hash"], line["trace_hash"]);

    // A file that says something else than happens is not replayed silently.
    let text = std::fs::read_to_string(folder.0.join(file)).expect("written");
    let hash = line["trace_hash"].as_str().expect("a hash");
    std::fs::write(folder.0.join("other.toml"), text.replace(hash, "0123456789abcdef")).expect("writable");
    code(&folder.lurch(&["replay", "other.toml"]), 105);
    assert_eq!(folder.lurch(&["replay", "other.toml", "--then", "pos"]).status.code(), run.status.code());
}

/// The text of a seed file with a choice in the middle that no run offers.
fn outdated(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(name)).expect("a seed");
    let (head, choices) = text.split_once("choices = \"\"\"\n").expect("it has choices");
    let head: String = head.lines().filter(|line| !line.starts_with("choices_check")).map(|line| format!("{line}\n")).collect();
    let lines: Vec<&str> = choices.lines().collect();
    let (before, after) = lines.split_at(lines.len() / 2);
    format!("{head}choices = \"\"\"\n{}\ns99\n{}\n", before.join("\n"), after.join("\n"))
}

#[test]
fn an_outdated_seed_file_says_where_it_diverges_and_can_go_on() {
    let folder = Folder::new("then");
    std::fs::write(folder.0.join("old.toml"), outdated("preserve-iommufd--map-in-flight.toml")).expect("writable");
    let stopped = folder.lurch(&["replay", "old.toml", "--message-format", "json"]);
    code(&stopped, 105);
    let line = &lines(&stopped)[0];
    let place = line["diverged"].as_str().expect("a place").to_owned();
    assert!(place.contains(" at step ") && place.contains("the list says schedule actor a99, the run offers schedule one of a"), "{place}");
    assert!(err(&stopped).contains(&place) && err(&stopped).contains("--then"), "{}", err(&stopped));
    let step: u64 = place.split("at step ").nth(1).and_then(|rest| rest.split(':').next()).expect("a step").parse().expect("a number");

    // Up to there the run is the recorded one; from there on the policy has it, to a verdict of its own.
    let on = |policy: &str| {
        let output = folder.lurch(&["replay", "old.toml", "--then", policy, "--message-format", "json"]);
        let line = lines(&output)[0].clone();
        let expected = if line["verdict"] == "violation" { 100 } else { 0 };
        code(&output, expected);
        assert!(err(&output).contains(&format!("{place}; it went on with {policy}")), "{}", err(&output));
        assert!(line["steps"].as_u64().expect("a number") > step, "{line}");
        line["trace_hash"].clone()
    };
    let hashes: Vec<Value> = ["pos", "uniform", "pct:2"].map(on).into();
    assert_eq!(hashes[0], on("pos"));
    assert!(hashes.iter().any(|hash| *hash != hashes[0]), "{hashes:?}");
    // Without a divergence there is nothing to go on from.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/preserve-iommufd--map-in-flight.toml");
    let whole = folder.lurch(&["replay", path.to_str().expect("UTF-8"), "--then", "pos"]);
    code(&whole, 100);
    assert!(!err(&whole).contains("diverged"), "{}", err(&whole));
}

#[test]
fn a_finding_shrinks_to_a_file_that_replays_and_shrinks_no_further() {
    let folder = Folder::new("shrink");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/preserve-iommufd--map-in-flight.toml");
    let source = path.to_str().expect("UTF-8");
    let shrink = folder.lurch(&["shrink", source, "-o", "small.toml", "--message-format", "json"]);
    code(&shrink, 0);
    let line = &lines(&shrink)[0];
    assert_eq!((&line["type"], &line["token"], &line["seed_file"]), (&"shrunk".into(), &"small.toml".into(), &"small.toml".into()));
    for what in ["steps", "switches", "preemptions", "actors", "operations"] {
        let [from, to] = ["from", "to"].map(|side| line[side][what].as_u64().expect("a number"));
        assert!(to < from, "{what}: {from} to {to}");
    }
    let replay = folder.lurch(&["replay", "small.toml", "--message-format", "json"]);
    code(&replay, 100);
    for field in ["verdict", "property", "title", "trace_hash"] {
        assert_eq!(lines(&replay)[0][field], line[field], "{field}");
    }
    let text = std::fs::read_to_string(folder.0.join("small.toml")).expect("written");
    assert!(text.contains("shrunk_from = \"lu1-map-vs-preserve-tip-surw-13-8z30\"\n") && !text.contains("\ntoken = "), "{text}");
    assert!(text.contains("\nstory = "), "the story goes along");

    let again = folder.lurch(&["shrink", "small.toml", "-o", "smaller.toml", "--message-format", "json"]);
    code(&again, 0);
    assert!(lines(&again)[0]["to"]["switches"].as_u64() <= line["to"]["switches"].as_u64());
    // What a token and a file of one run shrink to is the same, and people are told how much went.
    let human = folder.lurch(&["shrink", "lu1-map-vs-preserve-tip-surw-13-8z30"]);
    code(&human, 0);
    assert!(
        out(&human).contains("context switches") && out(&human).lines().last().expect("a line").starts_with("replay: lurch replay null-")
    );
    // Fewer runs give a larger result, not a failure.
    let few = folder.lurch(&["shrink", source, "--runs", "3", "-o", "few.toml", "--message-format", "json"]);
    code(&few, 0);
    assert_eq!((&lines(&few)[0]["runs"], &lines(&few)[0]["complete"]), (&3.into(), &false.into()));
    code(&folder.lurch(&["replay", "few.toml"]), 100);

    code(&folder.lurch(&["replay", "small.toml", "--rewrite"]), 2);
    std::fs::write(folder.0.join("bare.toml"), text.split("choices_check").next().expect("a head")).expect("writable");
    code(&folder.lurch(&["replay", "bare.toml"]), 103);
}

#[test]
fn what_cannot_be_shrunk_is_refused_with_the_reason() {
    let folder = Folder::new("no-shrink");
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    let clean = seeds.join("map-vs-preserve--v2-rule-holds.toml");
    let output = folder.lurch(&["shrink", clean.to_str().expect("UTF-8")]);
    code(&output, 4);
    assert!(err(&output).contains("there is nothing to shrink"), "{}", err(&output));
    std::fs::write(folder.0.join("old.toml"), outdated("preserve-iommufd--map-in-flight.toml")).expect("writable");
    for args in [&["shrink", "old.toml"][..], &["explain", "--window", "old.toml"]] {
        let output = folder.lurch(args);
        code(&output, 105);
        assert!(err(&output).contains("diverged at choice"), "{}", err(&output));
    }
    folder.lurch(&["run", "any", "--set", "steps=50", "--output", "."]);
    let cut = std::fs::read_dir(&folder.0).expect("readable").map(|entry| entry.expect("readable").path());
    let cut = cut.into_iter().find(|path| path.to_string_lossy().contains("--any-")).expect("a file");
    code(&folder.lurch(&["shrink", cut.to_str().expect("UTF-8")]), 104);
    code(&folder.lurch(&["shrink", "lu1-any-pos-1-0000"]), 103);
}

#[test]
fn a_window_names_who_is_stalled_and_was_tried() {
    let folder = Folder::new("window");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/preserve-iommufd--map-in-flight.toml");
    let source = path.to_str().expect("UTF-8");
    let json = folder.lurch(&["explain", "--window", source, "--message-format", "json"]);
    code(&json, 0);
    let line = &lines(&json)[0];
    assert_eq!((&line["type"], &line["confirmed"]), (&"window".into(), &true.into()), "{line}");
    // The map is between its two critical sections while the other CPU freezes the space and looks at the area.
    let stalls = line["stalls"].as_array().expect("stalls");
    assert!(stalls.iter().any(|stall| stall["actor"] == "vmm0/map" && stall["ns"].as_f64().expect("a number") > 100.0), "{line}");
    let sum: f64 = stalls.iter().map(|stall| stall["ns"].as_f64().expect("a number")).sum();
    let total = line["total_ns"].as_f64().expect("a number");
    assert!((sum - total).abs() <= 0.1 * stalls.len() as f64 && total <= line["whole_order_ns"].as_f64().expect("a number"), "{line}");
    let human = out(&folder.lurch(&["explain", "--window", source]));
    assert!(human.contains("  vmm0/map for ") && human.contains("confirmed: ") && human.contains("knobs"), "{human}");
    assert!(!folder.0.join("seed.toml").exists(), "explaining writes nothing");
}

#[test]
fn flags_have_environment_twins_and_flags_win() {
    let folder = Folder::new("env");
    let seed = |output: &Output| lines(output)[0]["seed"].clone();
    let env = [("LURCH_SEED", "0x22"), ("LURCH_MESSAGE_FORMAT", "json"), ("LURCH_POLICY", "pos")];
    assert_eq!(seed(&folder.lurch_with(&["run", "any"], &env)), "0x22");
    assert_eq!(seed(&folder.lurch_with(&["run", "any", "--seed", "3"], &env)), "0x3");
    assert!(!lines(&folder.lurch_with(&["list", "marks"], &[("LURCH_JSON", "1")])).is_empty());
}

#[test]
fn traces_are_text_or_json_lines() {
    let folder = Folder::new("trace");
    let text = folder.lurch(&["run", "any", "--trace", "text"]);
    assert!(out(&text).lines().count() > 5);
    let json = folder.lurch(&["run", "any", "--trace", "jsonl", "--message-format", "json"]);
    assert!(lines(&json).iter().filter(|line| line["type"] == "event").count() > 5);
    let seeds = folder.lurch(&["run", "any", "--output", "kept"]);
    assert!(err(&seeds).contains("lurch: wrote kept"));
}

#[test]
fn a_sweep_is_the_same_with_any_number_of_jobs_and_in_parts() {
    let folder = Folder::new("jobs");
    let sweep = |extra: &[&str]| {
        let args = [&["sweep", "any", "--runs", "60", "--seed", "5", "--message-format", "json"], extra].concat();
        let output = folder.lurch(&args);
        let mut lines = lines(&output);
        for line in &mut lines {
            let line = line.as_object_mut().expect("an object");
            line.remove("runs_per_s");
            line.remove("steps_per_s");
        }
        (output.status.code(), lines)
    };
    let one = sweep(&["--jobs", "1"]);
    assert_eq!(one, sweep(&["--jobs", "4"]));
    let last = |lines: &[Value]| lines.last().expect("a summary").clone();
    assert_eq!(last(&one.1)["type"], "summary");
    assert_eq!(last(&one.1)["runs"], 60);
    let steps = |extra: &[&str]| last(&sweep(extra).1)["steps"].as_u64().expect("a number");
    let parts = steps(&["--partition", "slice:1/2"]) + steps(&["--partition", "slice:2/2"]);
    assert_eq!(last(&one.1)["steps"].as_u64(), Some(parts));
}

#[test]
fn a_sweep_of_faults_says_how_much_of_the_product_it_covered() {
    let folder = Folder::new("faults");
    let sweep = |extra: &[&str]| {
        let output = folder
            .lurch(&[&["sweep", "map-vs-preserve", "--kernel", "tip", "--fail-every", "1", "--message-format", "json"], extra].concat());
        let faults = lines(&output).into_iter().find(|line| line["type"] == "faults").expect("a line about faults");
        let number = |key: &str| faults[key].as_u64().expect("a number");
        (output.status.code(), number("runs"), number("of"), number("calls"), number("failed"))
    };
    let (code, runs, of, calls, failed) = sweep(&["--runs", "40"]);
    assert_eq!((code, runs, of), (Some(104), 40, 4 * calls), "a part of the product is no clean claim");
    assert!(calls > 50 && failed >= 39, "{calls} calls, {failed} runs with a failure");
    let parts = |part| sweep(&["--partition", part]).1;
    assert_eq!(parts("slice:1/8"), of.div_ceil(8), "an eighth of the runs");
}

#[test]
fn a_finding_is_reported_confirmed_and_kept() {
    let folder = Folder::new("finding");
    let args = ["sweep", "flb-retrieve-enomem", "--kernel", "v2", "--runs", "40", "--results", "results", "--message-format", "json"];
    let output = folder.lurch(&args);
    code(&output, 100);
    let findings: Vec<Value> = lines(&output).into_iter().filter(|line| line["type"] == "finding").collect();
    assert!(!findings.is_empty());
    for finding in &findings {
        assert_eq!(finding["confirmed"], true, "{finding}");
        let token = finding["token"].as_str().expect("a token");
        let replay = folder.lurch(&["replay", token, "--message-format", "json"]);
        code(&replay, 100);
        assert_eq!(lines(&replay)[0]["trace_hash"], finding["trace_hash"]);
        code(&folder.lurch(&["replay", finding["seed_file"].as_str().expect("a file")]), 100);
        assert!(out(&folder.lurch(&["explain", token])).contains("Decisive steps"));
        let small = folder.lurch(&["replay", finding["shrunk_file"].as_str().expect("a file"), "--message-format", "json"]);
        code(&small, 100);
        let small = &lines(&small)[0];
        assert_eq!((&small["property"], &small["title"]), (&finding["property"], &finding["title"]));
        assert!(small["steps"].as_u64() < finding["steps"].as_u64(), "{small}");
    }
    let kept = std::fs::read_to_string(folder.0.join("results/findings.ndjson")).expect("written");
    assert_eq!(kept.lines().count(), findings.len());
    folder.lurch(&args);
    let twice = std::fs::read_to_string(folder.0.join("results/findings.ndjson")).expect("written");
    assert!(twice.starts_with(&kept) && twice.lines().count() == 2 * findings.len());
}

#[test]
fn a_snapshot_is_text_on_stdout_or_in_files() {
    let folder = Folder::new("snapshot");
    let text = folder.lurch(&["snapshot", "update-with-dma", "--at", "kexec"]);
    code(&text, 0);
    assert!(!out(&text).is_empty());
    code(&folder.lurch(&["snapshot", "update-with-dma", "--at", "kexec", "--set", "updates=1", "--output", "state"]), 0);
    assert_eq!(std::fs::read_dir(folder.0.join("state")).expect("made").count(), 1);
}

#[test]
fn a_snapshot_at_no_mark_is_a_usage_error_and_at_one_never_hit_selects_nothing() {
    let folder = Folder::new("snapshot-mark");
    let typo = folder.lurch(&["snapshot", "update-with-dma", "--at", "kexc"]);
    code(&typo, 2);
    assert!(err(&typo).contains("did you mean `kexec`?"), "{}", err(&typo));
    code(&folder.lurch(&["snapshot", "update-with-dma", "--at", "flb-retrieve-failed"]), 4);
}

#[test]
fn a_hosted_run_leaves_a_file_that_replays_it() {
    let folder = Folder::new("hosted");
    let output = folder.lurch(&["run", "update-with-dma", "--hosted", "--message-format", "json"]);
    code(&output, 0);
    let line = &lines(&output)[0];
    assert_eq!((&line["type"], &line["verdict"]), (&Value::from("verdict"), &Value::from("clean")));
    let file = line["seed_file"].as_str().expect("no token carries it");
    let replay = folder.lurch(&["replay", file, "--expected", "--message-format", "json"]);
    code(&replay, 0);
    assert_eq!(lines(&replay)[0]["trace_hash"], line["trace_hash"]);
    let plain = folder.lurch(&["run", "update-with-dma", "--message-format", "json"]);
    assert_ne!(lines(&plain)[0]["trace_hash"], line["trace_hash"]);
}

#[test]
fn a_hosted_sweep_finds_the_same_with_one_job_and_with_two() {
    let folder = Folder::new("hosted-sweep");
    let sweep = |jobs: &str| {
        let args = ["sweep", "update-with-dma", "--hosted", "--runs", "24", "--jobs", jobs, "--message-format", "json"];
        let output = folder.lurch(&args);
        let lines = lines(&output);
        let last = lines.last().expect("a summary");
        (last["runs"].clone(), last["distinct"].clone(), last["steps"].clone())
    };
    assert_eq!(sweep("1"), sweep("2"));
}

/// A seed file, written by a run.
fn seed_file(folder: &Folder) -> (String, String) {
    let args = ["run", "flb-retrieve-enomem", "--kernel", "v2", "--set", "devices=1", "--message-format", "json"];
    let run = folder.lurch(&args);
    let file = lines(&run)[0]["seed_file"].as_str().expect("a file").to_owned();
    let text = std::fs::read_to_string(folder.0.join(&file)).expect("written");
    (file, text)
}

#[test]
fn expected_asks_for_the_verdict_of_the_file_and_rewrite_keeps_it() {
    let folder = Folder::new("rewrite");
    let (file, text) = seed_file(&folder);
    code(&folder.lurch(&["replay", &file, "--expected"]), 0);
    let hash = text.lines().find(|line| line.starts_with("trace_hash")).expect("a hash");
    let stale = text.replace(hash, "trace_hash = \"0123456789abcdef\"");
    std::fs::write(folder.0.join("stale.toml"), &stale).expect("writable");
    code(&folder.lurch(&["replay", "stale.toml", "--expected"]), 105);
    code(&folder.lurch(&["replay", "stale.toml", "--rewrite"]), 0);
    assert_eq!(std::fs::read_to_string(folder.0.join("stale.toml")).expect("there"), text);
    // Another verdict: the file stays as it is.
    let expect = text.lines().find(|line| line.starts_with("expect")).expect("a verdict");
    let other = text.replace(expect, "expect = \"bound\"");
    std::fs::write(folder.0.join("other.toml"), &other).expect("writable");
    code(&folder.lurch(&["replay", "other.toml", "--rewrite"]), 105);
    assert_eq!(std::fs::read_to_string(folder.0.join("other.toml")).expect("there"), other);
    code(&folder.lurch(&["replay", "lu1-any-uniform-0-0000", "--rewrite"]), 103);
}

#[test]
fn damaged_seed_files_of_a_real_run_are_refused_or_told_apart() {
    let folder = Folder::new("damaged");
    let (_, text) = seed_file(&folder);
    let bytes = text.as_bytes();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(folder.0.join("damaged.toml"), bytes).expect("writable");
        let output = folder.lurch(&["replay", "damaged.toml"]);
        let exit = output.status.code().expect("no signal");
        // 103 refused; 105 another run than the file says; 0 or 100 the damage is in a place that says nothing.
        assert!([0, 100, 103, 105].contains(&exit), "{what}: {exit}: {}", err(&output));
        assert!(!err(&output).contains("panicked"), "{what}: {}", err(&output));
        exit
    };
    for part in 1..12 {
        refused(&bytes[..bytes.len() * part / 12], &format!("{part}/12 of the file"));
    }
    for place in (0..bytes.len()).step_by(bytes.len() / 25 + 1) {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 0x10;
        refused(&flipped, &format!("a flipped bit at {place}"));
    }
    let mut large = bytes.to_vec();
    large.extend(std::iter::repeat_n(b'#', 9 << 20));
    assert_eq!(refused(&large, "oversized"), 103);
    let choices = text.replace("choices = \"\"\"\n", "choices = \"\"\"\ns0*4000000000\n");
    assert_eq!(refused(choices.as_bytes(), "endless choices"), 103);
}

#[test]
fn the_bench_prints_rates() {
    let folder = Folder::new("bench");
    let output = folder.lurch(&["bench", "--json", "--time-budget", "200ms"]);
    code(&output, 0);
    assert!(lines(&output).iter().all(|line| line["type"] == "bench" && line["per_s"].as_f64().is_some_and(|rate| rate > 0.0)));
}

#[test]
fn the_bench_of_oracles_compares_each_of_them_with_all() {
    let folder = Folder::new("bench-oracles");
    let output = folder.lurch(&["bench", "--oracles", "--json", "--time-budget", "10ms"]);
    code(&output, 0);
    let lines = lines(&output);
    let row = |name: &str| lines.iter().find(|line| line["oracles"] == name).unwrap_or_else(|| panic!("no row for {name}")).clone();
    assert_eq!(row("all oracles")["ratio"], 1.0);
    assert!(row("no oracle")["ratio"].as_f64().is_some_and(|ratio| 0.0 < ratio && ratio < 1.0));
    row("without I7");
    code(&folder.lurch(&["bench", "--oracles", "--search"]), 2);
}

#[test]
fn the_bench_of_jobs_doubles_the_workers_up_to_the_number_given() {
    let folder = Folder::new("bench-jobs");
    let output = folder.lurch(&["bench", "--jobs", "5", "--json", "--time-budget", "30ms"]);
    code(&output, 0);
    let jobs: Vec<_> = lines(&output).iter().map(|line| line["jobs"].as_u64()).collect();
    assert_eq!(jobs, [Some(1), Some(2), Some(4)]);
    assert!(lines(&output).iter().all(|line| line["peak_bytes"].as_u64().is_none_or(|bytes| bytes > 1 << 20)));
}

#[test]
fn the_bench_of_searches_prints_schedules_to_the_first_bug_beside_what_was_published() {
    let folder = Folder::new("bench-search");
    let output = folder.lurch(&["bench", "--search", "--json", "--trials", "3", "--runs", "500"]);
    code(&output, 0);
    let lines = lines(&output);
    assert!(lines.iter().all(|line| line["type"] == "search" && line["published"].is_array()));
    let surw = lines.iter().find(|line| line["program"] == "lazy01" && line["search"] == "surw").expect("a row for each program");
    assert_eq!((surw["found"].as_u64(), surw["trials"].as_u64()), (Some(3), Some(3)));
    assert!(surw["mean"].as_f64().is_some_and(|mean| (1.0..100.0).contains(&mean)));
    code(&folder.lurch(&["bench", "--search", "--trials", "0"]), 2);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let folder = Folder::new("pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lurch"));
    command.args(["run", "any", "--trace", "text"]).current_dir(&folder.0).env_clear();
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
    assert_ne!(output.status.code(), Some(101));
}
