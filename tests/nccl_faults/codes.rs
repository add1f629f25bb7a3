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
        first.is(code, &["World", &says[1]]).within(10_000);
        cast.hear(0, w).is(code, &["World", &says[0], &says[1]]).within(10_000);
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
