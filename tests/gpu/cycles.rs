//! Worlds of two that are made and destroyed, over and over: what stays behind. Communicators of NCCL's own
//! are made and destroyed the same way for comparison, since NCCL keeps things, too.

use super::common::{Rank, listen, say, store_address};
use super::figures::{Held, note};
use super::place::{self, Place};
use super::raw::{self, Raw};
use super::seat::{self, Seat, number};
use multiworld::nccl::{cuda, loader};
use std::path::Path;
use std::time::{Duration, Instant};

const BYTES: usize = 4096;

/// Arguments: own rank, a folder, `mw` or `raw`. Hears how many to make, and says what is held then.
pub fn rank(args: &[String]) {
    let (me, folder, way) = (number(args, 0), Path::new(&args[1]), &*args[2]);
    cuda::bind(0).expect("the device");
    // Made with a first world, kept for all.
    let mut seat: Option<Seat> = None;
    let mut next = 0;
    loop {
        let line = listen();
        let Ok(more) = line.parse::<usize>() else { return };
        for i in next..next + more {
            if way == "raw" {
                let functions = loader::get().expect("NCCL").functions;
                let comm = Raw::join(functions, folder, &i.to_string(), me, true);
                let seat = seat.get_or_insert_with(|| Seat::on(0, BYTES));
                comm.all_reduce(seat.from.address(), seat.to.address(), BYTES / 4, seat.stream.raw());
                seat.stream.synchronize().expect("an all-reduce");
                comm.destroy();
            } else {
                let w = seat::join(&format!("cycle-{i}"), 2, me).expect("joining");
                seat.get_or_insert_with(|| Seat::new(&w, BYTES)).sum(&w, BYTES).expect("an all-reduce");
                w.destroy().expect("destroying");
            }
        }
        next += more;
        say(&Held::now().text());
    }
}

fn cycles(place: &Place, way: &str, count: usize, limit: Duration) {
    let folder = raw::folder(way);
    let store = store_address();
    let env = [("MW_STORE", &*store)];
    let args = |me: usize| [me.to_string(), folder.to_string_lossy().into_owned(), way.to_string()];
    let mut ranks: Vec<Rank> = (0..2).map(|me| place.start("cycles", &args(me), &env)).collect();
    let mut more = |count: usize| -> Held {
        ranks.iter_mut().for_each(|r| r.tell(&count.to_string()));
        let held: Vec<Held> =
            ranks.iter_mut().map(|r| Held::parse(&r.hear().expect("a rank goes on"))).collect();
        held[0]
    };
    let what = if way == "raw" { "communicators of NCCL's own" } else { "worlds" };
    note(&format!("\n| {what} | s | device memory free, MiB | RSS, MiB | descriptors | threads |"));
    note("|---|---|---|---|---|---|");
    let begin = Instant::now();
    let row = |made: usize, h: Held| {
        let s = begin.elapsed().as_secs_f64();
        let Held { device, rss, descriptors, threads } = h;
        note(&format!("| {made} | {s:.1} | {device:.1} | {rss:.1} | {descriptors} | {threads} |"));
    };
    let step = (count / 40).max(1);
    let first = more(step.min(10));
    let mut made = step.min(10);
    row(made, first);
    let warm = made;
    let mut last = first;
    let mut rounds = 0;
    while made < count && begin.elapsed() < limit {
        let n = step.min(count - made);
        last = more(n);
        made += n;
        rounds += 1;
        if rounds % 8 == 0 || made == count || begin.elapsed() >= limit {
            row(made, last);
        }
    }
    if made < count {
        note(&format!("\nStopped after {} s.", limit.as_secs()));
    }
    let per = |from: f64, to: f64| (to - from) / (made - warm).max(1) as f64;
    note(&format!(
        "\nEach after the first {warm}: {:.1} KiB of device memory, {:.1} KiB RSS, {:.3} descriptors, {:.3} threads",
        per(last.device, first.device) * 1024.0,
        per(first.rss, last.rss) * 1024.0,
        per(first.descriptors as f64, last.descriptors as f64),
        per(first.threads as f64, last.threads as f64)
    ));
    for mut r in ranks {
        r.tell("end");
        r.finish();
    }
    std::fs::remove_dir_all(&folder).expect("removing a folder");
    // Over the doubles nobody else keeps anything.
    if place.doubles {
        assert!(last.threads <= first.threads + 4, "{} threads, then {}", first.threads, last.threads);
        let (d, e) = (first.descriptors, last.descriptors);
        assert!(e <= d + 8, "{d} descriptors, then {e}");
    }
}

#[test]
fn worlds_are_made_and_destroyed() {
    let Some(place) = place::ready() else { return };
    note("\n### Worlds of two, made, used and destroyed, one after the other");
    let setting =
        |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let count = setting("MW_GPU_CYCLES", place.pick(1000, 20));
    let limit = setting("MW_GPU_CYCLES_SECONDS", 150);
    cycles(&place, "mw", count, Duration::from_secs(limit as u64));
    cycles(&place, "raw", (count / 10).max(2), Duration::from_secs(limit as u64 / 4));
}
