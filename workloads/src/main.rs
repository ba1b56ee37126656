//! The `lurch` command: see [`workloads::command`].

fn main() {
    std::process::exit(workloads::command::main());
}
