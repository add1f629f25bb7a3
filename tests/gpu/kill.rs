//! `kill -9` of the peer on the same device, in every phase: when the survivor is told, and whether it goes
//! on.

use super::common::{Rank, listen, now_ns, say, store_address};
use super::figures::{ms, note};
use super::place::{self, Place};
use super::seat::{self, Seat};
use multiworld::error::{Code, Error};
use multiworld::world::World;
use std::sync::Arc;
use std::time::Duration;

const BYTES: usize = 16 << 20;
/// The survivor must be told within this time, with much room: machines are loaded, contexts share a device.
const LIMIT_MS: f64 = 10_000.0;

/// Does what the phase says until that fails.
fn work(phase: &str, w: &Arc<World>, seat: &Seat) -> Error {
    let peer = 1 - w.rank() as i32;
    let round = || match phase {
        "collective" => seat::finish(w, &[seat.all_reduce(BYTES)]),
        "group" => seat::finish(w, &[seat.send(BYTES, peer), seat.recv(BYTES, peer)]),
        // The peer never sends: a kernel waits on the device.
        "parked" => seat::finish(w, &[seat.recv(BYTES, peer)]),
        _ => {
            std::thread::sleep(Duration::from_micros(50));
            w.error().map_or(Ok(()), Err)
        }
    };
    loop {
        if let Err(e) = round() {
            return e;
        }
    }
}

/// Argument: the phase.
pub fn survivor(args: &[String]) {
    let phase = &*args[0];
    say("joining");
    let told = |e: &Error| say(&format!("told {} {:?} {e}", now_ns(), e.code));
    match seat::join("first", 2, 0) {
        Err(e) => {
            told(&e);
            say("destroyed 0");
        }
        Ok(w) => {
            let seat = Seat::new(&w, BYTES);
            if phase != "init" {
                seat.sum(&w, BYTES).expect("an all-reduce");
            }
            say("joined");
            told(&work(phase, &w, &seat));
            let begin = now_ns();
            w.destroy().expect("destroying");
            say(&format!("destroyed {}", ms(begin, now_ns())));
        }
    }
    assert_eq!(listen(), "again");
    second(&["0".into()]);
}

/// Does the same in the same place, until it is killed.
pub fn victim(args: &[String]) {
    let phase = &*args[0];
    say("joining");
    let w = seat::join("first", 2, 1).expect("joining");
    let seat = Seat::new(&w, BYTES);
    if phase != "init" {
        seat.sum(&w, BYTES).expect("an all-reduce");
    }
    say("joined");
    let e = work(if phase == "parked" { "idle" } else { phase }, &w, &seat);
    panic!("the victim was told first: {e}");
}

/// Argument: rank in a world that is new to everybody.
pub fn second(args: &[String]) {
    let begin = now_ns();
    let w = seat::join("second", 2, seat::number(args, 0)).expect("joining a second world");
    let seat = Seat::new(&w, BYTES);
    for bytes in [1, 1000, BYTES] {
        seat.sum(&w, bytes).expect("an all-reduce in a second world");
    }
    w.destroy().expect("destroying the second world");
    say(&format!("second {}", ms(begin, now_ns())));
}

/// Kills the peer; `wait` is how long it has for its phase.
fn kill(place: &Place, phase: &str, wait: Duration) {
    let store = store_address();
    let env = [("MW_STORE", &*store)];
    let args = [phase.to_string()];
    let mut survivor = place.start("survivor", &args, &env);
    let mut victim = place.start("victim", &args, &env);
    let stage = if phase == "init" { "joining" } else { "joined" };
    survivor.hear_of(stage);
    victim.hear_of(stage);
    std::thread::sleep(wait);
    let killed = victim.kill();
    let told = survivor.hear_of("told");
    let (at, why) = told.split_once(' ').expect("a time and a reason");
    let took = ms(killed, at.parse().expect("a time"));
    let destroyed: f64 = survivor.hear_of("destroyed").parse().expect("a time");
    // A process that comes in place of the dead one, while the device goes on as it is.
    let mut replacement = place.start("second", &["1".into()], &env);
    survivor.tell("again");
    let second: f64 = survivor.hear_of("second").parse().expect("a time");
    replacement.hear_of("second");
    [survivor, replacement].into_iter().for_each(Rank::finish);
    let code = why.split(' ').next().unwrap_or_default();
    note(&format!(
        "- {phase}, {} ms in: {code} after {took:.1} ms, destroyed in {destroyed:.1} ms, a new world made and used in \
         {second:.0} ms\n  - {why}",
        wait.as_millis()
    ));
    // Nobody can know of a process that has not registered yet: then it is the deadline that ends the wait.
    let late = phase == "init" && code == format!("{:?}", Code::Timeout);
    assert!(late || code == format!("{:?}", Code::Remote), "{why}");
    assert!(late || took < LIMIT_MS, "told after {took} ms");
}

#[test]
fn the_peer_is_killed() {
    let Some(place) = place::ready() else { return };
    note("\n### kill -9 of the peer: time until the survivor has the error\n");
    let ms = |n| Duration::from_millis(n);
    for phase in ["idle", "collective", "group", "parked"] {
        (0..place.pick(3, 1)).for_each(|i| kill(&place, phase, ms(300 + 37 * i as u64)));
    }
    let waits: &[u64] = if place.doubles { &[20] } else { &[50, 150, 300, 600, 1000] };
    waits.iter().for_each(|wait| kill(&place, "init", ms(*wait)));
}
