//! Names as users write them, in flags, tokens and seed files: found, or refused with a hint and what to type next.

use std::time::Duration;

use crate::defect::Defect;
use crate::revision::{REVISIONS, Revision};
use crate::scenario::{self, PARAMETERS, Scenario};

/// Longest name that is compared; longer input gets no hint.
const NAME_BYTES_MAX: usize = 64;

/// A scenario by its name.
///
/// # Errors
/// Names the scenario this build does not have.
pub fn scenario(name: &str) -> Result<&'static Scenario, String> {
    let names = || scenario::all().iter().map(|scenario| scenario.name);
    let fault = || format!("no scenario `{}`{}; next: lurch list scenarios", shortened(name, 40), hint(name, names()));
    scenario::by_name(name).ok_or_else(fault)
}

/// `REV` or `OUTGOING:INCOMING`.
///
/// # Errors
/// Names the revision this build does not have.
pub fn kernels(text: &str) -> Result<(Revision, Revision), String> {
    let names = || REVISIONS.iter().map(|revision| revision.name);
    let find = |name: &str| {
        Revision::by_name(name)
            .ok_or_else(|| format!("no kernel `{}`{}; next: lurch list kernels", shortened(name, 40), hint(name, names())))
    };
    let (outgoing, incoming) = text.split_once(':').unwrap_or((text, text));
    Ok((find(outgoing)?, find(incoming)?))
}

/// A defect by its id, in any case.
///
/// # Errors
/// Names the id this build does not have.
pub fn defect(id: &str) -> Result<Defect, String> {
    let found = Defect::ALL.iter().copied().find(|defect| defect.id().eq_ignore_ascii_case(id));
    let ids = || Defect::ALL.iter().map(|defect| defect.id());
    found.ok_or_else(|| format!("no defect `{}`{}; next: lurch list defects", shortened(id, 40), hint(id, ids())))
}

/// A parameter of the generator, checked against its bound.
///
/// # Errors
/// Names the key this build does not have, or the bound.
pub fn setting(key: &str, value: u64) -> Result<(&'static str, u64), String> {
    let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.key == key) else {
        let hint = hint(key, PARAMETERS.iter().map(|parameter| parameter.key));
        return Err(format!("no setting `{}`{hint}; next: lurch list settings", shortened(key, 40)));
    };
    if value > parameter.max {
        return Err(format!("setting `{key}` is at most {}, not {value}", parameter.max));
    }
    if value < parameter.min {
        return Err(format!("setting `{key}` is at least {}, not {value}", parameter.min));
    }
    Ok((parameter.key, value))
}

/// The value of a setting: a number, or one of the names its values have.
///
/// # Errors
/// Says what a number looks like, or which names there are.
pub fn setting_value(key: &str, text: &str) -> Result<u64, String> {
    let names = PARAMETERS.iter().find(|parameter| parameter.key == key).map_or(&[][..], |parameter| parameter.names);
    match names.iter().position(|name| *name == text) {
        Some(value) => Ok(value as u64),
        None if names.is_empty() => number(text),
        None => number(text).map_err(|_| format!("setting `{key}` is one of {}, not `{}`", names.join(", "), shortened(text, 40))),
    }
}

/// A number of 64 bits in decimal or, after `0x`, hex; `_` between digits is allowed.
///
/// # Errors
/// Says what a number looks like.
pub fn number(text: &str) -> Result<u64, String> {
    let digits: String = text.chars().filter(|&c| c != '_').take(70).collect();
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse(),
        _ => "x".parse(),
    };
    parsed.map_err(|_| format!("`{}` is not a number of 64 bits (123, 1_000, 0x5f)", shortened(text, 40)))
}

/// A duration with its unit: `500ms`, `90s`, `30m`, `24h`.
///
/// # Errors
/// Says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (count, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = unit_ms.and_then(|unit_ms| number(count).ok()?.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| format!("`{}` is not a duration (500ms, 90s, 30m, 24h)", shortened(text, 40)))
}

/// The candidate nearest to `name`, when it is near enough to be a likely typo.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= limit || (name.len() >= 3 && candidate.starts_with(name)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean X?)`, or nothing.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or(String::new(), |candidate| format!(" (did you mean `{candidate}`?)"))
}

/// At most `chars` characters of hostile text, control characters made visible: it does not get to fill or garble the screen.
pub fn shortened(text: &str, chars: usize) -> String {
    let mut short: String = text.chars().take(chars).flat_map(char::escape_debug).collect();
    if text.chars().nth(chars).is_some() {
        short.push_str("..");
    }
    short
}

/// Edit distance in characters: insertions, deletions, replacements; case does not count.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_nothing() {
        let names = ["update-with-dma", "unmap-vs-dma", "any"];
        assert_eq!(nearest("update-with-dna", names), Some("update-with-dma"));
        assert_eq!(nearest("UNMAP-VS-DMA", names), Some("unmap-vs-dma"));
        assert_eq!(nearest("update", names), Some("update-with-dma"));
        assert_eq!(nearest("zebra", names), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
        assert_eq!(hint("an", names), " (did you mean `any`?)");
    }

    #[test]
    fn hostile_text_is_cut_and_made_visible() {
        assert_eq!(shortened("a\u{1b}[31mb", 40), "a\\u{1b}[31mb");
        assert_eq!(shortened("abcdef", 3), "abc..");
    }

    #[test]
    fn numbers_and_durations_take_the_usual_forms() {
        assert_eq!((number("1_000"), number("0x5f"), number("18446744073709551615")), (Ok(1000), Ok(0x5f), Ok(u64::MAX)));
        for text in ["", "x", "-1", "+1", "0x", "0xg", "18446744073709551616", "1e3"] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!((duration("90s"), duration("2h")), (Ok(Duration::from_secs(90)), Ok(Duration::from_secs(7200))));
        for text in ["", "90", "s", "1d", "99999999999999999999h", "9999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_names_say_what_to_type() {
        assert!(kernels("tpi").expect_err("no such kernel").ends_with("next: lurch list kernels"));
        assert_eq!(defect("lu-078").map(Defect::id), Ok("LU-078"));
        assert!(setting("pages", u64::MAX).expect_err("too much").contains("at most"));
        assert!(setting("page", 1).expect_err("no such key").contains("did you mean `pages`?"));
    }
}
