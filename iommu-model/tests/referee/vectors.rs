//! What QEMU said, as files: images, requests and answers, checked without QEMU in every test run.
//!
//! A file begins with [`MAGIC`]; then come the names of the configurations: their number, and for each its length and its
//! bytes. Then come images up to the end of the file: the configuration's number, the number of words, the words, the number
//! of requests, the requests. Numbers are LEB128. A word is how many words lie between it and the one before (addresses
//! rise), and its value. A request is a byte of flags (bit 0 a write, bits 3:1 the outcome), the address divided by 4, and
//! for a known place that, divided by 4, for a fault its code.
//!
//! The reader takes the file for hostile: any bytes end in images or in an error, in bounded memory.

use crate::architecture::{Architecture, Outcome, Request};
use crate::claims::Claims;
use crate::memory::{TableMemory, Word};
use crate::run::Recorded;
use crate::trial::{Answer, Posed, REQUESTS_MAX};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a file begins with.
pub(crate) const MAGIC: &[u8] = b"lurch referee 1\n";
/// Largest file that is written or read.
pub(crate) const FILE_BYTES_MAX: usize = 300_000;
const NAMES_MAX: u64 = 32;
const NAME_BYTES_MAX: u64 = 64;
const WORDS_MAX: u64 = 1 << 14;

const PLACED: u8 = 0;
const UNPLACED: u8 = 1;
const BLOCKED: u8 = 2;
const SILENT: u8 = 3;

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("no vector file")]
    Magic,
    #[error("the file is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the file ends within {0}")]
    Short(&'static str),
    #[error("{0} is too large")]
    Range(&'static str),
    #[error("unknown outcome {0}")]
    Outcome(u8),
}

/// A file's content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Vectors {
    pub(crate) names: Vec<String>,
    /// By number of the name.
    pub(crate) images: Vec<(usize, Recorded)>,
}

/// Where the vectors of an architecture are.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/referee/vectors").join(format!("{name}.bin"))
}

/// Collects images up to a size.
pub(crate) struct Recorder {
    bytes: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, names.len() as u64);
        for name in names {
            put(&mut bytes, name.len() as u64);
            bytes.extend_from_slice(name.as_bytes());
        }
        Self { bytes }
    }

    /// Takes the image unless the file would grow beyond `limit` bytes.
    pub(crate) fn record(&mut self, name: usize, image: &Recorded, limit: usize) {
        let length = self.bytes.len();
        put(&mut self.bytes, name as u64);
        put(&mut self.bytes, image.image.len() as u64);
        let mut next = 0;
        for (pa, value) in &image.image {
            put(&mut self.bytes, (pa / 8) - next);
            put(&mut self.bytes, *value);
            next = pa / 8 + 1;
        }
        put(&mut self.bytes, image.answers.len() as u64);
        for (request, answer) in &image.answers {
            let (kind, number) = match answer.outcome {
                Outcome::Passed(pa) if answer.placed => (PLACED, Some(pa / 4)),
                Outcome::Passed(_) | Outcome::Message => (UNPLACED, None),
                Outcome::Blocked(code) => (BLOCKED, Some(u64::from(code))),
                Outcome::Silent => (SILENT, None),
            };
            self.bytes.push(u8::from(request.write) | kind << 1);
            put(&mut self.bytes, request.iova / 4);
            if let Some(number) = number {
                put(&mut self.bytes, number);
            }
        }
        if self.bytes.len() > limit.min(FILE_BYTES_MAX) {
            self.bytes.truncate(length);
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.take(1, what)?[0])
    }

    fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(Malformed::Range(what));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Range(what))
    }

    fn count(&mut self, most: u64, what: &'static str) -> Result<usize, Malformed> {
        let count = self.number(what)?;
        if count > most { Err(Malformed::Range(what)) } else { Ok(count as usize) }
    }

    fn address(&mut self, unit: u64, what: &'static str) -> Result<u64, Malformed> {
        self.number(what)?.checked_mul(unit).ok_or(Malformed::Range(what))
    }

    fn image(&mut self) -> Result<Recorded, Malformed> {
        let mut image: Vec<Word> = Vec::new();
        let mut next: u64 = 0;
        for _ in 0..self.count(WORDS_MAX, "the number of words")? {
            let index = next.checked_add(self.number("a word's address")?).ok_or(Malformed::Range("a word's address"))?;
            let pa = index.checked_mul(8).ok_or(Malformed::Range("a word's address"))?;
            image.push((pa, self.number("a word")?));
            next = index + 1;
        }
        let mut answers = Vec::new();
        for _ in 0..self.count(REQUESTS_MAX as u64, "the number of requests")? {
            let flags = self.byte("a request")?;
            let request = Request { iova: self.address(4, "a request's address")?, write: flags & 1 != 0 };
            let answer = match flags >> 1 {
                PLACED => Answer { outcome: Outcome::Passed(self.address(4, "a place")?), placed: true },
                UNPLACED => Answer { outcome: Outcome::Passed(0), placed: false },
                BLOCKED => {
                    let code = self.count(u64::from(u16::MAX), "a fault code")?;
                    Answer { outcome: Outcome::Blocked(code as u16), placed: false }
                }
                SILENT => Answer { outcome: Outcome::Silent, placed: false },
                other => return Err(Malformed::Outcome(other)),
            };
            answers.push((request, answer));
        }
        Ok(Recorded { image, answers })
    }
}

/// Reads a file.
pub(crate) fn read(bytes: &[u8]) -> Result<Vectors, Malformed> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Malformed::TooLarge);
    }
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(Malformed::Magic)?);
    let mut vectors = Vectors::default();
    for _ in 0..reader.count(NAMES_MAX, "the number of names")? {
        let length = reader.count(NAME_BYTES_MAX, "a name's length")?;
        let name = reader.take(length, "a name")?;
        vectors.names.push(name.escape_ascii().to_string());
    }
    while !reader.0.is_empty() {
        let name = reader.count((vectors.names.len() as u64).saturating_sub(1), "a configuration")?;
        vectors.images.push((name, reader.image()?));
    }
    Ok(vectors)
}

/// What a check of vectors found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) nr_requests: u64,
    pub(crate) nr_agree: u64,
    pub(crate) explained: BTreeMap<&'static str, u64>,
}

/// Puts the requests of an image to the model. An answer that differs from QEMU's and that no difference explains is told.
pub(crate) fn check(arch: &mut dyn Architecture, image: &Recorded, found: &mut Checked) -> Result<(), String> {
    let layout = arch.layout();
    let mut memory = TableMemory::frozen(layout, &image.image);
    let mut claims = Claims::default();
    for (n, (request, answer)) in image.answers.iter().enumerate() {
        arch.reset();
        let walked = arch.translate(*request, &mut memory);
        let ours = walked.outcome;
        Posed::new(&layout, n, *request, walked, &mut memory);
        // Where nothing told the place, the model's stands.
        let unplaced = matches!((ours, answer.outcome), (Outcome::Passed(_), Outcome::Passed(_))) && !answer.placed;
        let theirs = if unplaced { ours } else { answer.outcome };
        if ours == theirs
            && arch.rights_decide()
            && let Some(text) = claims.note(*request, walked, theirs)
        {
            return Err(format!("{}: {text}", arch.name()));
        }
        found.nr_requests += 1;
        if ours == theirs {
            found.nr_agree += 1;
            continue;
        }
        let mut frozen = TableMemory::frozen(layout, &image.image);
        match arch.explain(*request, &mut frozen, ours, theirs) {
            Some(difference) => *found.explained.entry(difference.name).or_default() += 1,
            None => return Err(format!("{}: {request:x?}: the model says {ours:x?}, QEMU said {theirs:x?}", arch.name())),
        }
    }
    Ok(())
}
