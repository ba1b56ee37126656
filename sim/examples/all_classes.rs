//! How many classes of equivalent interleavings small programs have. `cargo run --release -p sim --example all_classes`
//!
//! Goal: a verdict instead of a sample. Source-DPOR and sleep sets alone both run each class once; what differs is how many more runs are
//! begun and cut.

use sim::policy::{Dpor, Exhaustive, Explorer};
use sim::programs::Program;
use sim::shared::{Explored, World};

const RUNS_MAX: u64 = 200_000;

fn explore(explorer: &mut impl Explorer, program: Program) -> Explored {
    World::explore(explorer, RUNS_MAX, 2000, |world| {
        world.set_goes_on(true);
        program.spawn(world);
    })
}

fn main() {
    let setters = |setters| Program::Reorder { setters, checkers: 1 };
    let programs = [
        Program::BluetoothDriver,
        Program::Deadlock01,
        Program::Stringbuffer,
        Program::Twostage { writers: 1, readers: 1 },
        Program::Twostage { writers: 2, readers: 1 },
        Program::DinPhil { philosophers: 2 },
        Program::DinPhil { philosophers: 3 },
        Program::Lazy01,
        Program::Account,
        Program::Carter01,
        setters(2),
        setters(3),
        Program::WorkStealQueue,
    ];
    for program in programs {
        println!(
            "{program}\n  dpor:       {}\n  sleep sets: {}",
            explore(&mut Dpor::new(), program),
            explore(&mut Exhaustive::new(), program)
        );
    }
}
