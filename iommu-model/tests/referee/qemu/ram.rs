//! Guest RAM as a file that both sides see: tables are stored and results read without a command.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The RAM.
pub(crate) struct Ram {
    file: File,
    path: PathBuf,
    base: u64,
    bytes: u64,
}

impl Ram {
    /// A new file of zeros.
    pub(crate) fn create(path: &Path, base: u64, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(bytes)?;
        Ok(Self { file, path: path.to_path_buf(), base, bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn offset(&self, address: u64, length: usize) -> io::Result<u64> {
        let outside = || io::Error::other(format!("{address:#x} is not RAM"));
        let offset = address.checked_sub(self.base).ok_or_else(outside)?;
        if offset.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(outside());
        }
        Ok(offset)
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset(address, bytes.len())?)
    }

    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.offset(address, bytes.len())?)
    }

    pub(crate) fn write64(&self, address: u64, value: u64) -> io::Result<()> {
        self.write(address, &value.to_le_bytes())
    }

    pub(crate) fn read64(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn read32(&self, address: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}
