//! What each step costs, in cycles of the remapping unit.
//!
//! One cycle is one nanosecond by default ([`Timing::clock_mhz`] = 1000), so the defaults read as nanoseconds. None
//! of them is a measurement of a particular part: each is a published figure, a figure of another model, or a knob.

/// The cost table. All fields in cycles unless their name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Cycles in a microsecond. Knob.
    pub clock_mhz: u32,
    /// Context-cache look-up. gem5 24.0 SMMUv3 configuration cache: 3.
    pub context_lookup: u32,
    /// PASID-cache look-up. Knob, as `context_lookup`.
    pub pasid_lookup: u32,
    /// IOTLB look-up. Knob: "a few nanoseconds".
    pub iotlb_lookup: u32,
    /// Look-up of all paging-structure caches together. gem5 24.0 SMMUv3 walk cache: 4.
    pub psc_lookup: u32,
    /// Fetch of a root entry. Knob, as `table_fetch`.
    pub root_fetch: u32,
    /// Fetch of a context entry. Knob, as `table_fetch`.
    pub context_fetch: u32,
    /// Fetch of a PASID directory entry. Knob, as `table_fetch`.
    pub directory_fetch: u32,
    /// Fetch of a PASID table entry. Knob, as `table_fetch`.
    pub pasid_fetch: u32,
    /// Atomic update of A or D in a paging entry. Knob, as `table_fetch`.
    pub table_update: u32,
    /// Fetch of a paging entry. Knob: four fetches make the 330 ns that a cold walk is said to add.
    pub table_fetch: u32,
    /// Waiting step of a merged request. Knob.
    pub merge: u32,
    /// A request with translation off, or in the interrupt range. Knob.
    pub bypass: u32,
    /// Raising a fault, with or without recording it. Knob.
    pub fault: u32,
    /// Fetch of a queue descriptor. Knob, as `table_fetch`.
    pub descriptor_fetch: u32,
    /// Context-cache invalidation. Knob: with the fetch, the status write and a drain it makes about the 800 ns
    /// that the Akaros kernel log gives for one round trip.
    pub invalidate_context: u32,
    /// PASID-cache invalidation. Knob, see `invalidate_context`.
    pub invalidate_pasid: u32,
    /// IOTLB invalidation. Knob, see `invalidate_context`.
    pub invalidate_iotlb: u32,
    /// Sending an invalidation to a device; how long the device takes is up to the caller. Knob.
    pub invalidate_device_tlb: u32,
    /// Interrupt-entry invalidation, accepted and ignored. Knob.
    pub invalidate_interrupt: u32,
    /// Start of a drain; how long it lasts is up to the caller. Knob.
    pub drain: u32,
    /// A page request at its turn: the write of its record, or dropping it. Knob, as `status_write`.
    pub page_request: u32,
    /// Status write of a wait descriptor. Knob, see `invalidate_context`.
    pub status_write: u32,
    /// Raising an interrupt message. Knob.
    pub interrupt: u32,
    /// A register access inside the unit, without the bus. Knob.
    pub register: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            clock_mhz: 1000,
            context_lookup: 3,
            pasid_lookup: 3,
            iotlb_lookup: 5,
            psc_lookup: 4,
            root_fetch: 82,
            context_fetch: 82,
            directory_fetch: 82,
            pasid_fetch: 82,
            table_update: 82,
            table_fetch: 82,
            merge: 1,
            bypass: 1,
            fault: 20,
            descriptor_fetch: 82,
            invalidate_context: 100,
            invalidate_pasid: 100,
            invalidate_iotlb: 100,
            invalidate_device_tlb: 100,
            invalidate_interrupt: 100,
            drain: 200,
            page_request: 300,
            status_write: 300,
            interrupt: 20,
            register: 10,
        }
    }
}

/// Shape of a cache: `sets` x `ways` entries. Any `sets` but a power of two is rounded up to one; 0 ways switch it off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Sets, chosen by the low bits of the tag.
    pub sets: u32,
    /// Entries a set.
    pub ways: u32,
}

impl Geometry {
    /// One set of `ways` entries.
    #[must_use]
    pub const fn fully_associative(ways: u32) -> Self {
        Self { sets: 1, ways }
    }
}

/// Sizes, limits and costs of a unit: everything that software cannot read in the capability registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Params {
    /// Context cache. Knob: 32 entries.
    pub context: Geometry,
    /// PASID cache; units without scalable mode have none. Knob: 32 entries.
    pub pasid: Geometry,
    /// IOTLB, all page sizes together. 64 entries: the capacity inferred for one Xeon generation (unverified figure).
    pub iotlb: Geometry,
    /// Paging-structure caches of level 2, 3, 4, 5 entries. Knob: 32, 16, 4, 4; 0 ways switch a level off.
    pub psc: [Geometry; 4],
    /// Walks in flight, 1 to 256. gem5 24.0 `ptw_slots`: 16.
    pub walks_max: u16,
    /// A second request of one source to one page waits for the first. gem5 24.0 `hazard4k`: on.
    pub merge_same_page: bool,
    /// Entries wider than 8 bytes are fetched one word at a time, in either order, so that a fetch can be torn. Only 8
    /// bytes are architecturally atomic; a whole entry at once is the usual case. Knob.
    pub split_fetches: bool,
    /// Costs.
    pub timing: Timing,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            context: Geometry::fully_associative(32),
            pasid: Geometry::fully_associative(32),
            iotlb: Geometry::fully_associative(64),
            psc: [32, 16, 4, 4].map(Geometry::fully_associative),
            walks_max: 16,
            merge_same_page: true,
            split_fetches: false,
            timing: Timing::default(),
        }
    }
}
