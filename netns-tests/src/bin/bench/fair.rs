//! Downloads beside each other: how equal their shares are, and what one that is not read costs the others.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load;
use crate::plan::Plan;
use crate::report::{Column, Report};
use crate::summary::Row;
use crate::systems::{Line, System, over_line};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "Downloads at once over 100 Mbit/s and 50 ms, seconds {} to {}.\n",
        WARM_UP.as_secs(),
        (WARM_UP + TIME).as_secs()
    );
    let columns = vec![
        Column::more(format!("Jain's index of {FEW}"), |index| format!("{index:.3}")),
        Column::more(format!("Jain's index of {MANY}"), |index| format!("{index:.3}")),
        Column::more("kept by the others", |share| format!("{share:.3}")),
    ];
    let report = Report::measure(columns, &plan.systems, repeats(plan), measure);
    println!("{report}\n{NOTE}\n");
    vec![
        Row::new(format!("Jain's index of {FEW} / {MANY} downloads"), &[(&report, 0), (&report, 1)]),
        Row::new(format!("one of {MANY} readers stops: kept by the others"), &[(&report, 2)]),
    ]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    Plan::one_by_one(&plan.systems, repeats(plan), (WARM_UP + TIME) * 3)
}

fn measure(system: System) -> Result<Vec<f64>> {
    over_line(system, LINE, 0.0, |running| {
        let downloads = |count, stopped| {
            let client = running.topology.client();
            let bytes = load::downloads(client, running.server, count, stopped, WARM_UP, TIME)?;
            ensure!(bytes.len() == count as usize, "{} of {count} downloads", bytes.len());
            Ok(bytes)
        };
        let (few, many, stopped) = (downloads(FEW, 0)?, downloads(MANY, 0)?, downloads(MANY, 1)?);
        let each = many.iter().sum::<f64>() / f64::from(MANY);
        let others = stopped[1..].iter().sum::<f64>() / f64::from(MANY - 1);
        Ok(vec![jain(&few), jain(&many), others / each])
    })
}

/// 1 if all shares are equal, 1/n if one has all (Jain, Chiu and Hawe, 1984).
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(1, 5)
}

const LINE: Line = Line { rate: 100_000_000, round_trip: Duration::from_millis(50) };
const FEW: u32 = 10;
const MANY: u32 = 100;
const WARM_UP: Duration = Duration::from_secs(4);
const TIME: Duration = Duration::from_secs(8);

const NOTE: &str = "\
Kept by the others: what each of the others gets while one is not read, of what each gets while all are. 1.01 is the whole share of\nthe one.";
