//! From text to seed file, key by key, with the place of each fault.

use std::ops::Range;

use sim::policy::PolicySpec;
use sim::replay::choices;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FORMAT, Place, SeedFile, SeedFileError};
use crate::defect::Defects;
use crate::names::{defect, hint, kernels, number, scenario, setting, shortened};
use crate::revision::Revision;
use crate::run::{RunSpec, VerdictKind};
use crate::scenario::{Scenario, Settings};
use crate::token;

const KEYS: [&str; 18] = [
    "format",
    "token",
    "scenario",
    "kernel",
    "defects",
    "policy",
    "seed",
    "settings",
    "fail_nth",
    "property",
    "title",
    "expect",
    "trace_hash",
    "shrunk_from",
    "first_seen",
    "fixed_by",
    "story",
    "choices_check",
];
const CHOICES: &str = "choices";

/// A value with its place.
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads a seed file's text.
///
/// # Errors
/// When it is not TOML, has unknown or missing keys, or a value this build cannot honour.
pub fn parse(text: &str) -> Result<SeedFile, SeedFileError> {
    let document = DeTable::parse(text).map_err(|error| {
        let place = Place::of(text, error.span().map_or(0, |span| span.start));
        SeedFileError { place, fault: error.message().to_owned() }
    })?;
    Reader { text, table: document.get_ref() }.seed_file()
}

struct Reader<'t, 'i> {
    text: &'t str,
    table: &'t DeTable<'i>,
}

impl<'t, 'i> Reader<'t, 'i> {
    fn seed_file(&self) -> Result<SeedFile, SeedFileError> {
        self.check_format()?;
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if name != CHOICES && !KEYS.contains(&name) {
                let hint = hint(name, KEYS.into_iter().chain([CHOICES]));
                return self.fail(key.span(), format!("unknown key `{}`{hint}", shortened(name, 40)));
            }
        }
        let scenario = self.scenario()?;
        let (outgoing, incoming) = self.kernel(scenario)?;
        let spec = RunSpec {
            scenario,
            outgoing,
            incoming,
            defects: self.defects()?,
            policy: self.parsed("policy", |text| text.parse::<PolicySpec>().map_err(|error| error.to_string()))?.unwrap_or_default(),
            seed: self.seed()?,
            fail_nth: self.fail_nth()?,
            settings: self.settings()?,
        };
        self.check_token(&spec)?;
        self.check_shrunk()?;
        Ok(SeedFile {
            spec,
            property: self.string("property")?.unwrap_or_default().to_owned(),
            title: self.string("title")?.unwrap_or_default().to_owned(),
            expect: self.parsed("expect", verdict)?,
            trace_hash: self.parsed("trace_hash", hash)?,
            shrunk_from: self.string("shrunk_from")?.unwrap_or_default().to_owned(),
            first_seen: self.string("first_seen")?.unwrap_or_default().to_owned(),
            fixed_by: self.string("fixed_by")?.unwrap_or_default().to_owned(),
            story: self.string("story")?.unwrap_or_default().to_owned(),
            choices: self.choices()?,
        })
    }

    fn check_format(&self) -> Result<(), SeedFileError> {
        match self.value("format") {
            None => self.fail(0..0, "the key `format` is missing: not a seed file".to_owned()),
            Some(value) if self.integer(value)? == FORMAT => Ok(()),
            Some(value) => self.fail(value.span(), format!("this build reads format {FORMAT} only")),
        }
    }

    fn scenario(&self) -> Result<&'static Scenario, SeedFileError> {
        self.parsed("scenario", scenario)?.map_or_else(|| self.fail(0..0, "the key `scenario` is missing".to_owned()), Ok)
    }

    fn kernel(&self, scenario: &Scenario) -> Result<(Revision, Revision), SeedFileError> {
        if let Some(kernels) = self.parsed("kernel", kernels)? {
            return Ok(kernels);
        }
        kernels(scenario.kernel).or_else(|fault| self.fail(0..0, fault))
    }

    fn defects(&self) -> Result<Defects, SeedFileError> {
        let Some(value) = self.value("defects") else { return Ok(Defects::NONE) };
        let DeValue::Array(ids) = value.get_ref() else { return self.wrong(value, "an array of ids") };
        ids.iter().try_fold(Defects::NONE, |defects, value| {
            let DeValue::String(id) = value.get_ref() else { return self.wrong(value, "an id") };
            match defect(id) {
                Ok(defect) => Ok(defects.with(defect)),
                Err(fault) => self.fail(value.span(), fault),
            }
        })
    }

    /// A number, or a string in decimal or hex where it does not fit TOML's signed numbers.
    fn seed(&self) -> Result<u64, SeedFileError> {
        let Some(value) = self.value("seed") else { return self.fail(0..0, "the key `seed` is missing".to_owned()) };
        match value.get_ref() {
            DeValue::String(text) => match number(text) {
                Ok(seed) => Ok(seed),
                Err(fault) => self.fail(value.span(), fault),
            },
            _ => self.natural(value),
        }
    }

    fn fail_nth(&self) -> Result<Option<u32>, SeedFileError> {
        let Some(value) = self.value("fail_nth") else { return Ok(None) };
        match u32::try_from(self.natural(value)?) {
            Ok(nth) => Ok(Some(nth)),
            Err(_) => self.wrong(value, "a number below 2^32"),
        }
    }

    fn settings(&self) -> Result<Settings, SeedFileError> {
        let Some(value) = self.value("settings") else { return Ok(Settings::new()) };
        let DeValue::Table(table) = value.get_ref() else { return self.wrong(value, "a table of numbers") };
        let mut settings = Settings::new();
        for (key, value) in table {
            match setting(key.get_ref(), self.natural(value)?) {
                Ok((key, value)) => settings.insert(key.to_owned(), value),
                Err(fault) => return self.fail(key.span(), fault),
            };
        }
        Ok(settings)
    }

    /// A shrunk run is nothing without its choices: policy and seed make the one it came from.
    fn check_shrunk(&self) -> Result<(), SeedFileError> {
        match self.value("shrunk_from") {
            Some(value) if self.value(CHOICES).is_none() => {
                self.fail(value.span(), "a shrunk run needs its `choices`: policy and seed make the run it was shrunk from".to_owned())
            }
            Some(value) if self.value("token").is_some() => {
                self.fail(value.span(), "a shrunk run has no token: a token makes the run it was shrunk from".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// A token beside the keys must say the same.
    fn check_token(&self, spec: &RunSpec) -> Result<(), SeedFileError> {
        let Some(value) = self.value("token") else { return Ok(()) };
        let DeValue::String(text) = value.get_ref() else { return self.wrong(value, "a token") };
        match token::decode(text) {
            Err(error) => self.fail(value.span(), error.to_string()),
            Ok(_) if token::encode(spec).as_deref() == Some(text.as_ref()) => Ok(()),
            Ok(_) => self.fail(value.span(), "this token names another run than the keys of the file".to_owned()),
        }
    }

    fn choices(&self) -> Result<Option<Vec<sim::engine::Recorded>>, SeedFileError> {
        let Some(text) = self.string(CHOICES)? else { return Ok(None) };
        match choices::parse(text) {
            Ok(list) => self.check_choices(list).map(Some),
            Err(error) => {
                let span = self.value(CHOICES).expect("it has a value").span();
                let source = self.text.get(span.clone()).unwrap_or("");
                let place = Place::of(self.text, span.start);
                // A multi-line string that begins with a line break shows its lines as they stand in the file.
                let opened = ["\"\"\"\n", "'''\n", "\"\"\"\r\n", "'''\r\n"].iter().any(|quotes| source.starts_with(quotes));
                let place = if opened { Place { line: place.line + error.line, column: error.column } } else { place };
                Err(SeedFileError { place, fault: error.fault.to_string() })
            }
        }
    }

    /// Damage that leaves a readable list is told by its check, where the file has one.
    fn check_choices(&self, list: Vec<sim::engine::Recorded>) -> Result<Vec<sim::engine::Recorded>, SeedFileError> {
        let Some(check) = self.string("choices_check")? else { return Ok(list) };
        if check == super::check_of(&list) {
            return Ok(list);
        }
        let value = self.value(CHOICES).expect("it has a value");
        self.fail(value.span(), "damaged: these are not the choices that `choices_check` was made from".to_owned())
    }

    fn value(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table.get(key)
    }

    fn string(&self, key: &str) -> Result<Option<&'t str>, SeedFileError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::String(text) => Ok(Some(text)),
                _ => self.wrong(value, "a string"),
            },
        }
    }

    /// A string read by `read`, whose fault is told with the value's place.
    fn parsed<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, SeedFileError> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        match read(text) {
            Ok(value) => Ok(Some(value)),
            Err(fault) => self.fail(self.value(key).expect("it has a value").span(), fault),
        }
    }

    fn integer(&self, value: &Value<'i>) -> Result<i64, SeedFileError> {
        let DeValue::Integer(number) = value.get_ref() else { return self.wrong(value, "a whole number") };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number),
            Err(_) => self.wrong(value, "a whole number of 64 bits"),
        }
    }

    fn natural(&self, value: &Value<'i>) -> Result<u64, SeedFileError> {
        u64::try_from(self.integer(value)?).or_else(|_| self.wrong(value, "a number that is not negative"))
    }

    fn wrong<T>(&self, value: &Value<'i>, wanted: &str) -> Result<T, SeedFileError> {
        self.fail(value.span(), format!("{wanted} is wanted here"))
    }

    fn fail<T>(&self, span: Range<usize>, fault: String) -> Result<T, SeedFileError> {
        Err(SeedFileError { place: Place::of(self.text, span.start), fault })
    }
}

fn verdict(name: &str) -> Result<VerdictKind, String> {
    let kinds = [VerdictKind::Clean, VerdictKind::SafeStop, VerdictKind::Violation, VerdictKind::Bound];
    let names = kinds.map(VerdictKind::name);
    let found = kinds.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("no verdict `{}`{}; verdicts are {}", shortened(name, 40), hint(name, names), names.join(", ")))
}

fn hash(text: &str) -> Result<u64, String> {
    let valid = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parsed = if valid { u64::from_str_radix(text, 16).ok() } else { None };
    parsed.ok_or_else(|| "a trace hash has 16 hex digits".to_owned())
}
