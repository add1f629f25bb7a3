//! Ranks that call different things.

use crate::common::Rank;
use crate::common::cast::{Cast, rank};

const SURVIVORS: usize = 3;
const RANKS: usize = SURVIVORS + 1;

/// What everybody says about a world in which one rank called something else; then it is destroyed.
fn verdicts(cast: &mut Cast, w: &str, v: &mut Rank) -> Vec<String> {
    let mut said: Vec<String> = cast.survivors.iter_mut().map(|s| s.hear_of(w)).collect();
    said.push(v.hear_of(w));
    cast.each(|_, _| format!("destroy {w}"));
    cast.all_say(w, "destroyed");
    v.tell(&format!("destroy {w}"));
    assert_eq!(v.hear_of(w), "destroyed");
    said
}

fn collectives(cast: &mut Cast, v: &mut Rank, theirs: &str, odd: &str) -> Vec<String> {
    let w = cast.fresh("mismatch");
    let other = cast.dice.below(RANKS);
    cast.join(&w, other, v);
    cast.each(|_, _| format!("once {w} {theirs}"));
    v.tell(&format!("once {w} {odd}"));
    verdicts(cast, &w, v)
}

fn mismatches(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[("MW_TIMEOUT_MS", "4000")]);
    let mut v = cast.start();
    // Everybody receives from somebody, so everybody finds out.
    for (theirs, odd) in [
        ("AllReduce 100 0", "AllReduce 200 0"),
        ("AllReduce 100 0", "AllGather 100 0"),
        ("AllReduce 100000 0", "AllReduce 100001 0"),
        ("AllToAll 100 0", "AllToAll 99 0"),
        ("ReduceScatter 60000 0", "ReduceScatter 60001 0"),
        ("Barrier 0 0", "AllReduce 100 0"),
        ("AllGather 0 0", "AllGather 8 0"),
        ("AllGather 300000 0", "AllGather 300001 0"),
        // With a root some only send, and two may wait for each other.
        ("Broadcast 100 0", "Broadcast 100 2"),
        ("Broadcast 50000 1", "Reduce 50000 1"),
        ("Reduce 100 0", "Reduce 101 0"),
        ("Gather 100 0", "Scatter 100 0"),
        ("Scatter 1000 3", "Scatter 1000 1"),
        ("Broadcast 100000 2", "AllReduce 100000 0"),
    ] {
        for said in collectives(&mut cast, &mut v, theirs, odd) {
            assert!(said.starts_with("over InvalidUsage InvalidUsage []"), "{theirs} against {odd}: {said}");
            let named = |call: &str| {
                let mut words = call.split(' ');
                let (name, count) = (words.next().expect("a name"), words.next().expect("a count"));
                said.contains(&format!(" {name}({count} x uint8"))
            };
            assert!(named(theirs) && named(odd), "{theirs} against {odd}: {said}");
        }
    }
    for (sent, received) in [(1000, 1001), (1001, 1000), (1 << 20, 8), (8, 1 << 20)] {
        let w = cast.fresh("mismatch");
        let other = cast.dice.below(RANKS);
        cast.join(&w, other, &mut v);
        cast.each(|_, i| match i {
            0 => format!("recv {w} {other} {received}"),
            // Bystanders of the quarrel hear of it, too.
            _ => format!("once {w} Barrier 0 0"),
        });
        v.tell(&format!("send {w} {} {sent}", rank(0, other)));
        assert_eq!(cast.survivors[0].hear_of(&w), "going");
        assert_eq!(v.hear_of(&w), "going");
        for said in verdicts(&mut cast, &w, &mut v) {
            assert!(said.starts_with("over InvalidUsage InvalidUsage []"), "{said}");
            assert!(
                said.contains(&format!("({sent} x")) && said.contains(&format!("({received} x")),
                "{said}"
            );
        }
    }
    drop(v);
    cast.end();
}

#[test]
fn mismatched_calls_are_told_to_everybody_shm() {
    mismatches("shm");
}

#[test]
fn mismatched_calls_are_told_to_everybody_tcp() {
    mismatches("tcp");
}
