//! Without what old kernels and sandboxes lack: everything works, a death is noticed, and each says once what it does
//! without.

mod common;

use common::Rank;
use common::cast::Cast;

const SURVIVORS: usize = 2;
/// By name, with what the warning speaks of.
const FACILITIES: [(&str, &str); 4] = [
    ("futex_waitv", "futex_waitv is disabled"),
    ("robust", "robust futexes are disabled"),
    ("cma", "process_vm_readv from a peer"),
    ("memfd", "memfd_create:"),
];

#[test]
fn rank() {
    common::actor::play();
}

fn everybody(cast: &mut Cast, v: &mut Rank, world: &str, line: &str, answer: &str) {
    cast.each(|_, _| line.to_string());
    v.tell(line);
    assert_eq!(v.hear_of(world), answer, "{line}");
    cast.all_say(world, answer);
}

fn without(transport: &str, missing: &[&str]) {
    let disabled = missing.join(",");
    let mut cast = Cast::new(transport, SURVIVORS, &[("MW_DISABLE", &disabled), ("MW_DEBUG", "warn")]);
    for victim in 0..=SURVIVORS {
        let w = cast.fresh("without");
        let mut v = cast.world(&w, victim);
        for len in [8, 1000, 16 << 10, (16 << 10) + 1, 300_000, 8 << 20] {
            everybody(&mut cast, &mut v, &w, &format!("ring {w} {len}"), "rung");
        }
        for len in [8, 10_000, 1 << 20] {
            everybody(&mut cast, &mut v, &w, &format!("once {w} AllReduce {len} 0"), "done");
        }
        // In the middle of a large message, waiting, and with nothing under way.
        match victim {
            0 => {
                v.tell(&format!("send {w} 1 8388608"));
                cast.survivors[0].tell(&format!("recv {w} 0 8388608"));
                cast.survivors[1].tell(&format!("recv {w} 0 8"));
            }
            1 => cast.each(|_, _| format!("async {w} 1")),
            _ => cast.each(|_, _| format!("idle {w}")),
        }
        cast.all_say(&w, "going");
        cast.note_sockets(&v);
        cast.dice.pause(10);
        v.kill();
        cast.all_know(&w, &[victim]);
        cast.bury(&w, &format!("RankFailed({victim})"));
        said_once(&v, transport, missing);
    }
    for s in &cast.survivors {
        said_once(s, transport, missing);
    }
    cast.end();
}

fn said_once(r: &Rank, transport: &str, missing: &[&str]) {
    let log = r.log();
    for (name, warning) in FACILITIES {
        // Over TCP nobody wants to read another process's memory.
        let expected = missing.contains(&name) && (name != "cma" || transport == "shm");
        let lines = log.lines().filter(|l| l.contains(warning)).count();
        assert_eq!(lines, usize::from(expected), "{name} with {missing:?}: {log}");
    }
}

#[test]
fn without_each_facility() {
    for (name, _) in FACILITIES {
        without("shm", &[name]);
    }
    without("tcp", &["robust"]);
}

#[test]
fn without_any_facility() {
    let all = FACILITIES.map(|(name, _)| name);
    without("shm", &all);
    without("tcp", &all);
}

#[test]
fn with_everything_there_is_nothing_to_say() {
    without("shm", &[]);
    without("tcp", &[]);
}
