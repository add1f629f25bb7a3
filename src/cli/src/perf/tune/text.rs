//! The file that is written. Pure.

use super::agenda::{Finding, Times};
use multiworld::config::table::written;
use multiworld::config::tuning::{Topology, Tuning};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The values for one number of ranks.
pub struct Section {
    topology: Topology,
    nranks: usize,
    /// Not for fewer ranks as well.
    exact: bool,
    findings: Vec<Finding>,
    /// Of each case.
    noise: Vec<f64>,
}

impl Section {
    pub fn new(topology: Topology, nranks: usize, exact: bool) -> Section {
        Section { topology, nranks, exact, findings: Vec::new(), noise: Vec::new() }
    }

    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// How far times may differ by chance, for the reader to know what they are worth.
    pub fn hear(&mut self, times: &[Times]) {
        self.noise.extend(times.iter().map(|times| times.noise));
    }

    /// What the file has of it. What was not measured stands there, too: as a comment.
    pub fn text(&self) -> String {
        let relation = if self.exact { "=" } else { "<=" };
        let mut text = format!("[{} ranks{relation}{}]\n", self.topology.name(), self.nranks);
        let mut noise = self.noise.clone();
        noise.sort_by(f64::total_cmp);
        if let Some(noise) = noise.get(noise.len() / 2) {
            text += &format!("# Two times differed by {:.0} % by chance.\n", noise * 100.0);
        }
        for Finding { key, value, default, note } in &self.findings {
            let built_in =
                if value == default { "kept" } else { &format!("built in is {}", written(*default)) };
            text += &format!("# {note} ({built_in})\n{key} = {}\n", written(*value));
        }
        let is_missing = |key: &&&str| self.findings.iter().all(|finding| finding.key != **key);
        let missing: Vec<&str> = Tuning::KEYS.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            text += &format!("# Of no use here: {}\n", missing.join(", "));
        }
        text
    }
}

/// A table that says the same for all worlds.
pub fn board(tuning: &Tuning) -> String {
    let value = |key: &&str| format!("{key} = {}\n", written(tuning.get(key).unwrap_or(usize::MAX)));
    let values: String = Tuning::KEYS.iter().map(value).collect();
    let section = |topology: Topology| format!("[{}]\n{values}", topology.name());
    [Topology::SharedMemory, Topology::Network].map(section).concat()
}

/// The whole file.
pub fn document(machine: &str, when: SystemTime, took: Duration, quick: bool, sections: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let quick = if quick { ", --quick" } else { "" };
    let head = format!(
        "# Where one algorithm takes over from another, for MW_TUNING.\n\
         # Written by mw perf --tune of multiworld {version}, {}, in {:.0} s{quick}.\n\
         # On {machine}.\n\
         # Times are medians on the slowest rank. What is built in was kept where nothing was faster by 3 %, and by\n\
         # more than times differ by chance.\n",
        date(when),
        took.as_secs_f64()
    );
    [&[head][..], sections].concat().join("\n")
}

/// `2026-03-01 12:30 UTC`.
fn date(when: SystemTime) -> String {
    let seconds = when.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    // Years begin in March, so that the leap day is the last of one: 400 of them have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiworld::config::table::Table;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(951_868_800), "2000-03-01 00:00 UTC");
        assert_eq!(at(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(at(4_107_542_399), "2100-02-28 23:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00 UTC");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59 UTC");
    }

    #[test]
    fn a_table_for_all_worlds_is_the_same_everywhere() {
        let tuning = Tuning { chunk: 0, flat_ranks: 3, ..Tuning::network() };
        let table = Table::parse(&board(&tuning)).unwrap();
        for topology in [Topology::SharedMemory, Topology::Network] {
            assert_eq!(table.choose(topology, 7), tuning);
        }
    }

    #[test]
    fn what_is_written_is_what_the_library_reads() {
        let finding = |key, value, default| Finding { key, value, default, note: "why".into() };
        let mut two = Section::new(Topology::SharedMemory, 2, true);
        two.add(finding("all_reduce_pair", 512 << 10, 1 << 20));
        let mut eight = Section::new(Topology::SharedMemory, 8, false);
        eight.add(finding("chunk", 0, 1000));
        eight.add(finding("flat_ranks", usize::MAX, usize::MAX));
        eight.hear(&[0.5, 0.01, 0.12].map(|noise| Times { each: Vec::new(), noise }));
        let text =
            document("host: a CPU", UNIX_EPOCH, Duration::from_secs(70), true, &[two.text(), eight.text()]);
        assert!(text.contains("1970-01-01 00:00 UTC, in 70 s, --quick.\n# On host: a CPU.\n"), "{text}");
        assert!(
            text.contains("\n\n[shared-memory ranks=2]\n# why (built in is 1M)\nall_reduce_pair = 512K\n"),
            "{text}"
        );
        assert!(
            text.contains("[shared-memory ranks<=8]\n# Two times differed by 12 % by chance.\n# why"),
            "{text}"
        );
        assert!(text.contains("# why (kept)\nflat_ranks = max\n# Of no use here: broadcast_flat,"), "{text}");
        let table = Table::parse(&text).unwrap();
        let of = |nranks| table.choose(Topology::SharedMemory, nranks);
        let built_in = Tuning::shared_memory();
        assert_eq!(of(2), Tuning { all_reduce_pair: 512 << 10, ..built_in });
        assert_eq!(of(5), Tuning { chunk: 0, flat_ranks: usize::MAX, ..built_in });
        assert_eq!(of(9), built_in);
    }
}
