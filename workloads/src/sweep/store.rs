//! The result folder of a sweep. While it hunts, `suspects.ndjson` gets a line for each run that violated something, at once and for the
//! first of each property and title, so that a sweep cut short loses at most the runs in flight. Then `findings.ndjson` gets a line for
//! each finding told apart and confirmed, and each has a folder, named by meaning, with the report and the seed file. Both files are only
//! ever appended to; a crash loses at most the last line.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::tally::{Name, SUSPECTS_MAX};
use super::triage::Finding;
use crate::report::json::{SuspectJson, line};
use crate::run::{Outcome, RunSpec};
use crate::seed_file::{self, SeedFile};

/// A result folder.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Suspects written, by name.
    suspects: Mutex<BTreeMap<Name, usize>>,
}

impl Store {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(dir: &Path) -> io::Result<Store> {
        fs::create_dir_all(dir)?;
        Ok(Store { dir: dir.to_owned(), suspects: Mutex::default() })
    }

    /// Writes a finding's seed file and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn seed_file(&self, finding: &Finding) -> io::Result<PathBuf> {
        let dir = self.folder(finding);
        fs::create_dir_all(&dir)?;
        let path = dir.join("seed.toml");
        fs::write(&path, seed_file::write(&SeedFile::of(&finding.spec, &finding.outcome)))?;
        Ok(path)
    }

    /// Writes a run that violated something down, unless enough of its property and title are. Workers call it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn suspect(&self, spec: &RunSpec, number: u64, outcome: &Outcome) -> io::Result<()> {
        let mut suspects = self.suspects.lock();
        let written = suspects.entry((outcome.verdict.property.clone(), outcome.verdict.title.clone())).or_default();
        if *written >= SUSPECTS_MAX {
            return Ok(());
        }
        *written += 1;
        self.append("suspects.ndjson", &line(&SuspectJson::of(spec, number, outcome)))
    }

    /// Writes the shrunk run of a finding beside its seed file and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn shrunk_file(&self, finding: &Finding, file: &SeedFile) -> io::Result<PathBuf> {
        let path = self.folder(finding).join("shrunk.toml");
        fs::write(&path, seed_file::write(file))?;
        Ok(path)
    }

    /// Adds a confirmed finding: its report, and its line.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&self, finding: &Finding, report: &str, line: &str) -> io::Result<()> {
        let dir = self.folder(finding);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("report.txt"), report)?;
        self.append("findings.ndjson", line)
    }

    fn append(&self, file: &str, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join(file))?;
        file.write_all(format!("{line}\n").as_bytes())
    }

    fn folder(&self, finding: &Finding) -> PathBuf {
        let meaning = seed_file::slug(&format!("{} {}", finding.name.0, finding.name.1));
        self.dir.join("findings").join(format!("{meaning}--{}-{}", finding.spec.scenario.name, finding.signature))
    }
}

/// Writes a seed file into `dir` under its own name and returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn write_seed_file(dir: &Path, file: &SeedFile) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(seed_file::file_name(file));
    fs::write(&path, seed_file::write(file))?;
    Ok(path)
}
