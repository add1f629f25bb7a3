//! One world is aborted while another one, which is well, has a receive parked on the same device.

use super::common::{Rank, listen, now_ns, say, store_address};
use super::figures::{ms, note};
use super::place::{self, Place};
use super::seat::{self, Seat};
use multiworld::world::{Request, World};
use std::sync::Arc;
use std::time::Duration;

const BYTES: usize = 1 << 20;
/// From the abort until the peer sends what the healthy world waits for.
const LATER: Duration = Duration::from_millis(1000);
/// Time for kernels to come onto the device.
const SETTLE: Duration = Duration::from_millis(300);

fn both(me: usize) -> [(Arc<World>, Seat); 2] {
    ["broken", "healthy"].map(|name| {
        let w = seat::join(name, 2, me).expect("joining");
        let seat = Seat::new(&w, BYTES);
        seat.sum(&w, BYTES).expect("an all-reduce");
        (w, seat)
    })
}

fn parked(w: &Arc<World>, seat: &Seat) -> Arc<Request> {
    Request::submit(&mut vec![(w.clone(), seat.recv(BYTES, 1 - w.rank() as i32))].into(), true)
}

/// Rank 0, which aborts one of its worlds.
pub fn aborter() {
    let [(a, at_a), (b, at_b)] = both(0);
    let waiting = parked(&b, &at_b);
    if listen() == "parked" {
        drop(parked(&a, &at_a));
    }
    std::thread::sleep(SETTLE);
    say("ready");
    assert_eq!(listen(), "abort");
    let begin = now_ns();
    let aborting = std::thread::spawn(move || {
        a.abort();
        let returned = now_ns();
        let destroyed = a.destroy();
        (returned, now_ns(), destroyed)
    });
    waiting.wait(None).expect("no limit").expect("the healthy world's receive");
    let arrived = now_ns();
    assert!(at_b.came(BYTES, 42).expect("reading"), "wrong bytes");
    let (returned, gone, destroyed) = aborting.join().expect("the aborting thread");
    destroyed.expect("destroying an aborted world");
    say(&format!("times {begin} {returned} {gone} {arrived}"));
    at_b.sum(&b, BYTES).expect("an all-reduce of the healthy world");
    b.destroy().expect("destroying the healthy world");
}

/// Rank 1, which sends when it is told to.
pub fn friend() {
    let [(a, _seat), (b, at_b)] = both(1);
    at_b.fill(42).expect("writing");
    say("ready");
    assert_eq!(listen(), "send");
    let at = now_ns();
    seat::finish(&b, &[at_b.send(BYTES, 0)]).expect("sending in the healthy world");
    say(&format!("sent {at}"));
    at_b.sum(&b, BYTES).expect("an all-reduce of the healthy world");
    b.destroy().expect("destroying the healthy world");
    a.destroy().expect("destroying the broken world");
}

fn one(place: &Place, state: &str) {
    let store = store_address();
    let env = [("MW_STORE", &*store)];
    let mut aborter = place.start("aborter", &[], &env);
    let mut friend = place.start("friend", &[], &env);
    aborter.tell(state);
    aborter.expect("ready");
    friend.expect("ready");
    aborter.tell("abort");
    std::thread::sleep(LATER);
    friend.tell("send");
    let sent: u64 = friend.hear_of("sent").parse().expect("a time");
    let times: Vec<u64> = aborter.hear_of("times").split(' ').map(|t| t.parse().expect("a time")).collect();
    [aborter, friend].into_iter().for_each(Rank::finish);
    let [begin, returned, gone, arrived] = times[..] else { panic!("four times: {times:?}") };
    note(&format!(
        "- A {state}: A's abort returned after {:.1} ms, A was destroyed after {:.1} ms; B's peer sent {:.1} ms \
         after the abort began, and B had it {:.1} ms later",
        ms(begin, returned),
        ms(begin, gone),
        ms(begin, sent),
        ms(sent, arrived)
    ));
    if gone > sent {
        note("  - A's end waited for B's parked receive");
    }
}

#[test]
fn a_world_is_aborted_beside_a_parked_one() {
    let Some(place) = place::ready() else { return };
    note("\n### Abort of world A while healthy world B has a receive parked on the device\n");
    for state in ["idle", "parked"] {
        (0..place.pick(3, 1)).for_each(|_| one(&place, state));
    }
}
