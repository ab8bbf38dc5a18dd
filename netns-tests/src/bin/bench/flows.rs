//! What a request costs as flows grow many.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load::Flows;
use crate::plan::Plan;
use crate::report::{Column, Report, side_by_side};
use crate::summary::Row;
use crate::systems::{System, on_wires};
use crate::usage::Cpu;

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "{RATE} requests of one byte a second, in turn over open connections, on plain wires, for {} s.\n",
        TIME.as_secs()
    );
    let systems = plan.tunnels();
    let reports: Vec<Report> = COUNTS
        .iter()
        .map(|count| {
            let columns = vec![
                Column::less(format!("{count} flows"), |cpu| format!("{cpu:.0}")),
                Column::more(format!("{count} flows"), |rate| format!("{rate:.0}")),
            ];
            Report::measure(columns, &systems, repeats(plan), |system| measure(system, *count))
        })
        .collect();
    println!("CPU of both ends for each request, µs:\n\n{}", side_by_side(&reports, 0));
    println!("Connections opened a second, 64 at a time:\n\n{}", side_by_side(&reports[MANY..], 1));
    let columns: Vec<_> = reports.iter().map(|report| (report, 0)).collect();
    vec![Row::new("CPU of both ends for a request over 10 / 100 / 1000 / 10,000 open flows, µs", &columns)]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    let opening = Duration::from_secs(2);
    Plan::one_by_one(&plan.tunnels(), repeats(plan), TIME + opening)
        * u32::try_from(COUNTS.len()).unwrap_or(1)
}

fn measure(system: System, count: u32) -> Result<Vec<f64>> {
    on_wires(system, |running| {
        let pids = running.pids()?;
        let mut flows = Flows::open(running.topology.client(), running.server, count, RATE, TIME)?;
        let before = Cpu::now(&pids)?;
        let answered = flows.finish(TIME + GRACE)?;
        let used = Cpu::now(&pids)?.since(before);
        ensure!(answered > 0.0, "no request was answered");
        Ok(vec![(used.ends[0] + used.ends[1]) * 1e6 / answered, flows.open / flows.took])
    })
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 5)
}

const COUNTS: [u32; 4] = [10, 100, 1000, 10_000];

/// From here on, opening them takes long enough to be timed.
const MANY: usize = 2;

const RATE: u32 = 2000;
const TIME: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(30);
