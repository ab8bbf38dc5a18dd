//! A blackout in mid-download.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::emulator::Direction;
use netns_tests::wait;

use crate::load::Download;
use crate::plan::Plan;
use crate::report::{Column, Report};
use crate::summary::Row;
use crate::systems::{Line, Running, System, over_line};

/// What passes nothing, for how long.
#[derive(Debug, Clone, Copy)]
struct Blackout {
    ways: &'static [Direction],
    time: Duration,
}

const BLACKOUTS: [Blackout; 4] = [
    Blackout { ways: &Direction::BOTH, time: Duration::from_secs(30) },
    Blackout { ways: &Direction::BOTH, time: Duration::from_secs(60) },
    Blackout { ways: &[Direction::Out], time: Duration::from_secs(30) },
    Blackout { ways: &[Direction::In], time: Duration::from_secs(30) },
];

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!("A blackout in a download: from the line's return to data for the app; 20 Mbit/s, 100 ms.\n");
    let names = ["30 s", "60 s", "30 s, only up", "30 s, only down"];
    let columns = names.map(|name| Column::less(name, |time| format!("{time:.2}"))).into();
    let report = Report::measure_at_once(columns, &plan.systems, repeats(plan), measure);
    println!("{report}");
    vec![
        Row::new("after a blackout of 30 / 60 s, data again after, s", &[(&report, 0), (&report, 1)]),
        Row::new("the same, 30 s only up / only down", &[(&report, 2), (&report, 3)]),
    ]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    let each = |blackout: &Blackout| BEFORE + blackout.time + USUAL_RETURN;
    BLACKOUTS.iter().map(each).sum::<Duration>() * repeats(plan)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let mut download = Download::start(running.topology.client(), running.server)?;
        let mut returns = Vec::new();
        for blackout in BLACKOUTS {
            // Nothing comes after a download that is dead.
            let is_dead = returns.last().is_some_and(|time: &f64| time.is_infinite());
            returns.push(if is_dead { f64::INFINITY } else { returned(running, blackout, &mut download)? });
        }
        Ok(returns)
    })
}

/// How long after the line's return data comes.
fn returned(running: &Running<'_>, blackout: Blackout, download: &mut Download) -> Result<f64> {
    let link = running.topology.link();
    wait::pass(BEFORE);
    let begun = download.total_at(wait::uptime())?;
    ensure!(begun > 0.0, "no data before the blackout");
    blackout.ways.iter().try_for_each(|way| link.set_blackout_of(*way, true))?;
    wait::pass(blackout.time);
    let before = download.total_at(wait::uptime())?;
    let returned = wait::uptime();
    blackout.ways.iter().try_for_each(|way| link.set_blackout_of(*way, false))?;
    if !download.wait_for(before, LIMIT)? {
        return Ok(f64::INFINITY);
    }
    let arrivals = download.arrivals()?;
    let first = arrivals.iter().find(|arrival| arrival.total > before).map(|arrival| arrival.time);
    Ok(first.unwrap_or(f64::INFINITY) - returned.as_secs_f64())
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 3)
}

/// Small enough that every system's line can be carried at the same time.
const LINE: Line = Line { rate: 20_000_000, round_trip: Duration::from_millis(100) };
const BEFORE: Duration = Duration::from_secs(4);

/// What has not come back by then is said never to.
const LIMIT: Duration = Duration::from_secs(90);

/// The kernel's TCP tries again within this.
const USUAL_RETURN: Duration = Duration::from_secs(26);
