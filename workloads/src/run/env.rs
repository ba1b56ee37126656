//! What lies outside the kernels of a run: the scenario, the plan, the next kernel's image, what VMMs tell their successors.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use super::RunSpec;
use crate::defect::Defects;
use crate::host::Mailbox;
use crate::revision::Revision;
use crate::scenario::{Plan, Scenario};
use crate::userspace::VmState;

/// See the module.
pub struct Env {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// What was drawn.
    pub plan: Plan,
    /// Revision of generation 0.
    pub outgoing: Revision,
    /// Revision of all later generations.
    pub incoming: Revision,
    /// Planted defects.
    pub defects: Defects,
    /// The host level, when it issues the calls.
    pub host: Option<Rc<Mailbox>>,
    /// The reboot that is to fail late has not come yet.
    kexec_fails: Cell<bool>,
    vms: RefCell<Vec<VmState>>,
}

impl Env {
    /// The environment of a run.
    pub fn new(spec: &RunSpec, plan: Plan, host: Option<Rc<Mailbox>>) -> Env {
        let vms = RefCell::new(plan.vms.iter().map(|_| VmState::default()).collect());
        let kexec_fails = Cell::new(plan.kexec_fails);
        Env {
            kexec_fails,
            scenario: spec.scenario,
            plan,
            outgoing: spec.outgoing,
            incoming: spec.incoming,
            defects: spec.defects,
            host,
            vms,
        }
    }

    /// True once, where the plan has the first reboot fail after it has serialised.
    pub(crate) fn kexec_fails(&self) -> bool {
        self.kexec_fails.replace(false)
    }

    /// State file of a VM.
    ///
    /// # Panics
    /// When there is no VM of this number.
    pub fn vm(&self, index: usize) -> RefMut<'_, VmState> {
        RefMut::map(self.vms.borrow_mut(), |vms| &mut vms[index])
    }
}
