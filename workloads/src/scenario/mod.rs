//! Scenarios: weights over one alphabet of operations and one topology generator. No scripts.

mod plan;
mod registry;

pub use plan::{Mapping, Plan, VmPlan};
pub use registry::{all, by_name};

use std::collections::BTreeMap;

/// Parameters changed with `--set KEY=VALUE`, in order of key. Known keys: [`PARAMETERS`].
pub type Settings = BTreeMap<String, u64>;

/// One parameter of the generator.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Key as `--set` takes it.
    pub key: &'static str,
    /// Smallest value.
    pub min: u64,
    /// Largest sensible value.
    pub max: u64,
    /// What it is.
    pub about: &'static str,
    /// Names of the values from 0 on, where these are no numbers.
    pub names: &'static [&'static str],
}

impl Parameter {
    const fn number(key: &'static str, min: u64, max: u64, about: &'static str) -> Parameter {
        Parameter { key, min, max, about, names: &[] }
    }
    const fn named(key: &'static str, names: &'static [&'static str], about: &'static str) -> Parameter {
        Parameter { key, min: 0, max: names.len() as u64 - 1, about, names }
    }
}

/// All parameters.
pub const PARAMETERS: &[Parameter] = &[
    Parameter::number("devices", 1, 8, "number of preserved devices"),
    Parameter::number("devices-per-vm", 1, 8, "devices of a VM, as far as there are devices: they share its address space"),
    Parameter::number("pages", 1, 256, "pages of guest memory per VM"),
    Parameter::number("mappings", 1, 64, "mappings per IOAS, as far as its guest has pages"),
    Parameter::number("updates", 1, 3, "updates in a row"),
    Parameter::number("huge", 0, 1, "guest memory of each VM begins with a huge page (1) or has none (0)"),
    Parameter::number("hosted", 0, 1, "1: programs on madsim nodes issue the calls by message (flag --hosted)"),
    Parameter::number("slots", 0, 120, "objects in an array page of the IOMMU FLB, and in a block of LUO (0: as many as fit)"),
    Parameter::number("steps", 1, 10_000_000, "bound on the steps of a run"),
    Parameter::named("memory-model", &["sc", "tso", "weak"], "how CPUs order their accesses; sc unless set"),
    Parameter::named("coherent-walker", &["no", "yes"], "table walks snoop CPU caches (ECAP.C); yes unless set"),
    Parameter::named(
        "races",
        &["off", "kcsan", "strict"],
        "look for data races, by the rules KCSAN is shipped with or by all; off unless set",
    ),
    Parameter::named(
        "placement",
        &["drawn", "reuse", "oldest", "neighbour", "split"],
        "which free memory is handed out: drawn, freed last, freed first, next to the last, cut from the largest; drawn unless set",
    ),
    Parameter::named(
        "fail",
        &["once", "again", "burst", "low-memory"],
        "what --fail-nth fails: that call, also every later one of its class, four calls in a row, most allocations for a while",
    ),
];

/// A scenario: a name and weights.
#[derive(Debug)]
pub struct Scenario {
    /// Name as commands take it.
    pub name: &'static str,
    /// One line for `lurch list scenarios`.
    pub about: &'static str,
    /// Marks a clean sweep must have hit at least once.
    pub requires: &'static [crate::mark::Mark],
    /// Default revision when `--kernel` is not given.
    pub kernel: &'static str,
    /// Weights of the generator.
    pub weights: Weights,
}

/// Weights of the alphabet: how often, relative to each other, a driver draws an operation. 0 switches it off.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// Concurrent mapper: map while the update is prepared.
    pub map: u8,
    /// Concurrent unmapper.
    pub unmap: u8,
    /// Close the session before reboot (abort), then go on.
    pub abort: u8,
    /// A second consumer: another session with its own memfd.
    pub other_session: u8,
    /// Stale, duplicate and never-issued arguments.
    pub bad_arguments: u8,
    /// Memory pressure: an unrelated allocator user in both kernels.
    pub pressure: u8,
    /// Reboot into the next kernel happens (else the run ends before).
    pub reboot: u8,
    /// FINISH in the incoming kernel.
    pub finish: u8,
    /// Map/unmap, and a second update after the first or after an abort.
    pub reuse: u8,
    /// Guest memory with a huge page, and whole 2 MiB mappings: one VM in `31 / huge + 1`.
    pub huge: u8,
    /// How failures are injected.
    pub faults: Faults,
}

/// How failures are injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faults {
    /// None.
    Never,
    /// A failure, a repeated one, a burst or a while of low memory, drawn from the seed, in `per_1024` of the runs.
    Drawn {
        /// Share of runs with a failure.
        per_1024: u16,
    },
    /// One failure of exactly this allocation class, after letting `skip` allocations of the class succeed.
    Class {
        /// Class (see `tag.rs`).
        class: u16,
        /// Allocations of the class that succeed first.
        skip: u32,
    },
    /// Exactly the n-th fallible call fails, with n swept from the seed over all calls of the profiling run.
    Sweep,
}
