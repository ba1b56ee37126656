//! The result folder of a sweep: `findings.ndjson`, one line a finding, only ever appended to; and a folder a finding, named by
//! meaning, with the report and the seed file. A crash loses at most the last line.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::triage::Finding;
use crate::seed_file::{self, SeedFile};

/// A result folder.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(dir: &Path) -> io::Result<Store> {
        fs::create_dir_all(dir)?;
        Ok(Store { dir: dir.to_owned() })
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

    /// Adds a confirmed finding: its report, and its line.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&self, finding: &Finding, report: &str, line: &str) -> io::Result<()> {
        let dir = self.folder(finding);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("report.txt"), report)?;
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join("findings.ndjson"))?;
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
