//! Deaths while a world comes into being, and while it is left.

use crate::common::Rank;
use crate::common::cast::{Cast, rank};
use std::time::Duration;

const SURVIVORS: usize = 3;
const RANKS: usize = SURVIVORS + 1;

/// A replacement and all survivors end up in a world of this name that works.
fn replaced(cast: &mut Cast, world: &str, victim: usize) {
    let mut fresh = cast.start();
    fresh.tell(&format!("enter {world} {RANKS} {victim}"));
    let said = fresh.hear_of(world);
    assert!(said.starts_with("entered"), "{said}");
    for (i, s) in cast.survivors.iter_mut().enumerate() {
        let said = s.hear_of(world);
        assert!(said.starts_with("entered"), "survivor {i}: {said}");
        if said.len() > 9 {
            println!("{world}, rank {} on its way in: {said}", rank(i, victim));
        }
    }
    let line = format!("once {world} AllReduce 1000 0");
    cast.each(|_, _| line.clone());
    fresh.tell(&line);
    assert_eq!(fresh.hear_of(world), "done");
    cast.all_say(world, "done");
    fresh.tell(&format!("destroy {world}"));
    cast.each(|_, _| format!("destroy {world}"));
    assert_eq!(fresh.hear_of(world), "destroyed");
    cast.all_say(world, "destroyed");
    fresh.tell("end");
    fresh.finish();
}

fn enter(cast: &mut Cast, world: &str, victim: usize) {
    cast.each(|_, i| format!("enter {world} {RANKS} {}", rank(i, victim)));
}

fn while_joining(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for victim in 0..RANKS {
        // Before it has told anybody.
        let w = cast.fresh("unheard");
        enter(&mut cast, &w, victim);
        let mut v = cast.start();
        v.kill();
        replaced(&mut cast, &w, victim);

        // While it waits for others.
        let w = cast.fresh("waiting");
        let mut v = cast.start();
        v.tell(&format!("join {w} {RANKS} {victim}"));
        cast.dice.pause(50);
        v.kill();
        enter(&mut cast, &w, victim);
        replaced(&mut cast, &w, victim);
    }
    // When everybody is there.
    for i in 0..24 {
        let victim = i % RANKS;
        let w = cast.fresh("complete");
        let mut v = cast.start();
        // Its background is at work already, or not.
        if i % 3 == 0 {
            v.tell(&format!("join {w}x 1 0"));
            assert_eq!(v.hear_of(&format!("{w}x")), "joined");
        }
        enter(&mut cast, &w, victim);
        cast.dice.pause(5);
        v.tell(&format!("join {w} {RANKS} {victim}"));
        // Joining takes about two milliseconds.
        cast.dice.pause(if i % 2 == 0 { 3 } else { 10 });
        v.kill();
        replaced(&mut cast, &w, victim);
    }
    cast.end();
}

#[test]
fn killed_while_joining_shm() {
    while_joining("shm");
}

#[test]
fn killed_while_joining_tcp() {
    while_joining("tcp");
}

fn stopped_while_joining(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    let mut stopped: Vec<Rank> = Vec::new();
    for i in 0..6 {
        let victim = i % RANKS;
        let w = cast.fresh("stopped");
        let mut v = cast.start();
        v.tell(&format!("join {w} {RANKS} {victim}"));
        // It waits for the others, or is just becoming a member.
        if i % 2 == 0 {
            std::thread::sleep(Duration::from_millis(100));
            v.signal(libc::SIGSTOP);
            enter(&mut cast, &w, victim);
        } else {
            enter(&mut cast, &w, victim);
            cast.dice.pause(10);
            v.signal(libc::SIGSTOP);
        }
        replaced(&mut cast, &w, victim);
        stopped.push(v);
    }
    for v in &mut stopped {
        v.kill();
    }
    cast.end();
}

#[test]
fn stopped_while_joining_shm() {
    stopped_while_joining("shm");
}

#[test]
fn stopped_while_joining_tcp() {
    stopped_while_joining("tcp");
}

/// Whoever finalizes or destroys leaves; a member that is killed in the middle of that has left or has failed, for
/// all survivors one of the two.
fn while_leaving(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for i in 0..8 {
        let how = ["finalize", "destroy"][i % 2];
        let w = cast.fresh(how);
        let victim = cast.dice.below(RANKS);
        let mut v = cast.world(&w, victim);
        v.tell(&format!("{how} {w}"));
        cast.dice.pause(1);
        v.kill();
        cast.each(|_, _| format!("once {w} AllReduce 1000 0"));
        let mut seen = Vec::new();
        for s in &mut cast.survivors {
            let said = s.hear_of(&w);
            assert!(said.starts_with("over Remote Remote"), "{said}");
            s.tell(&format!("destroy {w}"));
            assert_eq!(s.hear_of(&w), "destroyed");
            s.tell(&format!("events {w} 1"));
            let mut events = s.hear_of(&w);
            if events == format!("RankLeft({victim})") {
                // It has broken since.
                s.tell(&format!("events {w} 2"));
                events = s.hear_of(&w);
            }
            seen.push(events);
        }
        println!("killed while {how}: {seen:?}");
        for events in &seen {
            let (failed, left) = (format!("RankFailed({victim})"), format!("RankLeft({victim})"));
            let events: Vec<&str> = events.split(' ').collect();
            let may =
                [vec![&*failed], vec![&*left, "WorldBroken(-1)"], vec![&*left, "WorldBroken(-1)", &*failed]];
            // It may have told only some of the others that it leaves.
            let died = events == [&*left, &*failed];
            assert!(died || may.contains(&events), "{events:?}");
        }
    }
    cast.end();
}

#[test]
fn killed_while_leaving_shm() {
    while_leaving("shm");
}

#[test]
fn killed_while_leaving_tcp() {
    while_leaving("tcp");
}
