//! Programs that start others and wait for their end.

use std::cell::Cell;
use std::rc::Rc;

use super::Cpu;
use crate::engine::{ActorId, Group, Life, Object, Op, OpKind};

/// What starting a program touches: two starts do not commute, since their order decides who gets which number.
const PROGRAMS: Object = Object::free_list(1 << 41);

/// A started program.
pub struct Started {
    id: ActorId,
    done: Rc<Cell<bool>>,
}

impl Started {
    /// The actor that it is.
    pub fn id(&self) -> ActorId {
        self.id
    }

    /// What waits for its end waits for this.
    fn ended(&self) -> Object {
        Object::free_list((1 << 42) + u64::from(self.id.0))
    }
}

impl Cpu {
    /// Starts another program in `group`: a step. It sees all that this one has stored.
    pub async fn start<F, P>(&self, name: &str, group: Group, program: P) -> Started
    where
        F: Future<Output = ()> + 'static,
        P: FnOnce(Cpu) -> F,
    {
        self.step(Op::new(OpKind::Alloc, PROGRAMS, 0)).await;
        let done = Rc::new(Cell::new(false));
        let ended = done.clone();
        let id = self.machine.spawn_from_step(name, group, Life::Finite, |cpu| {
            let own = cpu.clone();
            let program = program(cpu);
            async move {
                program.await;
                // Whoever waits for the end sees all stores.
                own.smp_mb().await;
                ended.set(true);
                own.machine.core.wake(Started { id: own.id(), done: ended }.ended());
            }
        });
        Started { id, done }
    }

    /// Waits until `program` has ended, and sees all that it has stored. Takes no step.
    pub async fn join(&self, program: &Started) {
        while !program.done.get() {
            self.machine.core.block(program.ended()).await;
        }
        self.order_after();
        // Also when nothing had to be waited for: no announcement says so.
        self.machine.core.follows(program.id);
        self.machine.with_races(|races| races.join(self.id(), program.id));
    }
}
