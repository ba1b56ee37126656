//! The shape of a set of translation tables: granule, levels, index and range arithmetic of VMSAv8-64.

use super::capability::Capabilities;
use crate::addr::Pa;
use crate::spec::smmu::descriptor::{ADDRESS_BITS, DESCRIPTOR_BYTES, DESCRIPTOR_SHIFT, LAST_LEVEL};

/// log2 of the smallest granule.
pub(crate) const GRANULE_4K: u8 = 12;
/// log2 of the middle granule.
pub(crate) const GRANULE_16K: u8 = 14;
/// log2 of the largest granule.
pub(crate) const GRANULE_64K: u8 = 16;

/// One set of tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tables {
    /// The table of the starting level; of stage 1 in a nested stream an IPA.
    pub base: Pa,
    /// log2 of the granule.
    pub granule: u8,
    /// Starting level, 0 to 3.
    pub start: u8,
    /// Bits of an input address.
    pub input_bits: u8,
    /// Bits of an output address.
    pub output_bits: u8,
}

impl Tables {
    pub(crate) const NONE: Self = Self { base: Pa(0), granule: GRANULE_4K, start: 0, input_bits: 0, output_bits: 0 };

    /// Stage-1 tables: the starting level follows from the input size.
    pub(crate) fn stage_1(base: u64, granule: u8, input_bits: u8, output_bits: u8) -> Self {
        let start = LAST_LEVEL + 1 - (input_bits - granule).div_ceil(granule - DESCRIPTOR_SHIFT);
        Self { base: Pa(0), granule, start, input_bits, output_bits }.at(base)
    }

    /// Stage-2 tables: the starting level is given. `None` if it does not fit the input size: less than one bit to resolve
    /// there, or more than sixteen concatenated tables.
    pub(crate) fn stage_2(base: u64, granule: u8, start: u8, input_bits: u8, output_bits: u8) -> Option<Self> {
        let tables = Self { base: Pa(0), granule, start, input_bits, output_bits };
        let stride = granule - DESCRIPTOR_SHIFT;
        let resolved = input_bits.checked_sub(tables.shift(start))?;
        (1..=stride + 4).contains(&resolved).then(|| tables.at(base))
    }

    /// The base, aligned to the size of the starting table.
    fn at(self, base: u64) -> Self {
        let bytes = DESCRIPTOR_BYTES << (self.input_bits - self.shift(self.start));
        Self { base: Pa(base & !(bytes - 1)), ..self }
    }

    /// log2 of what an entry of a level maps.
    #[inline]
    pub(crate) const fn shift(&self, level: u8) -> u8 {
        self.granule + (LAST_LEVEL - level) * (self.granule - DESCRIPTOR_SHIFT)
    }

    /// Where the entry for an address lies in a table of a level.
    #[inline]
    pub(crate) const fn entry(&self, table: Pa, level: u8, address: u64) -> Pa {
        let bits = if level == self.start { self.input_bits - self.shift(level) } else { self.granule - DESCRIPTOR_SHIFT };
        let index = (address >> self.shift(level)) & ((1 << bits) - 1);
        table.offset(index * DESCRIPTOR_BYTES)
    }

    /// Whether a block may stand at a level above the last.
    pub(crate) const fn block_allowed(&self, level: u8) -> bool {
        level == 2 || (level == 1 && self.granule == GRANULE_4K)
    }

    /// log2 of what a run of entries with the contiguous bit maps.
    pub(crate) const fn contiguous_shift(&self, level: u8) -> u8 {
        let run = match (self.granule, level) {
            (GRANULE_4K, _) => 4,
            (GRANULE_16K, LAST_LEVEL) => 7,
            _ => 5,
        };
        self.shift(level) + run
    }

    /// Whether an output address or table lies in range.
    pub(crate) const fn output_fits(&self, pa: Pa) -> bool {
        self.output_bits >= ADDRESS_BITS || pa.0 >> self.output_bits == 0
    }
}

/// The granule that TG0 or S2TG codes, if the unit has it.
pub(crate) fn granule_0(coded: u8, cap: &Capabilities) -> Option<u8> {
    use crate::spec::smmu::context::{GRANULE_0_4K, GRANULE_0_16K, GRANULE_0_64K};
    let shift = match coded {
        GRANULE_0_4K => GRANULE_4K,
        GRANULE_0_16K => GRANULE_16K,
        GRANULE_0_64K => GRANULE_64K,
        _ => return None,
    };
    cap.has_granule(shift).then_some(shift)
}

/// The granule that TG1 codes, if the unit has it.
pub(crate) fn granule_1(coded: u8, cap: &Capabilities) -> Option<u8> {
    use crate::spec::smmu::context::{GRANULE_1_4K, GRANULE_1_16K, GRANULE_1_64K};
    let shift = match coded {
        GRANULE_1_4K => GRANULE_4K,
        GRANULE_1_16K => GRANULE_16K,
        GRANULE_1_64K => GRANULE_64K,
        _ => return None,
    };
    cap.has_granule(shift).then_some(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starting_level_follows_from_granule_and_input_size() {
        for (granule, bits, start) in [
            (12, 48, 0),
            (12, 39, 1),
            (12, 40, 0),
            (12, 25, 2),
            (14, 48, 0),
            (14, 47, 1),
            (14, 36, 2),
            (16, 48, 1),
            (16, 42, 2),
            (16, 29, 3),
        ] {
            assert_eq!(Tables::stage_1(0, granule, bits, 48).start, start, "{granule} {bits}");
        }
    }

    #[test]
    fn a_stage_2_start_that_does_not_fit_is_refused() {
        assert!(Tables::stage_2(0, 12, 1, 39, 48).is_some());
        assert!(Tables::stage_2(0, 12, 1, 43, 48).is_some(), "sixteen tables side by side");
        assert!(Tables::stage_2(0, 12, 1, 44, 48).is_none());
        assert!(Tables::stage_2(0, 12, 1, 30, 48).is_none(), "nothing left to resolve");
        assert!(Tables::stage_2(0, 16, 3, 25, 48).is_some());
    }

    #[test]
    fn concatenated_tables_are_one_large_table() {
        let tables = Tables::stage_2(0x1_2345_8000, 12, 1, 40, 48).expect("it fits");
        assert_eq!(tables.base, Pa(0x1_2345_8000), "two frames, aligned to both");
        assert_eq!(tables.entry(tables.base, 1, 0xff_c000_0000), Pa(0x1_2345_8000 + 1023 * 8));
        assert_eq!(tables.entry(Pa(0x5000), 3, 0x1f_f000), Pa(0x5ff8));
        assert_eq!(tables.contiguous_shift(3), 16);
        assert!(tables.block_allowed(1) && !tables.block_allowed(0));
    }
}
