//! CPUs: what a program under test can do to memory, one announced step at a time.
//!
//! A [`Cpu`] is the handle one program runs on. Plain, once, ordered and atomic accesses are told apart; memory that only this
//! program can reach is accessed without a scheduling point (the shadow decides). A bad access ends the run as an oops.

mod load;
mod rmw;
mod step;
mod store;
mod task;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use iommu_model::addr::Pa;

use crate::engine::{ActorId, ChoiceKind, Object, Op};
use crate::machine::{Machine, StopKind};
use crate::memory::{Bad, Ptr, Scalar};
use crate::trace::Flavor;

use load::Load;
pub use load::Read;
pub use rmw::Rmw;
pub use step::{Dead, Step};
pub use store::Store;
pub use task::Started;

/// A program's handle on the machine. Cloning gives another handle of the same program.
#[derive(Clone)]
pub struct Cpu {
    /// The machine.
    pub machine: Rc<Machine>,
    id: Rc<Cell<ActorId>>,
}

impl Cpu {
    pub(crate) fn new(machine: Rc<Machine>) -> Cpu {
        Cpu { machine, id: Rc::new(Cell::new(ActorId(0))) }
    }

    pub(crate) fn assume(&self, id: ActorId) {
        self.id.set(id);
    }

    /// The actor this program is.
    pub fn id(&self) -> ActorId {
        self.id.get()
    }

    /// Announces `op` and waits to be picked. Under a memory model this is a full barrier, except for a pause: what is done in a
    /// step announced by hand is done on memory as everybody sees it.
    #[inline]
    pub fn step(&self, op: Op) -> Step<'_> {
        Step::new(self, op)
    }

    /// A voluntary pause (`cpu_relax`, `cond_resched`).
    pub fn relax(&self) -> Step<'_> {
        self.step(Op::pause())
    }

    /// Never returns: the program does nothing any more.
    pub fn dead(&self) -> Dead<'_> {
        Dead::new(self)
    }

    /// `BUG()`: the kernel stops. `title` names function and condition.
    pub async fn bug(&self, title: &str) -> Infallible {
        self.machine.stop(StopKind::Bug, title);
        self.dead().await
    }

    /// `BUG_ON(condition)`.
    pub async fn bug_on(&self, condition: bool, title: &str) {
        if condition {
            self.bug(title).await;
        }
    }

    /// `panic()`: the kernel stops.
    pub async fn panic(&self, title: &str) -> Infallible {
        self.machine.stop(StopKind::Panic, title);
        self.dead().await
    }

    /// Reports a bad access; the program is to end.
    #[cold]
    fn oops(&self, va: u64, bytes: u8, store: bool, bad: Bad) {
        let what = if store { "write" } else { "read" };
        let mut details = vec![format!("{what} of {bytes} bytes at {va:#x}")];
        let pa = self.machine.memory().direct_map(va);
        if let Ok(pa) = pa {
            details.extend(self.machine.describe(pa));
        }
        self.machine.violate("LIFE", format!("{} in {what}", bad.title()), details);
    }

    /// Plain load.
    #[inline]
    pub fn read<T: Scalar>(&self, at: Ptr<T>) -> Read<'_, T> {
        Read::new(self, at.value(), Flavor::Plain)
    }
    /// Plain store.
    #[inline]
    pub fn write<T: Scalar>(&self, at: Ptr<T>, value: T) -> Store<'_> {
        Store::new(self, at.value(), T::BYTES, value.to_bits(), Flavor::Plain)
    }
    /// `READ_ONCE`.
    #[inline]
    pub fn read_once<T: Scalar>(&self, at: Ptr<T>) -> Read<'_, T> {
        Read::new(self, at.value(), Flavor::Once)
    }
    /// `WRITE_ONCE`.
    #[inline]
    pub fn write_once<T: Scalar>(&self, at: Ptr<T>, value: T) -> Store<'_> {
        Store::new(self, at.value(), T::BYTES, value.to_bits(), Flavor::Once)
    }
    /// `smp_load_acquire`.
    #[inline]
    pub fn load_acquire<T: Scalar>(&self, at: Ptr<T>) -> Read<'_, T> {
        Read::new(self, at.value(), Flavor::Ordered)
    }
    /// `smp_store_release`.
    #[inline]
    pub fn store_release<T: Scalar>(&self, at: Ptr<T>, value: T) -> Store<'_> {
        Store::new(self, at.value(), T::BYTES, value.to_bits(), Flavor::Ordered)
    }

    /// Atomic read-modify-write in one step; returns the old value. `change` gives the new value, or none to leave it.
    #[inline]
    pub fn rmw<T: Scalar, F: FnOnce(T) -> Option<T> + Unpin>(&self, at: Ptr<T>, change: F) -> Rmw<'_, T, F> {
        Rmw::new(self, at, change)
    }

    /// `cmpxchg`: stores `new` if the word is `old`; returns what was there.
    pub fn cmpxchg<T: Scalar + PartialEq + Unpin>(&self, at: Ptr<T>, old: T, new: T) -> impl Future<Output = T> {
        self.rmw(at, move |seen| (seen == old).then_some(new))
    }
    /// `xchg`.
    pub fn xchg<T: Scalar + Unpin>(&self, at: Ptr<T>, new: T) -> impl Future<Output = T> {
        self.rmw(at, move |_| Some(new))
    }

    /// Waits until the word at `at` satisfies `done`, reading it once a change: a spin loop without the spinning.
    pub async fn spin_until<T: Scalar>(&self, at: Ptr<T>, done: impl Fn(T) -> bool) -> T {
        loop {
            let value = self.read_once(at).await;
            if done(value) {
                return value;
            }
            if !self.catch_up() {
                self.machine.core.block(Object(at.pa().0 & !7)).await;
            }
        }
    }

    /// `memset`: one store a word where others can see it, ascending or descending as the policy chooses; at once where not.
    pub async fn memset<T>(&self, at: Ptr<T>, word: u64, bytes: u64) {
        let nr = bytes / 8;
        let (_, shared) = self.machine.reach(at.value(), self.id());
        let descending = shared && nr > 1 && self.machine.core.choose(ChoiceKind::Hardware, 2) == 1;
        for i in 0..nr {
            let i = if descending { nr - 1 - i } else { i };
            self.write(at.byte_add::<u64>(i * 8), word).await;
        }
        for i in nr * 8..bytes {
            self.write(at.byte_add::<u8>(i), word as u8).await;
        }
    }

    /// Clears a frame-aligned block that was just allocated: at once while nobody else can reach it, word by word otherwise.
    pub async fn clear_frames<T>(&self, at: Ptr<T>, bytes: u64) {
        let (pa, shared) = self.machine.reach(at.value(), self.id());
        match pa {
            Some(pa) if !shared => {
                self.machine.settle_quiet(self.id());
                for offset in (0..bytes).step_by(4096) {
                    self.machine.fill_at_once(Pa(pa.0 + offset), 4096.min(bytes - offset), 0);
                }
            }
            _ => self.memset(at, 0, bytes).await,
        }
    }

    /// `memcpy` of whole words: one load and one store a word, ascending or descending as the policy chooses. Undefined words are
    /// copied, not judged.
    pub async fn memcpy<T, U>(&self, to: Ptr<T>, from: Ptr<U>, bytes: u64) {
        let nr = bytes / 8;
        let (_, shared) = self.machine.reach(to.value(), self.id());
        let descending = shared && nr > 1 && self.machine.core.choose(ChoiceKind::Hardware, 2) == 1;
        for i in 0..nr {
            let i = if descending { nr - 1 - i } else { i };
            let word = Load::new(self, from.value() + i * 8, 8, Flavor::Plain, false).await;
            Store::new(self, to.value() + i * 8, 8, word, Flavor::Plain).await;
        }
    }
}
