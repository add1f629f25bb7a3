//! Killed ranks, next to a world that must not notice; and a device that breaks.

use crate::cast::Cast;
use crate::common::{now_ns, role};
use std::time::Duration;

/// Until the survivors know, are free and have let go.
const BOUND: u64 = 5_000;

/// Rounds per second between two moments.
fn rate(cast: &mut Cast, from: u64, to: u64) -> f64 {
    let rounds: f64 = cast.ask(0, &format!("rounds here {from} {to}")).text.parse().expect("a number");
    rounds * 1e9 / (to - from) as f64
}

/// Rank 2 is killed while the others do `what` with it; 0 and 1 have another world on the same device.
fn killed(what: &str) {
    let mut cast = Cast::new(3, &[]);
    cast.world("healthy", &[0, 1]);
    cast.world("w", &[0, 1, 2]);
    cast.all("run w sum", "Ok", &[]);
    cast.tell(0, "traffic healthy 1");
    cast.tell(1, "traffic healthy 0");
    std::thread::sleep(Duration::from_millis(100));
    let before = now_ns();
    std::thread::sleep(Duration::from_millis(400));
    if what != "nothing" {
        for at in 0..2 {
            cast.ask(at, &format!("issue w {what}")).is("Ok", &[]);
        }
    }
    // Long enough to count rounds meanwhile.
    let mut victim = cast.ranks.pop().expect("a victim");
    cast.all("script s CommAbort@*=block:400", "Ok", &[]);
    let killed = victim.kill();
    for a in cast.all("event w", "Remote", &["rank 2", "RankFailed"]) {
        a.within(BOUND);
    }
    cast.all("idle w", "Ok", &["cuda 0"]);
    let free = now_ns();
    for a in cast.all("run w sum", "Remote", &["World", "rank 2"]) {
        a.within(BOUND);
    }
    for a in cast.all("destroy w", "Ok", &[]) {
        a.within(BOUND);
    }
    let over = now_ns();
    cast.all("leaked here 0", "Ok", &[]);
    std::thread::sleep(Duration::from_millis(300));
    let after = now_ns();
    let rates = [(before, killed), (killed, over), (over, after)].map(|(a, b)| rate(&mut cast, a, b));
    println!(
        "killed during {what}: streams free after {} us, all over after {} us; the healthy world made {:.0} rounds/s \
         before, {:.0} during the abort, {:.0} after it",
        (free - killed) / 1000,
        (over - killed) / 1000,
        rates[0],
        rates[1],
        rates[2]
    );
    // A world that waited for the other's abort would stand still for most of it.
    assert!(rates[1] > rates[0] / 20.0, "the healthy world waits");
    cast.tell(0, "calm here");
    for at in 0..2 {
        assert_eq!(cast.ranks[at].hear_of("healthy"), "calm");
    }
    cast.all("destroy healthy", "Ok", &[]);
    cast.finish();
}

#[test]
fn a_kill_while_nothing_is_under_way() {
    if role().is_none() {
        killed("nothing");
    }
}

#[test]
fn a_kill_inside_a_collective() {
    if role().is_none() {
        killed("sum");
    }
}

#[test]
fn a_kill_inside_a_group() {
    if role().is_none() {
        killed("swap-2");
    }
}

#[test]
fn a_kill_inside_a_recv() {
    if role().is_none() {
        killed("recv-2");
    }
}

#[test]
fn a_broken_device_means_that_this_process_must_restart() {
    if role().is_some() {
        return;
    }
    for under_way in [false, true] {
        let mut cast = Cast::joined(3, &[]);
        cast.world("others", &[0, 2]);
        cast.all("run w sum", "Ok", &[]);
        if under_way {
            cast.ask(1, "issue w recv-0").is("Ok", &[]);
        }
        cast.ask(1, "poison here 700").is("Ok", &[]);
        if !under_way {
            cast.ask(1, "issue w sum").is("UnhandledCuda", &["Process", "must restart"]).within(BOUND);
        }
        for a in cast.all("event w", "UnhandledCuda", &["rank 1", "must restart"]) {
            a.within(BOUND);
        }
        cast.ask(1, "issue w sum").is("UnhandledCuda", &["Process", "must restart"]).within(BOUND);
        for at in [0, 2] {
            cast.ask(at, "run w sum").is("UnhandledCuda", &["World", "rank 1", "must restart"]).within(BOUND);
        }
        for a in cast.all("destroy w", "Ok", &[]) {
            a.within(BOUND);
        }
        cast.all("leaked here 0", "Ok", &[]);
        // The other processes are fine.
        for _ in 0..3 {
            cast.tell(0, "run others sum");
            cast.ask(2, "run others sum").is("Ok", &[]);
            cast.hear(0, "others").is("Ok", &[]);
        }
        cast.tell(0, "destroy others");
        cast.ask(2, "destroy others").is("Ok", &[]);
        cast.hear(0, "others").is("Ok", &[]);
        cast.finish();
    }
}
