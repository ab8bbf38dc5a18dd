//! Small requests over a line that loses packets.

use std::time::Duration;

use anyhow::Result;

use crate::load;
use crate::plan::Plan;
use crate::report::{Column, Report, percentile};
use crate::summary::Row;
use crate::systems::{Line, System, over_line};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "{COUNT} fresh connections, one each {} ms, to the answer of one byte; 100 Mbit/s, 100 ms, 5 % lost each way.\n",
        GAP.as_millis()
    );
    let columns = vec![
        Column::less("p50 ms", |time| format!("{time:.0}")),
        Column::less("p90 ms", |time| format!("{time:.0}")),
        Column::less("p99 ms", |time| format!("{time:.0}")),
    ];
    let report = Report::measure(columns, &plan.connecting(), repeats(plan), measure);
    println!("{report}");
    vec![Row::new(
        "the same on an idle line, 5 % lost each way, p50 / p99, ms",
        &[(&report, 0), (&report, 2)],
    )]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    Plan::one_by_one(&plan.connecting(), repeats(plan), GAP * COUNT)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, LOSS, |running| {
        let mut times = load::requests(running.topology.client(), running.server, COUNT, GAP)?;
        times.sort_by(f64::total_cmp);
        Ok([0.5, 0.9, 0.99].map(|share| percentile(&times, share).unwrap_or(f64::NAN) * 1e3).to_vec())
    })
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 5)
}

const LINE: Line = Line { rate: 100_000_000, round_trip: Duration::from_millis(100) };
const LOSS: f64 = 0.05;
const COUNT: u32 = 200;
const GAP: Duration = Duration::from_millis(50);
