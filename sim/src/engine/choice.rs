//! Choices: everything a run decides, as one list of small integers.

use super::op::{ActorId, Op, OpKind};
use crate::policy::Policy;

/// What a choice is about. The recorded list carries the kind beside the value, so that replay can tell where it diverges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum ChoiceKind {
    /// Which enabled actor performs its announced operation. The value is the actor's id.
    Schedule = 0,
    /// Whether an allocation fails.
    AllocFails = 1,
    /// Whether another callee fails.
    CalleeFails = 2,
    /// Which free frame or slot is handed out.
    Placement = 3,
    /// A decision of the hardware: eviction, prefetch, coarser invalidation.
    Hardware = 4,
    /// Which operation a program or a device issues next, and with what arguments.
    Workload = 5,
    /// What memory that nobody handed over contains after the jump.
    Poison = 6,
}

impl ChoiceKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [ChoiceKind; 7] = [
        ChoiceKind::Schedule,
        ChoiceKind::AllocFails,
        ChoiceKind::CalleeFails,
        ChoiceKind::Placement,
        ChoiceKind::Hardware,
        ChoiceKind::Workload,
        ChoiceKind::Poison,
    ];

    /// The letter that stands for this kind in a written choice list.
    pub const fn letter(self) -> char {
        match self {
            ChoiceKind::Schedule => 's',
            ChoiceKind::AllocFails => 'a',
            ChoiceKind::CalleeFails => 'c',
            ChoiceKind::Placement => 'p',
            ChoiceKind::Hardware => 'h',
            ChoiceKind::Workload => 'w',
            ChoiceKind::Poison => 'j',
        }
    }

    /// The kind a letter stands for.
    pub fn from_letter(letter: char) -> Option<ChoiceKind> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }
}

/// One recorded choice: kind in bits 15:12, value in bits 11:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded(u16);

impl Recorded {
    /// Largest value a choice may have.
    pub const VALUE_MAX: u32 = 0xfff;

    /// Packs a choice.
    ///
    /// # Panics
    /// When `value` exceeds [`Recorded::VALUE_MAX`].
    pub fn new(kind: ChoiceKind, value: u32) -> Recorded {
        assert!(value <= Self::VALUE_MAX, "choice value {value} does not fit 12 bits");
        Recorded((kind as u16) << 12 | value as u16)
    }
    /// What was chosen about.
    pub fn kind(self) -> ChoiceKind {
        ChoiceKind::ALL[usize::from(self.0 >> 12)]
    }
    /// What was chosen.
    pub fn value(self) -> u32 {
        u32::from(self.0 & 0xfff)
    }
}

/// The enabled actors at a scheduling point.
#[derive(Clone, Copy, Debug)]
pub struct Enabled<'a> {
    /// Ids of the enabled actors, ascending. Never empty.
    pub ids: &'a [ActorId],
    /// Those of them whose operation is not a daemon's [`Turn`](super::OpKind::Turn), ascending.
    pub others: &'a [ActorId],
    /// The announced operation of every actor, indexed by [`ActorId::index`]; meaningful for enabled ones only.
    pub ops: &'a [Op],
    /// The actor that performed the last step.
    pub last: Option<ActorId>,
    /// Number of steps performed so far in the run.
    pub step: u64,
    /// Another number after every change of `ids` or `others`: where it is the same, they are the same.
    pub version: u64,
}

/// Who can be picked and what each announced: the engine's own tables, from which an [`Enabled`] is made when somebody looks.
#[derive(Clone, Debug, Default)]
pub struct Runnable {
    pub(super) ids: Vec<ActorId>,
    pub(super) others: Vec<ActorId>,
    pub(super) ops: Vec<Op>,
    pub(super) last: Option<ActorId>,
    pub(super) step: u64,
    pub(super) version: u64,
}

impl Runnable {
    /// Empties all tables.
    pub(super) fn clear(&mut self) {
        let Runnable { ids, others, ops, last, step, version } = self;
        ids.clear();
        others.clear();
        ops.clear();
        (*last, *step, *version) = (None, 0, 0);
    }

    /// The choice as policies see it.
    #[inline(always)]
    pub fn enabled(&self) -> Enabled<'_> {
        let Runnable { ids, others, ops, last, step, version } = self;
        Enabled { ids, others, ops, last: *last, step: *step, version: *version }
    }

    /// Lets `id`, which has announced `op`, be picked; false when it could be already.
    pub(super) fn admit(&mut self, id: ActorId, op: Op) -> bool {
        self.version += 1;
        if op.is(OpKind::Turn) {
            remove(&mut self.others, id);
        } else {
            insert(&mut self.others, id);
        }
        insert(&mut self.ids, id)
    }

    /// Lets `id` be picked no more; false when it could not be.
    pub(super) fn expel(&mut self, id: ActorId) -> bool {
        self.version += 1;
        remove(&mut self.others, id);
        remove(&mut self.ids, id)
    }
}

/// Puts `id` into the ordered list; false when it stood there. The highest yet, which all new ones are, comes at the end at once.
fn insert(list: &mut Vec<ActorId>, id: ActorId) -> bool {
    if list.last().is_none_or(|last| *last < id) {
        list.push(id);
        return true;
    }
    list.binary_search(&id).map_err(|at| list.insert(at, id)).is_err()
}

/// Takes `id` out of the ordered list; false when it did not stand there.
fn remove(list: &mut Vec<ActorId>, id: ActorId) -> bool {
    list.binary_search(&id).map(|at| list.remove(at)).is_ok()
}

/// One choice put to the policy.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// Pick one of the enabled actors; the answer is an index into [`Enabled::ids`].
    Schedule(Enabled<'a>),
    /// Pick one of `options` equally sensible outcomes; 0 is the plain one.
    Of {
        /// What is chosen about.
        kind: ChoiceKind,
        /// Number of outcomes, at least 2.
        options: u32,
    },
    /// Yes (1) or no (0), where yes is the rare outcome.
    Odds {
        /// What is chosen about.
        kind: ChoiceKind,
        /// How often yes is sensible, in 1/1024.
        per_1024: u32,
    },
    /// Does the fallible call with this running number fail? 1 fails it.
    Fault {
        /// [`ChoiceKind::AllocFails`] or [`ChoiceKind::CalleeFails`].
        kind: ChoiceKind,
        /// Running number of the fallible call in this run, from 0.
        nth: u32,
        /// Class of the call, an id the workload gives (allocation family, kind of callee).
        class: u16,
    },
}

/// Puts choices to the policy and records the answers.
pub struct Choices {
    policy: Box<dyn Policy>,
    record: Vec<Recorded>,
    /// Length of the longest record taken out, up to [`RESERVE_LIMIT`].
    taken: usize,
    fallible: u32,
    faults_off: bool,
}

/// Most choices a run may record; a run that needs more is ended by the bound `choices`.
pub const RECORD_LIMIT: usize = 1 << 24;

/// Most choices that room is made for before a run begins.
const RESERVE_LIMIT: usize = 1 << 16;

impl Choices {
    /// An empty record under `policy`.
    pub fn new(policy: Box<dyn Policy>) -> Choices {
        Choices { policy, record: Vec::with_capacity(1 << 13), taken: 0, fallible: 0, faults_off: false }
    }

    /// Begins another run: an empty record under `policy`, with room for as many choices as any run before had.
    pub(super) fn restart(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
        self.record.clear();
        if self.record.capacity() == 0 {
            self.record.reserve(self.taken.next_power_of_two().max(64));
        }
        (self.fallible, self.faults_off) = (0, false);
    }

    /// Asks which of the enabled actors goes next. A single enabled actor is no choice and is not recorded.
    #[inline(always)]
    pub fn schedule(&mut self, runnable: &Runnable) -> ActorId {
        if let [only] = runnable.ids[..] {
            self.policy.performed(only, runnable.ops[only.index()]);
            return only;
        }
        let actor = self.policy.schedule(runnable);
        self.record.push(Recorded::new(ChoiceKind::Schedule, u32::from(actor.0)));
        actor
    }

    /// Asks for one of `options` outcomes.
    pub fn of(&mut self, kind: ChoiceKind, options: u32) -> u32 {
        if options <= 1 {
            return 0;
        }
        self.put(kind, Choice::Of { kind, options })
    }

    /// Asks a yes/no question whose yes is rare.
    pub fn odds(&mut self, kind: ChoiceKind, per_1024: u32) -> bool {
        per_1024 > 0 && self.put(kind, Choice::Odds { kind, per_1024 }) == 1
    }

    /// Asks whether the fallible call at hand fails, and counts it.
    pub fn fails(&mut self, kind: ChoiceKind, class: u16) -> bool {
        if self.faults_off {
            return false;
        }
        let nth = self.fallible;
        self.fallible += 1;
        self.put(kind, Choice::Fault { kind, nth, class }) == 1
    }

    /// From now on (or until called again) fallible calls neither fail nor count: set-up and the closing phase of a run.
    pub fn set_faults_off(&mut self, off: bool) {
        self.faults_off = off;
    }

    /// Number of fallible calls met so far.
    pub fn nr_fallible(&self) -> u32 {
        self.fallible
    }

    /// The choices made so far.
    pub fn record(&self) -> &[Recorded] {
        &self.record
    }

    /// Passes on to the policy that `after` goes on only because of what `before` has done.
    pub(super) fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.policy.ordered(before, after);
    }

    /// Passes on to the policy that an actor starts.
    pub(super) fn started(&mut self, actor: ActorId, name: &str) {
        self.policy.started(actor, name);
    }

    /// Passes on to the policy that an actor cannot perform what it announced until something else happens.
    pub(super) fn withheld(&mut self, actor: ActorId, op: Op) {
        self.policy.withheld(actor, op);
    }

    /// Passes on to the policy that an actor is forgotten.
    pub(super) fn forgotten(&mut self, actor: ActorId) {
        self.policy.forgotten(actor);
    }

    /// Where a replayed list and the run went apart, if they did.
    pub fn divergence(&self) -> Option<crate::policy::Divergence> {
        self.policy.divergence()
    }

    /// The name of the policy at work.
    pub fn policy_name(&self) -> String {
        self.policy.name()
    }

    /// Takes the record out, leaving an empty one.
    pub fn take_record(&mut self) -> Vec<Recorded> {
        self.taken = self.taken.max(self.record.len().min(RESERVE_LIMIT));
        std::mem::take(&mut self.record)
    }

    fn put(&mut self, kind: ChoiceKind, choice: Choice<'_>) -> u32 {
        let value = self.policy.choose(choice);
        self.record.push(Recorded::new(kind, value));
        value
    }
}
