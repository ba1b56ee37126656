//! Names of the members of slab objects, as reports print them: an offset into our layout would tell a reader of the kernel nothing.

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
use super::luo::{FileSet, LuoFile, Session};
use super::memfd::Inode;
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
}
