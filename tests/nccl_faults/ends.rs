//! Worlds that end in good order, whatever the others do meanwhile.

use crate::cast::Cast;
use crate::common::{doubles, role};
use std::time::Duration;

const BOUND: u64 = 5_000;

#[test]
fn who_destroys_first_waits_for_the_others_without_a_leak() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[]);
    cast.world("v", &[0, 1]);
    cast.all("run w sum", "Ok", &[]);
    cast.tell(0, "destroy w");
    // Longer than an abort may take.
    std::thread::sleep(Duration::from_millis(900));
    // What breaks meanwhile ends.
    cast.ask(0, "issue v recv-1").is("Ok", &[]);
    cast.ask(1, "abort v").within(BOUND);
    cast.ask(0, "idle v").is("Ok", &["cuda 0"]).within(BOUND);
    cast.ask(0, "destroy v").is("Ok", &[]).within(BOUND);
    // It does not wait for ever.
    cast.hear(0, "w").is("Ok", &[]).within(BOUND);
    cast.ask(1, "destroy w").is("Ok", &[]).within(BOUND);
    cast.all("leaked here 0", "Ok", &[]);
    assert!(cast.ranks.iter().all(|r| !r.log().contains("was leaked")));
    cast.finish();
}

#[test]
fn worlds_are_destroyed_in_any_order() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[]);
    for round in 0..10 {
        let names: Vec<String> = (0..3).map(|i| format!("w{round}-{i}")).collect();
        names.iter().for_each(|w| cast.world(w, &[0, 1]));
        names.iter().for_each(|w| cast.tell(0, &format!("destroy {w}")));
        names.iter().rev().for_each(|w| cast.tell(1, &format!("destroy {w}")));
        for at in 0..2 {
            names.iter().for_each(|w| {
                cast.hear(at, w).is("Ok", &[]).within(BOUND);
            });
        }
    }
    cast.all("leaked here 0", "Ok", &[]);
    cast.finish();
}

#[test]
fn a_destroy_that_hangs_is_leaked() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[("MW_TIMEOUT_MS", "700")]);
    cast.ask(1, "script s CommDestroy@1=hang;no-destroy-barrier");
    cast.ask(0, "script s no-destroy-barrier");
    cast.tell(0, "destroy w");
    cast.ask(1, "destroy w").is("System", &["ncclCommDestroy does not return"]).within(BOUND);
    cast.hear(0, "w").is("Ok", &[]).within(BOUND);
    cast.ask(1, "leaked here 1").is("Ok", &[]);
    cast.world("v", &[0, 1]);
    cast.all("run v sum", "Ok", &[]);
    cast.all("destroy v", "Ok", &[]);
    cast.finish();
}

/// With an NCCL that cannot revoke, and whose aborts are not grouped.
#[test]
fn an_older_nccl_does_what_it_can() {
    if role().is_some() {
        return;
    }
    let old = doubles::get().old_nccl.to_string_lossy();
    let mut cast = Cast::joined(3, &[("MW_NCCL_LIB", &old)]);
    cast.all("issue w fp8", "InvalidArgument", &["2.19.3"]);
    cast.all("run w sum", "Ok", &[]);
    cast.ask(0, "script s CommAbort@*=block:900");
    for at in 0..2 {
        cast.ask(at, "issue w swap-2").is("Ok", &[]);
    }
    let mut victim = cast.ranks.pop().expect("a victim");
    victim.kill();
    for a in cast.all("event w", "Remote", &["rank 2"]) {
        a.within(BOUND);
    }
    for a in cast.all("idle w", "Ok", &["cuda 0"]) {
        a.within(BOUND);
    }
    cast.ask(0, "leaked here 1").is("Ok", &[]);
    for a in cast.all("destroy w", "Ok", &[]) {
        a.within(BOUND);
    }
    cast.all("leaked here 0", "Ok", &[]);
    assert!(cast.ranks[0].log().contains("ncclCommAbort does not return"));
    cast.all("script s", "Ok", &[]);
    cast.world("v", &[0, 1]);
    cast.all("run v sum", "Ok", &[]);
    cast.all("destroy v", "Ok", &[]);
    cast.finish();
}

#[test]
fn versions_with_known_trouble_are_told() {
    if role().is_some() {
        return;
    }
    for (version, says) in [("21800", "2.18.0"), ("22501", "2.25.1"), ("22602", "2.26.2")] {
        let script = format!("version={version}");
        let mut cast = Cast::joined(2, &[("MW_DOUBLE_NCCL", &*script)]);
        cast.all("run w sum", "Ok", &[]);
        for r in &cast.ranks {
            let log = r.log();
            assert!(log.contains(&format!("NCCL {says}")), "{log}");
        }
        cast.all("destroy w", "Ok", &[]);
        cast.finish();
    }
}
