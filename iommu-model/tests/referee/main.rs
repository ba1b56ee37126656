//! The referee: QEMU's IOMMUs against the model's, request by request.
//!
//! For random table images and request streams, both must give the same translated address, the same permission and the
//! same fault code, or the difference must be one of a list. Walks that race with stores are replayed from the words
//! that they fetched, because QEMU's walker is atomic. What QEMU said once is recorded in `vectors/` and checked in every
//! test run, without QEMU.
//!
//! `sh iommu-model/tests/referee/referee.sh` fetches QEMU if there is none and runs all of it. By hand:
//! `cargo test --release -p iommu-model --test referee -- --nocapture`, with these in the environment:
//!
//! | variable | |
//! | --- | --- |
//! | `LURCH_QEMU` | directory that `get-qemu.sh` has filled; else QEMU is looked for on `PATH`, and its absence is told |
//! | `LURCH_REFEREE_REQUESTS` | requests an architecture; 16,000 by default |
//! | `LURCH_REFEREE_SEED` | another seed than 1 |
//! | `LURCH_REFEREE_RECORD` | set: write `vectors/` anew |
//!
//! | module | what |
//! | --- | --- |
//! | `qemu` | the process, its RAM, the qtest protocol, PCI, the device that makes requests |
//! | `architecture` | what a new architecture has to bring |
//! | `memory` | memory that is drawn while the model walks it, and races |
//! | `trial` | one image in QEMU |
//! | `claims` | rights that translations claim |
//! | `run` | the comparison and its tally |
//! | `walk` | one request through the model |
//! | `vectors` | what QEMU said, recorded |
//! | `vtd` | Intel VT-d |
//! | `smmu` | Arm SMMUv3 |
//! | `riscv` | the RISC-V IOMMU |
//! | `amd` | AMD-Vi |

mod amd;
mod architecture;
mod claims;
mod dice;
mod memory;
mod qemu;
mod riscv;
mod run;
mod smmu;
mod trial;
mod vectors;
mod vtd;
mod walk;

use architecture::{Architecture, Outcome, Request};
use proptest::prelude::*;
use qemu::{Installed, NoQemu, setting};
use run::{Kind, Recorded};
use trial::Answer;
use vectors::{Checked, Recorder, Vectors};

fn number(name: &str, default: u64) -> u64 {
    let text = setting(name).map(|text| text.to_string_lossy().into_owned());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// An architecture's configurations; the vectors' file has its name.
struct Family {
    name: &'static str,
    configurations: fn() -> Vec<Box<dyn Architecture>>,
}

const VTD: Family = Family { name: "vtd", configurations: vtd::configurations };
const AMD: Family = Family { name: "amd", configurations: amd::configurations };
const RISCV: Family = Family { name: "riscv", configurations: riscv::configurations };
const SMMU: Family = Family { name: "smmu", configurations: smmu::configurations };

/// Runs every configuration, frozen and racing; tells the tallies. What QEMU said is recorded if that is asked for.
fn referee(family: &Family) {
    let installed = Installed::find();
    let (seed, nr_requests) = (number("LURCH_REFEREE_SEED", 1), number("LURCH_REFEREE_REQUESTS", 16_000));
    let mut archs = (family.configurations)();
    let names: Vec<&str> = archs.iter().map(|arch| arch.name()).collect();
    let mut recorder = Recorder::new(&names);
    let nr_runs = 2 * names.len();
    let (mut nr_asked, mut nr_agree, mut nr_explained) = (0, 0, 0);
    let mut bad = Vec::new();
    for (n, arch) in archs.iter_mut().enumerate() {
        for (k, kind) in [Kind::Frozen, Kind::Racing].into_iter().enumerate() {
            let limit = vectors::FILE_BYTES_MAX * (2 * n + k + 1) / nr_runs;
            match run::run(arch.as_mut(), &installed, kind, seed, nr_requests.div_ceil(nr_runs as u64), &mut |image| {
                recorder.record(n, &image, limit)
            }) {
                Ok(tally) => {
                    println!("{tally}");
                    nr_asked += tally.nr_requests;
                    nr_agree += tally.nr_agree;
                    nr_explained += tally.nr_explained();
                    bad.extend(tally.unexplained.into_values().map(|(count, text)| format!("{count} times: {text}")));
                }
                Err(NoQemu::Absent(why)) => return println!("referee of {} skipped: no QEMU to ask: {why}", family.name),
                Err(NoQemu::Broken(why)) => panic!("{}: {why}", arch.name()),
            }
        }
    }
    println!("{}: {nr_asked} requests, {nr_agree} agree, {nr_explained} explained, {} kinds unexplained", family.name, bad.len());
    assert!(bad.is_empty(), "{} kinds of unexplained differences:\n{}", bad.len(), bad.join("\n"));
    if setting("LURCH_REFEREE_RECORD").is_some() {
        std::fs::write(vectors::path(family.name), recorder.bytes()).expect("the vectors can be written");
    }
}

/// Checks the model against what QEMU said when the vectors were recorded.
fn check_vectors(family: &Family) {
    let bytes = std::fs::read(vectors::path(family.name)).expect("the vectors are there");
    let vectors = vectors::read(&bytes).expect("the vectors can be read");
    let mut archs = (family.configurations)();
    let mut found: Vec<Checked> = archs.iter().map(|_| Checked::default()).collect();
    for (name, image) in &vectors.images {
        let place = archs.iter().position(|arch| arch.name() == vectors.names[*name]);
        let place = place.unwrap_or_else(|| panic!("{:?} is no configuration of {}", vectors.names[*name], family.name));
        vectors::check(archs[place].as_mut(), image, &mut found[place]).unwrap_or_else(|text| panic!("{text}"));
    }
    for (arch, found) in archs.iter().zip(&found) {
        println!("{}: {} recorded answers, {} agree, explained: {:?}", arch.name(), found.nr_requests, found.nr_agree, found.explained);
        assert!(found.nr_agree > 200, "there are vectors of {}", arch.name());
        for name in found.explained.keys() {
            assert!(arch.differences().iter().any(|difference| difference.name == *name), "{name} is listed");
        }
    }
}

/// How the recorded bytes may be spoilt.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let file = std::fs::read(vectors::path(VTD.name)).unwrap_or_default();
    let length = file.len().max(1);
    let flips = proptest::collection::vec((0..length, any::<u8>()), 1..6);
    // Most of the file is cut off: what is spoilt lies in the first images, and a case stays quick.
    (flips, 0..8192_usize).prop_map(move |(flips, length)| {
        let mut bytes = file[..length.min(file.len())].to_vec();
        for (place, value) in flips {
            let place = place % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_bytes_make_the_vector_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut file = vectors::MAGIC.to_vec();
        file.extend_from_slice(&bytes);
        for bytes in [bytes, file] {
            if let Ok(read) = vectors::read(&bytes) {
                prop_assert!(read.images.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn spoilt_vectors_end_in_images_or_in_an_error(bytes in spoilt()) {
        let Ok(read) = vectors::read(&bytes) else { return Ok(()) };
        let mut archs = (VTD.configurations)();
        for (name, image) in &read.images {
            let arch = archs.iter_mut().find(|arch| arch.name() == read.names[*name]);
            // Whether the model agrees is not the question: it must come to an end.
            let _ = arch.map(|arch| vectors::check(arch.as_mut(), image, &mut Checked::default()));
        }
    }
}

#[test]
fn vectors_are_read_back_as_they_were_written() {
    let answers =
        [(Outcome::Passed(0x1234_5678), true), (Outcome::Passed(0), false), (Outcome::Blocked(0x85), false), (Outcome::Silent, false)];
    let request = |n: usize| Request { iova: u64::MAX << (8 * n) & !3, write: n % 2 == 1 };
    let answers = answers.into_iter().enumerate().map(|(n, (outcome, placed))| (request(n), Answer { outcome, placed })).collect();
    let image = Recorded { image: vec![(0, 1), (8, u64::MAX), (0x14_0000, 0), (!7, 5)], answers };
    let mut recorder = Recorder::new(&["one", "two"]);
    recorder.record(1, &image, vectors::FILE_BYTES_MAX);
    let read = vectors::read(recorder.bytes()).expect("it is well formed");
    assert_eq!(read, Vectors { names: vec!["one".into(), "two".into()], images: vec![(1, image)] });
    let whole = recorder.bytes();
    for length in vectors::MAGIC.len() + 10..whole.len() {
        assert!(vectors::read(&whole[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn qemu_agrees_with_the_vtd_unit() {
    referee(&VTD);
}

#[test]
fn the_vtd_unit_says_what_qemu_said_when_the_vectors_were_recorded() {
    check_vectors(&VTD);
}

#[test]
fn qemu_agrees_with_the_riscv_iommu() {
    referee(&RISCV);
}

#[test]
fn the_riscv_iommu_says_what_qemu_said_when_the_vectors_were_recorded() {
    check_vectors(&RISCV);
}

#[test]
fn qemu_agrees_with_the_amd_unit() {
    referee(&AMD);
}

#[test]
fn the_amd_unit_says_what_qemu_said_when_the_vectors_were_recorded() {
    check_vectors(&AMD);
}

#[test]
fn qemu_agrees_with_the_smmu() {
    referee(&SMMU);
}

#[test]
fn the_smmu_says_what_qemu_said_when_the_vectors_were_recorded() {
    check_vectors(&SMMU);
}
