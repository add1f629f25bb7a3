//! Every branch of the abort recipe: deadlines, revokes and aborts that hang or block, the graphs and the other worlds
//! that an abort waits for.

use crate::cast::Cast;
use crate::common::role;

/// How long an abort may take that is given up after 600 ms.
const BOUND: u64 = 5_000;

#[test]
fn an_operation_that_never_completes_ends_with_its_deadline() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[("MW_TIMEOUT_MS", "400")]);
    cast.ask(1, "script s AllReduce@1=hang");
    cast.all("issue w sum", "Ok", &[]);
    for a in cast.all("event w", "Timeout", &["took longer than 400 ms"]) {
        a.within(BOUND);
    }
    for a in cast.all("idle w", "Ok", &["cuda 0"]) {
        a.within(BOUND);
    }
    cast.all("issue w sum", "Timeout", &["World", "took longer than 400 ms"]);
    cast.all("destroy w", "Ok", &[]);
    cast.all("leaked here 0", "Ok", &[]);
    // The same for a request that somebody waits for.
    cast.all("script s", "Ok", &[]);
    cast.world("v", &[0, 1]);
    cast.ask(1, "script s Recv@1=hang");
    cast.tell(0, "submit v swap-1");
    cast.tell(1, "submit v swap-0");
    for at in 0..2 {
        assert_eq!(cast.ranks[at].hear_of("v"), "submitted");
    }
    for at in 0..2 {
        cast.hear(at, "v").is("Timeout", &["took longer than 400 ms"]).within(BOUND);
    }
    cast.all("idle v", "Ok", &["cuda 0"]);
    cast.all("destroy v", "Ok", &[]);
    cast.all("leaked here 0", "Ok", &[]);
    cast.finish();
}

/// Breaks a world in whose end something hangs for `script`: whoever ends it goes on in time, the leak is counted and
/// reported for `reason`, and taken back when what hung goes on: by itself, or when `release` is set.
fn leaks(script: &str, reason: &str, release: Option<&str>) {
    let mut cast = Cast::joined(2, &[]);
    cast.all("run w sum", "Ok", &[]);
    cast.ask(1, &format!("script s {script}"));
    cast.all("issue w barrier", "Ok", &[]);
    // It may hang in there.
    cast.tell(1, "issue w recv-0");
    while cast.ask(1, "calls here Recv").text == "0" {}
    let mine = cast.ask(0, "abort w");
    mine.is("Ok", &[]).within(BOUND);
    if !script.starts_with("Recv") {
        // The end may come while it is still being launched.
        cast.hear(1, "w").within(BOUND);
    }
    cast.ask(1, "event w").is("Remote", &["rank 0"]).within(BOUND);
    let theirs = cast.ask(1, "destroy w");
    theirs.is("Ok", &[]).within(BOUND);
    println!("{script}: abort took {} ms, destroy beside it {} ms", mine.ms, theirs.ms);
    cast.ask(1, "leaked here 1").is("Ok", &[]);
    cast.ask(0, "leaked here 0").is("Ok", &[]);
    let log = cast.ranks[1].log();
    assert!(log.contains("was leaked") && log.contains(reason), "{log}");
    // Another world of the same device works and ends meanwhile.
    cast.world("v", &[0, 1]);
    cast.all("run v sum", "Ok", &[]);
    cast.tell(1, "issue v recv-0");
    cast.ask(0, "abort v").within(BOUND);
    cast.hear(1, "v").within(BOUND);
    cast.ask(1, "event v").is("Remote", &["rank 0"]).within(BOUND);
    cast.ask(1, "idle v").is("Ok", &["cuda 0"]).within(BOUND);
    let other = cast.ask(1, "destroy v");
    other.is("Ok", &[]).within(BOUND);
    println!("{script}: another world of the device ended meanwhile in {} ms", other.ms);
    assert!(!cast.ranks[1].log().contains("'v' was leaked"), "{}", cast.ranks[1].log());
    if let Some(script) = release {
        cast.ask(1, &format!("script s {script}"));
    }
    cast.ask(1, "leaked here 0").is("Ok", &[]).within(BOUND);
    cast.finish();
}

#[test]
fn an_abort_that_blocks_is_leaked_for_as_long() {
    if role().is_none() {
        leaks("CommAbort@1=block:2000", "ncclCommAbort does not return", None);
    }
}

#[test]
fn an_abort_that_hangs_is_leaked() {
    if role().is_none() {
        leaks("CommAbort@1=hang", "ncclCommAbort does not return", Some(""));
    }
}

#[test]
fn a_revoke_that_blocks_is_leaked_for_as_long() {
    if role().is_none() {
        leaks("CommRevoke@1=block:2000", "ncclCommRevoke does not return", None);
    }
}

#[test]
fn a_call_that_blocks_is_leaked_for_as_long() {
    if role().is_none() {
        leaks("Recv@1=block:2000", "does not come out of an NCCL call", None);
    }
}

#[test]
fn a_revoke_that_fails_or_never_ends_does_not_keep_the_abort_away() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[]);
    for (i, action) in ["error:3", "error:4", "error:5", "async:3", "hang"].iter().enumerate() {
        let w = &format!("w{i}");
        cast.world(w, &[0, 1]);
        cast.ask(1, &format!("script s CommRevoke@*={action}"));
        cast.ask(1, &format!("issue {w} recv-0")).is("Ok", &[]);
        cast.ask(0, &format!("abort {w}")).is("Ok", &[]).within(BOUND);
        cast.ask(1, &format!("idle {w}")).is("Ok", &["cuda 0"]).within(BOUND);
        cast.ask(1, &format!("destroy {w}")).is("Ok", &[]).within(BOUND);
        cast.all("leaked here 0", "Ok", &[]);
        cast.all("script s", "Ok", &[]);
    }
    assert!(cast.ranks.iter().all(|r| !r.log().contains("was leaked")));
    cast.finish();
}

#[test]
fn an_abort_that_fails_is_the_end_all_the_same() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[]);
    cast.ask(1, "script s CommAbort@*=error:1");
    cast.ask(0, "abort w").is("Ok", &[]).within(BOUND);
    cast.ask(1, "destroy w").is("Ok", &[]).within(BOUND);
    cast.all("leaked here 0", "Ok", &[]);
    cast.finish();
}

#[test]
fn an_abort_that_waits_for_the_device_waits_for_nobody_of_ours() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[]);
    cast.world("healthy", &[0, 1]);
    cast.all("script s abort-syncs-device", "Ok", &[]);
    cast.ask(1, "issue healthy recv-0").is("Ok", &[]);
    cast.ask(1, "issue w recv-0").is("Ok", &[]);
    let other = cast.ask(0, "abort w");
    other.is("Ok", &[]).within(BOUND);
    let aborted = cast.ask(1, "destroy w");
    aborted.is("Ok", &[]).within(BOUND);
    cast.ask(1, "leaked here 1").is("Ok", &[]);
    // Its own kernels have left, however long the rest takes.
    cast.ask(1, "idle w").is("Ok", &["cuda 0"]).within(BOUND);
    cast.tell(1, "idle healthy");
    cast.ask(0, "run healthy send-1").is("Ok", &[]).within(BOUND);
    let received = cast.hear(1, "healthy");
    received.is("Ok", &["cuda 0"]).within(BOUND);
    cast.ask(1, "leaked here 0").is("Ok", &[]).within(BOUND);
    println!(
        "an abort beside a parked recv returned after {} ms; the recv was complete {} ms after its send",
        aborted.ms, received.ms
    );
    cast.all("run healthy sum", "Ok", &[]);
    cast.all("script s", "Ok", &[]);
    cast.all("destroy healthy", "Ok", &[]);
    cast.finish();
}

#[test]
fn an_abort_that_waits_for_a_graph_says_so() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::joined(2, &[]);
    cast.all("run w sum", "Ok", &[]);
    cast.ask(1, "capture w sum").is("Ok", &[]);
    cast.ask(0, "abort w").is("Ok", &[]).within(BOUND);
    cast.ask(1, "destroy w").is("Ok", &[]).within(BOUND);
    cast.ask(1, "leaked here 1").is("Ok", &[]);
    let log = cast.ranks[1].log();
    assert!(log.contains("waits until the CUDA graphs that captured it have been destroyed"), "{log}");
    cast.ask(1, "uncapture w").is("Ok", &[]);
    cast.ask(1, "leaked here 0").is("Ok", &[]).within(BOUND);
    cast.finish();
}

#[test]
fn worlds_that_break_together_end_together() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[]);
    let names: Vec<String> = (0..6).map(|i| format!("w{i}")).collect();
    for w in &names {
        cast.world(w, &[0, 1]);
        cast.all(&format!("issue {w} sum"), "Ok", &[]);
    }
    for w in &names {
        cast.all(&format!("idle {w}"), "Ok", &["cuda 0"]);
        cast.ask(1, &format!("issue {w} recv-0"));
    }
    cast.ranks[0].kill();
    cast.ranks.remove(0);
    for w in &names {
        cast.ask(0, &format!("event {w}")).is("Remote", &["rank 0"]).within(BOUND);
        cast.ask(0, &format!("idle {w}")).is("Ok", &["cuda 0"]).within(BOUND);
        cast.ask(0, &format!("destroy {w}")).is("Ok", &[]).within(BOUND);
    }
    cast.ask(0, "leaked here 0").is("Ok", &[]);
    let aborts = cast.ask(0, "calls here CommAbort").text;
    assert_eq!(aborts, "6");
    cast.finish();
}
