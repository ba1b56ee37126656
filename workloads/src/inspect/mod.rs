//! stub
use std::{cell::RefCell, rc::Rc};
pub struct Snapshotter;
impl Snapshotter {
    pub fn new(
        _m: &str,
        _r: crate::revision::Revision,
        _t: &Rc<crate::topology::Topology>,
        _o: Rc<RefCell<Vec<(String, String)>>>,
    ) -> Self {
        Snapshotter
    }
}
impl sim::oracle::Oracle for Snapshotter {
    fn name(&self) -> &'static str {
        ""
    }
    fn interests(&self) -> u32 {
        0
    }
    fn on_event(&mut self, _: &sim::trace::Event, _: &sim::oracle::View<'_>) -> Option<sim::oracle::Finding> {
        None
    }
}
