//! A blackout in mid-download.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::wait;

use crate::load::Download;
use crate::plan::Plan;
use crate::report::{Column, Report};
use crate::summary::Row;
use crate::systems::{Line, System, over_line};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "A blackout of {} s in a download: from the line's return to data for the app; 20 Mbit/s, 100 ms.\n",
        BLACKOUT.as_secs()
    );
    let columns = vec![Column::less("data back after s", |time| format!("{time:.2}"))];
    let report = Report::measure_at_once(columns, &plan.systems, repeats(plan), measure);
    println!("{report}");
    vec![Row::new("after a blackout of 30 s, data again after, s", &[(&report, 0)])]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    (BEFORE + BLACKOUT + USUAL_RETURN) * repeats(plan)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let link = running.topology.link();
        let mut download = Download::start(running.topology.client(), running.server)?;
        wait::pass(BEFORE);
        ensure!(download.wait_for(0.0, Duration::ZERO)?, "no data before the blackout");
        link.set_blackout(true)?;
        wait::pass(BLACKOUT);
        let before = download.total_at(wait::uptime())?;
        let returned = wait::uptime();
        link.set_blackout(false)?;
        if !download.wait_for(before, LIMIT)? {
            return Ok(vec![f64::INFINITY]);
        }
        let arrivals = download.arrivals()?;
        let first = arrivals.iter().find(|arrival| arrival.total > before).map(|arrival| arrival.time);
        Ok(vec![first.unwrap_or(f64::INFINITY) - returned.as_secs_f64()])
    })
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(2, 5)
}

/// Small enough that every system's line can be carried at the same time.
const LINE: Line = Line { rate: 20_000_000, round_trip: Duration::from_millis(100) };
const BEFORE: Duration = Duration::from_secs(4);
const BLACKOUT: Duration = Duration::from_secs(30);

/// What has not come back by then is said never to.
const LIMIT: Duration = Duration::from_secs(90);

/// The kernel's TCP tries again within this.
const USUAL_RETURN: Duration = Duration::from_secs(26);
