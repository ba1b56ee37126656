//! Locks, refcounts and wait queues that live in RAM and work by address.
//!
//! Taking a lock is a step; a held lock blocks the taker until it is released. A shadow beside the words knows what the kernel's
//! debug options would know: never initialised, in freed memory, freed while held, sleeping where sleeping is forbidden, still
//! held at the end of a call.

use iommu_model::addr::Pa;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::cpu::{Cpu, Read, Store};
use crate::engine::{ActorId, Object, Op, OpKind};
use crate::memory::{Memory, Ptr};
use crate::trace::{EventKind, Flavor, LockKind};

/// `struct mutex`: the owner word. 0 is free, else actor + 1.
#[derive(Clone, Copy, Debug)]
pub struct Mutex;
/// `spinlock_t`.
#[derive(Clone, Copy, Debug)]
pub struct SpinLock;
/// `struct rw_semaphore`: bit 32 says a writer holds it, bits 31:0 count readers.
#[derive(Clone, Copy, Debug)]
pub struct RwSem;
/// `refcount_t`.
#[derive(Clone, Copy, Debug)]
pub struct Refcount;
/// `wait_queue_head_t`.
#[derive(Clone, Copy, Debug)]
pub struct WaitQueue;

const WRITER: u64 = 1 << 32;

/// A lock some actor holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Address of the lock.
    pub lock: Pa,
    /// Kind.
    pub kind: LockKind,
}

/// What is known about locks beside their words.
#[derive(Default)]
pub struct LockShadow {
    /// Version of the memory a lock was initialised in; look-up only.
    initialised: FxHashMap<u64, u32>,
    held: Vec<SmallVec<[Held; 8]>>,
    atomic: Vec<u8>,
}

impl LockShadow {
    pub(crate) fn clear(&mut self) {
        self.initialised.clear();
        self.held.clear();
        self.atomic.clear();
    }

    /// A held lock inside the range, with its holder.
    pub(crate) fn held_in(&self, pa: Pa, bytes: u64) -> Option<(Pa, ActorId)> {
        self.held.iter().enumerate().find_map(|(actor, held)| {
            held.iter().find(|held| (pa.0..pa.0 + bytes).contains(&held.lock.0)).map(|held| (held.lock, ActorId(actor as u8)))
        })
    }

    /// Locks held by `actor`.
    pub fn held_by(&self, actor: ActorId) -> &[Held] {
        self.held.get(actor.index()).map_or(&[], |held| held)
    }

    /// All holders of the lock at `pa`.
    pub fn holders(&self, pa: Pa) -> impl Iterator<Item = ActorId> {
        self.held.iter().enumerate().filter(move |(_, held)| held.iter().any(|held| held.lock == pa)).map(|(actor, _)| ActorId(actor as u8))
    }

    fn take(&mut self, actor: ActorId, held: Held) {
        if self.held.len() <= actor.index() {
            self.held.resize(actor.index() + 1, SmallVec::new());
            self.atomic.resize(actor.index() + 1, 0);
        }
        self.held[actor.index()].push(held);
        self.atomic[actor.index()] += u8::from(held.kind == LockKind::Spin);
    }

    fn drop_held(&mut self, actor: ActorId, lock: Pa) -> Option<Held> {
        let list = self.held.get_mut(actor.index())?;
        let at = list.iter().rposition(|held| held.lock == lock)?;
        let held = list.remove(at);
        self.atomic[actor.index()] -= u8::from(held.kind == LockKind::Spin);
        Some(held)
    }

    fn is_atomic(&self, actor: ActorId) -> bool {
        self.atomic.get(actor.index()).is_some_and(|depth| *depth > 0)
    }
}

fn version_at(memory: &Memory, pa: Pa) -> u32 {
    match memory.slot_at(pa) {
        Some((page, slot)) => memory.slabs[page].slots[slot].version,
        None => memory.frame(pa).map_or(0, |frame| frame.version),
    }
}

impl Cpu {
    /// `mutex_init`, `spin_lock_init`, `init_rwsem`: clears the word and remembers that it is a lock.
    pub async fn init_lock<T>(&self, lock: Ptr<T>) {
        self.write(lock.cast::<u64>(), 0).await;
        let pa = lock.pa();
        let version = version_at(&self.machine.memory(), pa);
        self.machine.locks.borrow_mut().initialised.insert(pa.0, version);
    }

    /// `might_sleep()`: a finding when a spinlock is held.
    pub fn might_sleep(&self, what: &str) {
        if self.machine.locks.borrow().is_atomic(self.id()) {
            let held = self.machine.locks.borrow().held_by(self.id()).to_vec();
            let details = held.iter().map(|held| format!("holding {:?} lock at pa {:#x}", held.kind, held.lock.0)).collect();
            self.machine.violate("P7", format!("sleeping function called from invalid context: {what}"), details);
        }
    }

    /// Judges the end of a system call: no lock may be left held.
    pub fn check_no_locks_held(&self, call: &str) {
        let held = self.machine.locks.borrow().held_by(self.id()).to_vec();
        if !held.is_empty() {
            let details = held.iter().map(|held| format!("{:?} lock at pa {:#x}", held.kind, held.lock.0)).collect();
            self.machine.violate("LOCK", format!("lock held when returning to user space from {call}"), details);
        }
    }

    /// `mutex_lock`.
    pub fn mutex_lock(&self, lock: Ptr<Mutex>) -> impl Future<Output = ()> {
        self.take(lock.value(), LockKind::Mutex, Some("mutex_lock"))
    }
    /// `mutex_unlock`.
    pub fn mutex_unlock(&self, lock: Ptr<Mutex>) -> impl Future<Output = ()> {
        self.release(lock.value(), LockKind::Mutex)
    }
    /// `spin_lock`: the holder must not sleep.
    pub fn spin_lock(&self, lock: Ptr<SpinLock>) -> impl Future<Output = ()> {
        self.take(lock.value(), LockKind::Spin, None)
    }
    /// `spin_unlock`.
    pub fn spin_unlock(&self, lock: Ptr<SpinLock>) -> impl Future<Output = ()> {
        self.release(lock.value(), LockKind::Spin)
    }
    /// `down_read`.
    pub fn down_read(&self, lock: Ptr<RwSem>) -> impl Future<Output = ()> {
        self.take(lock.value(), LockKind::Read, Some("down_read"))
    }
    /// `up_read`.
    pub fn up_read(&self, lock: Ptr<RwSem>) -> impl Future<Output = ()> {
        self.release(lock.value(), LockKind::Read)
    }
    /// `down_write`.
    pub fn down_write(&self, lock: Ptr<RwSem>) -> impl Future<Output = ()> {
        self.take(lock.value(), LockKind::Write, Some("down_write"))
    }
    /// `up_write`.
    pub fn up_write(&self, lock: Ptr<RwSem>) -> impl Future<Output = ()> {
        self.release(lock.value(), LockKind::Write)
    }

    /// Takes a lock; `sleeps` names the function where the taker may have to sleep.
    async fn take(&self, va: u64, kind: LockKind, sleeps: Option<&'static str>) {
        if let Some(what) = sleeps {
            self.might_sleep(what);
        }
        let word: Ptr<u64> = Ptr::new(va);
        let pa = word.pa();
        loop {
            let (_, shared) = self.machine.reach(va, self.id());
            if shared {
                self.step(Op::new(OpKind::Lock, Object(pa.0), 8)).await;
            } else {
                self.machine.settle_quiet(self.id());
            }
            let mine = u64::from(self.id().0) + 1;
            let Some(seen) = self.read_now(word) else { match self.dead().await {} };
            self.judge_lock(pa, kind);
            let new = match kind {
                LockKind::Mutex | LockKind::Spin => (seen == 0).then_some(mine),
                LockKind::Read => (seen & WRITER == 0).then_some(seen + 1),
                LockKind::Write => (seen == 0).then_some(WRITER),
            };
            if let Some(new) = new {
                if !self.write_now(word, new) {
                    match self.dead().await {}
                }
                self.machine.core.charge(self.machine.costs.atomic);
                self.machine.locks.borrow_mut().take(self.id(), Held { lock: pa, kind });
                self.machine.emit(EventKind::Locked { pa, kind });
                self.machine.with_races(|races| races.acquire(self.id(), pa));
                return;
            }
            if kind != LockKind::Read && self.machine.locks.borrow().held_by(self.id()).iter().any(|held| held.lock == pa) {
                let details = vec![format!("{kind:?} lock at pa {:#x}", pa.0)];
                self.machine.violate("LOCK", "recursive locking".to_owned(), details);
            }
            self.machine.core.block(Object(pa.0)).await;
        }
    }

    async fn release(&self, va: u64, kind: LockKind) {
        let word: Ptr<u64> = Ptr::new(va);
        let pa = word.pa();
        let (_, shared) = self.machine.reach(va, self.id());
        // A spinlock is released by a plain store, the others by an atomic operation.
        let buffered = shared && kind == LockKind::Spin && self.machine.buffers_stores();
        if shared && !buffered {
            self.step(Op::new(OpKind::Unlock, Object(pa.0), 8)).await;
        } else if !shared {
            self.machine.settle_quiet(self.id());
        }
        let Some(seen) = self.read_now(word) else { match self.dead().await {} };
        if self.machine.locks.borrow_mut().drop_held(self.id(), pa).is_none() {
            let details = vec![format!("{kind:?} lock at pa {:#x}", pa.0)];
            self.machine.violate("LOCK", "unlock of a lock that is not held".to_owned(), details);
        }
        let new = if kind == LockKind::Read { seen.wrapping_sub(1) } else { 0 };
        self.machine.with_races(|races| races.release(self.id(), pa));
        if buffered {
            while self.store_buffer_is_full() {
                self.machine.core.block(Object::store_buffer(self.id())).await;
            }
            if let Err(bad) = self.buffer_store(va, 8, new, Flavor::Atomic, true) {
                self.bad_lock(va, bad);
                match self.dead().await {}
            }
            self.machine.emit(EventKind::Unlocked { pa, kind });
            return;
        }
        if !self.write_now(word, new) {
            match self.dead().await {}
        }
        self.machine.emit(EventKind::Unlocked { pa, kind });
        self.machine.core.wake(Object(pa.0));
    }

    fn judge_lock(&self, pa: Pa, kind: LockKind) {
        let version = version_at(&self.machine.memory(), pa);
        let known = self.machine.locks.borrow().initialised.get(&pa.0).copied();
        if known != Some(version) {
            let mut details = vec![format!("{kind:?} lock at pa {:#x}", pa.0)];
            details.extend(self.machine.describe(pa));
            self.machine.violate("LOCK", "lock was never initialised".to_owned(), details);
        }
    }

    /// Reads inside the step at hand; none, and a finding, where the lock lies in bad memory.
    fn read_now(&self, at: Ptr<u64>) -> Option<u64> {
        let read = self.machine.perform_load(at.value(), 8, Flavor::Atomic, true);
        read.map_err(|bad| self.bad_lock(at.value(), bad)).ok()
    }

    /// Writes inside the step at hand; false, and a finding, where the lock lies in bad memory.
    fn write_now(&self, at: Ptr<u64>, value: u64) -> bool {
        let written = self.machine.perform_store(at.value(), 8, value, Flavor::Atomic, self.id());
        written.map_err(|bad| self.bad_lock(at.value(), bad)).is_ok()
    }

    #[cold]
    fn bad_lock(&self, va: u64, bad: crate::memory::Bad) {
        let details = match self.machine.memory().direct_map(va) {
            Ok(pa) => self.machine.describe(pa),
            Err(_) => Vec::new(),
        };
        self.machine.violate("LIFE", format!("{} in lock operation", bad.title()), details);
    }

    /// `refcount_set`.
    pub fn refcount_set(&self, at: Ptr<Refcount>, value: u32) -> Store<'_> {
        self.write_once(at.cast::<u32>(), value)
    }
    /// `refcount_read`.
    pub fn refcount_read(&self, at: Ptr<Refcount>) -> Read<'_, u32> {
        self.read_once(at.cast::<u32>())
    }
    /// `refcount_inc`. Returns false, and leaves the count saturated, when it was 0: the kernel warns of a use after free.
    pub async fn refcount_inc(&self, at: Ptr<Refcount>) -> bool {
        let old = self.rmw(at.cast::<u32>(), |old| Some(if old == 0 { 0xc000_0000 } else { old + 1 })).await;
        old != 0
    }
    /// `refcount_inc_not_zero`.
    pub async fn refcount_inc_not_zero(&self, at: Ptr<Refcount>) -> bool {
        self.rmw(at.cast::<u32>(), |old| (old != 0).then_some(old.wrapping_add(1))).await != 0
    }
    /// `refcount_dec_and_test`: `Ok(true)` at zero; `Err(())` on underflow, where the kernel warns and saturates.
    ///
    /// # Errors
    /// The count was 0 already.
    pub async fn refcount_dec_and_test(&self, at: Ptr<Refcount>) -> Result<bool, Underflow> {
        let old = self.rmw(at.cast::<u32>(), |old| Some(if old == 0 { 0xc000_0000 } else { old - 1 })).await;
        if old == 0 { Err(Underflow) } else { Ok(old == 1) }
    }

    /// `wait_event(queue, condition)`, one turn: sleeps until somebody wakes `queue`. The caller tests its condition around it.
    pub async fn sleep_on(&self, queue: Ptr<WaitQueue>) {
        self.might_sleep("wait_event");
        if self.catch_up() {
            return;
        }
        self.machine.core.block(Object(queue.pa().0)).await;
        self.machine.with_races(|races| races.acquire(self.id(), queue.pa()));
    }
    /// `wake_up_all(queue)`.
    pub async fn wake_up(&self, queue: Ptr<WaitQueue>) {
        self.step(Op::new(OpKind::Write, Object(queue.pa().0), 8)).await;
        self.machine.with_races(|races| races.release(self.id(), queue.pa()));
        self.machine.core.wake(Object(queue.pa().0));
    }
}

/// A refcount was decremented below zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Underflow;
