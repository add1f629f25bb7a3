//! What the tests print.

use super::common::percentile;
use multiworld::nccl::cuda;
use std::io::Write;

/// Prints a line and keeps it in the report, where one is wanted.
pub fn note(line: &str) {
    println!("{line}");
    let Some(path) = std::env::var_os("MW_GPU_REPORT").filter(|p| !p.is_empty()) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut f| writeln!(f, "{line}")).expect("writing the report");
}

/// The middle of some numbers.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(values, 50.0)
}

/// Milliseconds between two points of CLOCK_MONOTONIC, negative if the second was first.
pub fn ms(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// MiB of device memory that are free.
    pub device: f64,
    /// MiB of resident memory.
    pub rss: f64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Held {
    /// By this process, now.
    pub fn now() -> Held {
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
        let field = |name: &str| -> usize {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a field");
            line.trim().trim_end_matches("kB").trim().parse().expect("a number")
        };
        Held {
            device: cuda::memory::memory(0).expect("device memory").0 as f64 / (1 << 20) as f64,
            rss: field("VmRSS:") as f64 / 1024.0,
            descriptors: std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").count(),
            threads: field("Threads:"),
        }
    }

    /// As one line.
    pub fn text(&self) -> String {
        let Held { device, rss, descriptors, threads } = self;
        format!("{device} {rss} {descriptors} {threads}")
    }

    /// Back from a line.
    pub fn parse(line: &str) -> Held {
        let mut words = line.split(' ');
        let mut next = || words.next().and_then(|w| w.parse::<f64>().ok()).expect("a number");
        let (device, rss) = (next(), next());
        Held { device, rss, descriptors: next() as usize, threads: next() as usize }
    }
}
