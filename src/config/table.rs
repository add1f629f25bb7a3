//! Tables of [`Tuning`]s, as `mw perf --tune` writes them and `MW_TUNING` names them.
//!
//! ```text
//! # For any number of ranks that share memory.
//! [shared-memory]
//! all_reduce_flat = 32K
//!
//! [shared-memory ranks=2]
//! all_reduce_pair = 512K
//!
//! [network ranks<=8]
//! broadcast_flat = 0
//! all_gather_ring = max
//! ```
//!
//! Of the sections of a topology that begin with a number of ranks, the one counts that fits best: that of exactly
//! this number, else the one with the smallest limit. What it does not say is taken from the section without a
//! number, and else stays as it is built in. Sizes are in bytes, with K, M or G for powers of 1024, or `max`.

use super::tuning::{Topology, Tuning};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file that is read.
const LONGEST: u64 = 1 << 20;

/// For which worlds of a topology a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranks {
    Any,
    Exactly(u32),
    UpTo(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    topology: Topology,
    ranks: Ranks,
    values: Vec<(&'static str, usize)>,
}

/// Values that replace built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    sections: Vec<Section>,
}

impl Table {
    /// Reads a file. The error names it, and the line.
    pub fn read(path: &Path) -> Result<Table, String> {
        let name = path.display();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        read.map_err(|e| format!("{name}: {e}"))?;
        if bytes.len() as u64 > LONGEST {
            return Err(format!("{name}: more than {LONGEST} bytes are no table"));
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("{name}: not valid UTF-8"))?;
        Table::parse(&text).map_err(|(line, mistake)| format!("{name}:{line}: {mistake}"))
    }

    /// Reads text. An error comes with the number of its line.
    pub fn parse(text: &str) -> Result<Table, (usize, String)> {
        let mut table = Table::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if !line.is_empty() {
                table.add(line).map_err(|mistake| (at + 1, mistake))?;
            }
        }
        Ok(table)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if let Some(inside) = line.strip_prefix('[') {
            let (topology, ranks) = head(inside)?;
            if self.sections.iter().any(|s| (s.topology, s.ranks) == (topology, ranks)) {
                return Err(format!("{line}: there is such a section before"));
            }
            self.sections.push(Section { topology, ranks, values: Vec::new() });
            return Ok(());
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(format!("'{line}' is neither '[section]' nor 'key = value'"));
        };
        let (key, value) = (key.trim(), value.trim());
        let Some(&key) = Tuning::KEYS.iter().find(|known| **known == key) else {
            return Err(format!("{key}: there is no such key; the keys are {}", Tuning::KEYS.join(", ")));
        };
        let section = self.sections.last_mut().ok_or_else(|| {
            format!("{key}: no section before it says for which worlds, [shared-memory] or [network]")
        })?;
        if section.values.iter().any(|(before, _)| *before == key) {
            return Err(format!("{key}: this section has it before"));
        }
        let bytes = size(value).ok_or_else(|| {
            format!("{key}: '{value}' is no size; sizes are written like 0, 40000, 64K, 1M, max")
        })?;
        section.values.push((key, bytes));
        Ok(())
    }

    /// The values for a world.
    pub fn choose(&self, topology: Topology, nranks: u32) -> Tuning {
        let of_topology = || self.sections.iter().filter(|s| s.topology == topology);
        let general = of_topology().find(|s| s.ranks == Ranks::Any);
        let distance = |section: &Section| match section.ranks {
            Ranks::Exactly(n) if n == nranks => Some(0),
            // An exact one comes before a limit that is the same number.
            Ranks::UpTo(n) if n >= nranks => Some(u64::from(n - nranks) + 1),
            _ => None,
        };
        let best =
            of_topology().filter_map(|s| Some((distance(s)?, s))).min_by_key(|(distance, _)| *distance);
        let mut tuning = Tuning::of(topology);
        for section in general.into_iter().chain(best.map(|(_, section)| section)) {
            for (key, value) in &section.values {
                if let Some(place) = tuning.get_mut(key) {
                    *place = *value;
                }
            }
        }
        tuning
    }
}

/// What stands between brackets, of which the first has been read.
fn head(text: &str) -> Result<(Topology, Ranks), String> {
    let Some(inside) = text.strip_suffix(']').map(str::trim) else {
        return Err(format!("'[{text}' does not end with ']'"));
    };
    let (name, rest) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
    let all = [Topology::SharedMemory, Topology::Network];
    let topology = all.into_iter().find(|topology| topology.name() == name);
    let topology =
        topology.ok_or_else(|| format!("[{inside}]: '{name}' is none of 'shared-memory', 'network'"))?;
    let compact: String = rest.split_whitespace().collect();
    let number = |text: &str| text.parse().ok().filter(|n| *n > 0);
    let ranks = match (compact.strip_prefix("ranks="), compact.strip_prefix("ranks<=")) {
        _ if compact.is_empty() => Some(Ranks::Any),
        (Some(text), _) => number(text).map(Ranks::Exactly),
        (_, Some(text)) => number(text).map(Ranks::UpTo),
        _ => None,
    };
    ranks
        .map(|ranks| (topology, ranks))
        .ok_or_else(|| format!("[{inside}]: '{rest}' is neither 'ranks=N' nor 'ranks<=N' with a number N"))
}

fn size(text: &str) -> Option<usize> {
    if text == "max" {
        return Some(usize::MAX);
    }
    let shift = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => 0,
    };
    let digits = if shift > 0 { &text[..text.len() - 1] } else { text };
    // No sign.
    let number: usize = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(1 << shift)
}

/// A size as tables have it, which reads as the same again.
pub fn written(bytes: usize) -> String {
    if bytes == usize::MAX {
        return "max".into();
    }
    let units = [("G", 30), ("M", 20), ("K", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> (usize, String) {
        Table::parse(text).unwrap_err()
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (text, line, expected) in [
            ("chunk = 1", 1, "chunk: no section before it"),
            ("\n# a comment\n[shm]", 3, "[shm]: 'shm' is none of 'shared-memory', 'network'"),
            ("[network", 1, "'[network' does not end with ']'"),
            ("[network] chunk = 1", 1, "does not end with ']'"),
            ("[]", 1, "'' is none of"),
            ("[network ranks=]", 1, "[network ranks=]: 'ranks=' is neither"),
            ("[network ranks=0]", 1, "neither 'ranks=N'"),
            ("[network ranks<=-1]", 1, "neither"),
            ("[network ranks>=2]", 1, "neither"),
            ("[network 2]", 1, "neither"),
            ("[network]\n[network ranks=2]\n[network ranks = 2]", 3, "there is such a section before"),
            ("[network]\nchunk", 2, "'chunk' is neither '[section]' nor 'key = value'"),
            ("[network]\nchunks = 4", 2, "chunks: there is no such key; the keys are chunk, flat_ranks,"),
            ("[network]\nchunk = 4\nchunk = 4", 3, "chunk: this section has it before"),
            ("[network]\nchunk =", 2, "chunk: '' is no size"),
            ("[network]\nchunk = K", 2, "chunk: 'K' is no size"),
            ("[network]\nchunk = 4T", 2, "'4T' is no size"),
            ("[network]\nchunk = -4", 2, "'-4' is no size"),
            ("[network]\nchunk = +4", 2, "'+4' is no size"),
            ("[network]\nchunk = 1.5M", 2, "'1.5M' is no size"),
            ("[network]\nchunk = 4 K", 2, "'4 K' is no size"),
            ("[network]\nchunk = 4\u{3a9}", 2, "is no size"),
            ("[network]\nchunk = 99999999999999999999", 2, "is no size"),
            ("[network]\nchunk = 17179869184G", 2, "is no size"),
        ] {
            let (at, found) = mistake(text);
            assert!(at == line && found.contains(expected), "{text}: {at}: {found}");
        }
    }

    #[test]
    fn files_that_are_no_tables_are_named() {
        let refused = |path: &str| Table::read(Path::new(path)).unwrap_err();
        assert!(refused("/nowhere/table").starts_with("/nowhere/table: No such file"));
        assert!(refused("/proc/self/cwd").starts_with("/proc/self/cwd: "));
        assert!(refused("/dev/zero").contains("more than 1048576 bytes"));
        let exe = std::env::current_exe().unwrap();
        assert!(refused(exe.to_str().unwrap()).contains("more than"));
    }

    #[test]
    fn an_empty_table_changes_nothing() {
        for text in ["", "\n# nothing\n  # at all", "[network]\n[shared-memory ranks=3]\n"] {
            let table = Table::parse(text).unwrap();
            for topology in [Topology::SharedMemory, Topology::Network] {
                assert_eq!(table.choose(topology, 3), Tuning::of(topology));
            }
        }
    }

    #[test]
    fn the_section_counts_that_fits_best() {
        let table = Table::parse(
            "[shared-memory]\nchunk=1\nflat_ranks=2\n[ network ]\nchunk = 64k # a comment\nreduce_chain = max\n\
             [shared-memory ranks<=8]\nchunk = 8\n[shared-memory ranks <= 4]\nchunk = 4\nbroadcast_chain = 9\n\
             [shared-memory ranks=4]\nchunk = 44\n[shared-memory ranks=2]\nchunk = 2",
        )
        .unwrap();
        let chunk = |nranks| table.choose(Topology::SharedMemory, nranks).chunk;
        assert_eq!([2, 3, 4, 5, 8, 9].map(chunk), [2, 4, 44, 8, 8, 1]);
        let found = table.choose(Topology::SharedMemory, 3);
        // What fits best, then the general section, then what is built in; nothing from the others.
        let expected = Tuning { chunk: 4, flat_ranks: 2, broadcast_chain: 9, ..Tuning::shared_memory() };
        assert_eq!(found, expected);
        let broadcast_chain = table.choose(Topology::SharedMemory, 4).broadcast_chain;
        assert_eq!(broadcast_chain, Tuning::shared_memory().broadcast_chain);
        let network = Tuning { chunk: 64 << 10, reduce_chain: usize::MAX, ..Tuning::network() };
        assert_eq!(table.choose(Topology::Network, 4), network);
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        for value in [0, 1, 1000, 1024, 1536, 64 << 10, 3 << 20, 5 << 30, usize::MAX - 1, usize::MAX] {
            assert_eq!(size(&written(value)), Some(value));
        }
        assert_eq!([0, 1536, 64 << 10, 3 << 20, usize::MAX].map(written), ["0", "1536", "64K", "3M", "max"]);
        let mut tuning = Tuning::network();
        for (at, key) in Tuning::KEYS.iter().enumerate() {
            *tuning.get_mut(key).unwrap() = at;
        }
        let words = tuning.to_words();
        assert_eq!(words.to_vec(), (0..Tuning::KEYS.len() as u64).collect::<Vec<_>>());
        assert_eq!(Tuning::from_words(&words), tuning);
        assert_eq!(tuning.get("chunk"), Some(0));
        assert_eq!((tuning.get("chunks"), tuning.get_mut("")), (None, None));
    }
}
