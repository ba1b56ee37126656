//! How the time of a run grows with the actors and with the steps: `cargo bench -p sim --bench growth [-- --json]`.
//!
//! An exponent of 1 is proportional growth. Twice as much of either may cost at most 2.2 times the time, an exponent of 1.14; where a
//! policy looks at every enabled actor at every step, more actors cost more than that.

#[path = "../common/rounds.rs"]
mod rounds;
#[path = "../common/workload.rs"]
mod workload;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use rounds::{Entrant, measure};
use sim::policy::{FaultPlan, PolicySpec};
use workload::{Workload, new_engine, profile, run};

const POLICIES: [PolicySpec; 5] = [PolicySpec::Uniform, PolicySpec::Pct { depth: 3 }, PolicySpec::Pos, PolicySpec::Urw, PolicySpec::Surw];

/// One curve: sizes, and the workload of each.
struct Curve {
    name: &'static str,
    sizes: [u64; 5],
    workload: fn(u64) -> Workload,
}

const CURVES: [Curve; 2] = [
    Curve { name: "actors", sizes: [2, 4, 8, 16, 32], workload: |size| Workload { actors: size as usize, steps: 250 } },
    Curve { name: "steps", sizes: [250, 500, 1000, 2000, 4000], workload: |size| Workload { actors: 4, steps: size } },
];

fn entrant(spec: PolicySpec, workload: Workload) -> Entrant<'static> {
    let (profile, mut engine, mut seed) = (profile(workload), new_engine(), 0);
    let run = move |runs| {
        for _ in 0..runs {
            seed += 1;
            black_box(run(&mut engine, spec.build(seed, &profile, FaultPlan::Never), workload));
        }
    };
    Entrant { name: spec.to_string(), units_per_run: 1, run: Box::new(run) }
}

/// The slope of the line through the logarithms, by least squares.
fn exponent(points: &[(u64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|&(size, ns)| ((size as f64).ln(), ns.ln())).collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) = (logs.iter().map(|log| log.0).sum::<f64>() / count, logs.iter().map(|log| log.1).sum::<f64>() / count);
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

fn main() -> ExitCode {
    let (mut json, mut benched) = (false, false);
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--json" => json = true,
            "--bench" => benched = true,
            other => {
                eprintln!("growth: `{other}` is not known; usage: cargo bench -p sim --bench growth -- [--json]");
                return ExitCode::from(2);
            }
        }
    }
    let (rounds, slice) = if benched { (9, Duration::from_millis(8)) } else { (1, Duration::from_micros(100)) };
    for curve in CURVES {
        if !json {
            println!("\n{:<10} {:>9} ns a run at {:>5?}, worst doubling", curve.name, "exponent", curve.sizes);
        }
        // All sizes of all policies in the same rounds.
        let entrants = POLICIES.iter().flat_map(|spec| curve.sizes.map(|size| entrant(*spec, (curve.workload)(size))));
        let figures = measure(entrants.collect(), rounds, slice);
        for figures in figures.chunks(curve.sizes.len()) {
            let policy = &figures[0].name;
            let points: Vec<(u64, f64)> = curve.sizes.into_iter().zip(figures.iter().map(rounds::Figure::ns_median)).collect();
            let exponent = exponent(&points);
            let worst = points.windows(2).map(|pair| pair[1].1 / pair[0].1).fold(0.0, f64::max);
            if json {
                let points: Vec<String> = points.iter().map(|(size, ns)| format!("[{size},{ns:.0}]")).collect();
                let name = format!("{}/{policy}", curve.name);
                let points = points.join(",");
                println!(
                    r#"{{"format_version":1,"type":"growth","name":"{name}","exponent":{exponent:.3},"worst_doubling":{worst:.2},"ns":[{points}]}}"#
                );
            } else {
                let points: Vec<String> = points.iter().map(|(_, ns)| format!("{ns:>9.0}")).collect();
                println!("{:<10} {exponent:>9.3} {}  x{worst:.2}", policy, points.join(" "));
            }
        }
    }
    ExitCode::SUCCESS
}
