//! One image in QEMU: its words are stored, the device makes its requests, and what became of each is found out.
//!
//! Where a read went, the data tell: every data page holds its own addresses. Where a write went, RAM tells: each write
//! brings a word of its own. To get data in and out of the device, it is moved over to the service tables and back; all
//! of that, for all requests of the image, is one script.

use crate::architecture::{Architecture, Outcome, Request, Walked};
use crate::memory::{Layout, Place, TableMemory, Word};
use crate::qemu::Qemu;
use crate::qemu::edu::BUFFER_BYTES;
use crate::qemu::qtest::Script;
use std::io;

/// Most requests of one image: four bytes of the device's buffer each.
pub(crate) const REQUESTS_MAX: usize = (BUFFER_BYTES / 4) as usize;

/// An image and what the model says.
pub(crate) struct Trial {
    /// Every word that is not 0 or its own address.
    pub(crate) image: Vec<Word>,
    /// Words that the walks set A or D in, as they must be afterwards.
    pub(crate) changed: Vec<Word>,
    pub(crate) requests: Vec<Posed>,
}

/// One request of an image.
pub(crate) struct Posed {
    pub(crate) request: Request,
    /// What the model says.
    pub(crate) walked: Walked,
    /// What the model fetched.
    pub(crate) trail: Vec<Word>,
    /// What the model's memory holds, at the request's time, where the request goes.
    pub(crate) content: u32,
    /// A write: what it brings. The same as `content` where it must not do damage.
    pub(crate) brings: u32,
}

impl Posed {
    /// The `n`-th request of its image, with what it does to the model's memory done.
    pub(crate) fn new(layout: &Layout, n: usize, request: Request, walked: Walked, memory: &mut TableMemory) -> Self {
        let trail = memory.trail.clone();
        let mut posed = Self { request, walked, trail, content: 0, brings: TAG | n as u32 };
        let Outcome::Passed(pa) = walked.outcome else { return posed };
        posed.content = (memory.read(pa & !7) >> (8 * (pa & 4))) as u32;
        match layout.place(pa) {
            Place::Table => posed.brings = posed.content,
            Place::Data if request.write => memory.store32(pa, posed.brings),
            _ => {}
        }
        posed
    }
}

/// Written data, but for the request's number. Not the address of any RAM.
const TAG: u32 = 0xc0de_0000;

/// What QEMU says.
pub(crate) struct Answers {
    /// For each request in order.
    pub(crate) outcomes: Vec<Answer>,
    /// Words that are not as the model has them, though no request was answered differently: address, model's, QEMU's.
    pub(crate) differing_words: Vec<(u64, u64, u64)>,
}

/// What QEMU says to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// For a request that passed and whose place nothing tells, the model's own answer stands.
    pub(crate) outcome: Outcome,
    /// The data told where it went.
    pub(crate) placed: bool,
}

/// Stored where the device reads data for what nobody must read.
const NOT_READ: u32 = 0xdead_0001;

/// What the device gets for a read that was blocked. No data page holds it.
const BLOCKED_READ: u32 = 0;

/// Makes RAM what it has to be before the first image: data pages hold their own addresses.
pub(crate) fn fill_data(layout: &Layout, qemu: &Qemu) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut bytes = Vec::with_capacity(CHUNK as usize);
    let mut from = layout.data;
    while from < layout.ram_end {
        bytes.clear();
        let to = (from + CHUNK).min(layout.ram_end);
        bytes.extend((from..to).step_by(8).flat_map(|pa| Layout::data_word(pa).to_le_bytes()));
        qemu.ram.write(from, &bytes)?;
        from = to;
    }
    Ok(())
}

/// Runs an image.
pub(crate) fn run(arch: &mut dyn Architecture, qemu: &mut Qemu, trial: &Trial) -> io::Result<Answers> {
    assert!(trial.requests.len() <= REQUESTS_MAX, "the device's buffer holds a word for each request");
    let layout = arch.layout();
    let service = arch.service_words();
    let switched = |pa: u64| service.iter().any(|(place, _)| *place == pa);
    for (pa, value) in trial.image.iter().filter(|(pa, _)| !switched(*pa)) {
        qemu.ram.write64(*pa, *value)?;
    }
    let load: Vec<u8> =
        trial.requests.iter().flat_map(|posed| if posed.request.write { posed.brings } else { NOT_READ }.to_le_bytes()).collect();
    qemu.ram.write(layout.mailbox + BUFFER_BYTES, &load)?;

    let edu = arch.device();
    let mut script = Script::default();
    arch.prepare(&mut script);
    edu.set_count(&mut script, BUFFER_BYTES);
    edu.read(&mut script, arch.service_iova() + BUFFER_BYTES, 0);
    edu.set_count(&mut script, 4);
    for (pa, _) in &service {
        let value = trial.image.iter().find(|(place, _)| place == pa).map_or(0, |(_, value)| *value);
        script.write64(*pa, value);
    }
    for (n, posed) in trial.requests.iter().enumerate() {
        let offset = 4 * n as u64;
        // QEMU's caches are one choice among those that the model has; only cold caches have one answer.
        arch.flush(&mut script);
        match posed.request.write {
            true => edu.write(&mut script, posed.request.iova, offset),
            false => edu.read(&mut script, posed.request.iova, offset),
        }
        arch.probe(&mut script);
    }
    for (pa, value) in &service {
        script.write64(*pa, *value);
    }
    arch.flush(&mut script);
    edu.set_count(&mut script, BUFFER_BYTES);
    edu.write(&mut script, arch.service_iova(), 0);
    let values = qemu.qtest.run(&script)?;

    let mut buffer = vec![0; 4 * trial.requests.len()];
    qemu.ram.read(layout.mailbox, &mut buffer)?;
    let mut outcomes = Vec::with_capacity(trial.requests.len());
    for ((posed, values), data) in trial.requests.iter().zip(values.chunks(arch.probe_values())).zip(buffer.chunks_exact(4)) {
        let fault = arch.fault(values, qemu)?;
        let data = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
        outcomes.push(answer(&layout, qemu, trial, posed, fault, data)?);
    }
    let mut differing_words = Vec::new();
    for (pa, ours) in trial.changed.iter().filter(|(pa, _)| layout.place(*pa) == Place::Table && !switched(*pa)) {
        let theirs = qemu.ram.read64(*pa)?;
        if theirs != *ours {
            differing_words.push((*pa, *ours, theirs));
        }
    }
    clean(&layout, qemu, trial, &switched)?;
    Ok(Answers { outcomes, differing_words })
}

fn answer(layout: &Layout, qemu: &Qemu, trial: &Trial, posed: &Posed, fault: Option<u16>, data: u32) -> io::Result<Answer> {
    if let Some(code) = fault {
        return Ok(Answer { outcome: Outcome::Blocked(code), placed: false });
    }
    let told = |pa| Ok(Answer { outcome: Outcome::Passed(pa), placed: true });
    if posed.walked.outcome == Outcome::Silent && (posed.request.write || data == BLOCKED_READ) {
        return Ok(Answer { outcome: posed.walked.outcome, placed: false });
    }
    let Outcome::Passed(ours) = posed.walked.outcome else {
        // It passed, but the model says that it does not: a read tells where it went, if into data.
        let pa = if posed.request.write { u64::MAX } else { u64::from(data) };
        return told(pa);
    };
    let silent = Ok(Answer { outcome: posed.walked.outcome, placed: false });
    if !matches!(layout.place(ours), Place::Data | Place::Table) {
        return silent;
    }
    if !posed.request.write {
        // Only data pages tell where they are; what tables hold may be changed by walks.
        if layout.place(ours) == Place::Table {
            return silent;
        }
        return if data == posed.content { Ok(Answer { outcome: posed.walked.outcome, placed: true }) } else { told(u64::from(data)) };
    }
    if posed.brings == posed.content {
        return silent;
    }
    // A later write to the same word hides an earlier one; then only the last one speaks.
    let last = trial
        .requests
        .iter()
        .rev()
        .find(|other| other.request.write && other.walked.outcome == posed.walked.outcome && other.brings != other.content);
    if last.is_some_and(|last| last.brings != posed.brings) {
        return silent;
    }
    if qemu.ram.read32(ours)? == posed.brings { Ok(Answer { outcome: posed.walked.outcome, placed: true }) } else { told(u64::MAX) }
}

/// What the image and its requests have changed is made as before.
fn clean(layout: &Layout, qemu: &Qemu, trial: &Trial, switched: &dyn Fn(u64) -> bool) -> io::Result<()> {
    for (pa, _) in trial.image.iter().chain(&trial.changed).filter(|(pa, _)| !switched(*pa)) {
        restore(layout, qemu, *pa)?;
    }
    for posed in trial.requests.iter().filter(|posed| posed.request.write) {
        if let Outcome::Passed(pa) = posed.walked.outcome {
            restore(layout, qemu, pa & !7)?;
        }
    }
    Ok(())
}

fn restore(layout: &Layout, qemu: &Qemu, pa: u64) -> io::Result<()> {
    match layout.place(pa) {
        Place::Data => qemu.ram.write64(pa, Layout::data_word(pa)),
        Place::Table => qemu.ram.write64(pa, 0),
        Place::Void | Place::Unknown => Ok(()),
    }
}
