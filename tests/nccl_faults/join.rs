//! Ranks that die or hang while NCCL makes the communicator.

use crate::cast::Cast;
use crate::common::role;

/// A death is noticed so soon, where joining might take half a minute.
const SOON: u64 = 5_000;

/// Three ranks join; the last one is inside NCCL when it is killed, and the first one as `script` says.
fn killed(script: &str) -> u64 {
    let mut cast = Cast::new(3, &[]);
    cast.ask(0, &format!("script s {script}"));
    cast.ask(2, "script s CommInitRankConfig@1=hang");
    (0..3).for_each(|at| cast.tell(at, &format!("join w 3 {at}")));
    for at in 0..3 {
        while cast.ask(at, "calls here CommInitRankConfig").text == "0" {}
    }
    cast.ranks[2].kill();
    let killed = std::time::Instant::now();
    let mut victim = cast.ranks.pop().expect("a victim");
    assert!(victim.child.wait().is_ok());
    let mut last = 0;
    for at in [1, 0] {
        cast.hear(at, "w").is("Remote", &["World", "rank 2"]);
        last = killed.elapsed().as_millis() as u64;
        assert!(last < SOON, "{script}: rank {at} was told after {last} ms");
    }
    cast.all("script s", "Ok", &[]);
    cast.all("leaked here 0", "Ok", &[]);
    // Those that are left go on.
    cast.world("v", &[0, 1]);
    cast.all("run v sum", "Ok", &[]);
    cast.all("destroy v", "Ok", &[]);
    cast.finish();
    last
}

#[test]
fn who_waits_in_nccl_for_a_dead_rank_is_told() {
    if role().is_some() {
        return;
    }
    for script in
        ["", "CommInitRankConfig@1=hang", "CommInitRankConfig@1=slow:500", "CommInitRankConfig@1=block:1500"]
    {
        println!(
            "a rank died while joining, rank 0 with '{script}': all were told after {} ms",
            killed(script)
        );
    }
}

#[test]
fn an_init_that_hangs_ends_with_the_deadline_of_joining() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[("MW_JOIN_TIMEOUT_MS", "700")]);
    cast.ask(1, "script s CommInitRankConfig@1=hang");
    for a in join_all(&mut cast) {
        assert!(a.code == "Timeout", "{a:?}");
        a.within(SOON);
    }
    cast.all("leaked here 0", "Ok", &[]);
    cast.world("v", &[0, 1]);
    cast.all("run v sum", "Ok", &[]);
    cast.all("destroy v", "Ok", &[]);
    cast.finish();
}

fn join_all(cast: &mut Cast) -> Vec<crate::cast::Answer> {
    let n = cast.ranks.len();
    (0..n).for_each(|at| cast.tell(at, &format!("join w {n} {at}")));
    (0..n).map(|at| cast.hear(at, "w")).collect()
}

#[test]
fn an_init_that_is_slow_is_waited_for() {
    if role().is_some() {
        return;
    }
    let mut cast = Cast::new(2, &[]);
    cast.ask(0, "script s CommInitRankConfig@1=block:300");
    cast.ask(1, "script s CommInitRankConfig@1=slow:300");
    for a in join_all(&mut cast) {
        a.is("Ok", &[]).within(SOON);
    }
    cast.all("run w sum", "Ok", &[]);
    cast.all("destroy w", "Ok", &[]);
    cast.finish();
}
