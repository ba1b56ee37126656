//! What runs on the machine: the kernels under test, userspace, scenarios, planted defects, oracles, and the `lurch` command.

#[cfg(not(any(madsim, doc, doctest)))]
compile_error!(
    "lurch needs `--cfg madsim` for the whole graph: RUSTFLAGS in the environment overrides .cargo/config.toml; unset it or add `--cfg madsim` to it"
);

pub mod abi;
pub mod callee;
pub mod canary;
pub mod command;
pub mod defect;
pub mod errno;
pub mod golden;
pub mod host;
pub mod inspect;
pub mod kernel;
pub mod known;
pub mod mark;
pub mod names;
pub mod oracle;
pub mod report;
pub mod revision;
pub mod run;
pub mod scenario;
pub mod seed_file;
pub mod shrink;
pub mod sweep;
pub mod tag;
pub mod token;
pub mod topology;
pub mod userspace;
pub mod verb;
pub mod window;
