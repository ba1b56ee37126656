use proptest::prelude::*;
use sim::engine::{ChoiceKind, Recorded};

use super::*;
use crate::defect::{Defect, Defects};
use crate::revision::{REVISIONS, Revision};
use crate::scenario::{self, Settings};

fn sample() -> SeedFile {
    let revision = Revision::by_name("v2").expect("v2");
    SeedFile {
        spec: RunSpec {
            scenario: scenario::all().first().expect("a scenario"),
            outgoing: revision,
            incoming: revision,
            defects: Defects::NONE,
            policy: "pct:3".parse().expect("a policy"),
            seed: 77,
            fail_nth: None,
            settings: Settings::new(),
        },
        property: "I1".to_owned(),
        title: "dma-write-to-foreign-frame in \"x\"".to_owned(),
        expect: Some(VerdictKind::Violation),
        trace_hash: Some(0xabc),
        first_seen: "v2".to_owned(),
        shrunk_from: String::new(),
        fixed_by: String::new(),
        story: "One line.\nAnother \"quoted\" line \\ with a tab\t.\n".to_owned(),
        choices: Some(vec![Recorded::new(ChoiceKind::Schedule, 3); 9]),
    }
}

fn error(text: &str) -> String {
    parse(text).expect_err("not a seed file").to_string()
}

fn replaced(from: &str, to: &str) -> String {
    let text = write(&sample());
    assert!(text.contains(from), "{from} in {text}");
    text.replace(from, to)
}

/// What the two would write is equal; `SeedFile` has no equality of its own because scenarios have none.
fn same(a: &SeedFile, b: &SeedFile) -> bool {
    write(a) == write(b)
}

#[test]
fn what_is_written_reads_back() {
    let file = sample();
    let back = parse(&write(&file)).expect("reads back");
    assert!(same(&file, &back));
    assert_eq!((back.story, back.title, back.choices), (file.story, file.title, file.choices));
}

#[test]
fn errors_name_line_and_column() {
    assert_eq!(error(""), "1:1: the key `format` is missing: not a seed file");
    assert_eq!(error("format = 2"), "1:10: this build reads format 1 only");
    assert_eq!(error("format = 1\nseed = 1"), "1:1: the key `scenario` is missing");
    assert!(error(&replaced("policy =", "polcy =")).ends_with("unknown key `polcy` (did you mean `policy`?)"));
    assert!(error(&replaced("\"pct:3\"", "\"pct:300\"")).contains("policy `pct` takes a number from 1 to 99"));
    assert!(error(&replaced("seed = 77", "seed = -77")).contains("a number that is not negative is wanted here"));
    assert!(error(&replaced("seed = 77", "seed = \"0xfffffffffffffffff\"")).contains("is not a number of 64 bits"));
    assert!(error(&replaced("\"violation\"", "\"violations\"")).contains("did you mean `violation`?"));
    assert!(error(&replaced("seed = 77", "seed = 78")).contains("this token names another run than the keys of the file"));
    assert!(error("format = 1\nscenario = \"x").starts_with("2:"));
}

#[test]
fn a_fault_in_the_choices_is_placed_in_the_file() {
    let text = replaced("s3*9", "s3*9\ns1 x2");
    let line = text.lines().position(|line| line == "s1 x2").expect("there") + 1;
    assert_eq!(error(&text), format!("{line}:4: `x` is no kind of choice; kinds are s a c p h w j"));
}

#[test]
fn oversized_and_binary_files_are_refused() {
    let error = |bytes: Vec<u8>| parse_bytes(bytes).expect_err("not a seed file").to_string();
    assert!(error(vec![b'#'; FILE_BYTES_MAX as usize + 1]).starts_with("1:1: more than"));
    assert_eq!(error(b"format = 1\n  \xff".to_vec()), "2:3: a byte that is not UTF-8");
    assert!(error(vec![b'['; 1 << 20]).starts_with("1:"));
    assert!(error([b"x = ".as_slice(), &vec![b'['; 1 << 20]].concat()).starts_with("1:"));
}

#[test]
fn neither_token_nor_file_is_said_so() {
    let error = read("no/such/file.toml").expect_err("nothing").to_string();
    assert_eq!(error, "no/such/file.toml: neither a token (`lu1-...`) nor a file; next: ls seeds/");
    assert!(matches!(read("lu1-any-pos-1-0000"), Err(SourceError::Token(_))));
}

#[test]
fn a_file_is_named_by_its_meaning() {
    let name = file_name(&sample());
    assert!(name.starts_with("dma-write-to-foreign-frame-in-x--"), "{name}");
    assert!(name.ends_with(".toml"));
}

fn any_file() -> impl Strategy<Value = SeedFile> {
    let kernels = (0..REVISIONS.len(), 0..REVISIONS.len());
    let scalars = (any::<u64>(), prop::option::of(any::<u32>()), prop::option::of(any::<u64>()));
    let texts = ("[ -~]{0,30}", "\\PC{0,30}", "(?s).{0,60}");
    let lists = (prop::collection::vec(0..Defect::ALL.len(), 0..3), prop::option::of(1..257u64));
    let choices = prop::option::of(prop::collection::vec((0..ChoiceKind::ALL.len(), 0..9u32), 0..60));
    (0..scenario::all().len(), kernels, scalars, texts, lists, choices).prop_map(
        |(scenario, (outgoing, incoming), (seed, fail_nth, trace_hash), (property, title, story), (defects, pages), choices)| SeedFile {
            spec: RunSpec {
                scenario: &scenario::all()[scenario],
                outgoing: REVISIONS[outgoing],
                incoming: REVISIONS[incoming],
                defects: defects.into_iter().fold(Defects::NONE, |set, defect| set.with(Defect::ALL[defect])),
                policy: "pos".parse().expect("a policy"),
                seed,
                fail_nth,
                settings: pages.map(|pages| ("pages".to_owned(), pages)).into_iter().collect(),
            },
            property,
            title,
            story,
            trace_hash,
            choices: choices.map(|list| list.into_iter().map(|(kind, value)| Recorded::new(ChoiceKind::ALL[kind], value)).collect()),
            ..sample()
        },
    )
}

proptest! {
    #[test]
    fn any_file_reads_back(file in any_file()) {
        let text = write(&file);
        let back = parse(&text);
        prop_assert!(back.is_ok(), "{:?} in {}", back.err(), text);
        prop_assert!(same(&file, &back.expect("checked")));
    }

    #[test]
    fn truncated_and_flipped_files_never_panic(file in any_file(), cut in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = write(&file).into_bytes();
        let place = cut.index(bytes.len());
        let _ = parse_bytes(bytes[..place].to_vec());
        bytes[place] ^= 1 << bit;
        let _ = parse_bytes(bytes);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "(?s).{0,200}") {
        let _ = parse_bytes(bytes);
        let _ = parse_bytes(format!("format = 1\n{text}").into_bytes());
    }
}
