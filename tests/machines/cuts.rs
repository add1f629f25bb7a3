//! A machine that is cut off: its interface goes down, or what it sends and is sent gets lost without a word.

use super::cable::{Quality, To};
use super::common::now_ns;
use super::net::Family;
use super::scene::{Scene, TIMEOUT_MS, pause};

const SURVIVORS: [usize; 2] = [0, 1];
const ALL: [usize; 3] = [0, 1, 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Its own interface goes down.
    Down,
    /// The switch's port goes down.
    PortDown,
    /// Nothing comes through any more.
    Silent,
    /// It hears nothing any more, and is heard.
    Deaf,
    /// It is not heard any more, and hears.
    Mute,
}

fn cut(s: &Scene, how: Cut) {
    let host = &s.hosts[2];
    match how {
        Cut::Down => host.ns.ip("link set eth0 down\n"),
        Cut::PortDown => s.net.set_port(host, "down"),
        Cut::Silent => host.cable().set_both(Quality { is_cut: true, ..Quality::default() }),
        Cut::Deaf => host.cable().cut(To::Machine),
        Cut::Mute => host.cable().cut(To::Others),
    }
}

fn heal(s: &Scene, how: Cut) {
    let host = &s.hosts[2];
    match how {
        Cut::Down => host.ns.ip("link set eth0 up\n"),
        Cut::PortDown => s.net.set_port(host, "up"),
        _ => host.cable().set_both(Quality::default()),
    }
}

/// Both survivors lose the third one, and nobody else, in time. Answers the longer of their times.
fn all_notice(s: &mut Scene, world: &str, then: u64, what: &str) -> f64 {
    let mut longest = 0.0_f64;
    for r in SURVIVORS {
        let over = s.over(r, world);
        let ms = (over.at - then) as f64 / 1e6;
        assert_eq!((&*over.code, &*over.failed), ("Remote", "[2]"), "{what}: rank {r}: {}", over.text);
        longest = longest.max(ms);
    }
    println!("{what}: the survivors knew after {longest:.0} ms, with a limit of {TIMEOUT_MS:.0} ms");
    assert!(longest < 3.0 * TIMEOUT_MS);
    longest
}

/// The survivors go on without it while it is cut off; when it is back, it is told, and disturbs nobody.
fn reformed_meanwhile(how: Cut) {
    let what = format!("{how:?}");
    let Some(mut s) = Scene::new(3, Family::V4) else { return };
    s.join("all", &ALL);
    s.join("idle", &ALL);
    s.join("whole", &SURVIVORS);
    s.run("whole", &SURVIVORS, 1000);
    s.run("all", &ALL, 1000);
    s.tell(&ALL, "idle idle");
    s.all_say(&ALL, "idle", "going");
    pause(300);
    let then = now_ns();
    cut(&s, how);
    all_notice(&mut s, "all", then, &what);
    all_notice(&mut s, "idle", then, &format!("{what}, idle"));
    // The one that is cut off knows that something is wrong, too.
    let third = s.over(2, "all");
    println!("{what}: it knew after {:.0} ms: {}", (third.at - then) as f64 / 1e6, third.text);
    assert!((third.at - then) as f64 / 1e6 < 3.0 * TIMEOUT_MS);
    s.tell(&SURVIVORS, "reform all 2 2");
    for r in SURVIVORS {
        let said = s.ranks[r].hear_of("all");
        assert_eq!(said, format!("reformed epoch 2 rank {r} of 2, 0 by shm, 1 by tcp"));
    }
    s.run("all", &SURVIVORS, 1000);
    s.ranks[2].tell("reform all 2 3");
    pause(300);
    heal(&s, how);
    let said = s.ranks[2].hear_of("all");
    assert!(said.starts_with("refused Remote") && said.contains("without this member"), "{said}");
    // All that it had under way has arrived by then, or never will.
    pause(700);
    s.stop("all", &SURVIVORS);
    let gap = s.stop("whole", &SURVIVORS);
    println!("{what}: the other world's longest pause was {gap} ms");
    assert!((gap as f64) < TIMEOUT_MS, "a gap");
    // It can come back as a newcomer; its old handle has to go first.
    s.ranks[2].tell("abort all");
    s.all_say(&[2], "all", "aborted");
    s.tell(&ALL, "reform all 3 3");
    for r in ALL {
        let said = s.ranks[r].hear_of("all");
        assert_eq!(said, format!("reformed epoch 3 rank {r} of 3, 0 by shm, 2 by tcp"));
    }
    s.tell(&ALL, "exchange all 100000");
    for r in ALL {
        assert!(s.ranks[r].hear_of("all").starts_with("exchanged"));
    }
    s.end();
}

#[test]
fn its_interface_goes_down() {
    reformed_meanwhile(Cut::Down);
}

#[test]
fn its_port_goes_down() {
    reformed_meanwhile(Cut::PortDown);
}

#[test]
fn nothing_comes_through() {
    reformed_meanwhile(Cut::Silent);
}

#[test]
fn it_hears_nothing() {
    reformed_meanwhile(Cut::Deaf);
}

#[test]
fn it_is_not_heard() {
    reformed_meanwhile(Cut::Mute);
}

/// It is back before the survivors have reformed: what it says of them then, for it has not heard them either, makes
/// nobody believe that one of them has failed.
fn back_before_the_reform(how: Cut) {
    let Some(mut s) = Scene::new(3, Family::V4) else { return };
    s.join("all", &ALL);
    s.run("all", &ALL, 1000);
    let then = now_ns();
    cut(&s, how);
    all_notice(&mut s, "all", then, &format!("{how:?}, to be healed"));
    s.over(2, "all");
    heal(&s, how);
    // Longer than TCP waits before it tries again.
    pause(2500);
    s.tell(&SURVIVORS, "failed all");
    s.all_say(&SURVIVORS, "all", "[2]");
    s.tell(&SURVIVORS, "reform all 2 2");
    for r in SURVIVORS {
        let said = s.ranks[r].hear_of("all");
        assert_eq!(said, format!("reformed epoch 2 rank {r} of 2, 0 by shm, 1 by tcp"));
    }
    s.ranks[2].tell("reform all 2 2");
    let said = s.ranks[2].hear_of("all");
    assert!(said.starts_with("refused Remote"), "{said}");
    s.end();
}

#[test]
fn it_is_back_before_the_others_reform() {
    back_before_the_reform(Cut::Silent);
}

#[test]
fn it_was_deaf_and_is_back_before_the_others_reform() {
    back_before_the_reform(Cut::Deaf);
}

/// TCP tries again after ever longer pauses: who is back after a while must not wait for that.
#[test]
fn it_is_back_after_a_long_time() {
    let Some(mut s) = Scene::new(3, Family::V4) else { return };
    s.join("all", &ALL);
    s.run("all", &ALL, 1000);
    let then = now_ns();
    cut(&s, Cut::Silent);
    all_notice(&mut s, "all", then, "for long");
    s.over(2, "all");
    // The sixth attempt is made after 12 s or so.
    pause(8000);
    heal(&s, Cut::Silent);
    let then = now_ns();
    s.join("again", &ALL);
    s.run("again", &ALL, 1000);
    println!("for long: together again {:.0} ms after the end", super::scene::ms_since(then));
    // Long enough for heartbeats to be missed.
    pause(1500);
    s.stop("again", &ALL);
    s.end();
}

/// A machine vanishes with all that was on it, and without a word: nobody sees a connection end.
#[test]
fn a_machine_vanishes_and_comes_back() {
    let Some(mut s) = Scene::new(3, Family::V4) else { return };
    s.join("all", &ALL);
    s.join("whole", &SURVIVORS);
    s.run("whole", &SURVIVORS, 1000);
    s.run("all", &ALL, 1000);
    let then = now_ns();
    cut(&s, Cut::Silent);
    s.ranks[2].kill();
    all_notice(&mut s, "all", then, "vanished");
    // It has started again, at the same address, and nothing on it knows of the old connections.
    pause(100);
    heal(&s, Cut::Silent);
    s.ranks[2] = s.start(2);
    s.tell(&ALL, "reform all 3 3");
    for r in ALL {
        let said = s.ranks[r].hear_of("all");
        assert_eq!(said, format!("reformed epoch 2 rank {r} of 3, 0 by shm, 2 by tcp"));
    }
    println!("vanished: all three had a next epoch {:.0} ms after the end", super::scene::ms_since(then));
    s.run("all", &ALL, 1000);
    pause(300);
    s.stop("all", &ALL);
    let gap = s.stop("whole", &SURVIVORS);
    assert!((gap as f64) < TIMEOUT_MS, "a gap of {gap} ms");
    s.end();
}
