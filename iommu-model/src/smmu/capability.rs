//! What a unit can do, as its identification registers say.

use crate::spec::smmu::capability::{ADDRESS_SIZES, ENDIAN_LITTLE, FORMATS_AARCH64, Idr0, Idr1, Idr3, Idr5, STALL_NONE};

/// What the hardware maintains in descriptors (IDR0.HTTU).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HardwareUpdate {
    /// Nothing.
    None,
    /// The access flag.
    Access,
    /// The access flag and the dirty state.
    AccessAndDirty,
}

/// Capabilities of one unit. VMSAv8-64, 48-bit addresses, little-endian, coherent, no stalls, no EL2: see the module's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// IDR0.S1P.
    pub stage_1: bool,
    /// IDR0.S2P.
    pub stage_2: bool,
    /// IDR0.HTTU.
    pub hardware_update: HardwareUpdate,
    /// IDR0.ATS: STE.EATS counts, and CMD_ATC_INV reaches devices.
    pub ats: bool,
    /// IDR0.NS1ATS clear: split-stage ATS.
    pub split_ats: bool,
    /// IDR0.ATSRECERR: CR2.REC_CFG_ATS counts.
    pub ats_errors: bool,
    /// IDR0.PRI: the PRI queue and CMD_PRI_RESP. Needs `ats`.
    pub page_requests: bool,
    /// IDR0.ASID16.
    pub asid_16: bool,
    /// IDR0.MSI: interrupts and CMD_SYNC may be memory writes.
    pub msi: bool,
    /// IDR0.SEV.
    pub send_event: bool,
    /// IDR0.VMID16.
    pub vmid_16: bool,
    /// IDR0.CD2L.
    pub context_2_level: bool,
    /// IDR0.ST_LEVEL.
    pub stream_2_level: bool,
    /// IDR1.SIDSIZE, 0 to 32.
    pub stream_bits: u8,
    /// IDR1.SSIDSIZE, 0 to 20.
    pub substream_bits: u8,
    /// IDR1.EVENTQS, 0 to 19.
    pub event_queue_bits: u8,
    /// IDR1.PRIQS, 0 to 19.
    pub page_queue_bits: u8,
    /// IDR1.CMDQS, 0 to 19.
    pub command_queue_bits: u8,
    /// IDR3.HAD.
    pub hierarchical_disable: bool,
    /// IDR3.RIL.
    pub range_invalidation: bool,
    /// IDR3.BBML, 0 to 2. At 2 a look-up that matches several entries takes one; below, it may also conflict.
    pub break_before_make: u8,
    /// IDR5.OAS in bits: 32, 36, 40, 42, 44 or 48.
    pub output_bits: u8,
    /// IDR5.GRAN4K.
    pub granule_4k: bool,
    /// IDR5.GRAN16K.
    pub granule_16k: bool,
    /// IDR5.GRAN64K.
    pub granule_64k: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            stage_1: true,
            stage_2: true,
            hardware_update: HardwareUpdate::AccessAndDirty,
            ats: false,
            split_ats: true,
            ats_errors: true,
            page_requests: false,
            asid_16: true,
            msi: true,
            send_event: true,
            vmid_16: true,
            context_2_level: true,
            stream_2_level: true,
            stream_bits: 16,
            substream_bits: 20,
            event_queue_bits: 19,
            page_queue_bits: 19,
            command_queue_bits: 19,
            hierarchical_disable: true,
            range_invalidation: true,
            break_before_make: 2,
            output_bits: 48,
            granule_4k: true,
            granule_16k: true,
            granule_64k: true,
        }
    }
}

impl Capabilities {
    pub(crate) fn assert_valid(&self) {
        assert!(self.stream_bits <= 32 && self.substream_bits <= 20, "SIDSIZE is at most 32, SSIDSIZE at most 20");
        assert!(
            self.event_queue_bits <= 19 && self.command_queue_bits <= 19 && self.page_queue_bits <= 19,
            "queues have at most 2^19 entries"
        );
        assert!(self.break_before_make <= 2, "BBML is 0, 1 or 2");
        assert!([32, 36, 40, 42, 44, 48].contains(&self.output_bits), "OAS is one of six sizes");
        assert!(self.stage_1 || self.stage_2, "there is a stage");
    }

    /// IDR0.
    pub(crate) fn idr0(&self) -> u32 {
        Idr0::new()
            .with_stage_1(self.stage_1)
            .with_stage_2(self.stage_2)
            .with_table_formats(FORMATS_AARCH64)
            .with_coherent(true)
            .with_hardware_update(self.hardware_update as u8)
            .with_ats(self.ats)
            .with_no_split_ats(self.ats && self.stage_1 && self.stage_2 && !self.split_ats)
            .with_ats_errors(self.ats && self.ats_errors)
            .with_page_requests(self.has_page_requests())
            .with_asid_16(self.asid_16)
            .with_msi(self.msi)
            .with_send_event(self.send_event)
            .with_vmid_16(self.vmid_16)
            .with_context_2_level(self.context_2_level)
            .with_endianness(ENDIAN_LITTLE)
            .with_stall_model(STALL_NONE)
            .with_terminate_model(true)
            .with_stream_levels(u8::from(self.stream_2_level))
            .into_bits()
    }

    /// IDR1.
    pub(crate) fn idr1(&self) -> u32 {
        Idr1::new()
            .with_stream_bits(self.stream_bits)
            .with_substream_bits(self.substream_bits)
            .with_event_queue(self.event_queue_bits)
            .with_page_request_queue(if self.has_page_requests() { self.page_queue_bits } else { 0 })
            .with_command_queue(self.command_queue_bits)
            .into_bits()
    }

    /// IDR3.
    pub(crate) fn idr3(&self) -> u32 {
        Idr3::new()
            .with_hierarchical_disable(self.hierarchical_disable)
            .with_page_response_pasid(self.has_page_requests())
            .with_range_invalidation(self.range_invalidation)
            .with_break_before_make(self.break_before_make)
            .into_bits()
    }

    /// IDR5.
    pub(crate) fn idr5(&self) -> u32 {
        let size = ADDRESS_SIZES.iter().position(|&bits| bits == self.output_bits).expect("checked when the unit was made");
        Idr5::new()
            .with_output_size(size as u8)
            .with_granule_4k(self.granule_4k)
            .with_granule_16k(self.granule_16k)
            .with_granule_64k(self.granule_64k)
            .into_bits()
    }

    /// The effective output size of IPS or S2PS: capped to OAS; the reserved coding counts as the largest.
    pub(crate) fn output_bits_of(&self, coded: u8) -> u8 {
        ADDRESS_SIZES.get(usize::from(coded)).map_or(self.output_bits, |&bits| bits.min(self.output_bits))
    }

    /// PRI does not count without ATS.
    pub(crate) fn has_page_requests(&self) -> bool {
        self.ats && self.page_requests
    }

    /// Whether tables may have granules of 2^`shift` bytes.
    pub(crate) fn has_granule(&self, shift: u8) -> bool {
        match shift {
            12 => self.granule_4k,
            14 => self.granule_16k,
            _ => self.granule_64k,
        }
    }

    /// Whether the access flag can be maintained.
    pub(crate) fn updates_access(&self) -> bool {
        self.hardware_update != HardwareUpdate::None
    }

    /// Whether the dirty state can be maintained.
    pub(crate) fn updates_dirty(&self) -> bool {
        self.hardware_update == HardwareUpdate::AccessAndDirty
    }
}
