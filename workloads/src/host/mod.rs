//! The level above the machine: madsim nodes.
//!
//! The machine is one madsim node that runs the engine in bursts; the update agent and a VMM are nodes of their own and reach
//! the machine's kernel by messages, one an ioctl. madsim gives the virtual time, network delays, kill and restart of this
//! level. Its seed derives from ours, so a token still names one run. kexec is not madsim's kill: the engine ends a
//! generation in one step; what madsim kills and restarts, after all their futures are gone, are the programs around it.

mod mailbox;
mod nodes;

pub use mailbox::{Client, Fds, Mailbox, Request, serve};

use std::sync::Arc;

use madsim::runtime::Runtime;
use parking_lot::Mutex;

use crate::run::{Outcome, RunSpec};

/// Steps the machine node performs before it lets other nodes run.
pub const BURST: u64 = 64;
/// Bursts after which a hosted run is ended by the bound `bursts`: programs that wait for each other never end by themselves, and
/// a machine that waits for them performs no step that could be counted.
pub const BURSTS_MAX: u64 = 50_000;

/// What a hosted run came to.
#[derive(Clone, Debug)]
pub struct Hosted {
    /// As of a run without a host level.
    pub outcome: Outcome,
    /// Bursts of the machine node.
    pub bursts: u64,
    /// Calls that crossed the network.
    pub calls: u64,
}

/// Runs `spec` under the host level. Where the spec's scenario has agents and neighbours of its own, here the nodes take their place:
/// the spec gives kernels, topology, defects, policy and seed. The same spec gives the same outcome on every host and thread.
pub fn run(spec: &RunSpec) -> Hosted {
    run_keeping(spec, false)
}

/// As [`run`]; with `keep_log` the outcome has its events.
pub fn run_keeping(spec: &RunSpec, keep_log: bool) -> Hosted {
    // A constant sets this seed apart from every stream of the engine.
    let seed = spec.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x686f_7374;
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    let result: Arc<Mutex<Option<Hosted>>> = Arc::default();
    runtime.block_on(nodes::orchestrate(spec.clone(), keep_log, result.clone()));
    let hosted = result.lock().take();
    hosted.expect("the machine node leaves its outcome before the orchestrator returns")
}
