//! What operations cost more through a world, and through the drop-in, than by calling NCCL: all three in the
//! same processes, in turns.

use super::common::{Rank, now_ns, say, store_address};
use super::figures::{median, note};
use super::place;
use super::raw::{self, Raw};
use super::seat::{self, Seat, number};
use multiworld::nccl::{Functions, loader};
use multiworld::sys::dylib::Dylib;
use multiworld::types::DataType;
use multiworld::world::{Call, World};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SIZES: [usize; 8] = [8, 64, 512, 4 << 10, 32 << 10, 256 << 10, 2 << 20, 16 << 20];
const WARM_UP: usize = 5;

/// Who is asked to carry an operation out.
enum Way {
    Raw(Raw),
    World(Arc<World>),
    DropIn(Raw),
}

impl Way {
    fn enqueue(&self, seat: &Seat, op: &str, floats: usize, me: usize) {
        let peer = 1 - me as i32;
        let (from, to, stream) = (seat.from.address(), seat.to.address(), seat.stream.raw());
        match (self, op) {
            (Way::Raw(r) | Way::DropIn(r), "AllReduce") => r.all_reduce(from, to, floats, stream),
            (Way::Raw(r) | Way::DropIn(r), _) if me == 0 => r.send(from, floats, peer, stream),
            (Way::Raw(r) | Way::DropIn(r), _) => r.recv(to, floats, peer, stream),
            (Way::World(w), _) => {
                let call = match op {
                    "AllReduce" => seat.all_reduce(floats),
                    _ if me == 0 => seat.send(floats, peer),
                    _ => seat.recv(floats, peer),
                };
                w.run(&Call { dtype: DataType::Float32, ..call }).expect("an operation of the world");
            }
        }
    }
}

/// Arguments: own rank, a folder, how often at most, the drop-in or nothing.
pub fn rank(args: &[String]) {
    let (me, folder, most, drop_in) = (number(args, 0), Path::new(&args[1]), number(args, 2), &*args[3]);
    let w = seat::join("overhead", 2, me).expect("joining");
    let seat = Seat::new(&w, SIZES[SIZES.len() - 1]);
    seat.fill(0).expect("writing");
    let genuine = loader::get().expect("NCCL").functions;
    let raw = |name: &str, blocking| Way::Raw(Raw::join(genuine, folder, name, me, blocking));
    let mut ways = vec![raw("blocking", true), raw("non-blocking", false), Way::World(w)];
    if !drop_in.is_empty() {
        let functions = Functions::load(&Dylib::open(Path::new(drop_in)).expect("the drop-in"));
        ways.push(Way::DropIn(Raw::join(functions, folder, "drop-in", me, true)));
    }
    for op in ["AllReduce", "Send"] {
        for bytes in SIZES {
            let times = if bytes < 1 << 20 { most } else { (most / 5).max(1) };
            let mut taken = vec![(Vec::new(), Vec::new()); ways.len()];
            let warm_up = WARM_UP.min(most / 2);
            for i in 0..warm_up + times {
                // Each goes first in turn.
                for k in 0..ways.len() {
                    let at = (i + k) % ways.len();
                    let begin = now_ns();
                    ways[at].enqueue(&seat, op, bytes / 4, me);
                    let enqueued = now_ns();
                    seat.stream.synchronize().expect("synchronizing");
                    let done = now_ns();
                    if i >= warm_up {
                        taken[at].0.push((enqueued - begin) as f64 / 1e3);
                        taken[at].1.push((done - begin) as f64 / 1e3);
                    }
                }
            }
            let figures: Vec<String> = taken
                .iter_mut()
                .map(|(enqueue, done)| format!("{:.2} {:.1}", median(enqueue), median(done)))
                .collect();
            say(&format!("row {op} {bytes} {}", figures.join(" ")));
        }
    }
    for way in ways {
        match way {
            Way::Raw(r) | Way::DropIn(r) => r.destroy(),
            Way::World(w) => w.destroy().expect("destroying"),
        }
    }
    say("row end");
}

/// The drop-in: where `MW_GPU_DROPIN` says, or where it was built.
fn drop_in() -> Option<PathBuf> {
    let named = std::env::var_os("MW_GPU_DROPIN").map(PathBuf::from);
    let built =
        std::env::current_exe().ok().and_then(|p| Some(p.parent()?.parent()?.join("libmultiworld_nccl.so")));
    named.or(built).filter(|p| p.is_file())
}

#[test]
fn overhead_against_nccl_itself() {
    let Some(place) = place::ready() else { return };
    note("\n### Overhead against NCCL itself, medians in us, two ranks, rank 0's figures\n");
    let folder = raw::folder("overhead");
    let store = store_address();
    let env = [("MW_STORE", &*store)];
    let path = drop_in().map(|p| p.to_string_lossy().into_owned());
    if path.is_none() {
        note("The drop-in is missing: its columns are skipped.\n");
    }
    let times = place.pick(200, 2).to_string();
    let args = |me: usize| {
        let folder = folder.to_string_lossy().into_owned();
        [me.to_string(), folder, times.clone(), path.clone().unwrap_or_default()]
    };
    let mut ranks: Vec<Rank> = (0..2).map(|me| place.start("overhead", &args(me), &env)).collect();
    note(
        "Enqueue: the call itself. Done: until the stream is idle. NCCL itself: at most 4 thread blocks, as worlds \
         of two have; blocking, and non-blocking with polls until the call is through, which is what an abort \
         needs.\n",
    );
    note(
        "| op | bytes | NCCL enqueue | done | non-blocking enqueue | done | world enqueue | done \
         | drop-in enqueue | done | world - NCCL | drop-in - NCCL |",
    );
    note("|---|---|---|---|---|---|---|---|---|---|---|---|");
    loop {
        let row = ranks[0].hear_of("row");
        ranks[1].hear_of("row");
        if row == "end" {
            break;
        }
        let words: Vec<&str> = row.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok());
        let more = |at: usize| match (number(at), number(2)) {
            (Some(through), Some(direct)) => format!("{:+.2}", through - direct),
            _ => String::new(),
        };
        let cell = |at: usize| words.get(at).copied().unwrap_or_default();
        let mut cells: Vec<String> = (0..10).map(|at| cell(at).to_string()).collect();
        cells.extend([more(6), more(8)]);
        note(&format!("| {} |", cells.join(" | ")));
    }
    ranks.into_iter().for_each(Rank::finish);
    std::fs::remove_dir_all(&folder).expect("removing a folder");
}
