//! The outer flow dies in mid-download, again and again: killed for good, cut one way, or the client moves.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::emulator::Direction;
use netns_tests::wait;

use crate::load::{Arrival, Download};
use crate::plan::Plan;
use crate::report::{Column, Report, percentile};
use crate::summary::Row;
use crate::systems::{Line, Running, System, over_line};

/// What is done to the outer flow.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    CutUp,
    CutDown,
    Move,
}

impl Blow {
    const ALL: [Self; 4] = [Self::Kill, Self::CutUp, Self::CutDown, Self::Move];

    const fn label(self) -> &'static str {
        match self {
            Self::Kill => "outer 5-tuple killed",
            Self::CutUp => "outer 5-tuple cut towards the server",
            Self::CutDown => "outer 5-tuple cut from the server",
            Self::Move => "client's address changed",
        }
    }

    fn strike(self, running: &Running<'_>, n: u32) -> Result<()> {
        match self {
            Self::Kill => running.kill_flow(None),
            Self::CutUp => running.kill_flow(Some(Direction::Out)),
            Self::CutDown => running.kill_flow(Some(Direction::In)),
            Self::Move => running.change_address(n),
        }
    }
}

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    let kills = kills(plan);
    println!(
        "The outer flow dies in a download, {kills} times each way: the gap in the app's data; 20 Mbit/s, 100 ms.\n"
    );
    let rows = Blow::ALL.into_iter().map(|blow| {
        println!("{}:\n", blow.label());
        let columns = vec![
            Column::less("p50 s", |time| format!("{time:.2}")),
            Column::less("worst s", |time| format!("{time:.2}")),
        ];
        let measure = |system| measure(system, blow, kills);
        let report = Report::measure_at_once(columns, &plan.systems, 1, measure);
        println!("{report}");
        Row::new(
            format!("{}: gap in a download, p50 / worst, s", blow.label()),
            &[(&report, 0), (&report, 1)],
        )
    });
    let rows = rows.collect();
    println!("never: not within {} s; who takes long is struck less often.\n", LIMIT.as_secs());
    rows
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    let fast = (BETWEEN + Duration::from_secs(1)) * kills(plan);
    // A gap of a minute may begin just before the limit.
    let slow = LIMIT + Duration::from_secs(60);
    let each = if plan.systems.iter().all(|system| *system == System::Vpn) { fast } else { fast.max(slow) };
    each * 4
}

fn measure(system: System, blow: Blow, kills: u32) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let mut download = Download::start(running.topology.client(), running.server)?;
        let mut gaps: Vec<f64> = Vec::new();
        let begun = wait::now();
        for n in 0..kills {
            // Who needs a minute each time is struck a few times only; nothing comes after a download that is dead.
            if begun.elapsed() > LIMIT || gaps.last().is_some_and(|gap| gap.is_infinite()) {
                break;
            }
            wait::pass(BETWEEN);
            gaps.push(gap_after(running, blow, n, &mut download)?);
        }
        gaps.sort_by(f64::total_cmp);
        let worst = gaps.last().copied().unwrap_or(f64::NAN);
        Ok(vec![percentile(&gaps, 0.5).unwrap_or(f64::NAN), worst])
    })
}

/// Strikes; the longest time without data in what follows.
fn gap_after(running: &Running<'_>, blow: Blow, n: u32, download: &mut Download) -> Result<f64> {
    let before = download.total_at(wait::uptime())?;
    ensure!(before > 0.0, "no data before the flow died");
    let struck = wait::uptime().as_secs_f64();
    blow.strike(running, n)?;
    if !download.wait_for(before + NEW_DATA, LIMIT)? {
        return Ok(f64::INFINITY);
    }
    // The gap begins with the last arrival before: a blow to the host itself lets nothing in that was on its way.
    let arrivals = download.arrivals()?;
    let first = arrivals.partition_point(|arrival: &Arrival| arrival.time < struck).saturating_sub(1);
    Ok(arrivals[first..].windows(2).map(|pair| pair[1].time - pair[0].time).fold(0.0, f64::max))
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
