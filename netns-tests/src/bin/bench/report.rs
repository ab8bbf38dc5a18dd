//! Measuring every system in turn, and the table of it: a row for each, medians with what they varied between, and our ratio to
//! the best rival.

use std::io::IsTerminal;

use anyhow::Result;
use netns_tests::table::Table;

use crate::systems::System;

/// A quantity that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    heading: String,
    better: Better,
    show: fn(f64) -> String,
}

/// Which of two values is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

impl Column {
    /// More is better.
    pub(crate) fn more(heading: impl Into<String>, show: fn(f64) -> String) -> Self {
        Self { heading: heading.into() + " ↑", better: Better::More, show }
    }

    /// Less is better.
    pub(crate) fn less(heading: impl Into<String>, show: fn(f64) -> String) -> Self {
        Self { heading: heading.into() + " ↓", better: Better::Less, show }
    }

    fn show(&self, value: f64) -> String {
        if value.is_infinite() { "never".to_owned() } else { (self.show)(value) }
    }

    fn cell(&self, values: &Values) -> String {
        let Some(median) = values.median() else {
            return "–".to_owned();
        };
        let show = |value| self.show(value);
        match (values.0.first(), values.0.last()) {
            (Some(least), Some(most)) if values.0.len() > 1 => {
                format!("{} ({}–{})", show(median), show(*least), show(*most))
            }
            _ => show(median),
        }
    }
}

/// What was measured of one quantity of one system, in order; what does not exist is not in it.
#[derive(Debug)]
struct Values(Vec<f64>);

impl Values {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() % 2 {
            _ if self.0.is_empty() => None,
            0 => Some(f64::midpoint(self.0[middle - 1], self.0[middle])),
            _ => Some(self.0[middle]),
        }
    }
}

/// The value below which `share` of the ordered `values` are, 0 to 1; `None` if there are none.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, reason = "a rounded index")]
    let index = (last as f64 * share).round() as usize;
    values.get(index).copied()
}

/// What every system reached in every repeat.
#[derive(Debug)]
pub(crate) struct Report {
    columns: Vec<Column>,
    rows: Vec<(System, Vec<Result<Vec<f64>>>)>,
    tunnels_only: bool,
}

impl Report {
    /// Measures all `systems`, one after another, `repeats` times; [`f64::NAN`] stands for what a system does not have,
    /// [`f64::INFINITY`] for what never came.
    pub(crate) fn measure(
        columns: Vec<Column>,
        systems: &[System],
        repeats: u32,
        mut measure: impl FnMut(System) -> Result<Vec<f64>>,
    ) -> Self {
        let mut report = Self::new(columns, systems);
        for repeat in 1..=repeats {
            for (system, runs) in &mut report.rows {
                show_progress(&format!("{system}, {repeat} of {repeats}"));
                runs.push(told(*system, measure(*system)));
            }
        }
        show_progress("");
        report
    }

    /// Measures all `systems` at once, each in a network of its own, `repeats` times.
    pub(crate) fn measure_at_once(
        columns: Vec<Column>,
        systems: &[System],
        repeats: u32,
        measure: impl Fn(System) -> Result<Vec<f64>> + Sync,
    ) -> Self {
        let mut report = Self::new(columns, systems);
        let measure = &measure;
        for repeat in 1..=repeats {
            show_progress(&format!("all at once, {repeat} of {repeats}"));
            std::thread::scope(|scope| {
                let begun: Vec<_> = report
                    .rows
                    .iter_mut()
                    .map(|(system, runs)| scope.spawn(|| runs.push(told(*system, measure(*system)))))
                    .collect();
                drop(begun);
            });
        }
        show_progress("");
        report
    }

    fn new(columns: Vec<Column>, systems: &[System]) -> Self {
        let rows = systems.iter().map(|system| (*system, Vec::new())).collect();
        Self { columns, rows, tunnels_only: false }
    }

    /// Leaves the ways without a tunnel out of the ratios.
    pub(crate) const fn compare_tunnels_only(&mut self) {
        self.tunnels_only = true;
    }

    /// Who was measured, in order.
    pub(crate) fn systems(&self) -> Vec<System> {
        self.rows.iter().map(|(system, _)| *system).collect()
    }

    /// A system's median in a column, with how many of its runs failed.
    pub(crate) fn median_cell(&self, system: System, column: usize) -> String {
        let runs = self.rows.iter().find(|(of, _)| *of == system).map_or(&[][..], |(_, runs)| runs);
        match self.values(runs, column).median() {
            Some(median) => self.columns[column].show(median) + &failures(runs),
            None if !runs.is_empty() && runs.iter().all(Result::is_err) => "failed".to_owned(),
            None => "–".to_owned(),
        }
    }

    fn is_rival(&self, system: System) -> bool {
        !system.is_ours() && (system.is_tunnel() || !self.tunnels_only)
    }

    fn values(&self, runs: &[Result<Vec<f64>>], column: usize) -> Values {
        Values::new(runs.iter().filter_map(|run| run.as_ref().ok()?.get(column).copied()))
    }

    /// What a column shows of a row; `room` is for the reason of a failure.
    fn cell(&self, runs: &[Result<Vec<f64>>], column: usize, room: usize) -> String {
        match runs.iter().find_map(|run| run.as_ref().err()) {
            Some(error) if runs.iter().all(Result::is_err) => format!("failed{}", brief(error, room)),
            _ => self.columns[column].cell(&self.values(runs, column)) + &failures(runs),
        }
    }

    /// Our median by the best rival's, and whose that is.
    fn ratio(&self, column: usize) -> Option<String> {
        let median = |system: System| {
            let (_, runs) = self.rows.iter().find(|(of, _)| *of == system)?;
            self.values(runs, column).median()
        };
        let ours = median(System::Vpn)?;
        let rivals = self.rows.iter().map(|(system, _)| *system).filter(|system| self.is_rival(*system));
        let better = self.columns[column].better;
        let (rival, best) =
            rivals.filter_map(|rival| Some((rival, median(rival)?))).min_by(|(_, one), (_, other)| {
                match better {
                    Better::Less => one.total_cmp(other),
                    Better::More => other.total_cmp(one),
                }
            })?;
        Some(match (ours.is_infinite(), best.is_infinite()) {
            (true, true) => "none ever".to_owned(),
            (false, true) => "only ours".to_owned(),
            (true, false) => format!("only {rival}"),
            (false, false) if best == 0.0 => format!("– ({rival})"),
            (false, false) => format!("{:.2} × {rival}", ours / best),
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns: Vec<_> = (0..self.columns.len()).map(|column| (self, column)).collect();
        table(&columns).fmt(formatter)
    }
}

/// The table of one column of each of these reports, which measured the same systems.
pub(crate) fn side_by_side(reports: &[Report], column: usize) -> Table {
    table(&reports.iter().map(|report| (report, column)).collect::<Vec<_>>())
}

fn table(columns: &[(&Report, usize)]) -> Table {
    let headings = columns.iter().map(|(report, column)| report.columns[*column].heading.as_str());
    let mut table = Table::new(&std::iter::once("").chain(headings).collect::<Vec<_>>());
    let rows = columns.first().map_or(0, |(report, _)| report.rows.len());
    for row in 0..rows {
        let cells = columns.iter().enumerate().map(|(n, (report, column))| {
            report.cell(&report.rows[row].1, *column, if n == 0 { REASON } else { 0 })
        });
        let name = columns[0].0.rows[row].0.to_string();
        table.row(std::iter::once(name).chain(cells).collect());
    }
    let ratios: Vec<_> = columns.iter().map(|(report, column)| report.ratio(*column)).collect();
    if ratios.iter().any(Option::is_some) {
        let ratios = ratios.into_iter().map(|ratio| ratio.unwrap_or_else(|| "–".to_owned()));
        table.row(std::iter::once("ours / best rival".to_owned()).chain(ratios).collect());
    }
    table
}

/// Shows what is being measured, in place of the last; only on a terminal.
fn show_progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}{}", if text.is_empty() { "" } else { " …" });
    }
}

/// Says on standard error what failed: the table has no room for it.
fn told(system: System, outcome: Result<Vec<f64>>) -> Result<Vec<f64>> {
    outcome.inspect_err(|error| eprintln!("bench: {system}: {error:#}"))
}

/// " (1 of 2 failed)", if some did.
fn failures(runs: &[Result<Vec<f64>>]) -> String {
    match runs.iter().filter(|run| run.is_err()).count() {
        0 => String::new(),
        failed => format!(" ({failed} of {} failed)", runs.len()),
    }
}

/// ": REASON" as far as there is room for it.
fn brief(error: &anyhow::Error, room: usize) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(room).collect();
    if short.is_empty() {
        return short;
    }
    if short.len() < line.len() {
        short.push('…');
    }
    format!(": {short}")
}

/// The characters of a failure's reason in the first column.
const REASON: usize = 40;

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const SYSTEMS: [System; 3] = [System::Vpn, System::Direct, System::WireGuard];

    fn columns() -> Vec<Column> {
        let show = |value: f64| format!("{value:.1}");
        vec![Column::more("rate", show), Column::less("time", show)]
    }

    /// One run of each system in which it reached these.
    fn report(ours: [f64; 2], direct: [f64; 2], wireguard: [f64; 2]) -> Report {
        let mut values = [ours, direct, wireguard].into_iter();
        Report::measure(columns(), &SYSTEMS, 1, |_| Ok(values.next().unwrap().to_vec()))
    }

    #[test]
    fn compares_with_the_rival_that_is_best_in_the_column() {
        let report = report([2.0, 3.0], [4.0, 2.0], [1.0, 1.0]);
        assert_eq!(report.ratio(0).as_deref(), Some("0.50 × direct-cubic"));
        assert_eq!(report.ratio(1).as_deref(), Some("3.00 × wireguard-go"));
    }

    #[test]
    fn compares_with_tunnels_only_when_told_to() {
        let mut report = report([2.0, 3.0], [4.0, 2.0], [1.0, 1.0]);
        report.compare_tunnels_only();
        assert_eq!(report.ratio(0).as_deref(), Some("2.00 × wireguard-go"));
    }

    #[test]
    fn says_who_came_back_when_others_never_did() {
        let never = f64::INFINITY;
        assert_eq!(report([1.0, 1.0], [1.0, never], [1.0, never]).ratio(1).as_deref(), Some("only ours"));
        assert_eq!(
            report([1.0, never], [1.0, 2.0], [1.0, never]).ratio(1).as_deref(),
            Some("only direct-cubic")
        );
        assert_eq!(report([1.0, never], [1.0, never], [1.0, never]).ratio(1).as_deref(), Some("none ever"));
    }

    #[test]
    fn shows_the_median_between_the_least_and_the_most() {
        let mut runs = [3.0, 1.0, 2.0].into_iter();
        let report = Report::measure(columns(), &[System::Vpn], 3, |_| Ok(vec![runs.next().unwrap(), 1.0]));
        assert_eq!(report.cell(&report.rows[0].1, 0, 0), "2.0 (1.0–3.0)");
    }

    #[test]
    fn takes_the_median_of_two_between_them() {
        assert_eq!(Values::new([4.0, 1.0].into_iter()).median(), Some(2.5));
        assert_eq!(Values::new([f64::INFINITY, 1.0].into_iter()).median(), Some(f64::INFINITY));
    }

    #[test]
    fn shows_failures_beside_what_was_measured() {
        let mut runs = [false, true].into_iter();
        let report = Report::measure(columns(), &[System::Vpn], 2, |_| {
            if runs.next().unwrap() { Ok(vec![5.0, 1.0]) } else { bail!("no answer") }
        });
        assert_eq!(report.cell(&report.rows[0].1, 0, 20), "5.0 (1 of 2 failed)");
        assert_eq!(report.median_cell(System::Vpn, 0), "5.0 (1 of 2 failed)");
        let report = Report::measure(columns(), &[System::Vpn], 2, |_| bail!("no answer from it"));
        assert_eq!(report.cell(&report.rows[0].1, 0, 9), "failed: no answer…");
        assert_eq!(report.cell(&report.rows[0].1, 1, 0), "failed");
    }

    #[test]
    fn shows_what_a_system_does_not_have_as_a_dash_and_compares_with_others() {
        let report = report([2.0, 3.0], [f64::NAN, 2.0], [1.0, f64::NAN]);
        assert_eq!(report.cell(&report.rows[1].1, 0, 0), "–");
        assert_eq!(report.ratio(0).as_deref(), Some("2.00 × wireguard-go"));
    }

    #[test]
    fn finds_percentiles_of_ordered_values() {
        let values: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), Some(51.0));
        assert_eq!(percentile(&values, 0.99), Some(100.0));
        assert_eq!(percentile(&values, 1.0), Some(101.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn measures_at_once_what_it_measures_in_turn() {
        let report = Report::measure_at_once(columns(), &SYSTEMS, 3, |_| Ok(vec![1.0, 2.0]));
        for (_, runs) in &report.rows {
            assert_eq!(runs.len(), 3);
        }
    }
}
