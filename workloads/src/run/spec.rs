//! What a run is made of, before it starts: everything that decides it.

use sim::policy::PolicySpec;

use crate::defect::Defects;
use crate::revision::Revision;
use crate::scenario::{Scenario, Settings};

/// Identity of a run. Two runs with equal specs have equal traces on every host.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The kernel that is replaced.
    pub outgoing: Revision,
    /// The kernel that takes over.
    pub incoming: Revision,
    /// Planted defects, in both kernels.
    pub defects: Defects,
    /// Search policy.
    pub policy: PolicySpec,
    /// Seed of every stream.
    pub seed: u64,
    /// Fail exactly the n-th fallible call (from 0) instead of what the scenario's fault weights say.
    pub fail_nth: Option<u32>,
    /// Parameters changed with `--set`.
    pub settings: Settings,
}

impl RunSpec {
    /// Whether the host level issues the calls (setting `hosted`).
    pub fn is_hosted(&self) -> bool {
        self.settings.get("hosted").is_some_and(|&on| on != 0)
    }

    /// Kernel column of reports: one name, or `outgoing:incoming`.
    pub fn kernel(&self) -> String {
        if self.outgoing == self.incoming {
            self.outgoing.name.to_owned()
        } else {
            format!("{}:{}", self.outgoing.name, self.incoming.name)
        }
    }
}
