//! Goal: the analysis finds the decisive event of hand-made runs, and the report says it in its fixed form. Method: small event
//! streams as a run leaves them; the reports are snapshots in `snapshots/reports/`.

use iommu_model::addr::{DomainId, Iova, Pa, Pfn};
use sim::engine::{ActorId, ChoiceKind};
use sim::trace::{DeviceId, Event, EventKind, Flavor, LockKind, UnitId};

use super::cause::{self, Cause, Role};
use super::history::History;
use super::text::{self, Case, Form};
use super::{signature, trace};
use crate::defect::Defects;
use crate::revision::Revision;
use crate::run::{ActorName, Counts, Found, Outcome, RunSpec, Verdict, VerdictKind};
use crate::scenario::{self, Settings};
use crate::{errno, tag, verb};

const AGENT: ActorId = ActorId(0);
const DEVICE: ActorId = ActorId(1);
const BOOT: ActorId = ActorId(2);
const COMMANDS: ActorId = ActorId(3);
const UNIT: UnitId = UnitId(0);
const TOP: Pa = Pa(0x40_0000);
const LEAF: Pa = Pa(0x41_0008);
const IOVA: Iova = Iova(0x1000);
const GUEST: Pa = Pa(0x7_7000);

#[derive(Default)]
struct Stream {
    log: Vec<Event>,
    era: u8,
}

impl Stream {
    fn add(&mut self, actor: ActorId, kind: EventKind) -> usize {
        self.log.push(Event { step: 10 * (self.log.len() as u64 + 1), actor, era: self.era, kind });
        self.log.len() - 1
    }
    fn call(&mut self, actor: ActorId, name: &str) {
        self.add(actor, EventKind::Note { verb: verb::CALL, args: verb::pack_name(name) });
    }
    fn store(&mut self, actor: ActorId, pa: Pa, old: u64, new: u64) -> usize {
        self.add(actor, EventKind::Store { pa, bytes: 8, old, new, flavor: Flavor::Once })
    }
    fn jump(&mut self) -> usize {
        self.era += 1;
        self.add(BOOT, EventKind::Jumped { era: self.era })
    }
    /// A write of GCMD that switches translation, and the switch.
    fn command(&mut self, actor: ActorId, value: u64) {
        self.add(actor, EventKind::RegisterWritten { unit: UNIT, offset: 0x18, value });
        self.add(COMMANDS, EventKind::TranslationSwitched { unit: UNIT, on: value >> 31 == 1 });
    }
    /// A device write, walked from the two table words, cached, or untranslated.
    fn dma(&mut self, serial: u32, pa: Pa, domain: Option<u16>, cached: bool) {
        let device = DeviceId(0);
        self.add(DEVICE, EventKind::DmaIssued { device, serial, iova: IOVA, write: true });
        if domain.is_some() && !cached {
            for (pa, value) in [(TOP, LEAF.0 & !0xfff | 3), (LEAF, GUEST.0 | 3)] {
                self.add(DEVICE, EventKind::Fetched { unit: UNIT, device: Some(device), pa, bytes: 8, value });
            }
        }
        let domain = domain.map(DomainId);
        self.add(DEVICE, EventKind::DmaTranslated { device, serial, iova: IOVA, pa, domain, cached });
        self.add(DEVICE, EventKind::DmaLanded { device, serial, iova: IOVA, pa, old: 0, new: 0xd000 + u64::from(serial) });
    }
    /// A guest page, mapped through two tables, and one good access.
    fn mapped() -> Stream {
        let mut stream = Stream::default();
        stream.add(AGENT, EventKind::FramesTaken { pfn: GUEST.pfn(), order: 0, tag: tag::MEMFD_FOLIO });
        stream.add(AGENT, EventKind::FramesTaken { pfn: TOP.pfn(), order: 0, tag: tag::IOMMU_TABLE });
        stream.add(AGENT, EventKind::FramesTaken { pfn: LEAF.pfn(), order: 0, tag: tag::IOMMU_TABLE });
        stream.call(AGENT, "map_range");
        stream.store(AGENT, TOP, 0, LEAF.0 & !0xfff | 3);
        stream.store(AGENT, LEAF, 0, GUEST.0 | 3);
        stream.command(AGENT, 1 << 31);
        stream.dma(1, GUEST, Some(7), false);
        stream
    }

    fn outcome(self, property: &str, title: &str, details: &[&str]) -> Outcome {
        let actor = |name: &str, era| ActorName { name: name.to_owned(), era };
        Outcome {
            verdict: Verdict {
                listed: None,
                kind: VerdictKind::Violation,
                property: property.to_owned(),
                title: title.to_owned(),
                details: details.iter().map(|line| (*line).to_owned()).collect(),
            },
            steps: self.log.last().map_or(0, |event| event.step),
            cycles: 0,
            trace_hash: 0xabcd,
            record: Vec::new(),
            nr_fallible: 0,
            counts: Counts::default(),
            log: self.log,
            functions: Vec::new(),
            actors: vec![actor("luod/0", Some(0)), actor("dev 00:02.0", None), actor("swapper/0", Some(1)), actor("iommu0 commands", None)],
            regions: Vec::new(),
            found: None,
            divergence: None,
            snapshots: Vec::new(),
            assumptions: Vec::new(),
        }
    }
}

/// The question of the series: retrieve fails, the boot path switches translation off, the IOVA is a physical address.
fn untranslated() -> Outcome {
    let mut stream = Stream::mapped();
    stream.jump();
    stream.call(BOOT, "iommu_liveupdate_flb_retrieve");
    stream.add(BOOT, EventKind::Injected { kind: ChoiceKind::AllocFails, class: tag::IOMMU_FLB_OBJ.0 });
    stream.add(BOOT, EventKind::Note { verb: verb::FLB_OP, args: [1, 2, i64::from(errno::ENOMEM) as u64, 0] });
    stream.call(BOOT, "iommu_disable_translation");
    stream.command(BOOT, 0);
    stream.call(BOOT, "alloc_pages");
    stream.add(BOOT, EventKind::FramesTaken { pfn: Pfn(1), order: 0, tag: tag::OTHER });
    stream.dma(2, Pa(0x1000), None, false);
    stream.outcome("hardware-write", "dma write to a frame of another owner", &["dev 00:02.0 wrote pa 0x1000"])
}

/// A check of one program, overtaken by another one's store, and what it did then.
fn overtaken() -> Outcome {
    let flag = Pa(0x8_6454);
    let mut stream = Stream::mapped();
    stream.add(AGENT, EventKind::FramesTaken { pfn: flag.pfn(), order: 0, tag: tag::SLAB });
    stream.call(AGENT, "iopt_alloc_area_pages");
    stream.add(AGENT, EventKind::Load { pa: flag, bytes: 1, value: 0, flavor: Flavor::Plain });
    stream.call(BOOT, "iopt_set_immutable");
    stream.add(BOOT, EventKind::Store { pa: flag, bytes: 1, old: 0, new: 1, flavor: Flavor::Plain });
    stream.call(AGENT, "map_range");
    stream.store(AGENT, LEAF, 0, GUEST.0 | 3);
    let mut outcome = stream.outcome("I7", "entry-written-while-immutable", &["table word at pa 0x410008"]);
    outcome.found = Some(Found { by: AGENT, nr_events: outcome.log.len() });
    outcome
}

/// An unmap that frees the page without invalidating.
fn stale() -> Outcome {
    let mut stream = Stream::mapped();
    stream.call(AGENT, "unmap_range");
    stream.store(AGENT, LEAF, GUEST.0 | 3, 0);
    stream.call(AGENT, "folio_put");
    stream.add(AGENT, EventKind::FramesFreed { pfn: GUEST.pfn(), order: 0, tag: tag::MEMFD_FOLIO });
    stream.dma(2, GUEST, Some(7), true);
    stream.outcome("I1", "dma write through a stale translation", &[])
}

/// A table page that was not handed over becomes something else's in the next kernel.
fn lost_table() -> Outcome {
    let mut stream = Stream::mapped();
    stream.jump();
    stream.call(BOOT, "kmem_cache_alloc");
    stream.add(BOOT, EventKind::FramesTaken { pfn: LEAF.pfn(), order: 0, tag: tag::SLAB });
    stream.store(BOOT, LEAF, GUEST.0 | 3, 0x9000 | 3);
    stream.dma(2, Pa(0x9000), Some(7), false);
    stream.outcome("I1", "walk through a table that is not one", &[])
}

/// A page is unpinned while the unit keeps the entry that its walk made.
fn kept() -> Outcome {
    let mut stream = Stream::mapped();
    stream.call(AGENT, "unmap_range");
    stream.store(AGENT, LEAF, GUEST.0 | 3, 0);
    stream.call(AGENT, "__iopt_area_unfill_domain");
    stream.add(AGENT, EventKind::Note { verb: verb::UNPINNED, args: [GUEST.pfn().0, 0, 0, 0] });
    let mut outcome = stream.outcome(
        "I8",
        "page-unpinned-before-invalidation",
        &["iommu0 still has an IOTLB entry made from pa 0x410008: 0x77003", "frame pa 0x77000: Owned"],
    );
    outcome.found = Some(Found { by: AGENT, nr_events: outcome.log.len() });
    outcome
}

/// A program makes a table, another one installs its own first, and the loser keeps what it made.
fn outrun() -> Outcome {
    let mine = Pa(0x42_0000);
    let mut stream = Stream::mapped();
    stream.add(BOOT, EventKind::Note { verb: verb::USER_CALL, args: [0; 4] });
    stream.call(BOOT, "map_range");
    stream.add(BOOT, EventKind::FramesTaken { pfn: mine.pfn(), order: 0, tag: tag::IOMMU_TABLE });
    stream.call(AGENT, "map_range");
    stream.store(AGENT, LEAF, GUEST.0 | 3, 0x43_0003);
    stream.add(BOOT, EventKind::Load { pa: LEAF, bytes: 8, value: 0x43_0003, flavor: Flavor::Atomic });
    stream.add(BOOT, EventKind::Note { verb: verb::MAP_END, args: [1, 0x1000, 0x1000, 0] });
    let mut outcome = stream.outcome("tables", "table-neither-linked-nor-freed", &["frame pa 0x420000: Owned, IOMMU page table"]);
    outcome.found = Some(Found { by: BOOT, nr_events: outcome.log.len() });
    outcome
}

/// A lock that is left held.
fn left_locked() -> Outcome {
    let mut stream = Stream::default();
    let lock = Pa(0x5000);
    stream.call(AGENT, "iommu_preserve_domain");
    stream.add(AGENT, EventKind::Locked { pa: lock, kind: LockKind::Mutex });
    stream.add(AGENT, EventKind::Injected { kind: ChoiceKind::AllocFails, class: tag::IOMMU_TABLE.0 });
    stream.add(AGENT, EventKind::Note { verb: verb::DOMAIN_PRESERVED, args: [1, 0, i64::from(errno::ENOMEM) as u64, 0] });
    stream.add(AGENT, EventKind::Note { verb: verb::USER_RETURN, args: [2, i64::from(errno::ENOMEM) as u64, 0, 0] });
    stream.outcome("LOCK", "lock held on return to userspace", &["mutex at pa 0x5000"])
}

fn spec() -> RunSpec {
    let revision = Revision::by_name("v2").expect("v2");
    RunSpec {
        scenario: scenario::by_name("flb-retrieve-enomem").expect("a scenario"),
        outgoing: revision,
        incoming: revision,
        defects: Defects::NONE,
        policy: "pos".parse().expect("a policy"),
        seed: 1,
        fail_nth: None,
        settings: Settings::new(),
    }
}

fn with_cause(outcome: &Outcome, check: impl FnOnce(&History<'_>, &Cause)) {
    let history = History::new(outcome);
    let cause = cause::analyse(&history);
    check(&history, &cause);
}

fn report(outcome: &Outcome, form: Form) -> String {
    text::report(&Case { spec: &spec(), outcome, source: "lu1-flb-retrieve-enomem-pos-1-0ggq" }, form)
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../../../snapshots/reports", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn the_store_that_switched_translation_off_decides() {
    let outcome = untranslated();
    with_cause(&outcome, |history, cause| {
        let decider = cause.decider.expect("something decided");
        assert!(matches!(history.event(decider).kind, EventKind::RegisterWritten { value: 0, .. }));
        assert_eq!(history.function(decider).as_deref(), Some("iommu_disable_translation"));
        assert!(cause.translation_changed);
        let effect = cause.took_effect.expect("the unit switched");
        assert!(matches!(history.event(effect).kind, EventKind::TranslationSwitched { on: false, .. }));
        let roles: Vec<Role> = cause.links.iter().map(|link| link.role).collect();
        for role in [Role::LastGood, Role::Jump, Role::Injected, Role::Error, Role::Changed, Role::Finding] {
            assert!(roles.contains(&role), "{role:?} in {roles:?}");
        }
    });
    snapshot("translation-switched-off", &report(&outcome, Form::Terminal));
    snapshot("translation-switched-off-mail", &report(&outcome, Form::Mail));
}

#[test]
fn the_cleared_entry_decides_where_a_cached_one_is_used() {
    let outcome = stale();
    with_cause(&outcome, |history, cause| {
        let decider = cause.decider.expect("something decided");
        assert!(matches!(history.event(decider).kind, EventKind::Store { pa: LEAF, new: 0, .. }));
        assert_eq!(cause.filled.as_ref().map(|filled| filled.serial), Some(1));
        assert_eq!(cause.nr_invalidations, 0);
    });
    let text = report(&outcome, Form::Terminal);
    assert!(text.contains("no invalidation was performed"));
    snapshot("stale-translation", &text);
}

#[test]
fn the_cleared_entry_decides_where_a_unit_keeps_what_it_read() {
    let outcome = kept();
    with_cause(&outcome, |history, cause| {
        let decider = cause.decider.expect("something decided");
        assert!(matches!(history.event(decider).kind, EventKind::Store { pa: LEAF, new: 0, .. }));
        let kept = cause.kept.expect("an entry");
        assert!(matches!(history.event(kept).kind, EventKind::Fetched { pa: LEAF, .. }));
    });
    let text = report(&outcome, Form::Terminal);
    assert!(text.contains("Expected next: invalidation of the entry; no invalidation was performed"));
    snapshot("entry-kept", &text);
}

#[test]
fn the_winner_of_a_compare_and_exchange_decides() {
    let outcome = outrun();
    with_cause(&outcome, |history, cause| {
        let (decider, lost) = (cause.decider.expect("a winner"), cause.check.expect("a loser"));
        assert!(matches!(history.event(decider).kind, EventKind::Store { pa: LEAF, new: 0x43_0003, .. }));
        assert!(decider < lost && history.event(lost).actor == BOOT);
    });
    snapshot("exchange-lost", &report(&outcome, Form::Terminal));
    // Of a program that made nothing, a lost exchange says nothing.
    let mut beside = outrun();
    beside.log.retain(|event| !matches!(event.kind, EventKind::FramesTaken { pfn: Pfn(0x420), .. }));
    beside.found = Some(Found { by: BOOT, nr_events: beside.log.len() });
    with_cause(&beside, |_, cause| assert_eq!((cause.decider, cause.check), (None, None)));
}

#[test]
fn the_store_into_a_reused_table_decides() {
    let outcome = lost_table();
    with_cause(&outcome, |history, cause| {
        let decider = cause.decider.expect("something decided");
        assert!(matches!(history.event(decider).kind, EventKind::Store { pa: LEAF, new: 0x9003, .. }));
    });
    snapshot("table-reused", &report(&outcome, Form::Terminal));
}

#[test]
fn a_lock_is_followed_by_the_address_in_the_verdict() {
    let outcome = left_locked();
    with_cause(&outcome, |_, cause| {
        assert_eq!(cause.subjects, [Pa(0x5000)]);
        assert!(cause.links.iter().any(|link| link.role == Role::Lock));
        assert!(cause.links.iter().any(|link| link.role == Role::Injected));
    });
    snapshot("lock-left-held", &report(&outcome, Form::Terminal));
}

#[test]
fn the_store_that_overtook_a_check_decides() {
    let outcome = overtaken();
    with_cause(&outcome, |history, cause| {
        let decider = cause.decider.expect("something decided");
        assert_eq!(history.function(decider).as_deref(), Some("iopt_set_immutable"));
        let check = cause.check.expect("a check");
        assert_eq!(history.function(check).as_deref(), Some("iopt_alloc_area_pages"));
    });
    snapshot("check-overtaken", &report(&outcome, Form::Terminal));
}

#[test]
fn a_program_that_looks_again_is_not_overtaken() {
    let mut outcome = overtaken();
    let flag = Pa(0x8_6454);
    let again =
        Event { kind: EventKind::Load { pa: flag, bytes: 1, value: 1, flavor: Flavor::Plain }, ..outcome.log[outcome.log.len() - 2] };
    outcome.log.insert(outcome.log.len() - 1, again);
    outcome.found = Some(Found { by: AGENT, nr_events: outcome.log.len() });
    with_cause(&outcome, |_, cause| assert_eq!((cause.decider, cause.check), (None, None)));
}

#[test]
fn a_verdict_about_something_else_is_not_laid_on_the_last_request() {
    let mut leak = untranslated();
    leak.verdict.details = vec!["frame 0x77000 is still preserved".to_owned()];
    with_cause(&leak, |_, cause| {
        assert_eq!(cause.request, None);
        assert_eq!(cause.subjects.first(), Some(&GUEST));
    });
}

#[test]
fn signatures_tell_causes_apart_and_not_addresses() {
    let of = |outcome: &Outcome| {
        let history = History::new(outcome);
        signature::signature(&history, &cause::analyse(&history))
    };
    let all = [of(&untranslated()), of(&stale()), of(&lost_table()), of(&left_locked()), of(&overtaken())];
    let mut different = all.to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), all.len());
    let mut moved = untranslated();
    for event in &mut moved.log {
        event.step += 7;
        if let EventKind::FramesTaken { tag, .. } = &mut event.kind {
            *tag = tag::FILE;
        }
    }
    assert_eq!(of(&moved), of(&untranslated()));
}

#[test]
fn a_mail_has_lines_of_at_most_72_columns() {
    for outcome in [untranslated(), stale(), lost_table(), left_locked(), overtaken(), kept(), outrun()] {
        for line in report(&outcome, Form::Mail).lines() {
            assert!(line.chars().count() <= 72, "{line}");
        }
    }
}

#[test]
fn reports_of_empty_and_torn_streams_do_not_panic() {
    let whole = untranslated();
    for length in 0..=whole.log.len() {
        for start in [0, length / 2] {
            let mut outcome = whole.clone();
            outcome.log = whole.log[start..length].to_vec();
            outcome.actors.truncate(length % 4);
            report(&outcome, Form::Terminal);
            let mut out = Vec::new();
            trace::write(&History::new(&outcome), trace::TraceForm::Text, &mut out).expect("memory takes all");
        }
    }
}
