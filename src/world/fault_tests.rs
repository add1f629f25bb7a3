//! What goes wrong between threads: wake-ups, leaving while others are at work, failures of some members.

use super::tests::{all_reduce, config, recv, send};
use super::{Request, World};
use crate::config::{Config, TransportChoice};
use crate::error::Code;
use crate::observe::events::{self, EventKind};
use std::time::{Duration, Instant};

/// Seconds of disorder.
const CHAOS: u64 = 3;

#[test]
fn a_wait_for_several_worlds_is_woken_by_a_thread_of_this_process() {
    let a = World::init_all(2, &config(TransportChoice::Shm)).unwrap();
    let b = World::init_all(2, &config(TransportChoice::Shm)).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(30));
                a[0].run(&send(&[1.0], 1)).unwrap();
                b[0].run(&send(&[2.0], 1)).unwrap();
            }
        });
        let begin = Instant::now();
        for _ in 0..3 {
            let (mut x, mut y) = ([0.0], [0.0]);
            let calls = vec![(a[1].clone(), recv(&mut x, 0)), (b[1].clone(), recv(&mut y, 0))];
            Request::submit(&mut calls.into(), false).wait(None).unwrap().unwrap();
            assert_eq!((x, y), ([1.0], [2.0]));
        }
        assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    });
    a.iter().chain(&b).for_each(|w| w.destroy().unwrap());
}

#[test]
fn finalizing_beside_other_threads_makes_nobody_a_culprit() {
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        for round in 0..40 {
            let worlds = World::init_all(2, &config(transport)).unwrap();
            std::thread::scope(|s| {
                let (a, b) = (&worlds[0], &worlds[1]);
                let sender = s.spawn(move || {
                    loop {
                        if let Err(e) = a.run(&send(&[1.0], 1)) {
                            break e;
                        }
                    }
                });
                let receiver = s.spawn(move || {
                    loop {
                        let mut x = [0.0];
                        if let Err(e) = b.run(&recv(&mut x, 0)) {
                            break e;
                        }
                    }
                });
                std::thread::sleep(Duration::from_micros(200 * round));
                a.finalize().unwrap();
                assert_eq!(sender.join().unwrap().code, Code::InvalidUsage);
                assert_eq!(receiver.join().unwrap().culprit, Some(0));
            });
            for w in &worlds {
                assert_eq!(w.failed_ranks(), [0; 0]);
                w.destroy().unwrap();
            }
        }
    }
}

#[test]
fn survivors_who_end_their_connections_have_not_failed() {
    let c = Config { heartbeat_timeout: Duration::from_millis(100), ..config(TransportChoice::Shm) };
    let worlds = World::init_all(3, &c).unwrap();
    // Rank 1 has heard of the failure first and ended its connections.
    worlds[0].suspect(1);
    worlds[2].abort();
    assert_eq!(worlds[0].failed_ranks(), [2]);
    std::thread::sleep(Duration::from_millis(400));
    for w in &worlds[..2] {
        assert_eq!(w.failed_ranks(), [2]);
        w.destroy().unwrap();
    }
}

#[test]
fn a_forked_process_leaves_its_parents_worlds_alone() {
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        let worlds = World::init_all(2, &config(transport)).unwrap();
        let mut x = [0.0];
        let pending = Request::submit(&mut vec![(worlds[1].clone(), recv(&mut x, 0))].into(), false);
        // SAFETY: the child calls nothing that needs another thread of its parent.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = |r: crate::error::Result<()>| r.is_err_and(|e| e.code == Code::InvalidUsage);
            worlds[0].abort();
            let all = [
                refused(worlds[0].run(&send(&[1.0], 1))),
                refused(worlds[0].revoke()),
                refused(worlds[0].finalize()),
                refused(worlds[0].destroy()),
                pending.test().is_some_and(refused),
                pending.wait(None).is_some_and(refused),
                worlds[0].split(0, 0, None).is_err(),
            ];
            let failed = all.iter().position(|ok| !ok).map_or(0, |i| i as i32 + 1);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(failed) };
        }
        let mut status = 0;
        // SAFETY: the child of this process, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        worlds[0].run(&send(&[7.0], 1)).unwrap();
        pending.wait(None).unwrap().unwrap();
        assert_eq!(x, [7.0]);
        worlds.iter().for_each(|w| w.destroy().unwrap());
    }
}

#[test]
fn events_wait_until_their_world_has_a_handle() {
    let worlds = World::init_all(2, &config(TransportChoice::Shm)).unwrap();
    worlds[0].destroy().unwrap();
    const TOKEN: usize = usize::MAX - 4711;
    worlds[1].set_token(TOKEN);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let e = events::next(Some(until)).unwrap();
        assert_ne!(e.world_token, 0);
        if e.world_token == TOKEN {
            assert_eq!((e.kind, e.rank), (EventKind::RankLeft, Some(0)));
            break;
        }
    }
    worlds[1].destroy().unwrap();
}

/// Many worlds of one process come and go, in good order and not, while others work.
#[test]
fn nothing_hangs_when_everything_happens_at_once() {
    let until = Instant::now() + Duration::from_secs(CHAOS);
    let begin = Instant::now();
    std::thread::scope(|s| {
        for lane in 0..4u64 {
            s.spawn(move || {
                let mut random = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut dice = |n: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % n
                };
                while Instant::now() < until {
                    let n = 2 + dice(3) as i32;
                    let transport = if dice(2) == 0 { TransportChoice::Shm } else { TransportChoice::Tcp };
                    let c = Config { timeout: Duration::from_secs(20), ..config(transport) };
                    let worlds = World::init_all(n, &c).unwrap();
                    let (end, after, at) = (dice(4), dice(3000), dice(n as u64) as usize);
                    std::thread::scope(|s| {
                        for w in &worlds {
                            let me = w.rank() as usize;
                            s.spawn(move || {
                                let data = vec![1.0; 1 + (lane as usize + 1) * 20_000];
                                let mut got = data.clone();
                                while w.run(&all_reduce(&data, &mut got)).is_ok() {
                                    assert!(got.iter().all(|x| *x == n as f32));
                                }
                            });
                            if me != at {
                                continue;
                            }
                            s.spawn(move || {
                                std::thread::sleep(Duration::from_micros(after));
                                match end {
                                    0 => w.abort(),
                                    1 => w.revoke().unwrap(),
                                    2 => drop(w.destroy()),
                                    _ => drop(w.finalize()),
                                }
                            });
                        }
                    });
                    for w in &worlds {
                        let failed = w.failed_ranks();
                        assert!(failed.iter().all(|r| end == 0 && *r == at as u32), "{end} {at} {failed:?}");
                        let _ = w.destroy();
                    }
                }
            });
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(CHAOS + 15), "{:?}", begin.elapsed());
}
