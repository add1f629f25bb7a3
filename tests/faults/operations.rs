//! Deaths in the middle of operations.

use crate::common::Rank;
use crate::common::actor::COLLECTIVES;
use crate::common::cast::{Cast, rank};
use multiworld::types::OpKind;

const SURVIVORS: usize = 3;
const RANKS: usize = SURVIVORS + 1;

/// Kills the process once everybody is at work, and checks what every survivor knows about its worlds.
fn kill(cast: &mut Cast, mut v: Rank, worlds: &[(&str, usize)]) {
    for (w, _) in worlds {
        cast.all_say(w, "going");
    }
    cast.note_sockets(&v);
    cast.dice.pause(10);
    v.kill();
    settle(cast, worlds);
}

fn settle(cast: &mut Cast, worlds: &[(&str, usize)]) {
    for (w, victim) in worlds {
        cast.all_know(w, &[*victim]);
    }
    for (w, victim) in worlds {
        cast.bury(w, &format!("RankFailed({victim})"));
    }
}

fn in_collectives(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for kind in COLLECTIVES {
        for count in [10, 300_000] {
            if kind == OpKind::Barrier && count > 10 {
                continue;
            }
            let w = cast.fresh(kind.name());
            let victim = cast.dice.below(RANKS);
            let root = cast.dice.below(RANKS);
            let mut v = cast.world(&w, victim);
            let line = format!("op {w} {} {count} {root}", kind.name());
            cast.each(|_, _| line.clone());
            v.tell(&line);
            kill(&mut cast, v, &[(&w, victim)]);
        }
    }
    cast.end();
}

#[test]
fn killed_in_each_collective_shm() {
    in_collectives("shm");
}

#[test]
fn killed_in_each_collective_tcp() {
    in_collectives("tcp");
}

fn in_point_to_point(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    // The victim sends, receives, both; the others wait for it, or do nothing at all.
    for (role, len) in
        [("send", 64 << 20), ("recv", 64 << 20), ("recv", 64 << 20), ("send", 1000), ("recv", 1000)]
    {
        let w = cast.fresh(role);
        let victim = cast.dice.below(RANKS);
        let mut v = cast.world(&w, victim);
        let partner = rank(0, victim);
        let answer = if role == "send" { "recv" } else { "send" };
        v.tell(&format!("{role} {w} {partner} {len}"));
        cast.survivors[0].tell(&format!("{answer} {w} {victim} {len}"));
        cast.survivors[1].tell(&format!("recv {w} {victim} 8"));
        cast.survivors[2].tell(&format!("idle {w}"));
        kill(&mut cast, v, &[(&w, victim)]);
    }
    // Idle, and with operations that nobody waits for.
    for what in ["idle", "async"] {
        let w = cast.fresh(what);
        let victim = cast.dice.below(RANKS);
        let v = cast.world(&w, victim);
        cast.each(|_, _| format!("{what} {w} {victim}"));
        kill(&mut cast, v, &[(&w, victim)]);
    }
    // In a group over this world and one that stays whole.
    for _ in 0..3 {
        let w = cast.fresh("group");
        let whole = cast.fresh("whole");
        let victim = cast.dice.below(RANKS);
        let mut v = cast.world(&w, victim);
        cast.each(|_, i| format!("join {whole} {SURVIVORS} {i}"));
        cast.all_say(&whole, "joined");
        v.tell(&format!("join {whole}x 1 0"));
        assert_eq!(v.hear_of(&format!("{whole}x")), "joined");
        cast.each(|_, _| format!("group {w} {whole}"));
        v.tell(&format!("group {w} {whole}x"));
        kill(&mut cast, v, &[(&w, victim)]);
        cast.each(|_, _| format!("finalize {whole}"));
        cast.all_say(&whole, "finalized");
        cast.each(|_, _| format!("destroy {whole}"));
        cast.all_say(&whole, "destroyed");
    }
    cast.end();
}

#[test]
fn killed_in_messages_idle_and_groups_shm() {
    in_point_to_point("shm");
}

#[test]
fn killed_in_messages_idle_and_groups_tcp() {
    in_point_to_point("tcp");
}

/// One process that stops is in the middle of everything at once: each collective and a large message in each
/// direction, in a world of its own.
fn stopped(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    let mut v = cast.start();
    let mut worlds = Vec::new();
    for (i, kind) in COLLECTIVES.into_iter().enumerate() {
        let w = cast.fresh(kind.name());
        let victim = cast.dice.below(RANKS);
        cast.join(&w, victim, &mut v);
        let line = format!("op {w} {} {} {}", kind.name(), [10, 100_000][i % 2], i % RANKS);
        cast.each(|_, _| line.clone());
        v.tell(&line);
        worlds.push((w, victim));
    }
    for (role, answer) in [("send", "recv"), ("recv", "send")] {
        let w = cast.fresh(role);
        let victim = cast.dice.below(RANKS);
        cast.join(&w, victim, &mut v);
        v.tell(&format!("{role} {w} {} 16777216", rank(0, victim)));
        cast.survivors[0].tell(&format!("{answer} {w} {victim} 16777216"));
        cast.survivors[1].tell(&format!("idle {w}"));
        cast.survivors[2].tell(&format!("async {w} {victim}"));
        worlds.push((w, victim));
    }
    let named: Vec<(&str, usize)> = worlds.iter().map(|(w, v)| (&**w, *v)).collect();
    for (w, _) in &named {
        cast.all_say(w, "going");
        assert_eq!(v.hear_of(w), "going");
    }
    cast.dice.pause(10);
    v.signal(libc::SIGSTOP);
    settle(&mut cast, &named);
    // It comes back, and learns that it is out.
    v.signal(libc::SIGCONT);
    for (w, _) in &named {
        let said = v.hear_of(w);
        assert!(said.starts_with("over Remote Remote ["), "{w}: the stopped process says: {said}");
        v.tell(&format!("destroy {w}"));
        assert_eq!(v.hear_of(w), "destroyed");
    }
    // With everybody else it can go on.
    let w = cast.fresh("again");
    cast.join(&w, 1, &mut v);
    let line = format!("once {w} AllReduce 100 0");
    cast.each(|_, _| line.clone());
    v.tell(&line);
    assert_eq!(v.hear_of(&w), "done");
    cast.all_say(&w, "done");
    cast.note_sockets(&v);
    drop(v);
    cast.end();
}

#[test]
fn stopped_in_everything_shm() {
    stopped("shm");
}

#[test]
fn stopped_in_everything_tcp() {
    stopped("tcp");
}
