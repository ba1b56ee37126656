//! What an actor announces before it acts: an object, a size and a kind. Never a value.

use std::fmt;

/// Identifies one actor of a run, in spawn order. At most 250 actors live in a run, so that one recorded choice fits a byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ActorId(pub u8);

impl ActorId {
    /// Largest number of actors a run may spawn.
    pub const LIMIT: usize = 250;

    /// Position of this actor in tables indexed by actor.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}", self.0)
    }
}

/// The shared object an operation touches: an address in RAM, or a number in one of the address ranges above RAM that
/// [`Object::register`], [`Object::queue`] and [`Object::free_list`] hand out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Object(pub u64);

impl Object {
    const REGISTER: u64 = 1 << 56;
    const QUEUE: u64 = 2 << 56;
    const FREE_LIST: u64 = 3 << 56;
    const NOTHING: u64 = 4 << 56;
    const STORE_BUFFER: u64 = 5 << 56;

    /// A device register file, identified by unit number.
    pub const fn register(unit: u64) -> Object {
        Object(Self::REGISTER | unit << 12)
    }
    /// A queue inside a device (posted writes, requests), identified by device number.
    pub const fn queue(device: u64) -> Object {
        Object(Self::QUEUE | device << 12)
    }
    /// The free list of an allocator, identified by number.
    pub const fn free_list(allocator: u64) -> Object {
        Object(Self::FREE_LIST | allocator << 12)
    }
    /// The store buffer of a CPU, as its program waits for it.
    pub const fn store_buffer(cpu: ActorId) -> Object {
        Object(Self::STORE_BUFFER | (cpu.0 as u64) << 12)
    }
    /// The store buffer of a CPU, as the actor that drains it waits for it.
    pub const fn drain(cpu: ActorId) -> Object {
        Object(Self::STORE_BUFFER | (cpu.0 as u64) << 12 | 8)
    }
    /// No shared object: conflicts with nothing.
    pub const fn nothing() -> Object {
        Object(Self::NOTHING)
    }
    /// True for an object that is an address in RAM.
    pub const fn is_memory(self) -> bool {
        self.0 < Self::REGISTER
    }
}

/// What the announced operation does to its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OpKind {
    /// Load by a CPU.
    Read,
    /// Store by a CPU.
    Write,
    /// Atomic read-modify-write by a CPU.
    Rmw,
    /// Attempt to take a lock.
    Lock,
    /// Release of a lock.
    Unlock,
    /// Allocator call that takes memory.
    Alloc,
    /// Allocator call that gives memory back.
    Free,
    /// Fetch of a table or descriptor word by hardware.
    Fetch,
    /// Read by a DMA device.
    DmaRead,
    /// Landing of a DMA write, or a status write of an invalidation queue.
    DmaWrite,
    /// Access to a device register.
    Register,
    /// Voluntary pause: the actor has nothing urgent. Policies by priority put it last.
    Yield,
    /// A daemon begins a turn of its own accord and is ready for the next for ever: a device issues a request. Turns come by
    /// lottery beside any policy, so that a daemon neither starves others nor is starved; what follows is scheduled as usual.
    Turn,
    /// Start of an actor's or call's work; touches nothing.
    #[default]
    Begin,
}

impl OpKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [OpKind; 14] = [
        OpKind::Read,
        OpKind::Write,
        OpKind::Rmw,
        OpKind::Lock,
        OpKind::Unlock,
        OpKind::Alloc,
        OpKind::Free,
        OpKind::Fetch,
        OpKind::DmaRead,
        OpKind::DmaWrite,
        OpKind::Register,
        OpKind::Yield,
        OpKind::Turn,
        OpKind::Begin,
    ];

    /// True when the operation may change its object.
    pub const fn writes(self) -> bool {
        !matches!(self, OpKind::Read | OpKind::Fetch | OpKind::DmaRead | OpKind::Yield | OpKind::Turn | OpKind::Begin)
    }
}

/// One announced operation.
///
/// Two words, so that it travels in registers: it is written and read again within nanoseconds, several times a step, and a copy through
/// memory of fields that were stored one by one stalls the processor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Op {
    object: Object,
    /// Kind in bits 7:0, bytes in bits 23:8, in bit 24 whether the kind writes, in bit 25 whether it is [`OpKind::Turn`], in bit 26
    /// whether it may touch any memory, in bit 27 whether it may be withheld.
    rest: u64,
}

const WRITES: u64 = 1 << 24;
const TURN: u64 = 1 << 25;
const ALL_MEMORY: u64 = 1 << 26;
const GUARDED: u64 = 1 << 27;

impl Op {
    /// An operation of `kind` over `bytes` bytes at `object`.
    pub const fn new(kind: OpKind, object: Object, bytes: u16) -> Op {
        let flags = if kind.writes() { WRITES } else { 0 } | if matches!(kind, OpKind::Turn) { TURN } else { 0 };
        Op { object, rest: (bytes as u64) << 8 | kind as u64 | flags }
    }
    pub(super) const fn rest(self) -> u64 {
        self.rest
    }
    pub(super) const fn from_words(object: Object, rest: u64) -> Op {
        Op { object, rest }
    }
    /// The object.
    #[inline]
    pub const fn object(self) -> Object {
        self.object
    }
    /// Bytes touched, from the object's address on; 0 where it has no extent.
    #[inline]
    pub const fn bytes(self) -> u16 {
        (self.rest >> 8) as u16
    }
    /// What is done.
    #[inline]
    pub const fn kind(self) -> OpKind {
        OpKind::ALL[(self.rest & 0xff) as usize]
    }
    /// True when it is of this kind.
    #[inline]
    pub const fn is(self, kind: OpKind) -> bool {
        self.rest & 0xff == kind as u64
    }
    /// The same, except that it conflicts with every access to memory: it may touch any, or its place among all stores counts.
    pub const fn over_all_memory(self) -> Op {
        Op { object: self.object, rest: self.rest | WRITES | ALL_MEMORY }
    }
    /// The same, except that it may be [withheld](super::Core::withhold): it can be performed only while its object allows it.
    pub const fn guarded(self) -> Op {
        Op { object: self.object, rest: self.rest | GUARDED }
    }
    /// True when it may be withheld.
    #[inline]
    pub const fn is_guarded(self) -> bool {
        self.rest & GUARDED != 0
    }
    /// The same, except that it commutes with others like it and with reads: a lock taken or released by a reader.
    pub const fn as_reader(self) -> Op {
        Op { object: self.object, rest: self.rest & !WRITES }
    }
    /// The same over the whole cache lines it lies in, and as one that writes: for accesses that may move a line out of a cache.
    pub const fn over_lines(self, line_bytes: u64) -> Op {
        let first = self.object.0 & !(line_bytes - 1);
        let end = (self.object.0 + self.bytes() as u64 + line_bytes - 1) & !(line_bytes - 1);
        Op { object: Object(first), rest: self.rest & !0xff_ff00 | (end - first) << 8 & 0xff_ff00 | WRITES }
    }
    /// True when one of the two is a daemon's turn and the other is not.
    #[inline]
    pub(super) const fn differs_in_turn(self, other: Op) -> bool {
        (self.rest ^ other.rest) & TURN != 0
    }
    /// A voluntary pause.
    pub const fn pause() -> Op {
        Op::new(OpKind::Yield, Object::nothing(), 0)
    }
    /// A daemon's next turn.
    pub const fn turn() -> Op {
        Op::new(OpKind::Turn, Object::nothing(), 0)
    }
    /// The first announcement of an actor.
    pub const fn begin() -> Op {
        Op::new(OpKind::Begin, Object::nothing(), 0)
    }

    const fn touches_memory(self) -> bool {
        self.rest & ALL_MEMORY != 0 || self.object.is_memory()
    }

    /// True when the two operations do not commute: they overlap and at least one writes.
    ///
    /// This is the race relation of partial order sampling (POS, CAV 2018) and of the sleep sets.
    #[inline]
    pub const fn conflicts(&self, other: &Op) -> bool {
        if (self.rest | other.rest) & WRITES == 0 {
            return false;
        }
        if (self.rest | other.rest) & ALL_MEMORY != 0 {
            return self.touches_memory() && other.touches_memory();
        }
        let (a, b) = (self.object.0, other.object.0);
        let (a_bytes, b_bytes) = (self.bytes() as u64, other.bytes() as u64);
        let (a_end, b_end) = (a + if a_bytes == 0 { 1 } else { a_bytes }, b + if b_bytes == 0 { 1 } else { b_bytes });
        a < b_end && b < a_end && a != Object::nothing().0
    }
}

impl Default for Op {
    fn default() -> Op {
        Op::begin()
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:#x} +{}", self.kind(), self.object.0, self.bytes())
    }
}
