//! The outer flow killed for good in mid-download, again and again.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::wait;

use crate::load::{Arrival, Download};
use crate::plan::Plan;
use crate::report::{Column, Report, percentile};
use crate::summary::Row;
use crate::systems::{Line, Running, System, over_line};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "The outer 5-tuple killed for good in a download, {} times: the gap in the app's data; 20 Mbit/s, 100 ms.\n",
        kills(plan)
    );
    let columns = vec![
        Column::less("p50 s", |time| format!("{time:.2}")),
        Column::less("worst s", |time| format!("{time:.2}")),
    ];
    let kills = kills(plan);
    let report = Report::measure_at_once(columns, &plan.systems, 1, |system| measure(system, kills));
    println!("{report}");
    println!("never: not within {} s; who takes long is killed less often.\n", LIMIT.as_secs());
    vec![Row::new("outer 5-tuple killed: gap in a download, p50 / worst, s", &[(&report, 0), (&report, 1)])]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    let fast = (BETWEEN + Duration::from_secs(1)) * kills(plan);
    // A gap of a minute may begin just before the limit.
    fast.max(LIMIT + Duration::from_secs(60))
}

fn measure(system: System, kills: u32) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let mut download = Download::start(running.topology.client(), running.server)?;
        let mut gaps: Vec<f64> = Vec::new();
        let begun = wait::now();
        for _ in 0..kills {
            // Who needs a minute each time is killed a few times only; nothing comes after a download that is dead.
            if begun.elapsed() > LIMIT || gaps.last().is_some_and(|gap| gap.is_infinite()) {
                break;
            }
            wait::pass(BETWEEN);
            gaps.push(gap_after_kill(running, &mut download)?);
        }
        gaps.sort_by(f64::total_cmp);
        let worst = gaps.last().copied().unwrap_or(f64::NAN);
        Ok(vec![percentile(&gaps, 0.5).unwrap_or(f64::NAN), worst])
    })
}

/// Kills the flow; the longest time without data in what follows.
fn gap_after_kill(running: &Running<'_>, download: &mut Download) -> Result<f64> {
    let before = download.total_at(wait::uptime())?;
    ensure!(before > 0.0, "no data before the kill");
    let killed = wait::uptime().as_secs_f64();
    running.kill_flow()?;
    if !download.wait_for(before + NEW_DATA, LIMIT)? {
        return Ok(f64::INFINITY);
    }
    let arrivals = download.arrivals()?;
    let recent: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.time >= killed).collect();
    Ok(recent.windows(2).map(|pair| pair[1].time - pair[0].time).fold(0.0, f64::max))
}

fn kills(plan: &Plan) -> u32 {
    plan.repeats(10, 40)
}

/// Small enough that every system's line can be carried at the same time.
const LINE: Line = Line { rate: 20_000_000, round_trip: Duration::from_millis(100) };

const BETWEEN: Duration = Duration::from_secs(3);

/// More than was under way when the flow died: a round trip of the line and a full queue hold half of it.
const NEW_DATA: f64 = 1_000_000.0;

/// What has not come back by then is said never to.
const LIMIT: Duration = Duration::from_secs(100);
