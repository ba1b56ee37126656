//! Stops the build in one clear line when the cfg that madsim needs was lost.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_MADSIM").is_none() {
        println!(
            "cargo::error=RUSTFLAGS in the environment overrides `--cfg madsim` of .cargo/config.toml: unset RUSTFLAGS, or add `--cfg madsim` to it"
        );
    }
}
