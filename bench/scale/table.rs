//! What was measured, as tables.

use serde::Serialize;

/// A table of numbers, each with the digits that are worth printing.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub title: String,
    /// What the numbers are, and in which unit.
    pub note: String,
    pub head: Vec<String>,
    /// The first cell names the row.
    pub rows: Vec<(String, Vec<f64>)>,
}

/// Three digits that count, without an exponent.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A size in bytes, as peers' tables have it.
pub fn bytes(size: usize) -> String {
    match size {
        _ if size >= 1_000_000 && size.is_multiple_of(1_000_000) => format!("{} MB", size / 1_000_000),
        _ if size >= 1000 && size.is_multiple_of(1000) => format!("{} KB", size / 1000),
        _ if size >= 1024 && size.is_multiple_of(1024) => format!("{} KiB", size / 1024),
        _ => format!("{size} B"),
    }
}

impl Table {
    pub fn new(title: &str, note: &str, head: &[&str]) -> Table {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Table { title: title.to_owned(), note: note.to_owned(), head, rows: Vec::new() }
    }

    pub fn row(&mut self, name: impl Into<String>, numbers: Vec<f64>) {
        self.rows.push((name.into(), numbers));
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let row = |(name, numbers): &(String, Vec<f64>)| {
            let numbers = numbers.iter().map(|value| number(*value));
            std::iter::once(name.clone()).chain(numbers).collect()
        };
        std::iter::once(self.head.clone()).chain(self.rows.iter().map(row)).collect()
    }

    /// For a terminal.
    pub fn plain(&self) -> String {
        let cells = self.cells();
        let width = |i: usize| cells.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0);
        let mut out = format!("{}\n{}\n", self.title, self.note);
        for row in &cells {
            for (i, cell) in row.iter().enumerate() {
                let width = width(i);
                out += &if i == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
            }
            out.push('\n');
        }
        out
    }

    pub fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.note);
        for (i, row) in self.cells().iter().enumerate() {
            out += &format!("| {} |\n", row.join(" | "));
            if i == 0 {
                out += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        out
    }
}
