//! Locating the process context: steps 14 to 16 of "Process to translate an IOVA", and "Process to locate the
//! Process-context". On a second stage every address of the directory goes through it, as a read.

use super::cache::directory::{DirectoryNode, ProcessEntry};
use super::context::ProcessContext;
use super::device_walk::{bits_below, index_of};
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{Pa, Pasid, Pfn};
use crate::decision::{Decisions, Question};
use crate::request::{CacheKind, Progress};
use crate::spec::riscv::device_context::{DIRECTORY_ENTRY_BYTES, DirectoryEntry};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::process_context::{INDEX_BITS, PROCESS_CONTEXT_BYTES};

impl Unit {
    /// The look-up of the process context.
    pub(crate) fn look_up_process(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let cost = self.params.timing.pasid_lookup;
        let walk = self.walkers.at(slot);
        let device = walk.request.device;
        let process = walk.process.unwrap_or(Pasid(0));
        let words = &mut self.caches.words;
        if let Some(entry) = self.caches.processes.lookup(ProcessEntry::key_of(device, process)) {
            let context = entry.context;
            words.hold(entry.provenance);
            words.release(core::mem::replace(&mut walk.words, entry.provenance));
            if let Err(cause) = self.enter_process(slot, context) {
                return self.fault(slot, cause, 0, cost, d);
            }
            self.walkers.at(slot).spend(cost);
            return Progress::Lookup { cache: CacheKind::Pasid, hit: true, cost };
        }
        let levels = walk.context.first.levels;
        (walk.table, walk.level) = (walk.context.first.root, levels - 1);
        for level in 1..levels {
            let key = DirectoryNode::key_of(Some(device), level, process.0 >> bits_below(INDEX_BITS, level));
            if let Some(node) = self.caches.process_nodes.lookup(key) {
                (walk.table, walk.level) = (node.table, level - 1);
                words.hold(node.provenance);
                words.release(core::mem::replace(&mut walk.words, node.provenance));
                break;
            }
        }
        walk.step = Step::Process;
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Pasid, hit: false, cost }
    }

    /// "Process to locate the Process-context", steps 2, 4 and 9, the request.
    pub(crate) fn fetch_process(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let process = walk.process.unwrap_or(Pasid(0));
        let bytes = if walk.level == 0 { PROCESS_CONTEXT_BYTES } else { DIRECTORY_ENTRY_BYTES };
        let address = walk.table.offset(index_of(process.0, INDEX_BITS, walk.level) * bytes);
        walk.step = Step::Process;
        if walk.context.second.is_bare() {
            let cost = self.process_cost(slot);
            return self.fetch(slot, address, cost, d);
        }
        self.begin_second(slot, address.0, Purpose::Process, d)
    }

    /// The second stage has found where the entry lies.
    pub(crate) fn fetch_process_at(&mut self, slot: usize, pa: Pa, spent: u32, d: &mut dyn Decisions) -> Progress {
        self.walkers.at(slot).step = Step::Process;
        let cost = self.process_cost(slot).saturating_add(spent);
        self.fetch(slot, pa, cost, d)
    }

    fn process_cost(&mut self, slot: usize) -> u32 {
        let timing = &self.params.timing;
        if self.walkers.at(slot).level == 0 { timing.pasid_fetch } else { timing.directory_fetch }
    }

    /// Steps 6 to 8.
    pub(crate) fn consume_process_node(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let entry = DirectoryEntry::from_bits(word);
        if !entry.valid() {
            return self.fault(slot, Cause::PDT_INVALID, 0, 0, d);
        }
        if entry.reserved_1() != 0 || entry.reserved_54() != 0 {
            return self.fault(slot, Cause::PDT_MISCONFIGURED, 0, 0, d);
        }
        let walk = self.walkers.at(slot);
        let (level, table, device) = (walk.level, Pfn(entry.ppn()).pa(), walk.request.device);
        let below = bits_below(INDEX_BITS, level);
        let prefix = walk.process.unwrap_or(Pasid(0)).0 >> below;
        let node = DirectoryNode { device, process: Some(Pasid(prefix << below)), level, table, provenance: walk.words };
        (walk.table, walk.level) = (table, level - 1);
        let key = DirectoryNode::key_of(Some(device), level, prefix);
        self.caches.process_nodes.install(key, node, &mut self.caches.words, d, |ways| Question::EvictPasid { ways });
        self.fetch_process(slot, d)
    }

    /// Steps 10 to 12.
    pub(crate) fn consume_process_context(&mut self, slot: usize, words: [u64; 2], d: &mut dyn Decisions) -> Progress {
        let context = match ProcessContext::decode(words, &self.cap) {
            Ok(context) => context,
            Err(cause) => return self.fault(slot, cause, 0, 0, d),
        };
        let walk = self.walkers.at(slot);
        let (device, process) = (walk.request.device, walk.process.unwrap_or(Pasid(0)));
        let entry = ProcessEntry { device, process, context, provenance: walk.words };
        let key = ProcessEntry::key_of(device, process);
        self.caches.processes.install(key, entry, &mut self.caches.words, d, |ways| Question::EvictPasid { ways });
        match self.enter_process(slot, context) {
            Err(cause) => self.fault(slot, cause, 0, 0, d),
            Ok(()) => self.look_up_iotlb(slot, 0, d),
        }
    }

    /// Steps 15 and 16.
    fn enter_process(&mut self, slot: usize, context: ProcessContext) -> Result<(), Cause> {
        let walk = self.walkers.at(slot);
        walk.has_process = true;
        if walk.request.is_supervisor() && !context.supervisor {
            return Err(Cause::TYPE_DISALLOWED);
        }
        walk.supervisor_user_memory = context.supervisor_user_memory;
        walk.first = context.first;
        self.enter_stages(slot, context.pscid);
        Ok(())
    }
}
