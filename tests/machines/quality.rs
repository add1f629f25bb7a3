//! Cables that are slow or bad, but not broken: nobody may be taken for failed.

use super::cable::Quality;
use super::net::Family;
use super::scene::{Scene, pause};
use std::time::Duration;

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn packets_are_late_and_some_are_lost() {
    let Some(mut s) = Scene::new(3, Family::V4) else { return };
    // 20 ms from one end to the other and back.
    let bad = Quality { delay: Duration::from_millis(10), loss: 10, ..Quality::default() };
    s.hosts[2].cable().set_both(bad);
    s.join("all", &ALL);
    s.join("idle", &ALL);
    s.tell(&ALL, "idle idle");
    s.all_say(&ALL, "idle", "going");
    for len in [1, 1000, 100_000, 1_000_000] {
        s.tell(&ALL, &format!("exchange all {len}"));
        let said: Vec<String> = ALL.iter().map(|r| s.ranks[*r].hear_of("all")).collect();
        println!("1 % loss, 20 ms: {len} bytes to everybody: {said:?} ms");
        assert!(said.iter().all(|s| s.starts_with("exchanged")), "{said:?}");
    }
    s.run("all", &ALL, 1000);
    pause(3000);
    let gap = s.stop("all", &ALL);
    let dropped = s.hosts[2].cable().dropped();
    println!("1 % loss, 20 ms: {dropped} packets were lost; the longest pause was {gap} ms");
    assert!(dropped > 0);
    // Nothing has happened to the world that was idle meanwhile.
    s.tell(&ALL, "exchange idle 1000");
    for r in ALL {
        let said = s.ranks[r].hear_of("idle");
        assert!(said.starts_with("exchanged"), "{said}");
    }
}

/// Heartbeats find their way through a cable that a long message fills.
#[test]
fn a_narrow_cable_is_full() {
    let Some(mut s) = Scene::new(2, Family::V4) else { return };
    s.join("all", &[0, 1]);
    s.join("idle", &[0, 1]);
    s.tell(&[0, 1], "idle idle");
    s.all_say(&[0, 1], "idle", "going");
    // 10 Mbit/s with 200 ms of packets in front of it, as a cheap switch has.
    let narrow = Quality { rate: Some((1_250_000, 250_000)), ..Quality::default() };
    s.hosts[1].cable().set_both(narrow);
    s.tell(&[0, 1], "exchange all 5000000");
    for r in [0, 1] {
        let said = s.ranks[r].hear_of("all");
        println!("10 Mbit/s: 5 MB each way: {said} ms");
        assert!(said.starts_with("exchanged"), "{said}");
    }
    println!("10 Mbit/s: {} packets did not fit", s.hosts[1].cable().dropped());
    s.tell(&[0, 1], "exchange idle 1000");
    for r in [0, 1] {
        let said = s.ranks[r].hear_of("idle");
        assert!(said.starts_with("exchanged"), "{said}");
    }
}
