//! Small concurrent programs with a known bug each, to measure policies by.
//!
//! Source: SCTBench (Thomson, Donaldson, Betts, TOPC 2016; repository mc-imperial/sctbench, commit d59ab26), re-modelled: every read
//! and write of a shared variable, every lock and unlock, and every creation of a thread is a step. `main` is an actor that
//! creates the others in the order given and, unless noted, joins them.
//!
//! They are what published results on schedules-to-first-bug are about, and small enough that anybody can check by hand what a policy
//! found. Absolute numbers depend on what counts as a step: compare ratios within one harness. [`Table::measure`] does.

mod account;
mod bluetooth_driver;
mod carter01;
mod circular_buffer;
mod deadlock01;
mod din_phil;
mod lazy01;
mod queue;
mod reorder;
mod stack;
mod stringbuffer;
mod table;
mod token_ring;
mod twostage;
mod work_steal_queue;
mod wronglock;

use std::fmt;

pub use table::{Published, Row, Table};

use crate::policy::{Policy, Profile};
use crate::search::Search;
use crate::shared::{Outcome, World};

/// Steps after which a run ends without a verdict. None of the programs comes near.
const STEPS_MAX: u64 = 100_000;

/// One of the programs, with its size where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// Deposit, withdrawal and a check that expects the wrong sum. 4 threads.
    Account,
    /// A driver is stopped while a request comes in. 2 threads.
    BluetoothDriver,
    /// Two classes of threads share two locks in a way that can deadlock. 5 threads.
    Carter01,
    /// Sender and receiver of a ring take turns by flags that each may find unset. 3 threads.
    CircularBuffer,
    /// Two locks in opposite orders. 3 threads.
    Deadlock01,
    /// Philosophers who all take the right fork first. 1 + philosophers threads.
    DinPhil {
        /// Number of philosophers, and of forks.
        philosophers: u32,
    },
    /// Three increments under a lock; the last must not find 3. 4 threads.
    Lazy01,
    /// Producer and consumer of a queue count rounds that were not theirs. 3 threads.
    Queue,
    /// Setters write a pair in two steps; a checker must find one setter between them. 1 + setters + checkers threads.
    Reorder {
        /// Threads that set the pair.
        setters: u32,
        /// Threads that check it.
        checkers: u32,
    },
    /// The consumer of a stack goes by a flag that is never taken back. 3 threads.
    Stack,
    /// A buffer is emptied between the question for its length and the reading of so many characters. 2 threads.
    Stringbuffer,
    /// A value is passed round by three threads; a fourth checks. 5 threads.
    TokenRing,
    /// Writers fill two variables under two locks; a reader must come between. 1 + writers + readers threads.
    Twostage {
        /// Threads that write.
        writers: u32,
        /// Threads that read and check.
        readers: u32,
    },
    /// Owner and thief of a work-stealing queue take the same element. 2 threads.
    WorkStealQueue,
    /// A counter under two locks. 2 + others threads.
    Wronglock {
        /// Threads that use the wrong lock.
        others: u32,
    },
}

impl Program {
    /// The programs, in the sizes whose results are published most.
    pub const ALL: [Program; 26] = [
        Program::Account,
        Program::BluetoothDriver,
        Program::CircularBuffer,
        Program::Deadlock01,
        Program::Lazy01,
        Program::Reorder { setters: 2, checkers: 1 },
        Program::Reorder { setters: 3, checkers: 1 },
        Program::Reorder { setters: 4, checkers: 1 },
        Program::Reorder { setters: 9, checkers: 1 },
        Program::Reorder { setters: 10, checkers: 10 },
        Program::Reorder { setters: 40, checkers: 10 },
        Program::Reorder { setters: 99, checkers: 1 },
        Program::Twostage { writers: 1, readers: 1 },
        Program::Twostage { writers: 10, readers: 10 },
        Program::Twostage { writers: 40, readers: 10 },
        Program::Twostage { writers: 99, readers: 1 },
        Program::Carter01,
        Program::DinPhil { philosophers: 2 },
        Program::DinPhil { philosophers: 7 },
        Program::Queue,
        Program::Stack,
        Program::Stringbuffer,
        Program::TokenRing,
        Program::Wronglock { others: 7 },
        Program::Wronglock { others: 3 },
        Program::WorkStealQueue,
    ];

    /// Starts the program's `main` in `world`.
    pub fn spawn(self, world: &World) {
        match self {
            Program::Account => account::spawn(world),
            Program::BluetoothDriver => bluetooth_driver::spawn(world),
            Program::Carter01 => carter01::spawn(world),
            Program::CircularBuffer => circular_buffer::spawn(world),
            Program::Deadlock01 => deadlock01::spawn(world),
            Program::DinPhil { philosophers } => din_phil::spawn(world, philosophers),
            Program::Lazy01 => lazy01::spawn(world),
            Program::Queue => queue::spawn(world),
            Program::Reorder { setters, checkers } => reorder::spawn(world, setters, checkers),
            Program::Stack => stack::spawn(world),
            Program::Stringbuffer => stringbuffer::spawn(world),
            Program::TokenRing => token_ring::spawn(world),
            Program::Twostage { writers, readers } => twostage::spawn(world, writers, readers),
            Program::WorkStealQueue => work_steal_queue::spawn(world),
            Program::Wronglock { others } => wronglock::spawn(world, others),
        }
    }

    /// One run under `policy`.
    pub fn run(self, policy: Box<dyn Policy>) -> Outcome {
        let world = World::new(policy);
        self.spawn(&world);
        world.run(STEPS_MAX)
    }

    /// The profile of a few uniform runs: what the policies may know beforehand.
    pub fn profile(self) -> Profile {
        Search::profile(|policy| self.run(policy))
    }
}

impl fmt::Display for Program {
    /// The name SCTBench gives it: the size is the number of threads beside main.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Program::Account => f.write_str("account"),
            Program::BluetoothDriver => f.write_str("bluetooth_driver"),
            Program::Carter01 => f.write_str("carter01"),
            Program::CircularBuffer => f.write_str("circular_buffer"),
            Program::Deadlock01 => f.write_str("deadlock01"),
            Program::DinPhil { philosophers } => write!(f, "din_phil{philosophers}"),
            Program::Lazy01 => f.write_str("lazy01"),
            Program::Queue => f.write_str("queue"),
            Program::Reorder { setters, checkers } => write!(f, "reorder_{}", setters + checkers),
            Program::Stack => f.write_str("stack"),
            Program::Stringbuffer => f.write_str("stringbuffer"),
            Program::TokenRing => f.write_str("token_ring"),
            Program::Twostage { writers: 1, readers: 1 } => f.write_str("twostage"),
            Program::Twostage { writers, readers } => write!(f, "twostage_{}", writers + readers),
            Program::WorkStealQueue => f.write_str("work_steal_queue"),
            Program::Wronglock { others: 7 } => f.write_str("wronglock"),
            Program::Wronglock { others } => write!(f, "wronglock_{others}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Burst;
    use crate::policy::{FaultPlan, PolicySpec};

    #[test]
    fn every_program_has_runs_that_fail_and_runs_that_pass() {
        for program in Program::ALL {
            let profile = program.profile();
            let mut bugs = 0;
            for seed in 0..1000 {
                let outcome = program.run(PolicySpec::Portfolio.build(seed, &profile, FaultPlan::Never));
                assert_ne!(outcome.burst, Burst::Spent, "{program}");
                bugs += u64::from(outcome.is_bug());
            }
            assert!((1..1000).contains(&bugs), "{program}: {bugs} of 1000");
        }
    }

    #[test]
    fn programs_have_the_published_numbers_of_threads() {
        let nr_threads = Program::ALL.map(|program| program.profile().per_actor.len());
        assert_eq!(nr_threads, [4, 2, 3, 3, 4, 4, 5, 6, 11, 21, 51, 101, 3, 21, 51, 101, 5, 3, 8, 3, 3, 2, 5, 9, 5, 2]);
    }
}
