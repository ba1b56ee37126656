//! Locating the device context: steps 1 to 9 of "Process to translate an IOVA", and "Process to locate the
//! Device-context".

use super::cache::directory::{DeviceEntry, DirectoryNode};
use super::cache::iotlb::is_widest_guest_physical;
use super::cache::space::Space;
use super::context::{DeviceContext, Stage};
use super::id::{DeviceId, Pscid};
use super::request::AddressKind;
use super::unit::Unit;
use super::walk::{Origin, Step};
use crate::addr::{Pa, Pasid, Pfn};
use crate::decision::{Decisions, Question};
use crate::request::{CacheKind, Progress};
use crate::spec::riscv::device_context::{DEVICE_ID_BITS, DIRECTORY_ENTRY_BYTES, DirectoryEntry};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::process_context::INDEX_BITS;
use crate::spec::riscv::register::{MODE_1LVL, MODE_2LVL, MODE_3LVL, MODE_BARE, MODE_OFF};

/// What follows once the device context is known.
enum After {
    /// The address passes as it is.
    Pass,
    /// A page request goes into its queue.
    PageRequest,
    /// The next step of the walk.
    Go,
}

/// Levels of the device directory for an iommu_mode.
pub(crate) const fn directory_levels(mode: u8) -> u8 {
    match mode {
        MODE_1LVL => 1,
        MODE_2LVL => 2,
        MODE_3LVL => 3,
        _ => 0,
    }
}

/// Bits of an id below those that index the table of `level`.
pub(crate) const fn bits_below(index_bits: [u32; 3], level: u8) -> u32 {
    let mut bits = 0;
    let mut at = 0;
    while at < level as usize {
        bits += index_bits[at];
        at += 1;
    }
    bits
}

impl Unit {
    /// Bits of the longest device_id that the mode in use takes.
    pub(crate) fn device_bits(&self) -> u32 {
        match directory_levels(self.directory.mode()) {
            0 => DEVICE_ID_BITS,
            levels => bits_below(self.cap.device_index_bits(), levels),
        }
    }

    /// Steps 1 to 5, and the look-up of the device context.
    #[inline]
    pub(crate) fn begin_walk(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let mode = self.directory.mode();
        let walk = self.walkers.at(slot);
        walk.step = Step::Begin;
        let device = walk.request.device;
        if mode <= MODE_BARE {
            return self.begin_without_directory(slot, mode, d);
        }
        if device.0 >> self.device_bits() != 0 {
            return self.fault(slot, Cause::TYPE_DISALLOWED, 0, 0, d);
        }
        let cost = self.params.timing.context_lookup;
        let Some(entry) = self.caches.devices.lookup(DeviceEntry::key_of(device)) else { return self.miss_device(slot, device, cost) };
        let walk = self.walkers.at(slot);
        walk.context = entry.context;
        walk.words = entry.provenance;
        self.caches.words.hold(walk.words);
        match self.enter_device(slot) {
            Err(cause) => self.fault(slot, cause, 0, cost, d),
            Ok(After::Pass) => self.pass(slot, cost),
            Ok(After::PageRequest) => self.end_page_request(slot, None, cost, d),
            Ok(After::Go) => {
                self.walkers.at(slot).spend(cost);
                Progress::Lookup { cache: CacheKind::Context, hit: true, cost }
            }
        }
    }

    /// Steps 1 and 2.
    fn begin_without_directory(&mut self, slot: usize, mode: u8, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        if mode == MODE_OFF {
            return self.fault(slot, Cause::ALL_DISALLOWED, 0, 0, d);
        }
        if matches!(walk.origin, Origin::PageRequest { .. }) || walk.request.kind != AddressKind::Untranslated {
            return self.fault(slot, Cause::TYPE_DISALLOWED, 0, 0, d);
        }
        let cost = self.params.timing.bypass;
        let (pa, debugs) = (Pa(walk.request.iova.0), walk.origin == Origin::Debug);
        if debugs {
            return self.pass(slot, cost);
        }
        self.end(slot);
        Progress::Untranslated { pa, cost }
    }

    /// Nothing is cached of the context; perhaps of what leads to it.
    #[cold]
    fn miss_device(&mut self, slot: usize, device: DeviceId, cost: u32) -> Progress {
        let levels = directory_levels(self.directory.mode());
        let index_bits = self.cap.device_index_bits();
        let walk = self.walkers.at(slot);
        (walk.table, walk.level) = (Pfn(self.directory.ppn()).pa(), levels - 1);
        for level in 1..levels {
            let key = DirectoryNode::key_of(None, level, device.0 >> bits_below(index_bits, level));
            if let Some(node) = self.caches.device_nodes.lookup(key) {
                (walk.table, walk.level) = (node.table, level - 1);
                walk.words = node.provenance;
                self.caches.words.hold(walk.words);
                break;
            }
        }
        walk.step = Step::Device;
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Context, hit: false, cost }
    }

    /// "Process to locate the Device-context", steps 3 and 8, the request.
    pub(crate) fn fetch_device(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let index_bits = self.cap.device_index_bits();
        let walk = self.walkers.at(slot);
        let index = index_of(walk.request.device.0, index_bits, walk.level);
        let (bytes, cost) = match walk.level {
            0 => (self.cap.context_bytes(), self.params.timing.context_fetch),
            _ => (DIRECTORY_ENTRY_BYTES, self.params.timing.root_fetch),
        };
        let pa = walk.table.offset(index * bytes);
        self.fetch(slot, pa, cost, d)
    }

    /// Steps 5 to 7.
    pub(crate) fn consume_device_node(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let entry = DirectoryEntry::from_bits(word);
        if !entry.valid() {
            return self.fault(slot, Cause::DDT_INVALID, 0, 0, d);
        }
        if entry.reserved_1() != 0 || entry.reserved_54() != 0 {
            return self.fault(slot, Cause::DDT_MISCONFIGURED, 0, 0, d);
        }
        let index_bits = self.cap.device_index_bits();
        let walk = self.walkers.at(slot);
        let (level, table) = (walk.level, Pfn(entry.ppn()).pa());
        let below = bits_below(index_bits, level);
        let device = walk.request.device.0;
        let node = DirectoryNode { device: DeviceId(device >> below << below), process: None, level, table, provenance: walk.words };
        (walk.table, walk.level) = (table, level - 1);
        let key = DirectoryNode::key_of(None, level, device >> below);
        self.caches.device_nodes.install(key, node, &mut self.caches.words, d, |ways| Question::EvictContext { ways });
        self.fetch_device(slot, d)
    }

    /// Steps 9 to 11.
    pub(crate) fn consume_device_context(&mut self, slot: usize, words: &[u64; 8], d: &mut dyn Decisions) -> Progress {
        let context = match DeviceContext::decode(words, &self.cap) {
            Ok(context) => context,
            Err(cause) => return self.fault(slot, cause, 0, 0, d),
        };
        let walk = self.walkers.at(slot);
        walk.context = context;
        let device = walk.request.device;
        let entry = DeviceEntry { device, context, provenance: walk.words };
        let key = DeviceEntry::key_of(device);
        self.caches.devices.install(key, entry, &mut self.caches.words, d, |ways| Question::EvictContext { ways });
        match self.enter_device(slot) {
            Err(cause) => self.fault(slot, cause, 0, 0, d),
            Ok(After::Pass) => self.pass(slot, self.params.timing.bypass),
            Ok(After::PageRequest) => self.end_page_request(slot, None, 0, d),
            Ok(After::Go) => self.step(slot, None, d),
        }
    }

    /// Steps 7 to 13: the context of `walk` is known.
    #[inline]
    fn enter_device(&mut self, slot: usize) -> Result<After, Cause> {
        let walk = self.walkers.at(slot);
        walk.has_device = true;
        let (context, request) = (&walk.context, &walk.request);
        if let Origin::PageRequest { .. } = walk.origin {
            return if context.ats && context.page_requests { Ok(After::PageRequest) } else { Err(Cause::TYPE_DISALLOWED) };
        }
        if request.kind != AddressKind::Untranslated && !context.ats {
            return Err(Cause::TYPE_DISALLOWED);
        }
        if let Some(process) = request.process {
            // Only a directory's levels are index bits of a process_id.
            let fits = || context.first.is_bare() || process.0 >> bits_below(INDEX_BITS, context.first.levels) == 0;
            if !context.has_directory || !fits() {
                return Err(Cause::TYPE_DISALLOWED);
            }
        }
        if request.kind == AddressKind::Translated {
            if !context.t2gpa {
                return Ok(After::Pass);
            }
            walk.first = Stage::BARE;
        } else if !context.has_directory {
            walk.first = context.first;
        } else {
            if walk.process.is_none() && context.default_process {
                walk.process = Some(Pasid(0));
            }
            walk.first = Stage::BARE;
            if walk.process.is_some() && !context.first.is_bare() {
                walk.step = Step::ProcessLookup;
                walk.keep_base(&mut self.caches.words);
                return Ok(After::Go);
            }
        }
        let pscid = walk.context.pscid;
        self.enter_stages(slot, pscid);
        Ok(After::Go)
    }

    /// Both stages are known: the tag of what is cached of the request.
    #[inline]
    pub(crate) fn enter_stages(&mut self, slot: usize, pscid: Pscid) {
        let walk = self.walkers.at(slot);
        walk.step = Step::Iotlb;
        walk.space = match (walk.context.guest(), walk.first.is_bare()) {
            (None, true) => None,
            (None, false) => Some(Space::Host(pscid)),
            (Some(gscid), false) => Some(Space::Guest(gscid, pscid)),
            (Some(gscid), true) if walk.context.is_message(walk.request.iova.0) => {
                // Beyond the widest second stage nothing is cached.
                is_widest_guest_physical(walk.request.iova.0).then_some(Space::GuestMessages(gscid))
            }
            (Some(gscid), true) => Some(Space::GuestPhysical(gscid)),
        };
    }
}

/// The part of an id that indexes the table of `level`.
pub(crate) const fn index_of(id: u32, index_bits: [u32; 3], level: u8) -> u64 {
    let below = bits_below(index_bits, level);
    ((id >> below) & ((1 << index_bits[level as usize]) - 1)) as u64
}
