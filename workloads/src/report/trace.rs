//! The event stream itself: in ftrace columns for people and grep, or as JSON lines.
//!
//! Text: `actor [era] step: event: words`. JSON: one object an event with the same parts, versioned as the other lines.

use std::io::{self, Write};

use serde::Serialize;
use sim::trace::EventKind;

use super::history::History;
use super::{json, words};

/// The form of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum TraceForm {
    /// ftrace columns.
    Text,
    /// A JSON object an event.
    Jsonl,
}

#[derive(Serialize)]
struct EventJson<'a> {
    r#type: &'static str,
    step: u64,
    actor: &'a str,
    era: u8,
    event: String,
    words: String,
}

/// Writes every event.
///
/// # Errors
/// When the writer fails.
pub fn write(history: &History<'_>, form: TraceForm, out: &mut dyn Write) -> io::Result<()> {
    for (at, event) in history.events().iter().enumerate() {
        let actor = history.name(event.actor);
        let words = words::long(history, at);
        match form {
            TraceForm::Text => writeln!(out, "{actor:>24}  [{}] {:>8}: {}: {words}", event.era, event.step, name(&event.kind))?,
            TraceForm::Jsonl => {
                let line = EventJson {
                    r#type: "event",
                    step: event.step,
                    actor: &actor,
                    era: event.era,
                    event: name(&event.kind).to_owned(),
                    words,
                };
                writeln!(out, "{}", json::line(&line))?;
            }
        }
    }
    Ok(())
}

/// Name of an event's kind, as tracepoints are named.
fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Load { .. } => "load",
        EventKind::Store { .. } => "store",
        EventKind::Locked { .. } => "lock_acquired",
        EventKind::Unlocked { .. } => "lock_release",
        EventKind::FramesTaken { .. } => "mm_page_alloc",
        EventKind::FramesFreed { .. } => "mm_page_free",
        EventKind::ObjectTaken { .. } => "kmalloc",
        EventKind::ObjectFreed { .. } => "kfree",
        EventKind::Injected { .. } => "injected",
        EventKind::RegisterWritten { .. } => "register_write",
        EventKind::TranslationSwitched { .. } => "translation_switch",
        EventKind::Fetched { .. } => "fetch",
        EventKind::DmaIssued { .. } => "dma_issue",
        EventKind::DmaTranslated { .. } => "dma_translate",
        EventKind::DmaFaulted { .. } => "dma_fault",
        EventKind::DmaLanded { .. } => "dma_write",
        EventKind::DmaRead { .. } => "dma_read",
        EventKind::DmaLost { .. } => "dma_lost",
        EventKind::Invalidated { .. } => "invalidate",
        EventKind::StatusWritten { .. } => "wait_status",
        EventKind::Jumped { .. } => "kexec",
        EventKind::Note { .. } => "note",
    }
}
