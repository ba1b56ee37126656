//! Tokens: a whole run in one short word that survives mail, chat and double-click.
//!
//! ```text
//! lu1-<scenario>[-<kernel>][-with-<defect>]-<policy>-<seed>-<check>
//! ```
//!
//! - Lower case letters, digits and hyphens, fewer than 64 characters. `lu1` is the format.
//! - `<kernel>` stands only when it is not the scenario's own kernel; outgoing and incoming are that one revision.
//! - `<defect>` is the id of the one planted defect, in lower case.
//! - `<policy>` is written without colon (`pct:3` is `pct3`). A portfolio is written as the policy that the seed chose from it:
//!   that is the same run (see [`PolicySpec`]), and says more.
//! - `<seed>` is in base 32, at most 13 digits, without letters that look like others (no i, l, o, u).
//! - `<check>` is 4 digits of base 32 from BLAKE3 over everything before it: a typo passes once in a million.
//!
//! Scenario, kernel and defect names contain hyphens: the last three parts are split off from the right, the rest is matched
//! against the names of this build. A test makes sure that no two runs share a token.
//!
//! What a token cannot carry (two revisions, `--set`, `--fail-nth`, several defects) is said by [`encode`] with `None`; a seed
//! file carries it. Text is hostile: its length is checked first and every error names the place and what to type next.

use std::fmt;

use sim::policy::PolicySpec;

use crate::defect::{Defect, Defects};
use crate::names::{hint, shortened};
use crate::revision::{REVISIONS, Revision};
use crate::run::RunSpec;
use crate::scenario::{self, Scenario, Settings};

/// Longest token, in characters.
pub const TOKEN_CHARS_MAX: usize = 63;
/// What every token of this format begins with.
pub const PREFIX: &str = "lu1-";

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SEED_DIGITS_MAX: usize = 13;
const CHECK_DIGITS: usize = 4;
/// Stands before a defect, so that no defect is taken for a kernel.
const WITH: &str = "with-";

/// Why a text is not a token, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("token, character {place} ({part}): {fault}", place = position + 1)]
pub struct TokenError {
    /// Byte at which the part begins that is wrong, from 0.
    pub position: usize,
    /// The part.
    pub part: Part,
    /// What is wrong there, and what to type next.
    pub fault: String,
}

/// Parts of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The whole text.
    Whole,
    /// `lu1`.
    Format,
    /// Scenario.
    Scenario,
    /// Kernel or defect, after the scenario.
    Kernel,
    /// Policy.
    Policy,
    /// Seed.
    Seed,
    /// Check digits.
    Check,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Whole => "whole",
            Part::Format => "format",
            Part::Scenario => "scenario",
            Part::Kernel => "kernel or defect",
            Part::Policy => "policy",
            Part::Seed => "seed",
            Part::Check => "check",
        })
    }
}

/// True for text that is meant to be a token, of whatever format, rather than the name of a file.
pub fn looks_like_token(text: &str) -> bool {
    let digits = text.strip_prefix("lu").map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    digits.is_some_and(|digits| digits > 0 && text.as_bytes().get(2 + digits) == Some(&b'-'))
}

/// The token of a run, when one can carry it.
pub fn encode(spec: &RunSpec) -> Option<String> {
    let carries = spec.outgoing == spec.incoming && spec.fail_nth.is_none() && spec.settings.is_empty() && spec.defects.iter().count() <= 1;
    if !carries {
        return None;
    }
    let mut text = format!("{PREFIX}{}", head(spec.scenario, spec.outgoing, spec.defects.iter().next()));
    let policy = spec.policy.resolve(spec.seed).to_string().replace(':', "");
    text.push_str(&format!("-{policy}-{}", base32(spec.seed)));
    let check = check_digits(&text);
    text.push('-');
    text.push_str(&check);
    (text.len() <= TOKEN_CHARS_MAX).then_some(text)
}

/// The run a token names.
///
/// # Errors
/// When the text is not a token, was changed on its way, or names something this build does not have.
pub fn decode(text: &str) -> Result<RunSpec, TokenError> {
    let body = checked(text)?;
    let fail = |position, part, fault| Err(TokenError { position, part, fault });

    let (rest, seed_text) = body.rsplit_once('-').unwrap_or(("", body));
    let seed_at = body.len() - seed_text.len();
    let Some(seed) = from_base32(seed_text) else {
        return fail(seed_at, Part::Seed, format!("`{}` is no seed of 64 bits in base 32", shortened(seed_text, 20)));
    };
    let (head, policy_text) = rest.rsplit_once('-').unwrap_or(("", rest));
    let policy_at = rest.len() - policy_text.len();
    let policy = match policy(policy_text) {
        Ok(policy) => policy,
        Err(error) => return fail(policy_at, Part::Policy, format!("{error}; next: lurch list policies")),
    };
    let Some(head) = head.strip_prefix(PREFIX) else {
        return fail(PREFIX.len(), Part::Scenario, "the scenario is missing; next: lurch list scenarios".to_owned());
    };
    let (scenario, revision, defect) = parse_head(head)?;
    Ok(RunSpec {
        scenario,
        outgoing: revision,
        incoming: revision,
        defects: defect.map_or(Defects::NONE, |defect| Defects::NONE.with(defect)),
        policy,
        seed,
        fail_nth: None,
        settings: Settings::new(),
    })
}

/// Length, characters, format and check; returns the text without the check.
fn checked(text: &str) -> Result<&str, TokenError> {
    let fail = |position, part, fault: String| Err(TokenError { position, part, fault });
    if text.len() > TOKEN_CHARS_MAX {
        return fail(TOKEN_CHARS_MAX, Part::Whole, format!("{} characters, a token has at most {TOKEN_CHARS_MAX}", text.len()));
    }
    let foreign = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-');
    if let Some((position, found)) = text.char_indices().find(|(_, c)| foreign(c)) {
        let fault = format!("`{}` is not one of a-z, 0-9 and hyphen", found.escape_debug());
        return fail(position, Part::Whole, fault);
    }
    if !text.starts_with(PREFIX) {
        let fault = if looks_like_token(text) {
            format!("`{}` is a format this build does not know; it knows `lu1`", text.split('-').next().unwrap_or(""))
        } else {
            "a token begins with `lu1-`; next: lurch run SCENARIO --seed N prints one".to_owned()
        };
        return fail(0, Part::Format, fault);
    }
    let Some((body, check)) = text.rsplit_once('-').filter(|(body, _)| body.len() >= PREFIX.len()) else {
        return fail(text.len(), Part::Check, "the check is missing; copy the whole token again".to_owned());
    };
    if check != check_digits(body) {
        return fail(body.len() + 1, Part::Check, "a character of the token was changed or lost; copy the whole token again".to_owned());
    }
    Ok(body)
}

/// Scenario, kernel and defect as the token spells them.
fn head(scenario: &Scenario, revision: Revision, defect: Option<Defect>) -> String {
    let mut head = scenario.name.to_owned();
    if revision.name != scenario.kernel {
        head.push_str(&format!("-{}", revision.name));
    }
    if let Some(defect) = defect {
        head.push_str(&format!("-{WITH}{}", defect.id().to_ascii_lowercase()));
    }
    head
}

/// Finds the names that make up `head`. Longer scenario names are tried first.
fn parse_head(head: &str) -> Result<(&'static Scenario, Revision, Option<Defect>), TokenError> {
    let mut scenarios: Vec<&'static Scenario> = scenario::all().iter().filter(|scenario| follows(head, scenario.name).is_some()).collect();
    scenarios.sort_by_key(|scenario| std::cmp::Reverse(scenario.name.len()));
    for scenario in &scenarios {
        let rest = follows(head, scenario.name).expect("filtered");
        if let Some((revision, defect)) = parse_rest(rest, scenario) {
            return Ok((scenario, revision, defect));
        }
    }
    let Some(scenario) = scenarios.first() else {
        let hint = hint(head, scenario::all().iter().map(|scenario| scenario.name));
        let fault = format!("this build has no scenario `{}`{hint}; next: lurch list scenarios", shortened(head, 40));
        return Err(TokenError { position: PREFIX.len(), part: Part::Scenario, fault });
    };
    let rest = follows(head, scenario.name).expect("filtered");
    let names = REVISIONS.iter().map(|revision| revision.name);
    let fault = format!(
        "this build has no kernel or defect `{}`{}; next: lurch list kernels, lurch list defects",
        shortened(rest, 40),
        hint(rest, names)
    );
    Err(TokenError { position: PREFIX.len() + head.len() - rest.len(), part: Part::Kernel, fault })
}

fn parse_rest(rest: &str, scenario: &Scenario) -> Option<(Revision, Option<Defect>)> {
    let default = Revision::by_name(scenario.kernel);
    let kernels = REVISIONS.iter().filter_map(|revision| Some((*revision, follows(rest, revision.name)?)));
    for (revision, rest) in default.map(|default| (default, rest)).into_iter().chain(kernels) {
        if rest.is_empty() {
            return Some((revision, None));
        }
        let id = rest.strip_prefix(WITH);
        let defect = Defect::ALL.iter().find(|defect| id.is_some_and(|id| defect.id().eq_ignore_ascii_case(id)));
        if let Some(defect) = defect {
            return Some((revision, Some(*defect)));
        }
    }
    None
}

/// What follows `name` and a hyphen at the start of `text`; empty when nothing does.
fn follows<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('-') }
}

/// A policy without colon.
fn policy(text: &str) -> Result<PolicySpec, sim::policy::PolicyError> {
    let letters = text.bytes().take_while(u8::is_ascii_lowercase).count();
    if letters < text.len() { format!("{}:{}", &text[..letters], &text[letters..]).parse() } else { text.parse() }
}

fn base32(mut number: u64) -> String {
    let mut digits = Vec::with_capacity(SEED_DIGITS_MAX);
    loop {
        digits.push(ALPHABET[(number % 32) as usize] as char);
        number /= 32;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// The number in its one canonical spelling.
fn from_base32(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > SEED_DIGITS_MAX || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.bytes().try_fold(0u64, |number, digit| {
        let value = ALPHABET.iter().position(|&letter| letter == digit)? as u64;
        number.checked_mul(32)?.checked_add(value)
    })
}

fn check_digits(body: &str) -> String {
    let hash = blake3::hash(body.as_bytes());
    let word = u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("four bytes"));
    (0..CHECK_DIGITS).map(|digit| ALPHABET[(word >> (5 * digit) & 31) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(scenario: &str, kernel: &str, defect: Option<Defect>, policy: &str, seed: u64) -> RunSpec {
        let revision = Revision::by_name(kernel).expect("a revision");
        RunSpec {
            scenario: scenario::by_name(scenario).expect("a scenario"),
            outgoing: revision,
            incoming: revision,
            defects: defect.map_or(Defects::NONE, |defect| Defects::NONE.with(defect)),
            policy: policy.parse().expect("a policy"),
            seed,
            fail_nth: None,
            settings: Settings::new(),
        }
    }

    fn same(a: &RunSpec, b: &RunSpec) -> bool {
        a.scenario.name == b.scenario.name
            && a.outgoing == b.outgoing
            && a.incoming == b.incoming
            && a.defects == b.defects
            && a.policy.resolve(a.seed) == b.policy.resolve(b.seed)
            && a.seed == b.seed
    }

    /// Every scenario, kernel and defect, with the shortest seed that keeps the token short enough to exist.
    fn heads() -> Vec<(&'static Scenario, Revision, Option<Defect>)> {
        let defects = || std::iter::once(None).chain(Defect::ALL.iter().copied().map(Some));
        let kernels = || REVISIONS.into_iter().flat_map(move |revision| defects().map(move |defect| (revision, defect)));
        scenario::all().iter().flat_map(|scenario| kernels().map(move |(revision, defect)| (scenario, revision, defect))).collect()
    }

    #[test]
    fn every_head_reads_back_and_no_two_are_alike() {
        let mut seen = std::collections::BTreeSet::new();
        for (scenario, revision, defect) in heads() {
            let head = head(scenario, revision, defect);
            let (scenario2, revision2, defect2) = parse_head(&head).expect("what is written reads back");
            assert_eq!((scenario.name, revision.name, defect), (scenario2.name, revision2.name, defect2), "{head}");
            assert!(head.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{head}");
            assert!(seen.insert(head));
        }
    }

    #[test]
    fn a_plain_token_is_short_and_one_word() {
        let first = scenario::all().first().expect("a scenario");
        let token = encode(&spec(first.name, first.kernel, None, "pct:3", 12345)).expect("fits");
        assert!(token.starts_with(&format!("lu1-{}-pct3-c1s-", first.name)), "{token}");
        assert!(same(&decode(&token).expect("reads"), &spec(first.name, first.kernel, None, "pct:3", 12345)));
    }

    #[test]
    fn what_a_token_cannot_carry_has_none() {
        let first = scenario::all().first().expect("a scenario");
        let plain = spec(first.name, "v2", None, "pos", 1);
        assert!(encode(&RunSpec { incoming: Revision::by_name("tip").expect("tip"), ..plain.clone() }).is_none());
        assert!(encode(&RunSpec { fail_nth: Some(3), ..plain.clone() }).is_none());
        assert!(encode(&RunSpec { settings: Settings::from([("pages".to_owned(), 2)]), ..plain.clone() }).is_none());
        let two = Defects::NONE.with(Defect::ALL[0]).with(Defect::ALL[1]);
        assert!(encode(&RunSpec { defects: two, ..plain }).is_none());
    }

    #[test]
    fn errors_name_the_part_and_what_to_type_next() {
        let error = |body: &str| decode(&format!("{body}-{}", check_digits(body))).expect_err("not a token").to_string();
        let name = scenario::all().first().expect("a scenario").name;
        assert!(error("lu1-no-such-thing-pos-1").starts_with("token, character 5 (scenario): this build has no scenario `no-such-thing`"));
        assert!(error(&format!("lu1-{name}-v77-pos-1")).contains("(kernel or defect): this build has no kernel or defect `v77`"));
        assert!(error(&format!("lu1-{name}-pso-1")).contains("(policy): unknown policy `pso`"));
        assert!(error(&format!("lu1-{name}-pos-01")).contains("(seed): `01` is no seed"));
        assert!(error(&format!("lu1-{name}-pos-zzzzzzzzzzzzz")).contains("(seed)"));
        assert!(error("lu1-1").contains("(policy)"));
        let plain = |text: &str| decode(text).expect_err("not a token").to_string();
        assert!(plain("lu2-any-pos-1-0000").contains("`lu2` is a format this build does not know"));
        assert!(plain("hello").contains("a token begins with `lu1-`"));
        assert!(plain("lu1-").contains("(check)"));
        assert!(plain("lu1-Any").starts_with("token, character 5 (whole): `A` is not one of"));
        assert!(plain(&"x".repeat(1 << 20)).starts_with("token, character 64 (whole): 1048576 characters"));
        assert!(plain("").contains("(format)"));
    }

    fn any_spec() -> impl Strategy<Value = RunSpec> {
        let heads = heads();
        let policies = prop::sample::select(vec!["portfolio", "surw", "pos", "pct:1", "pct:99", "starve", "urw", "uniform"]);
        (0..heads.len(), policies, prop_oneof![any::<u64>(), 0..2000u64]).prop_map(move |(head, policy, seed)| {
            let (scenario, revision, defect) = heads[head];
            spec(scenario.name, revision.name, defect, policy, seed)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(spec in any_spec()) {
            if let Some(token) = encode(&spec) {
                prop_assert!(token.len() <= TOKEN_CHARS_MAX && looks_like_token(&token));
                prop_assert!(same(&decode(&token).expect("reads back"), &spec));
            }
        }

        #[test]
        fn one_changed_or_lost_character_is_an_error(spec in any_spec(), place in any::<prop::sample::Index>(), to in 0..36usize) {
            let Some(token) = encode(&spec) else { return Ok(()) };
            let place = place.index(token.len());
            let letter = b"abcdefghijklmnopqrstuvwxyz0123456789"[to];
            let mut bytes = token.clone().into_bytes();
            if bytes[place] != letter {
                bytes[place] = letter;
                prop_assert!(decode(std::str::from_utf8(&bytes).expect("ASCII")).is_err());
            }
            prop_assert!(decode(&token[..place]).is_err());
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,80}", near in "lu1-[a-z0-9-]{0,60}") {
            let _ = decode(&text);
            let body = near.trim_end_matches('-');
            if body.len() >= 4 {
                let _ = decode(&format!("{body}-{}", check_digits(body)));
            }
            let _ = decode(&near);
        }
    }
}
