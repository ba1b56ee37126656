//! What waits: locks, condition variables, semaphores, barriers. Handles all of them; clones stand for the same thing.
//!
//! Who announces that it takes a lock can be picked only while the lock is free: no step is spent on an attempt that fails, and two
//! interleavings that differ by such attempts are one. None of them is fair, and nobody is woken without a cause.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::engine::{ActorId, ChoiceKind, Core, Object, Op, OpKind};

/// Who has announced that it passes, and who of them cannot now.
pub(super) struct Gate<W> {
    core: Rc<Core>,
    object: Object,
    waiting: RefCell<Vec<(ActorId, W)>>,
}

impl<W> Gate<W> {
    pub(super) fn new(core: Rc<Core>, object: Object) -> Gate<W> {
        Gate { core, object, waiting: RefCell::new(Vec::new()) }
    }

    /// Announces `op` and suspends until the caller is picked; it is not while it must not. `who` stands for the caller in
    /// [`Gate::close`].
    pub(super) async fn pass(&self, op: Op, may_pass: bool, who: W) {
        let me = self.core.current();
        self.waiting.borrow_mut().push((me, who));
        if !may_pass {
            self.core.withhold(me, self.object);
        }
        self.core.step(op.guarded()).await;
        self.waiting.borrow_mut().retain(|(actor, _)| *actor != me);
    }

    /// Of those that wait, nobody can pass any more for whom `may_pass` is false.
    pub(super) fn close(&self, may_pass: impl Fn(&W) -> bool) {
        for (actor, _) in self.waiting.borrow().iter().filter(|(_, who)| !may_pass(who)) {
            self.core.withhold(*actor, self.object);
        }
    }

    /// Everybody that waits may be picked again.
    pub(super) fn open(&self) {
        self.core.wake(self.object);
    }

    /// True while somebody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }
}

/// A sleeping lock. Who finds it held waits without steps until it is free. Clones are handles.
#[derive(Clone)]
pub struct Lock {
    inner: Rc<LockInner>,
}

struct LockInner {
    gate: Gate<()>,
    held: Cell<bool>,
}

impl Lock {
    pub(super) fn new(core: Rc<Core>, object: Object) -> Lock {
        Lock { inner: Rc::new(LockInner { gate: Gate::new(core, object), held: Cell::new(false) }) }
    }

    /// Takes the lock: one step, made when the lock is free.
    pub async fn lock(&self) {
        let LockInner { gate, held } = &*self.inner;
        gate.pass(Op::new(OpKind::Lock, gate.object, 8), !held.get(), ()).await;
        held.set(true);
        gate.close(|()| false);
    }

    /// Takes the lock if it is free: one step. False when it is held.
    pub async fn try_lock(&self) -> bool {
        let LockInner { gate, held } = &*self.inner;
        gate.core.step(Op::new(OpKind::Rmw, gate.object, 8)).await;
        let taken = !held.replace(true);
        if taken {
            gate.close(|()| false);
        }
        taken
    }

    /// Releases the lock: one step.
    ///
    /// # Panics
    /// When the lock is free: the program is wrong.
    pub async fn unlock(&self) {
        let LockInner { gate, held } = &*self.inner;
        gate.core.step(Op::new(OpKind::Unlock, gate.object, 8)).await;
        assert!(held.replace(false), "unlock of a free lock");
        gate.open();
    }
}

/// A lock that many readers or one writer hold. Writers have no precedence. What readers do to it commutes.
#[derive(Clone)]
pub struct RwLock {
    inner: Rc<RwLockInner>,
}

struct RwLockInner {
    gate: Gate<Mode>,
    /// Number of readers, or [`WRITER`].
    holders: Cell<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

const WRITER: u32 = u32::MAX;

impl RwLockInner {
    fn allows(&self, mode: Mode) -> bool {
        match mode {
            Mode::Read => self.holders.get() != WRITER,
            Mode::Write => self.holders.get() == 0,
        }
    }
}

impl RwLock {
    pub(super) fn new(core: Rc<Core>, object: Object) -> RwLock {
        RwLock { inner: Rc::new(RwLockInner { gate: Gate::new(core, object), holders: Cell::new(0) }) }
    }

    /// Takes the lock for reading: one step, made when no writer holds it.
    pub async fn read(&self) {
        self.acquire(Mode::Read).await;
    }

    /// Takes the lock for writing: one step, made when nobody holds it.
    pub async fn write(&self) {
        self.acquire(Mode::Write).await;
    }

    /// Releases the lock, however it was taken: one step.
    ///
    /// # Panics
    /// When the lock is free: the program is wrong.
    pub async fn unlock(&self) {
        let RwLockInner { gate, holders } = &*self.inner;
        let op = Op::new(OpKind::Unlock, gate.object, 8);
        // Who holds it stays the same until the holder is picked.
        gate.core.step(if holders.get() == WRITER { op } else { op.as_reader() }).await;
        holders.set(match holders.get() {
            0 => panic!("unlock of a free lock"),
            WRITER => 0,
            readers => readers - 1,
        });
        gate.open();
        gate.close(|mode| self.inner.allows(*mode));
    }

    async fn acquire(&self, mode: Mode) {
        let RwLockInner { gate, holders } = &*self.inner;
        let op = Op::new(OpKind::Lock, gate.object, 8);
        let op = if mode == Mode::Read { op.as_reader() } else { op };
        gate.pass(op, self.inner.allows(mode), mode).await;
        holders.set(if mode == Mode::Write { WRITER } else { holders.get() + 1 });
        gate.close(|mode| self.inner.allows(*mode));
    }
}

/// A condition variable, beside a [`Lock`]. Which of several waiters a signal wakes is a choice of the run.
#[derive(Clone)]
pub struct Condvar {
    core: Rc<Core>,
    object: Object,
    waiting: Rc<RefCell<Vec<u64>>>,
    nr_tickets: Rc<Cell<u64>>,
}

impl Condvar {
    pub(super) fn new(core: Rc<Core>, object: Object) -> Condvar {
        Condvar { core, object, waiting: Rc::default(), nr_tickets: Rc::default() }
    }

    /// Releases `lock`, waits for a signal, and takes `lock` again. One step to queue up, one to release, and one to take the lock; a signal that comes once the caller has queued up is not lost.
    ///
    /// # Panics
    /// When the lock is free: the program is wrong.
    pub async fn wait(&self, lock: &Lock) {
        self.core.step(Op::new(OpKind::Rmw, self.object, 8)).await;
        let ticket = self.nr_tickets.get();
        self.nr_tickets.set(ticket + 1);
        self.waiting.borrow_mut().push(ticket);
        lock.unlock().await;
        while self.waiting.borrow().contains(&ticket) {
            self.core.block(self.object).await;
        }
        lock.lock().await;
    }

    /// Wakes one waiter, if there is one: one step.
    pub async fn signal(&self) {
        self.core.step(Op::new(OpKind::Rmw, self.object, 8)).await;
        let nr = self.waiting.borrow().len();
        if nr > 0 {
            let nth = self.core.choose(ChoiceKind::Workload, nr as u32);
            self.waiting.borrow_mut().remove(nth as usize);
            self.core.wake(self.object);
        }
    }

    /// Wakes all waiters: one step.
    pub async fn broadcast(&self) {
        self.core.step(Op::new(OpKind::Rmw, self.object, 8)).await;
        self.waiting.borrow_mut().clear();
        self.core.wake(self.object);
    }
}

/// A counting semaphore.
#[derive(Clone)]
pub struct Semaphore {
    inner: Rc<SemaphoreInner>,
}

struct SemaphoreInner {
    gate: Gate<()>,
    permits: Cell<u32>,
}

impl Semaphore {
    pub(super) fn new(core: Rc<Core>, object: Object, permits: u32) -> Semaphore {
        Semaphore { inner: Rc::new(SemaphoreInner { gate: Gate::new(core, object), permits: Cell::new(permits) }) }
    }

    /// Takes a permit: one step, made when there is one.
    pub async fn acquire(&self) {
        let SemaphoreInner { gate, permits } = &*self.inner;
        gate.pass(Op::new(OpKind::Lock, gate.object, 8), permits.get() > 0, ()).await;
        permits.set(permits.get() - 1);
        gate.close(|()| permits.get() > 0);
    }

    /// Gives a permit back, or a new one: one step.
    pub async fn release(&self) {
        let SemaphoreInner { gate, permits } = &*self.inner;
        // No release of a lock: who acquires may well have been able to before.
        gate.core.step(Op::new(OpKind::Rmw, gate.object, 8)).await;
        permits.set(permits.get() + 1);
        gate.open();
    }
}

/// A meeting point that can be used again and again.
#[derive(Clone)]
pub struct Barrier {
    core: Rc<Core>,
    object: Object,
    nr_parties: u32,
    nr_arrived: Rc<Cell<u32>>,
    round: Rc<Cell<u32>>,
}

impl Barrier {
    pub(super) fn new(core: Rc<Core>, object: Object, nr_parties: u32) -> Barrier {
        Barrier { core, object, nr_parties, nr_arrived: Rc::default(), round: Rc::default() }
    }

    /// Waits until as many have come as the barrier is for: one step. True for the last to come.
    pub async fn wait(&self) -> bool {
        self.core.step(Op::new(OpKind::Rmw, self.object, 8)).await;
        let round = self.round.get();
        self.nr_arrived.set(self.nr_arrived.get() + 1);
        if self.nr_arrived.get() >= self.nr_parties {
            self.nr_arrived.set(0);
            self.round.set(round + 1);
            self.core.wake(self.object);
            return true;
        }
        while self.round.get() == round {
            self.core.block(self.object).await;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::World;
    use crate::engine::Burst;
    use crate::policy::{Exhaustive, PolicySpec};

    fn explored(setup: impl Fn(&World)) -> super::super::Explored {
        let explored = World::explore(&mut Exhaustive::new(), 200_000, 1000, setup);
        assert!(explored.complete, "{explored}");
        explored
    }

    #[test]
    fn a_signal_after_the_test_of_the_condition_is_not_lost() {
        // With the flag changed under the lock the waiter always ends.
        let explored = explored(|world| {
            let (lock, condvar, flag) = (world.lock(), world.condvar(), world.cell(false));
            let (lock2, condvar2, flag2) = (lock.clone(), condvar.clone(), flag.clone());
            world.spawn("waiter", async move {
                lock.lock().await;
                while !flag.get().await {
                    condvar.wait(&lock).await;
                }
                lock.unlock().await;
            });
            world.spawn("signaller", async move {
                lock2.lock().await;
                flag2.set(true).await;
                lock2.unlock().await;
                condvar2.signal().await;
            });
        });
        assert_eq!(explored.bugs, 0);
    }

    #[test]
    fn a_signal_that_nobody_waits_for_is_lost() {
        let explored = explored(|world| {
            let (lock, condvar) = (world.lock(), world.condvar());
            let condvar2 = condvar.clone();
            world.spawn("waiter", async move {
                lock.lock().await;
                condvar.wait(&lock).await;
                lock.unlock().await;
            });
            world.spawn("signaller", async move { condvar2.signal().await });
        });
        assert!(explored.bugs > 0 && explored.bugs < explored.runs, "{explored}");
    }

    #[test]
    fn a_signal_wakes_one_of_two_waiters_and_a_broadcast_both() {
        for all in [false, true] {
            let explored = explored(|world| {
                let (lock, condvar, queued) = (world.lock(), world.condvar(), world.semaphore(0));
                for name in ["one", "two"] {
                    let (lock, condvar, queued) = (lock.clone(), condvar.clone(), queued.clone());
                    world.spawn(name, async move {
                        lock.lock().await;
                        queued.release().await;
                        condvar.wait(&lock).await;
                        lock.unlock().await;
                    });
                }
                world.spawn("signaller", async move {
                    queued.acquire().await;
                    queued.acquire().await;
                    lock.lock().await;
                    if all {
                        condvar.broadcast().await
                    } else {
                        condvar.signal().await
                    }
                    lock.unlock().await;
                });
            });
            assert_eq!(explored.bugs, if all { 0 } else { explored.runs }, "{explored}");
        }
    }

    #[test]
    fn readers_share_a_lock_and_writers_do_not() {
        for write in [false, true] {
            let explored = explored(|world| {
                let (lock, inside) = (world.rwlock(), world.cell(0u32));
                for name in ["one", "two"] {
                    let (lock, inside, world) = (lock.clone(), inside.clone(), world.clone());
                    world.clone().spawn(name, async move {
                        if write {
                            lock.write().await
                        } else {
                            lock.read().await
                        }
                        let others = inside.fetch_add(1).await;
                        world.check(others == 0, "two at once");
                        inside.update(|inside| inside - 1).await;
                        lock.unlock().await;
                    });
                }
            });
            assert_eq!(explored.bugs > 0, !write, "{explored}");
        }
    }

    #[test]
    fn a_semaphore_lets_in_as_many_as_it_has_permits() {
        for (permits, full) in [(1, false), (2, true)] {
            let explored = explored(|world| {
                let (semaphore, inside) = (world.semaphore(permits), world.cell(0u32));
                for name in ["one", "two"] {
                    let (semaphore, inside, world) = (semaphore.clone(), inside.clone(), world.clone());
                    world.clone().spawn(name, async move {
                        semaphore.acquire().await;
                        world.check(inside.fetch_add(1).await == 0, "two at once");
                        inside.update(|inside| inside - 1).await;
                        semaphore.release().await;
                    });
                }
            });
            assert_eq!(explored.bugs > 0, full, "{explored}");
        }
    }

    #[test]
    fn nobody_passes_a_barrier_before_the_last_has_come() {
        for seed in 0..200 {
            let world = World::new(PolicySpec::Portfolio.build(seed, &Default::default(), Default::default()));
            let (barrier, arrived) = (world.barrier(3), world.cell(0u32));
            for name in ["one", "two", "three"] {
                let (barrier, arrived, world) = (barrier.clone(), arrived.clone(), world.clone());
                world.clone().spawn(name, async move {
                    for round in 1..=3 {
                        arrived.fetch_add(1).await;
                        barrier.wait().await;
                        world.check(arrived.peek() >= 3 * round, "passed too early");
                    }
                });
            }
            let outcome = world.run(1000);
            assert_eq!((outcome.burst, outcome.failure), (Burst::Finished, None));
        }
    }
}
