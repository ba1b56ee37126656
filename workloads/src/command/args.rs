//! Flags that several subcommands share: what makes a run.

use clap::Args;
use sim::policy::PolicySpec;

use super::CommandError;
use crate::defect::{Defect, Defects};
use crate::names;
use crate::revision::Revision;
use crate::scenario::{Scenario, Settings};
use crate::sweep::Selection;

/// What makes a run, beside scenario and seed.
#[derive(Args, Clone, Debug)]
pub(super) struct RunFlags {
    /// Revision of both kernels, or OUTGOING:INCOMING; the scenario's own when not given.
    #[arg(long, value_name = "REV", env = "LURCH_KERNEL", value_parser = names::kernels)]
    kernel: Option<(Revision, Revision)>,
    /// Plant a defect (`lurch list defects`); may be given several times.
    #[arg(long, value_name = "ID", env = "LURCH_DEFECT", value_delimiter = ',', value_parser = names::defect)]
    defect: Vec<Defect>,
    /// Search policy (`lurch list policies`).
    #[arg(long, value_name = "POLICY", env = "LURCH_POLICY", default_value = "portfolio", value_parser = policy)]
    policy: PolicySpec,
    /// Fail exactly the fallible call with this number, from 0.
    #[arg(long, value_name = "K", env = "LURCH_FAIL_NTH", value_parser = fail_nth)]
    fail_nth: Option<u32>,
    /// Change a parameter of the generator (`lurch list settings`); may be given several times.
    #[arg(long, value_name = "KEY=VALUE", env = "LURCH_SET", value_delimiter = ',', value_parser = setting)]
    set: Vec<(String, u64)>,
    /// Let programs on madsim nodes issue the calls of the update, by message, instead of the scenario's own programs.
    #[arg(long, env = "LURCH_HOSTED", value_parser = clap::builder::FalseyValueParser::new())]
    hosted: bool,
}

impl RunFlags {
    /// The selection of `scenario` with these flags.
    pub(super) fn selection(&self, scenario: &'static Scenario) -> Result<Selection, CommandError> {
        let (outgoing, incoming) = match self.kernel {
            Some(kernels) => kernels,
            None => names::kernels(scenario.kernel).map_err(CommandError::Usage)?,
        };
        Ok(Selection {
            scenario,
            outgoing,
            incoming,
            defects: self.defect.iter().fold(Defects::NONE, |defects, &defect| defects.with(defect)),
            policy: self.policy,
            fail_nth: self.fail_nth,
            settings: self.set.iter().cloned().chain(self.hosted.then(|| ("hosted".to_owned(), 1))).collect::<Settings>(),
            product: None,
        })
    }
}

/// A seed: a number in decimal or hex.
#[derive(Args, Clone, Debug)]
pub(super) struct SeedFlag {
    /// Seed, in decimal or hex; of the first run where there are several.
    #[arg(long, value_name = "N", env = "LURCH_SEED", default_value = "0", value_parser = names::number)]
    pub(super) seed: u64,
}

/// Number of workers.
#[derive(Args, Clone, Debug)]
pub(super) struct JobsFlag {
    /// Worker threads; one a processor when not given.
    #[arg(long, value_name = "N", env = "LURCH_JOBS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

impl JobsFlag {
    pub(super) fn jobs(&self) -> usize {
        self.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }
}

/// A token or path as it was typed, also where it is not UTF-8: what is wrong with it is told like any other damage.
pub(super) fn source() -> impl clap::builder::TypedValueParser<Value = String> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(|text| text.to_string_lossy().into_owned())
}

/// Policy names, as clap wants them.
pub(super) fn policy(text: &str) -> Result<PolicySpec, String> {
    text.parse().map_err(|error: sim::policy::PolicyError| format!("{error}; next: lurch list policies"))
}

fn fail_nth(text: &str) -> Result<u32, String> {
    u32::try_from(names::number(text)?).map_err(|_| "a number below 2^32 is wanted".to_owned())
}

fn setting(text: &str) -> Result<(String, u64), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted; next: lurch list settings")?;
    let (key, value) = names::setting(key, names::setting_value(key, value)?)?;
    Ok((key.to_owned(), value))
}
