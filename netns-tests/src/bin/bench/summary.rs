//! The short table that the README carries, in Markdown: one row for what several columns of a part have shown.

use std::fmt;

use crate::report::Report;
use crate::systems::System;

/// A row: medians only, of every system that was measured.
#[derive(Debug)]
pub(crate) struct Row {
    label: String,
    cells: Vec<(System, String)>,
}

impl Row {
    /// A row of one column of each of these reports, which measured the same systems.
    pub(crate) fn new(label: impl Into<String>, columns: &[(&Report, usize)]) -> Self {
        let systems = columns.first().map_or_else(Vec::new, |(report, _)| report.systems());
        let cell = |system: System| {
            let medians: Vec<_> =
                columns.iter().map(|(report, column)| report.median_cell(system, *column)).collect();
            // What a system has nothing of, or always fails at, is said once.
            let same =
                medians.windows(2).all(|pair| pair[0] == pair[1]) && medians[0].parse::<f64>().is_err();
            (system, if same { medians[0].clone() } else { medians.join(" / ") })
        };
        Self { label: label.into(), cells: systems.into_iter().map(cell).collect() }
    }

    fn cell(&self, system: System) -> &str {
        self.cells.iter().find(|(of, _)| *of == system).map_or("–", |(_, cell)| cell)
    }
}

/// The rows of all parts.
#[derive(Debug)]
pub(crate) struct Summary {
    /// The columns.
    pub(crate) systems: Vec<System>,
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.systems.iter().map(|system| system.name()).collect();
        writeln!(formatter, "| | {} |", names.join(" | "))?;
        writeln!(formatter, "|---|{}", "---|".repeat(names.len()))?;
        for row in &self.rows {
            let cells: Vec<_> = self.systems.iter().map(|system| row.cell(*system)).collect();
            writeln!(formatter, "| {} | {} |", row.label, cells.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::report::Column;

    #[test]
    fn joins_the_medians_of_several_columns_and_says_once_what_is_the_same_word() {
        let show = |value: f64| format!("{value:.1}");
        let columns = vec![Column::more("down", show), Column::more("up", show)];
        let systems = [System::Vpn, System::WireGuard, System::OpenVpn];
        let never = vec![f64::INFINITY; 2];
        let mut runs = [Ok(vec![1.0, 1.0]), Err(anyhow!("no")), Ok(never)].into_iter();
        let report = Report::measure(columns, &systems, 1, |_| runs.next().unwrap());
        let rows = vec![Row::new("rate", &[(&report, 0), (&report, 1)])];
        let mut systems = systems.to_vec();
        systems.push(System::Direct);
        assert_eq!(
            Summary { systems, rows }.to_string().lines().collect::<Vec<_>>(),
            [
                "| | vpn | wireguard-go | openvpn | direct-cubic |",
                "|---|---|---|---|---|",
                "| rate | 1.0 / 1.0 | failed | never | – |",
            ]
        );
    }
}
