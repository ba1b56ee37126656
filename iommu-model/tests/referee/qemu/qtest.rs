//! The qtest line protocol: a line for each command, a line for each answer, in order.
//!
//! Commands are collected in a [`Script`] and sent together, because a round trip costs far more than a command. Answers
//! are read while commands are still being sent, so that neither side's socket buffer can fill up and block both.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// How long QEMU may take to start, and to give one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Commands to be sent together.
#[derive(Default)]
pub(crate) struct Script {
    text: Vec<u8>,
    /// For each command, whether its answer has a value.
    answers: Vec<bool>,
}

impl Script {
    fn command(&mut self, name: &str, numbers: &[u64], has_value: bool) {
        self.text.extend_from_slice(name.as_bytes());
        for number in numbers {
            // The loop is hot; `write!` is slower than the digits.
            self.text.extend_from_slice(b" 0x");
            let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
            for digit in (0..digits).rev() {
                self.text.push(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 15]);
            }
        }
        self.text.push(b'\n');
        self.answers.push(has_value);
    }

    pub(crate) fn write32(&mut self, address: u64, value: u32) {
        self.command("writel", &[address, u64::from(value)], false);
    }

    pub(crate) fn write64(&mut self, address: u64, value: u64) {
        self.command("writeq", &[address, value], false);
    }

    /// One answer.
    pub(crate) fn read32(&mut self, address: u64) {
        self.command("readl", &[address], true);
    }

    /// One answer.
    pub(crate) fn read64(&mut self, address: u64) {
        self.command("readq", &[address], true);
    }

    /// Writes an x86 port.
    pub(crate) fn out32(&mut self, port: u16, value: u32) {
        self.command("outl", &[u64::from(port), u64::from(value)], false);
    }

    /// Reads an x86 port. One answer.
    pub(crate) fn in32(&mut self, port: u16) {
        self.command("inl", &[u64::from(port)], true);
    }

    /// Moves virtual time, in nanoseconds; timers that are due run.
    pub(crate) fn clock_step(&mut self, ns: u64) {
        self.text.extend_from_slice(format!("clock_step {ns}\n").as_bytes());
        self.answers.push(false);
    }
}

/// The socket's end that waits for QEMU.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection to a running QEMU.
pub(crate) struct Qtest {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Commands sent so far.
    pub(crate) sent: u64,
}

impl Qtest {
    /// Waits for QEMU to connect, or to die.
    pub(crate) fn accept(listener: &UnixListener, child: &mut Child) -> io::Result<Self> {
        let pause = Duration::from_millis(2);
        for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    return Ok(Self { stream, buffer: Vec::new(), sent: 0 });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if child.try_wait()?.is_some() {
                        return Err(io::Error::other("it ended at once"));
                    }
                    std::thread::sleep(pause);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("it does not connect"))
    }

    /// Sends the commands; returns the values that were read, in order.
    pub(crate) fn run(&mut self, script: &Script) -> io::Result<Vec<u64>> {
        /// Well below a socket buffer, and so are the answers to it.
        const CHUNK_COMMANDS: usize = 512;
        let mut values = Vec::new();
        let mut text = &script.text[..];
        for answers in script.answers.chunks(CHUNK_COMMANDS) {
            let mut end = 0;
            for _ in answers {
                end += text[end..].iter().position(|byte| *byte == b'\n').map_or(text.len() - end, |place| place + 1);
            }
            let (chunk, rest) = text.split_at(end);
            text = rest;
            self.stream.write_all(chunk)?;
            self.collect(answers, &mut values)?;
        }
        self.sent += script.answers.len() as u64;
        Ok(values)
    }

    fn collect(&mut self, answers: &[bool], values: &mut Vec<u64>) -> io::Result<()> {
        let mut place = 0;
        for has_value in answers {
            loop {
                let line = loop {
                    if let Some(length) = self.buffer[place..].iter().position(|byte| *byte == b'\n') {
                        break &self.buffer[place..place + length];
                    }
                    let mut more = [0; 1 << 14];
                    let count = self.stream.read(&mut more)?;
                    if count == 0 {
                        return Err(io::Error::other("QEMU has ended"));
                    }
                    self.buffer.drain(..place);
                    place = 0;
                    self.buffer.extend_from_slice(&more[..count]);
                };
                place += line.len() + 1;
                if line.starts_with(b"IRQ") {
                    continue;
                }
                let refused = || io::Error::other(format!("QEMU says {:?}", String::from_utf8_lossy(line)));
                let rest = line.strip_prefix(b"OK").ok_or_else(refused)?;
                if *has_value {
                    let text = std::str::from_utf8(rest).ok().map(str::trim).and_then(|text| text.strip_prefix("0x"));
                    values.push(text.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(refused)?);
                }
                break;
            }
        }
        self.buffer.drain(..place);
        Ok(())
    }

    /// One 64-bit read.
    pub(crate) fn read64(&mut self, address: u64) -> io::Result<u64> {
        let mut script = Script::default();
        script.read64(address);
        Ok(self.run(&script)?.first().copied().unwrap_or(0))
    }
}
