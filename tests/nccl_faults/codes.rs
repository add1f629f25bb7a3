//! Error codes, of calls and asynchronous ones.

use crate::cast::Cast;
use crate::common::role;

/// What NCCL's codes are here, without the harmless one.
const CODES: [(u32, &str); 5] =
    [(1, "UnhandledCuda"), (2, "System"), (3, "Internal"), (5, "InvalidUsage"), (6, "Remote")];

/// The world has broken on all ranks, as this says, and lets go.
fn broken(cast: &mut Cast, world: &str, code: &str, says: &[&str]) {
    for a in cast.all(&format!("event {world}"), code, says) {
        a.within(10_000);
    }
    // Whoever issues later gets the same answer at once, and nothing is stuck on the stream.
    for a in cast.all(&format!("run {world} sum"), code, says) {
        a.within(10_000);
    }
    for a in cast.ask_all(&format!("destroy {world}")) {
        a.within(10_000);
    }
    cast.all("leaked here 0", "Ok", &[]);
}

/// Makes rank 1 fail with each code by a script, in what `how` does, and looks that all ranks know.
fn each_code(script: &str, how: &str) {
    let mut cast = Cast::new(2, &[]);
    for (number, code) in CODES {
        let w = &format!("w{number}");
        cast.world(w, &[0, 1]);
        cast.all(&format!("run {w} sum"), "Ok", &[]);
        cast.ask(1, &format!("script s {script}=error:{number}"));
        let says = [&*format!("rank 1 of world '{w}'"), &format!("NCCL says {number}")];
        cast.tell(0, &format!("run {w} {}", how.replace('?', "1")));
        let first = cast.ask(1, &format!("run {w} {}", how.replace('?', "0")));
        first.is(code, &["World", says[1]]).within(10_000);
        cast.hear(0, w).is(code, &["World", says[0], says[1]]).within(10_000);
        broken(&mut cast, w, code, &says);
        cast.all("script s", "Ok", &[]);
    }
    cast.finish();
}

#[test]
fn an_error_of_an_operation_breaks_the_world_for_all() {
    if role().is_none() {
        each_code("AllReduce@1", "sum");
    }
}

#[test]
fn an_error_of_a_group_breaks_the_world_for_all() {
    if role().is_none() {
        each_code("GroupEnd@1", "swap-?");
    }
}

#[test]
fn a_wrong_argument_harms_nobody() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[]);
    for script in ["AllReduce@1=error:4", "AllReduce@2=error:4"] {
        cast.all(&format!("script s {script}"), "Ok", &[]);
        let first = cast.ask_all("run w sum");
        let second = cast.ask_all("run w sum");
        for (one, other) in first.iter().zip(&second) {
            let (bad, good) = if one.code == "Ok" { (other, one) } else { (one, other) };
            bad.is("InvalidArgument", &["NCCL says 4"]);
            good.is("Ok", &[]);
        }
        cast.all("script s", "Ok", &[]);
        cast.all("run w sum", "Ok", &[]);
    }
    cast.all("destroy w", "Ok", &[]);
    cast.finish();
}

#[test]
fn an_error_of_joining_ends_it_for_all() {
    if role().is_some() {
        return;
    }
    let ways =
        [("GetUniqueId", "error", 0), ("CommInitRankConfig", "error", 1), ("CommInitRankConfig", "async", 1)];
    for (function, action, culprit) in ways {
        let mut cast = Cast::new(3, &[]);
        for (number, code) in CODES {
            let w = &format!("w{number}");
            cast.ask(culprit, &format!("script s {function}@1={action}:{number}"));
            (0..3).for_each(|at| cast.tell(at, &format!("join {w} 3 {at}")));
            for at in 0..3 {
                let a = cast.hear(at, w);
                a.is(code, &[&format!("NCCL says {number}")]).within(10_000);
                assert!(at == culprit || a.text.contains(&format!("rank {culprit} of world '{w}'")), "{a:?}");
            }
            cast.all("script s", "Ok", &[]);
        }
        cast.world("w", &[0, 1, 2]);
        cast.all("run w sum", "Ok", &[]);
        cast.all("destroy w", "Ok", &[]);
        cast.all("leaked here 0", "Ok", &[]);
        cast.finish();
    }
}

#[test]
fn an_error_of_finalizing_is_told_and_holds_nobody_up() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[]);
    for (number, code) in CODES {
        let w = &format!("w{number}");
        cast.world(w, &[0, 1]);
        cast.all(&format!("run {w} sum"), "Ok", &[]);
        cast.ask(1, &format!("script s CommFinalize@1=error:{number}"));
        (0..2).for_each(|at| cast.tell(at, &format!("destroy {w}")));
        cast.hear(1, w).is(code, &["ncclCommFinalize", &format!("NCCL says {number}")]).within(10_000);
        let other = cast.hear(0, w);
        println!("CommFinalize error {number}: the other rank: {other:?}");
        other.within(10_000);
        cast.ask(1, "leaked here 0").is("Ok", &[]);
    }
    cast.finish();
}

#[test]
fn an_asynchronous_error_is_noticed_without_any_call() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(3, &[]);
    for (number, code) in CODES {
        let w = &format!("w{number}");
        cast.world(w, &[0, 1, 2]);
        cast.all(&format!("run {w} sum"), "Ok", &[]);
        cast.ask(1, &format!("script s CommGetAsyncError@1=async:{number}"));
        broken(&mut cast, w, code, &["rank 1", "asynchronous error of NCCL", &format!("NCCL says {number}")]);
        cast.all("script s", "Ok", &[]);
    }
    cast.finish();
}
