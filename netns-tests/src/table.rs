//! Tables of text, for people.

/// A table with a header; columns are as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
        let rules = headings.iter().map(|_| String::new()).collect();
        Self { rows: vec![headings, rules] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let line: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, width)| match row.get(column) {
                    _ if number == 1 => "─".repeat(*width),
                    cell => format!("{:<width$}", cell.map_or("", String::as_str)),
                })
                .collect();
            writeln!(formatter, "  {}", line.join("   ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_its_columns() {
        let mut table = Table::new(&["what", "direct"]);
        table.row(vec!["ping".to_owned(), "100 ms".to_owned()]);
        table.row(vec!["a refused port".to_owned(), "—".to_owned()]);
        let text = table.to_string();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "  what             direct",
                "  ──────────────   ──────",
                "  ping             100 ms",
                "  a refused port   —",
            ]
        );
    }
}
