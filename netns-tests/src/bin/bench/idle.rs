//! What a tunnel costs while nothing happens.

use std::time::Duration;

use anyhow::Result;
use netns_tests::wait;

use crate::load::Flows;
use crate::plan::Plan;
use crate::report::{Column, Report};
use crate::summary::Row;
use crate::systems::{Line, Running, System, over_line};
use crate::usage::{Wire, resident_bytes};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "A tunnel in which nothing happens for a minute, then {FLOWS} idle connections in it, then {USED} that have carried\n{BYTES} bytes each way.\n"
    );
    let columns = vec![
        Column::less("packets/min", |packets| format!("{packets:.0}")),
        Column::less("client MB", |memory| format!("{memory:.1}")),
        Column::less("server MB", |memory| format!("{memory:.1}")),
        Column::less("client KB/connection", |memory| format!("{memory:.1}")),
        Column::less("server KB/connection", |memory| format!("{memory:.1}")),
        Column::less("client KB/used one", |memory| format!("{memory:.1}")),
        Column::less("server KB/used one", |memory| format!("{memory:.1}")),
    ];
    let report = Report::measure_at_once(columns, &plan.tunnels(), repeats(plan), measure);
    println!("{report}");
    println!("MB: resident memory before the connections; KB: what each added to it.\n");
    vec![
        Row::new("idle tunnel: packets a minute", &[(&report, 0)]),
        Row::new("idle connection: client / server, KB", &[(&report, 3), (&report, 4)]),
        Row::new("the same after 256 KB each way: client / server, KB", &[(&report, 5), (&report, 6)]),
    ]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    (SETTLE * 4 + IDLE + CARRYING * 2) * repeats(plan)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let pids = running.pids()?;
        wait::pass(SETTLE);
        let packets = || Ok::<_, anyhow::Error>(Wire::of(&running.topology.router, "client0")?.packets);
        let before = packets()?;
        wait::pass(IDLE);
        let packets = packets()? - before;
        let empty = memory(&pids)?;
        let fresh = open(running)?;
        wait::pass(SETTLE);
        let full = memory(&pids)?;
        let each = |end: usize| (full[end] - empty[end]) / f64::from(FLOWS) / 1e3;
        drop(fresh);
        // What carries for the first time grows buffers that all connections share.
        drop(carried(running)?);
        wait::pass(SETTLE);
        let before = memory(&pids)?;
        let _used = carried(running)?;
        wait::pass(SETTLE);
        let after = memory(&pids)?;
        let used = |end: usize| (after[end] - before[end]) / f64::from(USED) / 1e3;
        Ok(vec![packets, empty[0] / 1e6, empty[1] / 1e6, each(0), each(1), used(0), used(1)])
    })
}

fn open(running: &Running<'_>) -> Result<Flows> {
    Flows::open(running.topology.client(), running.server, FLOWS, 0, Duration::ZERO)
}

fn carried(running: &Running<'_>) -> Result<Flows> {
    Flows::used(running.topology.client(), running.server, USED, BYTES)
}

fn memory([client, server]: &[Vec<u32>; 2]) -> Result<[f64; 2]> {
    Ok([resident_bytes(client)?, resident_bytes(server)?])
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 3)
}

const LINE: Line = Line { rate: 100_000_000, round_trip: Duration::from_millis(20) };
const FLOWS: u32 = 1000;
const USED: u32 = 200;
const BYTES: u32 = 256 << 10;
const IDLE: Duration = Duration::from_secs(60);

/// All that is carried, about.
const CARRYING: Duration = Duration::from_secs(6);

/// What the start or the connections have begun is over then.
const SETTLE: Duration = Duration::from_secs(8);
