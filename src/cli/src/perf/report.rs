//! Writes results to the standard output as they come, and progress to a terminal. Only rank 0 has one.

use super::format::Format;
use super::plan::Step;
use super::row::{Header, Row};
use super::size::human;
use crate::api::{Failure, Result};
use std::io::{IsTerminal, Write, stderr, stdout};

pub struct Report {
    format: Format,
    header: Header,
    rows: Vec<Row>,
    progress: Progress,
}

/// A line on a terminal that says what is going on.
pub struct Progress {
    /// Whether somebody reads it.
    watched: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { watched: stderr().is_terminal() }
    }
}

impl Progress {
    /// Replaces the line. Progress is decoration: where it cannot be written, nothing is lost.
    pub fn show(&self, text: &str) {
        if self.watched {
            let mut err = stderr().lock();
            let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
        }
    }
}

pub fn write(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Failure::new(format!("writing results: {e}")))
}

impl Report {
    pub fn begin(format: Format, header: Header) -> Result<Report> {
        write(&format.header(&header))?;
        Ok(Report { format, header, rows: Vec::new(), progress: Progress::default() })
    }

    /// Says what is measured next.
    pub fn announce(&self, number: usize, of: usize, step: &Step) {
        let place = if step.in_place { " in place" } else { "" };
        self.progress.show(&format!("[{number}/{of}] {} {}{place} ...", step.op.name(), human(step.size)));
    }

    pub fn add(&mut self, row: Row) -> Result<()> {
        self.progress.show("");
        write(&self.format.row(&row, self.rows.last()))?;
        self.rows.push(row);
        Ok(())
    }

    pub fn end(self) -> Result<()> {
        let footer = self.format.footer(&self.header, &self.rows);
        write(&footer.map_err(|e| Failure::new(format!("writing results: {e}")))?)
    }
}
