//! One download over lines of many lengths and losses.

use std::time::Duration;

use anyhow::Result;
use netns_tests::wait;

use crate::load::Download;
use crate::plan::Plan;
use crate::report::{Column, Report, side_by_side};
use crate::summary::Row;
use crate::systems::{Line, System, over_line};
use crate::usage::Wire;

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    let (cells, [warm_up, time]) = (cells(plan), times(plan));
    println!(
        "Seconds {} to {} of a download at {} Mbit/s; by round trip in ms and loss each way.\n",
        warm_up.as_secs(),
        (warm_up + time).as_secs(),
        RATE / 1_000_000,
    );
    let mut statuses = Vec::new();
    let reports: Vec<Report> = cells
        .iter()
        .map(|cell| {
            let measure = |system| {
                let statuses = plan.status.then_some(&mut statuses);
                measure(system, *cell, [warm_up, time], statuses)
            };
            Report::measure(cell.columns(), &plan.systems, repeats(plan), measure)
        })
        .collect();
    println!("Goodput as a share of rate × (1 − loss):\n\n{}", side_by_side(&reports, 0));
    if plan.status {
        println!("What KCP of the server says after each measurement of ours:\n\n{}\n", statuses.join("\n"));
    }
    println!(
        "Bytes on the wire towards the client for each byte of payload:\n\n{}",
        side_by_side(&reports, 1)
    );
    let rows = [("goodput / (rate × (1 − loss))", 0), ("bytes on the wire for one of payload", 1)];
    rows.into_iter().flat_map(|(label, column)| summarize(label, &cells, &reports, column)).collect()
}

/// A row for each round trip.
fn summarize(label: &str, cells: &[Cell], reports: &[Report], column: usize) -> Vec<Row> {
    let cells: Vec<_> = cells.iter().zip(reports.iter().map(|report| (report, column))).collect();
    let row = |cells: &[(&Cell, (&Report, usize))]| {
        let losses: Vec<_> = cells.iter().map(|(cell, _)| format!("{:.0}", cell.loss * 100.0)).collect();
        let (losses, round_trip) = (losses.join(" / "), cells[0].0.round_trip.as_millis());
        let columns: Vec<_> = cells.iter().map(|(_, column)| *column).collect();
        Row::new(format!("{label}, {round_trip} ms, {losses} % lost each way"), &columns)
    };
    cells.chunk_by(|(one, _), (other, _)| one.round_trip == other.round_trip).map(row).collect()
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    let cells = u32::try_from(cells(plan).len()).unwrap_or(u32::MAX);
    Plan::one_by_one(&plan.systems, repeats(plan), times(plan).iter().sum()) * cells
}

/// Goodput and overhead; adds a line to `statuses` if it is one of ours.
fn measure(
    system: System,
    cell: Cell,
    [warm_up, time]: [Duration; 2],
    statuses: Option<&mut Vec<String>>,
) -> Result<Vec<f64>> {
    let line = Line { rate: RATE, round_trip: cell.round_trip };
    over_line(system, line, cell.loss, |running| {
        let mut download = Download::start(running.topology.client(), running.server)?;
        if !download.wait_for(0.0, FIRST_DATA)? {
            return Ok(vec![0.0, f64::NAN]);
        }
        wait::pass(warm_up);
        // What the router sends towards the client is what enters the emulated line.
        let wire = || Wire::of(&running.topology.router, "client0");
        let (begun, sent) = (wait::uptime(), wire()?.sent_bytes);
        wait::pass(time);
        let (ended, sent) = (wait::uptime(), wire()?.sent_bytes - sent);
        if let Some(statuses) = statuses
            && let Some(kcp) = running.server_kcp()?
        {
            statuses.push(format!("{}: {kcp}", cell.heading()));
        }
        let payload = download.total_at(ended)? - download.total_at(begun)?;
        let rate = payload * 8.0 / (ended - begun).as_secs_f64();
        let overhead = if payload < LEAST_PAYLOAD { f64::NAN } else { sent / payload };
        Ok(vec![rate / (RATE as f64 * (1.0 - cell.loss)), overhead])
    })
}

/// One line of the matrix.
#[derive(Debug, Clone, Copy)]
struct Cell {
    round_trip: Duration,
    loss: f64,
}

impl Cell {
    fn new(round_trip: u64, percent: u32) -> Self {
        Self { round_trip: Duration::from_millis(round_trip), loss: f64::from(percent) / 100.0 }
    }

    fn heading(self) -> String {
        format!("{}/{:.0}%", self.round_trip.as_millis(), self.loss * 100.0)
    }

    fn columns(self) -> Vec<Column> {
        let heading = self.heading();
        let show = |share: f64| format!("{share:.2}");
        vec![Column::more(heading.clone(), show), Column::less(heading, show)]
    }
}

fn cells(plan: &Plan) -> Vec<Cell> {
    if plan.long {
        let of = |round_trip| LOSSES.map(|percent| Cell::new(round_trip, percent));
        ROUND_TRIPS.into_iter().flat_map(of).collect()
    } else {
        QUICK.map(|(round_trip, percent)| Cell::new(round_trip, percent)).to_vec()
    }
}

/// How long a download has gone on before it is measured, and how long it is measured: kernel BBR that loses packets at its start
/// grows for half a minute.
fn times(plan: &Plan) -> [Duration; 2] {
    if plan.long { [10, 20] } else { [5, 5] }.map(Duration::from_secs)
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 2)
}

const RATE: u64 = 100_000_000;

/// Milliseconds, and percent each way.
const ROUND_TRIPS: [u64; 3] = [20, 100, 200];
const LOSSES: [u32; 5] = [0, 1, 5, 10, 20];
const QUICK: [(u64, u32); 7] = [(20, 5), (100, 0), (100, 1), (100, 5), (100, 10), (100, 20), (200, 5)];

/// A handshake without a tunnel may need several tries.
const FIRST_DATA: Duration = Duration::from_secs(10);

/// With less, a ratio would be of little but retries.
const LEAST_PAYLOAD: f64 = 500_000.0;
