//! The referee's run: images are drawn, the model and QEMU answer, the answers are compared.

use crate::architecture::{Architecture, Difference, Outcome, Request, Walked};
use crate::claims::Claims;
use crate::dice::Dice;
use crate::memory::{Layout, Place, TableMemory, Word};
use crate::qemu::{Installed, NoQemu, Qemu};
use crate::trial::{self, Answer, Answers, Posed, Trial};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What came out.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) name: String,
    pub(crate) nr_images: u64,
    pub(crate) nr_requests: u64,
    pub(crate) nr_agree: u64,
    /// Of those that agree: the data told where the request went.
    pub(crate) nr_placed: u64,
    /// Of those that agree: blocked.
    pub(crate) nr_blocked: u64,
    /// Requests whose walk left what is known; they were not put to QEMU.
    pub(crate) nr_lost: u64,
    /// Stores that landed between the fetches of walks.
    pub(crate) nr_raced: u64,
    /// By name of the difference.
    pub(crate) explained: BTreeMap<&'static str, u64>,
    /// Words with A or D otherwise, by name of the difference. They are no requests.
    pub(crate) explained_words: BTreeMap<&'static str, u64>,
    /// By what the model and QEMU say, addresses left out: how often, and the first of them.
    pub(crate) unexplained: BTreeMap<(Outcome, Outcome), (u64, String)>,
    /// Requests of the image at hand that nothing explains so far.
    doubtful: Vec<Request>,
    /// A request of the image at hand may have misled later ones.
    misled: bool,
    /// How often each fault code was agreed on.
    pub(crate) codes: BTreeMap<u16, u64>,
    pub(crate) model_time: Duration,
    pub(crate) qemu_time: Duration,
}

/// How requests and images are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Tables stand still.
    Frozen,
    /// Stores land between the fetches of a walk; QEMU walks what was fetched.
    Racing,
}

/// An image with QEMU's answers, as it is recorded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) image: Vec<Word>,
    pub(crate) answers: Vec<(Request, Answer)>,
}

/// Puts `nr_requests` requests to the model and to QEMU. `keep` is shown every image with what QEMU said.
pub(crate) fn run(
    arch: &mut dyn Architecture,
    installed: &Installed,
    kind: Kind,
    seed: u64,
    nr_requests: u64,
    keep: &mut dyn FnMut(Recorded),
) -> Result<Tally, NoQemu> {
    let broken = |error: std::io::Error| NoQemu::Broken(error.to_string());
    let mut qemu = Qemu::start(installed, &arch.machine())?;
    arch.boot(&mut qemu).map_err(broken)?;
    let mut tally = Tally { name: format!("{}{}", arch.name(), if kind == Kind::Racing { ", racing" } else { "" }), ..Tally::default() };
    let mut image_seed = Dice::new(seed);
    while tally.nr_requests < nr_requests {
        let mut dice = Dice::new(image_seed.bits(64));
        let trial = match kind {
            Kind::Frozen => frozen_trial(arch, &mut dice, &mut tally),
            Kind::Racing => racing_trial(arch, &mut dice, &mut tally),
        };
        if trial.requests.is_empty() {
            continue;
        }
        replay_in_model(arch, &trial, &mut tally);
        let begun = now();
        let answers = trial::run(arch, &mut qemu, &trial).map_err(|error| NoQemu::Broken(format!("{error}; {}", qemu.errors())))?;
        tally.qemu_time += begun.elapsed();
        tally.nr_images += 1;
        tally.misled = false;
        let differs = tally.judge_all(arch, &trial, &answers);
        let trusted = !tally.misled && tally.doubtful.is_empty();
        if differs {
            // What went elsewhere may lie anywhere, and may have misled what came later: those are asked again, alone.
            reset_ram(&arch.layout(), &qemu, arch).map_err(broken)?;
            for request in core::mem::take(&mut tally.doubtful) {
                let alone = alone(arch, &trial.image, request);
                let answers = trial::run(arch, &mut qemu, &alone).map_err(|error| NoQemu::Broken(format!("{error}; {}", qemu.errors())))?;
                if tally.judge_all(arch, &alone, &answers) {
                    reset_ram(&arch.layout(), &qemu, arch).map_err(broken)?;
                }
            }
        }
        if !trusted {
            continue;
        }
        let answers = trial.requests.iter().zip(&answers.outcomes).map(|(posed, answer)| (posed.request, *answer)).collect();
        keep(Recorded { image: trial.image, answers });
    }
    Ok(tally)
}

#[expect(clippy::disallowed_types, reason = "rates are measured in wall-clock time; nothing simulated sees it")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn reset_ram(layout: &Layout, qemu: &Qemu, arch: &dyn Architecture) -> std::io::Result<()> {
    trial::fill_data(layout, qemu)?;
    arch.restore(qemu)?;
    qemu.ram.write(layout.pool, &vec![0; (layout.data - layout.pool) as usize])?;
    arch.service_words().into_iter().try_for_each(|(pa, value)| qemu.ram.write64(pa, value))
}

/// One request of an image and nothing else.
fn alone(arch: &mut dyn Architecture, image: &[Word], request: Request) -> Trial {
    let layout = arch.layout();
    let mut memory = TableMemory::frozen(layout, image);
    arch.reset();
    let walked = arch.translate(request, &mut memory);
    let requests = vec![Posed::new(&layout, 0, request, walked, &mut memory)];
    Trial { image: image.to_vec(), changed: memory.changed(), requests }
}

/// Requests of one drawn image.
fn frozen_trial(arch: &mut dyn Architecture, dice: &mut Dice, tally: &mut Tally) -> Trial {
    let layout = arch.layout();
    let mut memory = TableMemory::drawn(layout, Dice::new(dice.bits(64)));
    let stems = arch.draw_stems(dice);
    let mut requests = Vec::new();
    let mut nr_wanted = 48;
    for n in 0.. {
        if n >= nr_wanted {
            break;
        }
        let request = arch.draw_request(&stems, dice);
        arch.reset();
        let walked = arch.translate(request, &mut memory);
        let ours = walked.outcome;
        // An image that leads nowhere is not worth many requests.
        if n < 3 && memory.trail.len() <= 4 && matches!(ours, Outcome::Blocked(_)) {
            nr_wanted = nr_wanted.min(4);
        }
        pose(arch, request, walked, &mut memory, &mut requests, tally);
        // The other access tells whether the translation's rights are the truth.
        if matches!(ours, Outcome::Passed(_)) && dice.percent(25) {
            let other = Request { write: !request.write, ..request };
            arch.reset();
            let walked = arch.translate(other, &mut memory);
            pose(arch, other, walked, &mut memory, &mut requests, tally);
        }
    }
    Trial { image: memory.image(), changed: memory.changed(), requests }
}

/// Walks that race with stores, each replayed from what it fetched. Walks whose words agree share an image.
fn racing_trial(arch: &mut dyn Architecture, dice: &mut Dice, tally: &mut Tally) -> Trial {
    const NR_WALKS: usize = 32;
    let layout = arch.layout();
    let mut live = TableMemory::racing(layout, Dice::new(dice.bits(64)), 30, arch.shared_words());
    let stems = arch.draw_stems(dice);
    let mut replay = TableMemory::frozen(layout, &[]);
    let mut requests = Vec::new();
    for _ in 0..NR_WALKS {
        let request = arch.draw_request(&stems, dice);
        arch.reset();
        let walked = arch.translate(request, &mut live);
        if live.lost {
            tally.nr_lost += 1;
            continue;
        }
        // A word fetched twice with different values has no image; nor have words that another walk saw otherwise.
        if !replay.adopt(&live.trail) {
            continue;
        }
        arch.reset();
        let again = arch.translate(request, &mut replay);
        assert_eq!(again, walked, "the model itself: {request:?}, {:x?}", live.trail);
        pose(arch, request, walked, &mut replay, &mut requests, tally);
    }
    tally.nr_raced += live.nr_raced;
    Trial { image: replay.image(), changed: replay.changed(), requests }
}

fn pose(arch: &dyn Architecture, request: Request, walked: Walked, memory: &mut TableMemory, requests: &mut Vec<Posed>, tally: &mut Tally) {
    let layout = &arch.layout();
    let reaches = |pa| layout.place(pa);
    let unknown = match walked.outcome {
        Outcome::Passed(pa) => reaches(pa) == Place::Unknown || (request.write && reaches(pa) == Place::Void),
        Outcome::Message => true,
        Outcome::Blocked(_) | Outcome::Silent => false,
    };
    if memory.lost || unknown || arch.ends_qemu(&memory.trail) {
        memory.undo();
        tally.nr_lost += 1;
        return;
    }
    requests.push(Posed::new(layout, requests.len(), request, walked, memory));
}

/// The model's rate: the same requests, on the same frozen image, once more.
fn replay_in_model(arch: &mut dyn Architecture, trial: &Trial, tally: &mut Tally) {
    let mut memory = TableMemory::frozen(arch.layout(), &trial.image);
    let begun = now();
    for posed in &trial.requests {
        arch.reset();
        std::hint::black_box(arch.translate(posed.request, &mut memory));
    }
    tally.model_time += begun.elapsed();
}

fn describe(trial: &Trial) -> String {
    let requests: Vec<_> = trial.requests.iter().map(|posed| (posed.request, posed.walked.outcome, &posed.trail)).collect();
    format!("{requests:x?}")
}

impl Tally {
    /// Counts the answers of an image; returns whether one differs.
    fn judge_all(&mut self, arch: &mut dyn Architecture, trial: &Trial, answers: &Answers) -> bool {
        let mut differs = false;
        let mut claims = Claims::default();
        for (posed, answer) in trial.requests.iter().zip(&answers.outcomes) {
            let differs_now = self.judge(arch, trial, posed, *answer);
            differs |= differs_now;
            // A write that went elsewhere may have changed anything: what follows says nothing.
            if differs_now && posed.request.write && matches!(answer.outcome, Outcome::Passed(_)) {
                self.misled = true;
                return true;
            }
            if !differs_now
                && arch.rights_decide()
                && let Some(text) = claims.note(posed.request, posed.walked, answer.outcome)
            {
                self.tell(posed.walked.outcome, answer.outcome, format!("{text}; fetched {:x?}", posed.trail));
            }
        }
        if differs {
            return true;
        }
        for (pa, ours, theirs) in &answers.differing_words {
            if let Some(known) = arch.explain_word(*ours, *theirs) {
                *self.explained_words.entry(known.name).or_default() += 1;
                continue;
            }
            let text = format!("A or D at {pa:#x}: the model has {ours:#x}, QEMU {theirs:#x}; {}", describe(trial));
            self.tell(Outcome::Passed(0), Outcome::Passed(0), text);
        }
        false
    }

    /// Counts one answer; returns whether it differs. What nothing explains is counted only if the request was alone.
    fn judge(&mut self, arch: &mut dyn Architecture, trial: &Trial, posed: &Posed, answer: Answer) -> bool {
        let (ours, theirs) = (posed.walked.outcome, answer.outcome);
        if ours == theirs {
            self.nr_requests += 1;
            self.nr_agree += 1;
            self.nr_placed += u64::from(answer.placed);
            if let Outcome::Blocked(code) = theirs {
                self.nr_blocked += 1;
                *self.codes.entry(code).or_default() += 1;
            }
            return false;
        }
        let mut image = TableMemory::frozen(arch.layout(), &trial.image);
        match arch.explain(posed.request, &mut image, ours, theirs) {
            Some(Difference { name, .. }) => {
                self.nr_requests += 1;
                *self.explained.entry(name).or_default() += 1;
            }
            None if trial.requests.len() > 1 => self.doubtful.push(posed.request),
            None => {
                self.nr_requests += 1;
                let text = format!("{:x?}: the model says {ours:x?}, QEMU {theirs:x?}; fetched {:x?}", posed.request, posed.trail);
                self.tell(ours, theirs, text);
            }
        }
        true
    }

    fn tell(&mut self, ours: Outcome, theirs: Outcome, text: String) {
        let kind = |outcome| if let Outcome::Passed(_) = outcome { Outcome::Passed(0) } else { outcome };
        self.unexplained.entry((kind(ours), kind(theirs))).or_insert((0, text)).0 += 1;
    }

    pub(crate) fn nr_explained(&self) -> u64 {
        self.explained.values().sum()
    }

    pub(crate) fn nr_unexplained(&self) -> u64 {
        self.unexplained.values().map(|(count, _)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |time: Duration| self.nr_requests as f64 / time.as_secs_f64().max(1e-9);
        let (model, qemu) = (rate(self.model_time), rate(self.qemu_time));
        write!(
            f,
            "{:<28} {:>8} requests in {:>5} images: {:>8} agree ({} blocked, {} placed by data), {} explained, {} unexplained; \
             {} not asked; {} stores raced; requests a second: model {:.0}, QEMU {:.0}, ratio {:.0}",
            self.name,
            self.nr_requests,
            self.nr_images,
            self.nr_agree,
            self.nr_blocked,
            self.nr_placed,
            self.nr_explained(),
            self.nr_unexplained(),
            self.nr_lost,
            self.nr_raced,
            model,
            qemu,
            model / qemu,
        )?;
        for (name, count) in &self.explained {
            write!(f, "\n    {count:>8} explained: {name}")?;
        }
        for (name, count) in &self.explained_words {
            write!(f, "\n    {count:>8} words explained: {name}")?;
        }
        let codes: Vec<String> = self.codes.iter().map(|(code, count)| format!("{code:#04x}: {count}")).collect();
        write!(f, "\n    faults agreed on: {}", codes.join(", "))
    }
}
