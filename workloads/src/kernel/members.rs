//! Names of globals and of the members of slab objects, as reports print them: an offset into our layout would tell a reader of the kernel
//! nothing.

use sim::memory::{Field, Tag};

use super::file::File;
use super::iommu::liveupdate::FlbObj;
use super::iommu::{CacheTag, DevInfo, Domain, DomainInfo, Group};
use super::iommufd::IommufdCtx;
use super::iommufd::device::IommufdDevice;
use super::iommufd::hwpt::HwptPaging;
use super::iommufd::io_pagetable::{IoPagetable, IoptArea};
use super::iommufd::ioas::Ioas;
use super::iommufd::object::Object;
use super::iommufd::pages::IoptPages;
use super::kho::Kho;
use super::luo::{FileSet, LuoFile, Session};
use super::luo::{Luo, SessionHeader, flb};
use super::memfd::Inode;
use super::vtd::{IntelIommu, UNIT_BYTES};
use super::{SECTION_BYTES, Section, kexec};
use crate::tag;

/// Offset from the start of the object, and name.
type Member = (u16, &'static str);

const fn member<T>(base: u16, field: Field<T>) -> Member {
    (base + field.offset, field.name)
}

macro_rules! members {
    ($($tag:ident: $($base:expr => $of:ident { $($field:ident),* $(,)? })+;)*) => {
        const MEMBERS: &[(Tag, &[Member])] = &[$((tag::$tag, &[$($(member($base, $of::$field),)*)+]),)*];
    };
}

members! {
    FILE: 0 => File { F_COUNT, KIND, PRIVATE_DATA, F_POS };
    SHMEM_INODE: 0 => Inode { LOCK, XA_LOCK, SIZE, SEALS, FLAGS, NRPAGES };
    LUO_SESSION: 0 => Session { NAME, RETRIEVED, LIST, MUTEX } Session::FILE_SET.offset => FileSet { FILES_LIST, COUNT, SER, BLOCKS };
    LUO_FILE: 0 => LuoFile { HANDLER, FILE, SERIALIZED_DATA, PRIVATE_DATA, RETRIEVE_STATUS, TOKEN, MUTEX, LIST };
    IOMMU_FLB_OBJ: 0 => FlbObj { LOCK, SER, CURR_IOMMU_ARRAY, CURR_DOMAIN_ARRAY, CURR_DEVICE_ARRAY };
    DMAR_DOMAIN: 0 => Domain {
        OPS, TOP_OF_TABLE, PGSIZE_BITMAP, VASZ, FEATURES, PRESERVED_STATE, LOCK, DEVICES, CACHE_LOCK, CACHE_TAGS, IOMMU_ARRAY,
    };
    DOMAIN_INFO: 0 => DomainInfo { REFCNT, DID, IOMMU };
    CACHE_TAG: 0 => CacheTag { NODE, IOMMU, DOMAIN_ID, USERS };
    DEVICE_INFO: 0 => DevInfo { DOMAIN, LINK, GROUP, DEVICE_SER, BDF, IOMMU, DOMAIN_ATTACHED };
    GROUP: 0 => Group { MUTEX, DOMAIN, DEFAULT_DOMAIN, BLOCKING_DOMAIN, OWNER, OWNER_CNT, DEVICE };
    IOMMUFD_CTX: 0 => IommufdCtx { FILE, XA_LOCK, XA_HEAD, DESTROY_WAIT, LIVEUPDATE_MUTEX, INCOMING_SER, RECLAIMED };
    IOAS: 0 => Object { WAIT_CNT, USERS, TYPE, ID } 0 => Ioas { MUTEX, HWPT_LIST }
        Ioas::IOPT.offset => IoPagetable { DOMAINS_RWSEM, IOVA_RWSEM, AREAS, IOVA_ALIGNMENT, NEXT_DOMAIN_ID, IMMUTABLE };
    HWPT: 0 => Object { WAIT_CNT, USERS, TYPE, ID } 0 => HwptPaging { DOMAIN, IOAS, HWPT_ITEM, LIVEUPDATE_TOKEN, PRESERVED, RESTORED };
    IOMMUFD_DEVICE: 0 => Object { WAIT_CNT, USERS, TYPE, ID } 0 => IommufdDevice { DEV, ICTX, IGROUP_LOCK, IGROUP_HWPT };
    AREA: 0 => IoptArea { NODE, IOVA, LAST, PAGES, IOPT, STORAGE_DOMAIN, NUM_LOCKS, IOMMU_PROT, IN_DOMAINS_ITREE };
    IOPT_PAGES: 0 => IoptPages { KREF, TYPE, MUTEX, FILE, START, NPAGES, NPINNED, LAST_NPINNED, WRITABLE, SEALS };
}

/// The member of an object with this tag that contains the byte at `offset`; none for memory that is not such an object.
pub fn name(tag: Tag, offset: u64) -> Option<&'static str> {
    let (_, members) = MEMBERS.iter().find(|(of, _)| *of == tag)?;
    members.iter().filter(|(at, _)| u64::from(*at) <= offset).max_by_key(|(at, _)| *at).map(|(_, name)| *name)
}

/// A run of globals: their section, where it begins there, what their names begin with, how often it is repeated, in how many bytes each.
struct Globals {
    section: Section,
    base: u16,
    prefix: &'static str,
    repeated: (u16, u16),
    members: &'static [Member],
}

macro_rules! globals {
    ($($section:ident $base:expr, $prefix:literal, $repeated:expr => [$($field:expr),* $(,)?];)*) => {
        const GLOBALS: &[Globals] = &[$(Globals {
            section: Section::$section,
            base: $base,
            prefix: $prefix,
            repeated: $repeated,
            members: &[$(member(0, $field)),*],
        }),*];
    };
}

const ONCE: (u16, u16) = (1, 0);

globals! {
    Kho 0, "", ONCE => [
        Kho::ENABLE, Kho::RADIX_ROOT, Kho::RADIX_LOCK, Kho::OUT_FDT, Kho::OUT_LOCK, Kho::IN_FDT, Kho::SCRATCH, Kho::SCRATCH_BYTES,
    ];
    Luo 0, "", ONCE => [
        Luo::ENABLED, Luo::LIVEUPDATE_NUM, Luo::REGISTER_LOCK, Luo::DEVICE, Luo::DESERIALIZED, Luo::DESERIALIZE_ERR, Luo::PRESERVED,
        Luo::PRESERVED_LOCK, Luo::BLOB, Luo::OUTGOING, Luo::INCOMING, Luo::HANDLERS,
    ];
    Luo Luo::OUTGOING.offset, "luo_session_global.outgoing.", ONCE => [
        SessionHeader::RWSEM, SessionHeader::LIST, SessionHeader::COUNT, SessionHeader::REBOOTING, SessionHeader::WAIT, SessionHeader::SER,
        SessionHeader::ACTIVE, SessionHeader::BLOCKS, SessionHeader::SESSIONS_PA,
    ];
    Luo Luo::INCOMING.offset, "luo_session_global.incoming.", ONCE => [
        SessionHeader::RWSEM, SessionHeader::LIST, SessionHeader::COUNT, SessionHeader::REBOOTING, SessionHeader::WAIT, SessionHeader::SER,
        SessionHeader::ACTIVE, SessionHeader::BLOCKS, SessionHeader::SESSIONS_PA,
    ];
    Flb 0, "", ONCE => [flb::OUT_HEADER, flb::IN_HEADER];
    Flb flb::STATE.offset, "luo_flb_private.", (2, flb::STATE_BYTES as u16) => [
        flb::OUT_COUNT, flb::OUT_DATA, flb::OUT_OBJ, flb::OUT_LOCK, flb::IN_COUNT, flb::IN_DATA, flb::IN_OBJ, flb::IN_LOCK,
        flb::IN_FINISHED, flb::IN_STATUS,
    ];
    Iommu 0, "", ONCE => [super::iommu::PROBE_DEVICE_LOCK];
    Vtd 0, "intel_iommu.", (4, UNIT_BYTES) => [
        IntelIommu::ROOT_ENTRY, IntelIommu::LOCK, IntelIommu::REGISTER_LOCK, IntelIommu::GCMD, IntelIommu::FLAGS, IntelIommu::QI_DESC,
        IntelIommu::QI_DESC_STATUS, IntelIommu::QI_LOCK, IntelIommu::QI_FREE_HEAD, IntelIommu::QI_FREE_TAIL, IntelIommu::QI_FREE_CNT,
        IntelIommu::DID_LOCK, IntelIommu::DOMAIN_IDA, IntelIommu::OUTGOING_PRESERVED_STATE, IntelIommu::CAP, IntelIommu::ECAP,
    ];
    Kexec 0, "", ONCE => [kexec::TRANSITION_LOCK, kexec::KEXEC_LOCK, kexec::KEXEC_IMAGE, kexec::IMAGE_FDT];
}

/// The global that contains the byte at `offset` of a kernel's data; none where globals have no name of their own.
pub fn global(offset: u64) -> Option<String> {
    let mut found: Option<(u64, String)> = None;
    for globals in GLOBALS {
        let section = globals.section as u64 * SECTION_BYTES;
        if offset < section || offset >= section + SECTION_BYTES {
            continue;
        }
        let (times, bytes) = globals.repeated;
        for nr in 0..times {
            let base = section + u64::from(globals.base) + u64::from(nr * bytes);
            for (at, name) in globals.members {
                let at = base + u64::from(*at);
                if at <= offset && found.as_ref().is_none_or(|(best, _)| at >= *best) {
                    let prefix = if times > 1 { globals.prefix.replacen('.', &format!("[{nr}]."), 1) } else { globals.prefix.to_owned() };
                    found = Some((at, prefix + name));
                }
            }
        }
    }
    found.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_has_the_name_of_the_member_it_lies_in() {
        assert_eq!(name(tag::AREA, 32), Some("area.pages"));
        assert_eq!(name(tag::AREA, 8), Some("area.node"));
        let immutable = Ioas::IOPT.offset + IoPagetable::IMMUTABLE.offset;
        assert_eq!(name(tag::IOAS, u64::from(immutable)), Some("iopt.lu_immutable"));
        assert_eq!(name(tag::IOMMU_TABLE, 0), None);
    }

    #[test]
    fn an_offset_into_the_image_has_the_name_of_a_global() {
        let section = |section: Section| section as u64 * SECTION_BYTES;
        let rebooting = section(Section::Luo) + u64::from(Luo::OUTGOING.offset + SessionHeader::REBOOTING.offset);
        assert_eq!(global(rebooting).as_deref(), Some("luo_session_global.outgoing.rebooting"));
        assert_eq!(global(section(Section::Luo)).as_deref(), Some("luo_global.enabled"));
        let free_head = section(Section::Vtd) + u64::from(UNIT_BYTES + IntelIommu::QI_FREE_HEAD.offset);
        assert_eq!(global(free_head).as_deref(), Some("intel_iommu[1].qi->free_head"));
        let count = section(Section::Flb) + u64::from(flb::STATE.offset + flb::IN_COUNT.offset);
        assert_eq!(global(count).as_deref(), Some("luo_flb_private[0].incoming.count"));
        assert_eq!(global(section(Section::Mm)), None);
    }
}
