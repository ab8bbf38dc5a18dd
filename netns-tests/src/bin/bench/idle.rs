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
    println!("A tunnel in which nothing happens for a minute, then {FLOWS} idle connections in it.\n");
    let columns = vec![
        Column::less("packets/min", |packets| format!("{packets:.0}")),
        Column::less("client MB", |memory| format!("{memory:.1}")),
        Column::less("server MB", |memory| format!("{memory:.1}")),
        Column::less("client KB/connection", |memory| format!("{memory:.1}")),
        Column::less("server KB/connection", |memory| format!("{memory:.1}")),
    ];
    let report = Report::measure_at_once(columns, &plan.tunnels(), repeats(plan), measure);
    println!("{report}");
    println!("MB: resident memory before the connections; KB: what each added to it.\n");
    vec![
        Row::new("idle tunnel: packets a minute", &[(&report, 0)]),
        Row::new("idle connection: client / server, KB", &[(&report, 3), (&report, 4)]),
    ]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    (SETTLE + IDLE + SETTLE) * repeats(plan)
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
        let _flows = open(running)?;
        wait::pass(SETTLE);
        let full = memory(&pids)?;
        let each = |end: usize| (full[end] - empty[end]) / f64::from(FLOWS) / 1e3;
        Ok(vec![packets, empty[0] / 1e6, empty[1] / 1e6, each(0), each(1)])
    })
}

fn open(running: &Running<'_>) -> Result<Flows> {
    Flows::open(running.topology.client(), running.server, FLOWS, 0, Duration::ZERO)
}

fn memory([client, server]: &[Vec<u32>; 2]) -> Result<[f64; 2]> {
    Ok([resident_bytes(client)?, resident_bytes(server)?])
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 3)
}

const LINE: Line = Line { rate: 100_000_000, round_trip: Duration::from_millis(20) };
const FLOWS: u32 = 1000;
const IDLE: Duration = Duration::from_secs(60);

/// What the start or the connections have begun is over then.
const SETTLE: Duration = Duration::from_secs(8);
