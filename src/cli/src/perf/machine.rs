//! What machine this is, as far as results need it.

use serde::Serialize;
use std::fmt;
use std::fs::read_to_string;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub host: String,
    pub cpu: String,
    /// That this process may use.
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
}

impl Machine {
    /// This one. What the system does not tell is `unknown`, or 0.
    pub fn here() -> Machine {
        let text = |path| read_to_string(path).map_or_else(|_| "unknown".to_owned(), |t| t.trim().to_owned());
        let cpus = text("/proc/cpuinfo");
        let memory = text("/proc/meminfo");
        let kib = field(&memory, "MemTotal").and_then(|v| v.trim_end_matches(" kB").parse::<u64>().ok());
        Machine {
            host: text("/proc/sys/kernel/hostname"),
            cpu: field(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
            // Rounded: the kernel keeps some for itself.
            memory_gib: kib.map_or(0, |kib| (kib + (1 << 19)) >> 20),
            kernel: text("/proc/sys/kernel/osrelease"),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { host, cpu, cores, memory_gib, kernel } = self;
        write!(f, "{host}: {cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: Another\n";
        assert_eq!(field(text, "model name"), Some("A CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), None);
        assert!(Machine::here().cores > 0);
    }
}
