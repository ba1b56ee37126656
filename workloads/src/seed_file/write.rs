//! From seed file to text: stable, readable, ready to be checked in.

use std::fmt::Write as _;

use sim::replay::choices;

use super::{FORMAT, SeedFile};
use crate::token;

/// Words of a title that go into a file's name.
const SLUG_CHARS_MAX: usize = 60;

/// Writes the file. Equal files have equal texts.
pub fn write(file: &SeedFile) -> String {
    let spec = &file.spec;
    let mut text = String::from(
        "# A run of lurch that is worth keeping. Check this file in: tests replay it before anything else.\n\
         # Say in `story` why it happens; `lurch explain FILE` draws it.\n",
    );
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("format", FORMAT.to_string());
    if let Some(token) = token::encode(spec).filter(|_| file.shrunk_from.is_empty()) {
        line("token", quoted(&token));
    }
    line("scenario", quoted(spec.scenario.name));
    line("kernel", quoted(&spec.kernel()));
    if !spec.defects.is_empty() {
        let ids: Vec<String> = spec.defects.iter().map(|defect| quoted(defect.id())).collect();
        line("defects", format!("[{}]", ids.join(", ")));
    }
    line("policy", quoted(&spec.policy.to_string()));
    line("seed", i64::try_from(spec.seed).map_or_else(|_| quoted(&format!("{:#x}", spec.seed)), |seed| seed.to_string()));
    if !spec.settings.is_empty() {
        let pairs: Vec<String> = spec.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        line("settings", format!("{{ {} }}", pairs.join(", ")));
    }
    if let Some(nth) = spec.fail_nth {
        line("fail_nth", nth.to_string());
    }
    if let Some(expect) = file.expect {
        line("expect", quoted(expect.name()));
    }
    for (key, value) in
        [("property", &file.property), ("title", &file.title), ("first_seen", &file.first_seen), ("fixed_by", &file.fixed_by)]
    {
        if !value.is_empty() {
            line(key, quoted(value));
        }
    }
    if let Some(hash) = file.trace_hash {
        line("trace_hash", quoted(&format!("{hash:016x}")));
    }
    if !file.shrunk_from.is_empty() {
        line("shrunk_from", quoted(&file.shrunk_from));
    }
    if !file.story.is_empty() {
        line("story", format!("\"\"\"\n{}\"\"\"", escaped(&file.story, true)));
    }
    if let Some(list) = &file.choices {
        line("choices_check", quoted(&super::check_of(list)));
        line("choices", format!("\"\"\"\n{}\n\"\"\"", choices::write(list)));
    }
    text
}

/// The file's name: by meaning, then what tells two of the same meaning apart.
pub fn file_name(file: &SeedFile) -> String {
    let meaning = if file.title.is_empty() { file.expect.map_or("run", |kind| kind.name()) } else { &file.title };
    let mut identity = format!("{:?}{:?}{:?}", file.spec.settings, file.spec.fail_nth, file.spec.policy);
    identity.push_str(&file.spec.kernel());
    identity.extend(file.spec.defects.iter().map(|defect| defect.id()));
    let hash = blake3::hash(identity.as_bytes()).to_hex();
    let shrunk = if file.shrunk_from.is_empty() { "" } else { "-shrunk" };
    format!("{}--{}-{:x}-{}{shrunk}.toml", slug(meaning), file.spec.scenario.name, file.spec.seed, &hash[..4])
}

/// Lower case words with single hyphens between them.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(SLUG_CHARS_MAX) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, false))
}

/// Escaped for a basic string; in a multi-line one line breaks stay.
fn escaped(text: &str, multi_line: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' if multi_line => out.push('\n'),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}
