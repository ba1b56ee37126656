//! QEMU as a process: found, started with a shared RAM file and a qtest socket, stopped when dropped.
//!
//! Found through `LURCH_QEMU`, a directory that `get-qemu.sh` has filled, or else on `PATH`. A directory that is named and
//! does not work is an error. A QEMU on `PATH` without what is needed counts as none: then the referee is skipped.

pub(crate) mod edu;
pub(crate) mod pci;
pub(crate) mod qtest;
pub(crate) mod ram;

use qtest::Qtest;
use ram::Ram;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The machine that an architecture wants.
pub(crate) struct Machine {
    /// Suffix of the binary's name: `x86_64`, `aarch64`, `riscv64`.
    pub(crate) target: &'static str,
    /// Machine and devices. The RAM's backend has the id `ram`.
    pub(crate) args: Vec<String>,
    /// Where RAM begins in the guest's address space.
    pub(crate) ram_base: u64,
    /// Bytes of RAM.
    pub(crate) ram_bytes: u64,
}

/// Where QEMU is.
pub(crate) enum Installed {
    /// Unpacked under a directory, with the C library it was built for.
    Unpacked(PathBuf),
    /// A program of the host.
    OnPath,
}

/// Why there is no QEMU to ask.
#[derive(Debug)]
pub(crate) enum NoQemu {
    /// None was found: the referee is skipped.
    Absent(String),
    /// One was named, and fails.
    Broken(String),
}

/// The environment, read in this one place.
pub(crate) fn setting(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "the referee is no simulated code; where QEMU lies is the environment's to say")]
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(OsString::from)
}

impl Installed {
    /// What the environment names.
    pub(crate) fn find() -> Self {
        setting("LURCH_QEMU").map_or(Self::OnPath, |dir| Self::Unpacked(PathBuf::from(dir)))
    }

    fn command(&self, target: &str) -> Result<Command, NoQemu> {
        let name = format!("qemu-system-{target}");
        let Self::Unpacked(dir) = self else { return Ok(Command::new(name)) };
        let broken = |what: &str| NoQemu::Broken(format!("{}: {what}", dir.display()));
        let loaders = entries(&dir.join("usr/lib"), |name| name.ends_with("-linux-gnu"))
            .into_iter()
            .flat_map(|lib| entries(&lib, |name| name.starts_with("ld-linux")).into_iter().map(move |loader| (lib.clone(), loader)));
        let (lib, loader) = loaders.last().ok_or_else(|| broken("no program loader in usr/lib"))?;
        let mut paths = lib.clone().into_os_string();
        paths.push(":");
        paths.push(lib.join("qemu"));
        let mut command = Command::new(loader);
        command.env("QEMU_MODULE_DIR", lib.join("qemu")).arg("--library-path").arg(paths).arg(dir.join("usr/bin").join(name));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(dir.join(data));
        }
        Ok(command)
    }
}

/// Paths in a directory, by name.
fn entries(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted)).collect();
    found.sort();
    found
}

/// A running QEMU. No CPU of it ever runs: time moves when it is told to, tables are what was stored.
pub(crate) struct Qemu {
    child: Child,
    /// Its command socket.
    pub(crate) qtest: Qtest,
    /// Its RAM.
    pub(crate) ram: Ram,
    dir: PathBuf,
}

impl Qemu {
    /// Starts the machine and waits for its first answer.
    pub(crate) fn start(installed: &Installed, machine: &Machine) -> Result<Self, NoQemu> {
        let failed = |what: String| match installed {
            Installed::Unpacked(_) => NoQemu::Broken(what),
            Installed::OnPath => NoQemu::Absent(what),
        };
        let dir = scratch_dir().map_err(|error| failed(format!("no scratch directory: {error}")))?;
        let ram = Ram::create(&dir.join("ram"), machine.ram_base, machine.ram_bytes).map_err(|error| failed(format!("RAM: {error}")))?;
        let socket = dir.join("qtest");
        let listener = qtest::listen(&socket).map_err(|error| failed(format!("socket: {error}")))?;
        let megabytes = machine.ram_bytes >> 20;
        let mut command = installed.command(machine.target)?;
        command
            .args(&machine.args)
            .args(["-accel", "qtest", "-display", "none", "-nodefaults", "-no-user-config", "-serial", "none", "-monitor", "none"])
            // The default log is standard error, a line for each command.
            .args(["-qtest-log", "/dev/null"])
            .args(["-qtest", &format!("unix:{}", socket.display())])
            .args(["-m", &megabytes.to_string()])
            .args(["-object", &format!("memory-backend-file,id=ram,size={megabytes}M,mem-path={},share=on", ram.path().display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("errors")).map_or_else(|_| Stdio::null(), Stdio::from));
        let mut child = command.spawn().map_err(|error| failed(format!("qemu-system-{}: {error}", machine.target)))?;
        match Qtest::accept(&listener, &mut child) {
            Ok(qtest) => Ok(Self { child, qtest, ram, dir }),
            Err(error) => {
                let said = std::fs::read_to_string(dir.join("errors")).unwrap_or_default();
                let _ = child.kill();
                let _ = child.wait();
                let _ = std::fs::remove_dir_all(&dir);
                Err(failed(format!("qemu-system-{} does not start: {error}; {}", machine.target, said.trim())))
            }
        }
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A directory of our own, in memory where the host has such a place.
fn scratch_dir() -> std::io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let dir = base.join(format!("lurch-referee-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir)?;
    Ok(dir)
}
