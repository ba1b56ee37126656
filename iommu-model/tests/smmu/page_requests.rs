//! The PRI queue, the unit's own answers, and CMD_PRI_RESP.

use crate::support::bench::{Bench, DEVICE, STREAM};
use iommu_model::smmu::{Capabilities, CommandProgress, PageQueueInput, PageQueueProgress, PageRequestOutcome, Params, Register, Signal};
use iommu_model::spec::smmu::command::{PRI_RESP, PageResponseCommand, RESPONSE_FAILURE, RESPONSE_INVALID, RESPONSE_SUCCESS};
use iommu_model::spec::smmu::register::{Control0, QueueBase, QueueIndex};
use iommu_model::{Iova, Pa, PageRequest, PageResponse, Pasid, Plain, ResponseCode};

const QUEUE: Pa = Pa(0x220_0000);
/// log2 of the queue's entries.
const QUEUE_BITS: u8 = 2;

fn on() -> Control0 {
    Control0::new().with_enable(true).with_command_queue(true).with_page_requests(true)
}

fn bench() -> Bench {
    let mut bench = Bench::with(Capabilities { ats: true, page_requests: true, ..Capabilities::default() }, Params::default());
    bench.unit.write_register(Register::PriqBase, QueueBase::new().with_size(QUEUE_BITS).with_address(QUEUE.0 >> 5).into_bits());
    bench.control(on());
    bench
}

fn wants(group: u16, last: bool) -> PageRequest {
    PageRequest {
        source: DEVICE,
        pasid: Some(Pasid(0x9_8765)),
        address: Iova(0x12_3456_7000),
        read: true,
        write: true,
        execute: false,
        privileged: false,
        last,
        group,
    }
}

fn response(group: u16, pasid: Option<Pasid>, code: ResponseCode) -> PageResponse {
    PageResponse { source: DEVICE, pasid, group, code }
}

/// Runs the queue until it has nothing to do.
fn run(bench: &mut Bench) -> Vec<PageQueueProgress> {
    let (mut all, mut input) = (Vec::new(), PageQueueInput::Continue);
    loop {
        let progress = bench.unit.page_queue_advance(input);
        input = match progress {
            PageQueueProgress::Idle => return all,
            PageQueueProgress::Write { pa, words, .. } => {
                bench.set_words(pa, &words);
                PageQueueInput::Written
            }
            _ => PageQueueInput::Continue,
        };
        all.push(progress);
    }
}

fn producer(bench: &Bench) -> QueueIndex {
    QueueIndex::from_bits(bench.unit.read_register(Register::PriqProd) as u32)
}

#[test]
fn a_page_request_is_written_to_the_queue_and_software_answers_it() {
    let mut bench = bench();
    bench.unit.write_register(Register::IrqCtrl, 2);
    assert_eq!(bench.unit.page_request(wants(0x155, true)), PageRequestOutcome::Queued);
    assert_eq!(bench.unit.page_request(PageRequest { pasid: None, write: false, ..wants(3, false) }), PageRequestOutcome::Queued);
    assert!(bench.unit.page_queue_has_work());
    let said = run(&mut bench);
    let raised: Vec<_> = said
        .iter()
        .filter_map(|progress| if let PageQueueProgress::Recorded { interrupt, .. } = *progress { Some(interrupt) } else { None })
        .collect();
    assert_eq!(raised, [Some(Signal::Wired), None], "the queue is no longer empty");
    let stream = u64::from(STREAM.0);
    let first = [stream | 0x9_8765 << 32 | 1 << 60 | 1 << 61 | 1 << 62 | 1 << 63, 0x155 | 0x12_3456_7000];
    let second = [stream | 1 << 60, 3 | 0x12_3456_7000];
    let word = |n: u64| bench.memory.read(QUEUE.offset(8 * n));
    assert_eq!([[word(0), word(1)], [word(2), word(3)]], [first, second]);
    assert_eq!((producer(&bench).index(), producer(&bench).overflow()), (2, false));
}

#[test]
fn with_the_queue_off_every_request_is_answered_with_failure() {
    for control in [on().with_page_requests(false), on().with_enable(false)] {
        let mut bench = bench();
        bench.control(control);
        for last in [false, true] {
            let answered = PageRequestOutcome::Answered(response(1, None, ResponseCode::FAILURE));
            assert_eq!(bench.unit.page_request(wants(1, last)), answered);
        }
        let stop = PageRequest { read: false, write: false, ..wants(0, true) };
        assert_eq!(bench.unit.page_request(stop), PageRequestOutcome::Discarded, "a stop marker is no question");
    }
    let mut without = Bench::new();
    assert!(matches!(without.unit.page_request(wants(1, true)), PageRequestOutcome::Answered(_)));
    assert_eq!(without.unit.read_register(Register::Idr0) >> 16 & 1, 0);
}

#[test]
fn an_overflow_lasts_until_software_acknowledges_it() {
    let mut bench = bench();
    for n in 0..4 {
        assert_eq!(bench.unit.page_request(wants(n, true)), PageRequestOutcome::Queued);
    }
    assert_eq!(bench.unit.page_request(wants(4, false)), PageRequestOutcome::Discarded);
    let again = PageRequestOutcome::Answered(response(4, Some(Pasid(0x9_8765)), ResponseCode::SUCCESS));
    assert_eq!(bench.unit.page_request(wants(4, true)), again, "so that the device tries again");
    run(&mut bench);
    assert!(producer(&bench).overflow());
    // Room alone does not end it.
    bench.unit.write_register(Register::PriqCons, 4);
    assert_eq!(
        bench.unit.page_request(wants(5, true)),
        PageRequestOutcome::Answered(response(5, Some(Pasid(0x9_8765)), ResponseCode::SUCCESS))
    );
    bench.unit.write_register(Register::PriqCons, 4 | 1 << 31);
    assert_eq!(bench.unit.page_request(wants(6, true)), PageRequestOutcome::Queued);
}

#[test]
fn an_aborted_write_stops_the_queue_until_it_is_acknowledged() {
    let mut bench = bench();
    bench.unit.page_request(wants(1, true));
    assert!(matches!(bench.unit.page_queue_advance(PageQueueInput::Continue), PageQueueProgress::Write { .. }));
    let aborted = bench.unit.page_queue_advance(PageQueueInput::Aborted);
    let told = Some(response(1, None, ResponseCode::FAILURE));
    assert!(matches!(aborted, PageQueueProgress::Aborted { response, .. } if response == told), "{aborted:?}");
    assert_eq!(bench.unit.read_register(Register::Gerror), 1 << 3);
    assert_eq!(producer(&bench).index(), 0);
    assert!(matches!(bench.unit.page_request(wants(2, true)), PageRequestOutcome::Answered(_)));
    bench.unit.write_register(Register::Gerrorn, 1 << 3);
    assert_eq!(bench.unit.page_request(wants(2, true)), PageRequestOutcome::Queued);
}

#[test]
fn priqen_is_acknowledged_off_when_what_was_accepted_is_written() {
    let mut bench = bench();
    bench.unit.page_request(wants(1, true));
    bench.unit.write_register(Register::Cr0, on().with_page_requests(false).into_bits().into());
    let acknowledged = |bench: &Bench| Control0::from_bits(bench.unit.read_register(Register::Cr0Ack) as u32).page_requests();
    assert!(acknowledged(&bench));
    let before = bench.unit.read_register(Register::PriqBase);
    bench.unit.write_register(Register::PriqBase, 0);
    assert_eq!(bench.unit.read_register(Register::PriqBase), before, "it is still in use");
    run(&mut bench);
    assert!(!acknowledged(&bench));
}

#[test]
fn cmd_pri_resp_answers_a_group() {
    let mut bench = bench();
    let command = PageResponseCommand::new().with_opcode(PRI_RESP).with_stream(STREAM.0).with_group(0x1ff);
    for (coded, code) in
        [(RESPONSE_FAILURE, ResponseCode::FAILURE), (RESPONSE_INVALID, ResponseCode::INVALID), (RESPONSE_SUCCESS, ResponseCode::SUCCESS)]
    {
        for pasid in [None, Some(Pasid(0xf_0001))] {
            let tagged = command.with_substream_valid(pasid.is_some()).with_substream(pasid.map_or(0, |pasid| pasid.0));
            bench.submit(&[tagged.with_response(coded).into_bits()]);
            let said = bench.run_commands_with(&mut Plain);
            let told = response(0x1ff, pasid, code);
            assert!(matches!(said[..], [CommandProgress::Respond { response, .. }] if response == told), "{said:?}");
        }
    }
    bench.submit(&[command.with_stream(0x7_0000).into_bits()]);
    assert!(matches!(bench.run_commands_with(&mut Plain)[..], [CommandProgress::Consumed { done: None, .. }]), "nobody is there");
    bench.submit(&[command.with_response(3).into_bits()]);
    assert!(matches!(bench.run_commands_with(&mut Plain)[..], [CommandProgress::Stopped { error: 1, .. }]));
    let mut without = Bench::with(Capabilities { ats: true, ..Capabilities::default() }, Params::default());
    without.submit(&[command.into_bits()]);
    assert!(matches!(without.run_commands_with(&mut Plain)[..], [CommandProgress::Stopped { error: 1, .. }]), "without IDR0.PRI");
}
