//! How results are written. Pure: everything here answers text.

use super::op::Op;
use super::row::{Header, Row};

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Csv,
    Json,
    Results,
}

impl Format {
    pub fn of(output: &super::args::Output) -> Format {
        match output {
            o if o.json => Format::Json,
            o if o.csv => Format::Csv,
            o if o.results => Format::Results,
            _ => Format::Table,
        }
    }

    /// What comes before everything.
    pub fn header(self, header: &Header) -> String {
        match self {
            Format::Table => table_header(header),
            Format::Csv => format!("{}\n", CSV_COLUMNS.join(",")),
            Format::Json | Format::Results => String::new(),
        }
    }

    /// One line, with what comes before it where its operation is another than that of the one before.
    pub fn row(self, row: &Row, before: Option<&Row>) -> String {
        match self {
            Format::Table if before.is_some_and(|before| before.op == row.op) => table_row(row),
            Format::Table => format!("{}{}", table_columns(row), table_row(row)),
            Format::Csv => csv_row(row),
            Format::Json => String::new(),
            Format::Results => result(row),
        }
    }

    /// What comes after everything.
    pub fn footer(self, header: &Header, rows: &[Row]) -> serde_json::Result<String> {
        match self {
            Format::Json => {
                #[derive(serde::Serialize)]
                struct Document<'a> {
                    #[serde(flatten)]
                    header: &'a Header,
                    results: &'a [Row],
                }
                let document = Document { header, results: rows };
                serde_json::to_string_pretty(&document).map(|text| text + "\n")
            }
            Format::Table => Ok(match rows.iter().map(|row| row.wrong).sum::<Option<u64>>() {
                None => String::new(),
                Some(0) => "#\n# nothing was wrong\n".to_owned(),
                Some(n) => format!("#\n# {n} elements were wrong\n"),
            }),
            Format::Csv | Format::Results => Ok(String::new()),
        }
    }
}

fn table_header(header: &Header) -> String {
    let Header { version, ranks, worlds, active_worlds, transport, backend, join_ms, machine } = header;
    let traffic = match worlds {
        1 => String::new(),
        _ => format!(", {worlds} worlds of which {active_worlds} with traffic"),
    };
    format!(
        "# mw perf, multiworld {version}\n# {ranks} ranks{traffic}, {transport}, {backend} backend, joined in {join_ms:.1} ms\n\
         # {machine}\n"
    )
}

fn table_columns(row: &Row) -> String {
    format!(
        "#\n# {}\n#{:>11} {:>12} {:>10} {:>6} {:>5} {:>5} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>7}\n\
         #{:>11} {:>12} {:>10} {:>6} {:>5} {:>5} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>7}\n",
        row.op,
        "size",
        "count",
        "type",
        "redop",
        "root",
        "place",
        "time",
        "min",
        "median",
        "p99",
        "algbw",
        "busbw",
        "#wrong",
        "(B)",
        "(elements)",
        "",
        "",
        "",
        "",
        "(us)",
        "(us)",
        "(us)",
        "(us)",
        "(GB/s)",
        "(GB/s)",
        "",
    )
}

fn table_row(row: &Row) -> String {
    format!(
        "{:>12} {:>12} {:>10} {:>6} {:>5} {:>5} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>7}\n",
        row.size,
        row.count,
        row.datatype,
        row.redop,
        row.root,
        if row.in_place { "in" } else { "out" },
        time(row.time),
        time(row.min),
        time(row.median),
        time(row.p99),
        bandwidth(row.algbw),
        bandwidth(row.busbw),
        row.wrong.map_or("N/A".to_owned(), |wrong| wrong.to_string()),
    )
}

/// Microseconds with the digits that mean something.
fn time(us: f64) -> String {
    match us {
        us if us < 100.0 => format!("{us:.3}"),
        us if us < 10_000.0 => format!("{us:.1}"),
        us => format!("{us:.0}"),
    }
}

fn bandwidth(gb: f64) -> String {
    if gb < 1.0 { format!("{gb:.4}") } else { format!("{gb:.2}") }
}

const CSV_COLUMNS: [&str; 16] = [
    "op",
    "requested",
    "size",
    "count",
    "type",
    "redop",
    "root",
    "in_place",
    "iterations",
    "time_us",
    "min_us",
    "median_us",
    "p99_us",
    "algbw_GBs",
    "busbw_GBs",
    "wrong",
];

fn csv_row(row: &Row) -> String {
    let wrong = row.wrong.map_or(String::new(), |wrong| wrong.to_string());
    format!(
        "{},{},{},{},{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.6},{:.6},{wrong}\n",
        row.op,
        row.requested,
        row.size,
        row.count,
        row.datatype,
        row.redop,
        row.root,
        row.in_place,
        row.iterations,
        row.time,
        row.min,
        row.median,
        row.p99,
        row.algbw,
        row.busbw,
    )
}

fn result(row: &Row) -> String {
    let op: Op = row.step.op;
    let (value, unit) = if op.is_bandwidth() { (row.algbw * 1e3, "MB/s") } else { (row.time, "us") };
    format!("RESULT {} {} {} {unit}\n", op.short_name(), row.requested, significant(value))
}

/// Six significant digits.
fn significant(value: f64) -> String {
    let before = if value.abs() < 1.0 { 1 } else { value.abs().log10().floor() as i64 + 1 };
    format!("{value:.*}", usize::try_from(6 - before).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::row::tests::row;
    use super::*;

    fn header() -> Header {
        let machine =
            Machine { host: "h".into(), cpu: "c".into(), cores: 2, memory_gib: 8, kernel: "6".into() };
        Header {
            version: "1.2.3",
            ranks: 4,
            worlds: 1,
            active_worlds: 1,
            transport: "shared memory".into(),
            backend: "host",
            join_ms: 1.0,
            machine,
        }
    }

    #[test]
    fn columns_stand_below_their_names() {
        let text = Format::Table.row(&row(Op::AllReduce, 4096, 12.3456), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[2..].iter().all(|line| line.len() == lines[2].len()), "{text}");
        assert!(lines[4].contains("12.346"));
        assert!(lines[2].ends_with("#wrong") && lines[4].ends_with("      0"));
    }

    #[test]
    fn an_operation_is_named_once() {
        let (first, second) = (row(Op::Bw, 8, 1.0), row(Op::Bw, 64, 1.0));
        assert!(Format::Table.row(&first, None).contains("# bw\n"));
        assert_eq!(Format::Table.row(&second, Some(&first)).lines().count(), 1);
    }

    #[test]
    fn results_are_what_comparisons_read() {
        let text = |op, size, time| Format::Results.row(&row(op, size, time), None);
        assert_eq!(text(Op::SendRecv, 8, 0.71234567), "RESULT lat 8 0.71235 us\n");
        assert_eq!(text(Op::Bw, 4096, 262.144), "RESULT bw 4096 1000.00 MB/s\n");
        assert_eq!(text(Op::AllReduce, 64_000_000, 12345.678), "RESULT allreduce 64000000 12345.7 us\n");
        assert_eq!(text(Op::AllGather, 8, 1.0), "RESULT allgather 8 1.00000 us\n");
        assert_eq!(text(Op::ReduceScatter, 40_000, 1.0), "RESULT reducescatter 40000 1.00000 us\n");
    }

    #[test]
    fn numbers_have_six_digits() {
        let values = [0.0, 0.123456789, 1.23456789, 123456.7, 1234567.8];
        assert_eq!(values.map(significant), ["0.00000", "0.12346", "1.23457", "123457", "1234568"]);
    }

    #[test]
    fn csv_has_a_value_for_every_column() {
        let line = Format::Csv.row(&row(Op::Reduce, 8, 1.0), None);
        assert_eq!(line.trim_end().split(',').count(), CSV_COLUMNS.len());
        assert_eq!(Format::Csv.header(&header()).trim_end().split(',').count(), CSV_COLUMNS.len());
    }

    #[test]
    fn json_is_one_object() {
        let rows = [row(Op::Reduce, 8, 1.0)];
        let text = Format::Json.footer(&header(), &rows).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], "1.2.3");
        assert_eq!(value["machine"]["cores"], 2);
        assert_eq!(value["results"][0]["op"], "reduce");
        assert_eq!(value["results"][0]["timeUs"], 1.0);
        assert_eq!(value["results"][0]["wrong"], 0);
    }

    #[test]
    fn the_end_of_a_table_says_whether_anything_was_wrong() {
        let mut rows = [row(Op::Reduce, 8, 1.0)];
        assert_eq!(Format::Table.footer(&header(), &rows).unwrap(), "#\n# nothing was wrong\n");
        rows[0].wrong = Some(3);
        assert_eq!(Format::Table.footer(&header(), &rows).unwrap(), "#\n# 3 elements were wrong\n");
        rows[0].wrong = None;
        assert_eq!(Format::Table.footer(&header(), &rows).unwrap(), "");
    }
}
