//! A new connection beside a download that fills the line.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::wait;

use crate::load::{self, Download};
use crate::plan::Plan;
use crate::report::{Column, Report, percentile};
use crate::summary::Row;
use crate::systems::{Line, System, over_line};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "{COUNT} fresh connections, one each {} ms, to the answer of one byte, beside a download; 50 Mbit/s, 100 ms.\n",
        GAP.as_millis()
    );
    let columns = vec![
        Column::less("p50 ms", |time| format!("{time:.0}")),
        Column::less("p99 ms", |time| format!("{time:.0}")),
        Column::more("download Mbit/s", |rate| format!("{rate:.0}")),
    ];
    let report = Report::measure(columns, &plan.connecting(), repeats(plan), measure);
    println!("{report}\n{NOTE}\n");
    vec![Row::new(
        "new connection and 1 byte beside a download, p50 / p99, ms",
        &[(&report, 0), (&report, 1)],
    )]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    Plan::one_by_one(&plan.connecting(), repeats(plan), WARM_UP + GAP * COUNT)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let client = running.topology.client();
        let mut download = Download::start(client, running.server)?;
        wait::pass(WARM_UP);
        let begun = wait::uptime();
        let mut times = load::requests(client, running.server, COUNT, GAP)?;
        let ended = wait::uptime();
        ensure!(download.end()?.is_none(), "the download ended: {:?}", download.end()?);
        times.sort_by(f64::total_cmp);
        let of = |share| percentile(&times, share).unwrap_or(f64::NAN) * 1e3;
        let bytes = download.total_at(ended)? - download.total_at(begun)?;
        Ok(vec![of(0.5), of(0.99), bytes * 8.0 / 1e6 / (ended - begun).as_secs_f64()])
    })
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 5)
}

const LINE: Line = Line { rate: 50_000_000, round_trip: Duration::from_millis(100) };
const COUNT: u32 = 100;
const GAP: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_secs(4);

const NOTE: &str = "\
kcptun, and ours with connect = \"fast\", answers a connect by itself, before it has asked the target: one round trip less, but no refusal is
seen as one.";
