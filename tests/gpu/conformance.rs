//! Every operation with every type and reduction, on device memory, checked on the host.

use super::common::{Rank, now_ns, say, store_address};
use super::figures::note;
use super::place;
use super::scenarios::{digest, script_of_everything};
use super::script::{Item, Memory, Step, play_in};
use super::seat::{self, number};
use multiworld::nccl::cuda::memory::{Buffer, OwnStream};
use multiworld::nccl::loader;
use multiworld::types::DataType;
use std::ffi::c_void;
use std::time::Instant;

/// More than one step of a script needs.
const ROOM: usize = 64 << 20;
/// First version that has 8-bit floats.
const FLOAT8: u32 = 22_400;

struct OnDevice {
    buffer: Buffer,
    stream: OwnStream,
}

impl Memory for OnDevice {
    fn put(&self, at: usize, bytes: &[u8]) -> Result<*mut u8, String> {
        self.buffer.write(at, bytes, &self.stream).map_err(|e| e.to_string())?;
        Ok(self.buffer.address().wrapping_add(at))
    }

    fn get(&self, at: usize, bytes: &mut [u8]) -> Result<(), String> {
        self.buffer.read(at, bytes, &self.stream).map_err(|e| e.to_string())
    }

    fn stream(&self) -> *mut c_void {
        self.stream.raw()
    }
}

/// What this NCCL can do. What becomes of infinities and NaN is its own affair.
fn tame(steps: Vec<Step>, version: u32) -> Vec<Step> {
    let fit = |item: &mut Item| {
        if let Item::Op(op) = item {
            op.wild = false;
        }
        let dtype = match item {
            Item::Op(op) => op.dtype,
            Item::Message(m) => m.dtype,
        };
        version >= FLOAT8 || !matches!(dtype, DataType::Float8e4m3 | DataType::Float8e5m2)
    };
    let keep = |mut step: Step| match &mut step {
        Step::One(_, item) => fit(item).then_some(step),
        Step::Group { items, .. } => {
            items.retain_mut(|(_, item)| fit(item));
            Some(step)
        }
    };
    steps.into_iter().filter_map(keep).collect()
}

/// Arguments: ranks, own rank.
pub fn rank(args: &[String]) {
    let (n, me) = (number(args, 0), number(args, 1));
    let mut worlds = vec![seat::join("all", n, me).expect("joining")];
    if n < 3 || me < n - 1 {
        worlds.push(seat::join("some", if n < 3 { n } else { n - 1 }, me).expect("joining"));
    }
    let device = worlds[0].device();
    let memory = OnDevice {
        buffer: Buffer::new(device, ROOM).expect("device memory"),
        stream: OwnStream::new(device).expect("a stream"),
    };
    let steps = tame(script_of_everything(), loader::get().expect("NCCL").version);
    // In parts, so that somebody who waits hears of it.
    let mut all = Vec::new();
    for part in steps.chunks(100) {
        all.extend(play_in(&worlds, part, Some(&memory)).unwrap_or_else(|e| panic!("{e}")));
        say("part");
    }
    let digest = digest(&all);
    worlds.iter().for_each(|w| w.destroy().expect("destroying"));
    say(&format!("{} operations, {} bytes with digest {digest:x}", steps.len(), all.concat().len()));
}

fn last_words(rank: &mut Rank) -> String {
    loop {
        let line = rank.hear().expect("a rank comes through");
        if line != "part" {
            return line;
        }
    }
}

#[test]
fn every_operation_on_device_memory() {
    let Some(place) = place::ready() else { return };
    let seed = std::env::var("MW_TEST_SEED").unwrap_or_else(|_| now_ns().to_string());
    note(&format!("\n### Every operation, type and reduction (MW_TEST_SEED={seed})\n"));
    let most = std::env::var("MW_GPU_MOST_RANKS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for n in 2..=most {
        let store = store_address();
        let env = [("MW_STORE", &*store), ("MW_TEST_SEED", &seed)];
        let begin = Instant::now();
        let args = |me: usize| [n.to_string(), me.to_string()];
        let mut ranks: Vec<Rank> = (0..n).map(|me| place.start("script", &args(me), &env)).collect();
        let said: Vec<String> = ranks.iter_mut().map(last_words).collect();
        assert!(said.iter().all(|s| *s == said[0]), "ranks have different bits: {said:?}");
        ranks.into_iter().for_each(Rank::finish);
        note(&format!("- {n} ranks: {}, all right, {:.1} s", said[0], begin.elapsed().as_secs_f64()));
    }
}
