//! Goal: reviewers see, field by field, how the handed-over state changes. Method: the decoded state of one small update at kexec,
//! for each layout, as snapshots in `snapshots/state/`.

use workloads::defect::Defects;
use workloads::inspect::At;
use workloads::revision::Revision;
use workloads::run::{How, RunSpec, Workspace, run};
use workloads::scenario;

/// One device, one mapping: small enough to be read as a whole.
fn snapshots(kernel: &str, at: At) -> Vec<(String, String)> {
    let revision = Revision::by_name(kernel).expect("a revision");
    let settings = [("devices", 1), ("mappings", 1), ("pages", 2)];
    let spec = RunSpec {
        scenario: scenario::by_name("update-with-dma").expect("a scenario"),
        outgoing: revision,
        incoming: revision,
        defects: Defects::NONE,
        policy: "uniform".parse().expect("a policy"),
        seed: 0,
        fail_nth: None,
        settings: settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    };
    run(&mut Workspace::new(), &spec, &How { snapshot_at: Some(at), ..How::default() }).snapshots
}

#[test]
fn preserved_state_at_kexec() {
    for kernel in ["v2", "tip-reclaim"] {
        let snapshots = snapshots(kernel, At::Kexec);
        assert_eq!(snapshots.len(), 1, "one jump");
        insta::with_settings!({ snapshot_path => "../../snapshots/state", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("{kernel}-kexec"), snapshots[0].1);
        });
    }
}

#[test]
fn the_incoming_kernel_leaves_its_traces_in_the_state() {
    let text = |at: &str| snapshots("tip-reclaim", At::parse(at).expect("a mark")).remove(0).1;
    assert!(text("kexec").contains("+0x004 hdr.flags = 0x0\n"));
    let adopted = text("adoption");
    assert!(adopted.starts_with("preserved state at adoption-done\n"));
    assert!(adopted.contains("hdr.flags = 0x2 (INCOMING)"), "{adopted}");
    assert!(text("finish").starts_with("preserved state at finish-reached\n"));
}
