//! Tables, and their form on the terminal.

use super::figure::Figure;
use super::results::Results;
use comfy_table::{CellAlignment, presets};
use std::fmt::Write;

/// One title of a report, with its table and figures.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// How the figures were measured.
    pub(crate) method: String,
    pub(crate) table: Table,
    pub(crate) figures: Vec<Figure>,
}

/// Cells of text under a header.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Table { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }
}

impl Table {
    /// The table in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let ruler = "|---".repeat(self.header.len());
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{ruler}|\n{rows}", line(&self.header))
    }
}

/// Whether a cell holds a number. Numbers align to the right.
pub(crate) fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit() || first == '-')
}

/// The tables, for the terminal.
pub(crate) fn text(results: &Results, sections: &[Section]) -> String {
    let mut text = String::new();
    for Section { title, table, .. } in sections {
        let mut drawn = comfy_table::Table::new();
        drawn.load_preset(presets::ASCII_MARKDOWN);
        drawn.set_header(&table.header);
        drawn.add_rows(&table.rows);
        for (place, column) in drawn.column_iter_mut().enumerate() {
            if table.rows.iter().filter_map(|row| row.get(place)).all(|cell| is_number(cell)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let _ = writeln!(text, "\n{title}\n\n{drawn}");
    }
    let _ = writeln!(text, "\nSeed {}; {}.", results.header.seed, results.header.machine);
    if !results.header.optimized {
        text.push_str("WARNING: this is an unoptimized build; build it with --release.\n");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{figure, results};
    use super::*;

    pub(crate) fn sample() -> Section {
        let mut table = Table::new(["engine", "recovery, ms"]);
        table.push(["log", "2.0"]);
        Section {
            title: "Recovery".to_owned(),
            method: "Killed & opened again.".to_owned(),
            table,
            figures: figure::tests::samples(),
        }
    }

    #[test]
    fn cells_do_not_break_a_table_of_markdown() {
        let mut table = Table::new(["what", "ms"]);
        table.push(["a|b", "2.0"]);
        assert_eq!(table.markdown(), "| what | ms |\n|---|---|\n| a\\|b | 2.0 |\n");
    }

    #[test]
    fn the_terminal_gets_the_tables() {
        let text = text(&results::tests::sample(), &[sample()]);
        assert!(text.contains("Recovery") && text.contains("recovery, ms") && text.contains("log"));
        assert!(text.contains("Seed 1"));
    }
}
