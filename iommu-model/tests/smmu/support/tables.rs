//! Builders: what software would write into memory and into the command queue.

use iommu_model::smmu::{Asid, StreamId, Vmid};
use iommu_model::spec::smmu::command::{
    CFGI_CD, CFGI_CD_ALL, CFGI_STE, CFGI_STE_RANGE, CONFIG_RANGE_ALL, ConfigCommand, SYNC, SyncCommand, TLBI_NH_ALL, TLBI_NH_ASID,
    TLBI_NH_VA, TLBI_NH_VAA, TLBI_NSNH_ALL, TLBI_S2_IPA, TLBI_S12_VMALL, TlbCommand,
};
use iommu_model::spec::smmu::context::{Context0, ContextTable};
use iommu_model::spec::smmu::descriptor::{Descriptor, Stage1Leaf, Stage2Leaf};
use iommu_model::spec::smmu::stream::{
    CONFIG_NESTED, CONFIG_STAGE_1, CONFIG_STAGE_2, StreamEntry0, StreamEntry1, StreamEntry2, StreamEntry3,
};
use iommu_model::{Iova, Pa, Pasid};

/// What a table descriptor to `table` says.
pub(crate) fn pointer(table: Pa) -> u64 {
    Descriptor::new().with_valid(true).with_table_or_page(true).with_frame(table.pfn().0).into_bits()
}

/// A readable and writable stage-1 page of one ASID.
pub(crate) fn page_1(frame: Pa) -> Stage1Leaf {
    let leaf = Stage1Leaf::new().with_valid(true).with_page(true).with_accessed(true).with_not_global(true);
    leaf.with_unprivileged(true).with_frame(frame.pfn().0)
}

/// A readable and writable stage-2 page.
pub(crate) fn page_2(frame: Pa) -> Stage2Leaf {
    let leaf = Stage2Leaf::new().with_valid(true).with_page(true).with_accessed(true);
    leaf.with_readable(true).with_writable(true).with_frame(frame.pfn().0)
}

/// log2 of what an entry at `level` maps.
pub(crate) const fn shift_of(granule: u32, level: u8) -> u32 {
    granule + (3 - level as u32) * (granule - 3)
}

/// A CD for one table in the lower half: 4 KiB granule, 48-bit output, faults recorded.
pub(crate) fn context_0(asid: Asid, bits: u8) -> Context0 {
    Context0::new()
        .with_size_0(64 - bits)
        .with_disable_1(true)
        .with_valid(true)
        .with_output_size(5)
        .with_aarch64(true)
        .with_record(true)
        .with_abort(true)
        .with_asid(asid.0)
}

/// The word of a CD that names a table.
pub(crate) fn context_table(table: Pa) -> ContextTable {
    ContextTable::new().with_table(table.0 >> 4)
}

/// An STE for stage 1 with one CD.
pub(crate) fn stream_1(context: Pa) -> [u64; 4] {
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_1).with_context(context.0 >> 6);
    [first.into_bits(), 0, 0, 0]
}

/// Stage-2 words of an STE: 4 KiB granule, starting level 1, faults recorded.
pub(crate) fn stage_2_words(vmid: Vmid, table: Pa) -> (StreamEntry2, StreamEntry3) {
    let entry = StreamEntry2::new().with_vmid(vmid.0).with_input_size(64 - 39).with_start_level(1).with_output_size(5);
    (entry.with_aarch64(true).with_record(true), StreamEntry3::new().with_table(table.0 >> 4))
}

/// An STE for stage 2.
pub(crate) fn stream_2(vmid: Vmid, table: Pa) -> [u64; 4] {
    let (entry, base) = stage_2_words(vmid, table);
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_2);
    [first.into_bits(), 0, entry.into_bits(), base.into_bits()]
}

/// An STE for both stages with one CD at an IPA.
pub(crate) fn stream_nested(context: Pa, vmid: Vmid, table: Pa) -> [u64; 4] {
    let [_, _, c, e] = stream_2(vmid, table);
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_NESTED).with_context(context.0 >> 6);
    [first.into_bits(), StreamEntry1::new().into_bits(), c, e]
}

/// Commands.
pub(crate) mod commands {
    use super::*;

    pub(crate) fn cfgi_ste(stream: StreamId, leaf: bool) -> u128 {
        ConfigCommand::new().with_opcode(CFGI_STE).with_stream(stream.0).with_range(leaf.into()).into_bits()
    }

    pub(crate) fn cfgi_range(stream: StreamId, range: u8) -> u128 {
        ConfigCommand::new().with_opcode(CFGI_STE_RANGE).with_stream(stream.0).with_range(range).into_bits()
    }

    pub(crate) fn cfgi_all() -> u128 {
        cfgi_range(StreamId(0), CONFIG_RANGE_ALL)
    }

    pub(crate) fn cfgi_cd(stream: StreamId, substream: Pasid, leaf: bool) -> u128 {
        let command = ConfigCommand::new().with_opcode(CFGI_CD).with_stream(stream.0).with_substream(substream.0);
        command.with_range(leaf.into()).into_bits()
    }

    pub(crate) fn cfgi_cd_all(stream: StreamId) -> u128 {
        ConfigCommand::new().with_opcode(CFGI_CD_ALL).with_stream(stream.0).into_bits()
    }

    pub(crate) fn nh_all(vmid: Vmid) -> u128 {
        TlbCommand::new().with_opcode(TLBI_NH_ALL).with_vmid(vmid.0).into_bits()
    }

    pub(crate) fn nh_asid(vmid: Vmid, asid: Asid) -> u128 {
        TlbCommand::new().with_opcode(TLBI_NH_ASID).with_vmid(vmid.0).with_asid(asid.0).into_bits()
    }

    pub(crate) fn nh_va(vmid: Vmid, asid: Asid, va: Iova, leaf: bool) -> TlbCommand {
        let command = TlbCommand::new().with_opcode(TLBI_NH_VA).with_vmid(vmid.0).with_asid(asid.0);
        command.with_frame(va.page_number()).with_leaf(leaf)
    }

    pub(crate) fn nh_vaa(vmid: Vmid, va: Iova, leaf: bool) -> u128 {
        let command = TlbCommand::new().with_opcode(TLBI_NH_VAA).with_vmid(vmid.0);
        command.with_frame(va.page_number()).with_leaf(leaf).into_bits()
    }

    pub(crate) fn s12_vmall(vmid: Vmid) -> u128 {
        TlbCommand::new().with_opcode(TLBI_S12_VMALL).with_vmid(vmid.0).into_bits()
    }

    pub(crate) fn s2_ipa(vmid: Vmid, ipa: Iova, leaf: bool) -> u128 {
        let command = TlbCommand::new().with_opcode(TLBI_S2_IPA).with_vmid(vmid.0);
        command.with_frame(ipa.page_number()).with_leaf(leaf).into_bits()
    }

    pub(crate) fn nsnh_all() -> u128 {
        TlbCommand::new().with_opcode(TLBI_NSNH_ALL).into_bits()
    }

    pub(crate) fn sync() -> SyncCommand {
        SyncCommand::new().with_opcode(SYNC)
    }
}
