//! LUO and FLB: include/linux/kho/abi/luo.h, generation 1 (mainline 6.19 to 7.1) and generation 2 (7.2 on).

use super::{AbiStruct, member};

/// Child of the KHO root under which LUO's blob hangs, in both generations.
pub const SUBTREE: &str = "LUO";

/// Generation 1: `compatible` of the LUO tree.
pub const COMPATIBLE: &str = "luo-v1";
/// Generation 1: number of this update, u64.
pub const PROP_LIVEUPDATE_NUM: &str = "liveupdate-number";
/// Generation 1: node of the sessions.
pub const NODE_SESSION: &str = "luo-session";
/// Generation 1: its `compatible`.
pub const SESSION_COMPATIBLE: &str = "luo-session-v2";
/// Generation 1: address of [`SESSION_HEADER`], u64.
pub const PROP_SESSION_HEADER: &str = "luo-session-header";
/// Generation 1: node of the FLBs.
pub const NODE_FLB: &str = "luo-flb";
/// Generation 1: its `compatible`.
pub const FLB_COMPATIBLE: &str = "luo-flb-v1";
/// Generation 1: address of [`FLB_HEADER`], u64.
pub const PROP_FLB_HEADER: &str = "luo-flb-header";
/// Generation 1: string table of the LUO tree.
pub const STRINGS: &str = "compatible\0liveupdate-number\0luo-session-header\0luo-flb-header\0";

/// Pages of the session array in generation 1. Narrowed: 16 in the kernel.
pub const SESSION_PGCNT: u64 = 1;
/// Sessions of generation 1 (819 with the kernel's 16 pages).
pub const SESSION_MAX: u64 = (SESSION_PGCNT * 4096 - 8) / SESSION.bytes as u64;
/// Pages of a session's file array in generation 1.
pub const FILE_PGCNT: u64 = 2;
/// Files of a session in generation 1.
pub const FILE_MAX: u64 = FILE_PGCNT * 4096 / FILE.bytes as u64;
/// FLBs that fit the header page.
pub const FLB_MAX: u64 = (4096 - 16) / FLB.bytes as u64;

/// Generation 2: the blob itself.
pub const LUO: AbiStruct = AbiStruct {
    name: "luo_ser",
    bytes: 152,
    fields: &[
        member("features.supp", 0, 8),
        member("features.req", 8, 8),
        member("features.active", 16, 8),
        member("features.reserved", 24, 104),
        member("liveupdate_num", 128, 8),
        member("sessions_pa", 136, 8),
        member("flbs_pa", 144, 8),
    ],
};

/// Generation 2: feature bit of the update number.
pub const FEATURE_NUMBER: u64 = 1 << 0;
/// Generation 2: feature bit of the sessions.
pub const FEATURE_SESSIONS: u64 = 1 << 1;
/// Generation 2: feature bit of the FLBs.
pub const FEATURE_FLBS: u64 = 1 << 2;
/// Generation 2: all of them, which are also required.
pub const FEATURES: u64 = FEATURE_NUMBER | FEATURE_SESSIONS | FEATURE_FLBS;

/// Generation 1: header of the session array, which follows it.
pub const SESSION_HEADER: AbiStruct = AbiStruct { name: "luo_session_header_ser", bytes: 8, fields: &[member("count", 0, 8)] };

/// A session; the last two members are a `luo_file_set_ser`: array of generation 1 or first block of generation 2.
pub const SESSION: AbiStruct = AbiStruct {
    name: "luo_session_ser",
    bytes: 80,
    fields: &[member("name", 0, 64), member("file_set_ser.files", 64, 8), member("file_set_ser.count", 72, 8)],
};

/// A file.
pub const FILE: AbiStruct =
    AbiStruct { name: "luo_file_ser", bytes: 64, fields: &[member("compatible", 0, 48), member("data", 48, 8), member("token", 56, 8)] };

/// Header of the FLB page; the entries follow.
pub const FLB_HEADER: AbiStruct =
    AbiStruct { name: "luo_flb_header_ser", bytes: 16, fields: &[member("pgcnt", 0, 8), member("count", 8, 8)] };

/// An FLB.
pub const FLB: AbiStruct =
    AbiStruct { name: "luo_flb_ser", bytes: 64, fields: &[member("name", 0, 48), member("data", 48, 8), member("count", 56, 8)] };

/// Data page of the test FLB, ours.
pub const TEST_FLB: AbiStruct = AbiStruct { name: "test_flb_ser", bytes: 16, fields: &[member("magic", 0, 8), member("era", 8, 8)] };
/// Its first word.
pub const TEST_FLB_MAGIC: u64 = 0x544f_4455_5054_4553;
/// `compatible` of the test FLB.
pub const TEST_FLB_COMPATIBLE: &str = "test-flb-v1";

const _: () = assert!(
    LUO.is_sound()
        && SESSION_HEADER.is_sound()
        && SESSION.is_sound()
        && FILE.is_sound()
        && FLB_HEADER.is_sound()
        && FLB.is_sound()
        && TEST_FLB.is_sound()
);
