//! Which register writes change how a device's requests are translated.
//!
//! Only two do, and only of the unit the device is behind: a command that turns translation on or off, and one that takes over a new
//! root table. RTADDR by itself changes nothing until it is taken over, and the other bits of GCMD never do (VT-d specification,
//! Global Command Register).

use iommu_model::spec::vtd::register::{self, GlobalCommand};
use sim::trace::{DeviceId, EventKind, UnitId};

use super::history::History;

/// The unit that `device` is behind, as far as its walks tell.
pub fn unit_of(history: &History<'_>, device: DeviceId) -> Option<UnitId> {
    history.events().iter().find_map(|event| match event.kind {
        EventKind::Fetched { unit, device: Some(walked), .. } if walked == device => Some(unit),
        _ => None,
    })
}

/// A command about translation: the value of GCMD before it, and its own.
fn command(history: &History<'_>, at: usize, of: Option<UnitId>) -> Option<(GlobalCommand, GlobalCommand)> {
    let EventKind::RegisterWritten { unit, offset, value } = history.event(at).kind else { return None };
    if u64::from(offset) != register::OFFSET_GCMD || of.is_some_and(|of| of != unit) {
        return None;
    }
    let before = history.register(unit, offset, at).unwrap_or(0);
    Some((GlobalCommand::from_bits(before as u32), GlobalCommand::from_bits(value as u32)))
}

/// True for a command that turns translation on or off or takes over a root table: it belongs to the story.
pub fn is_about(history: &History<'_>, at: usize, unit: Option<UnitId>) -> bool {
    command(history, at, unit).is_some_and(|(before, now)| before.translation_enable() != now.translation_enable() || now.set_root_table())
}

/// Where a command about translation took effect before `end`: a change of TE waits for the requests under way, the rest is done at once.
/// None while it has not.
pub fn effect(history: &History<'_>, at: usize, end: usize) -> Option<usize> {
    let EventKind::RegisterWritten { unit: commanded, .. } = history.event(at).kind else { return Some(at) };
    let Some((before, now)) = command(history, at, None) else { return Some(at) };
    if before.translation_enable() == now.translation_enable() {
        return Some(at);
    }
    let switched = |kind: &EventKind| matches!(*kind, EventKind::TranslationSwitched { unit, on } if unit == commanded && on == now.translation_enable());
    (at..end).find(|&later| switched(&history.event(later).kind))
}

/// True for a command that made requests be answered as they were: passed through (`untranslated`), or looked up in tables. A root
/// table taken over while translation is off waits until it is on.
pub fn decides(history: &History<'_>, at: usize, unit: Option<UnitId>, untranslated: bool) -> bool {
    let Some((before, now)) = command(history, at, unit) else { return false };
    now.translation_enable() != untranslated
        && (before.translation_enable() != now.translation_enable() || now.set_root_table() && now.translation_enable())
}
