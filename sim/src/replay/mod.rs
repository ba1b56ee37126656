//! What makes a run repeatable outside the process: the written form of its choices.

pub mod choices;
