//! Worlds within one process.

use super::{Call, Request, State, World};
use crate::config::{Config, TransportChoice};
use crate::error::Code;
use crate::sync::Arc;
use crate::types::{DataType, OpKind, RedOp, Reduction};
use std::time::{Duration, Instant};

pub(super) fn config(transport: TransportChoice) -> Config {
    Config { transport, ifname: Some("lo".into()), ..Config::from_env().unwrap() }
}

pub(super) fn call(kind: OpKind) -> Call {
    Call {
        kind,
        send: false,
        sendbuf: std::ptr::null(),
        recvbuf: std::ptr::null_mut(),
        count: 0,
        dtype: DataType::Float32,
        reduction: Reduction::Builtin(RedOp::Sum),
        peer: 0,
        stream: std::ptr::null_mut(),
        scalar_on_device: false,
    }
}

pub(super) fn send(data: &[f32], peer: i32) -> Call {
    Call { send: true, sendbuf: data.as_ptr().cast(), count: data.len(), peer, ..call(OpKind::PointToPoint) }
}

pub(super) fn recv(data: &mut [f32], peer: i32) -> Call {
    Call { recvbuf: data.as_mut_ptr().cast(), count: data.len(), peer, ..call(OpKind::PointToPoint) }
}

pub(super) fn all_reduce(input: &[f32], output: &mut [f32]) -> Call {
    Call {
        sendbuf: input.as_ptr().cast(),
        recvbuf: output.as_mut_ptr().cast(),
        count: input.len(),
        ..call(OpKind::AllReduce)
    }
}

/// Runs `body` on every rank of a new world, on both transports.
pub(super) fn ranks(n: i32, body: impl Fn(&Arc<World>) + Sync) {
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        let worlds = World::init_all(n, &config(transport)).unwrap();
        std::thread::scope(|s| {
            for w in &worlds {
                let body = &body;
                s.spawn(move || body(w));
            }
        });
    }
}

#[test]
fn messages_of_all_sizes_arrive() {
    ranks(2, |w| {
        for len in [0, 1, 5, 6, 7, 1000, 4095, 4096, 4097, 20_000, 1_000_000] {
            let data: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let mut got = vec![0.0; len];
            if w.rank() == 0 {
                w.run(&send(&data, 1)).unwrap();
                w.run(&recv(&mut got, 1)).unwrap();
            } else {
                w.run(&recv(&mut got, 0)).unwrap();
                w.run(&send(&got, 0)).unwrap();
            }
            assert_eq!(data, got);
        }
        w.destroy().unwrap();
    });
}

#[test]
fn all_reduce_sums_on_any_size() {
    for n in [1, 2, 3, 4, 7] {
        ranks(n, |w| {
            for len in [0, 1, 1000, 300_000] {
                let data = vec![w.rank() as f32 + 1.0; len];
                let mut got = vec![0.0; len];
                w.run(&all_reduce(&data, &mut got)).unwrap();
                assert!(got.iter().all(|x| *x == (n * (n + 1) / 2) as f32));
            }
            w.destroy().unwrap();
        });
    }
}

#[test]
fn a_thread_may_send_while_another_receives() {
    ranks(2, |w| {
        let peer = 1 - w.rank() as i32;
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut x = [0.0];
                w.run(&recv(&mut x, peer)).unwrap();
                assert_eq!(x, [7.0]);
            });
            std::thread::sleep(Duration::from_millis(20));
            w.run(&send(&[7.0], peer)).unwrap();
        });
        w.destroy().unwrap();
    });
}

#[test]
fn mismatched_calls_are_told_to_everybody() {
    ranks(3, |w| {
        let mut buf = [0.0; 8];
        let e = if w.rank() == 2 {
            let b = Call {
                recvbuf: buf.as_mut_ptr().cast(),
                sendbuf: buf.as_ptr().cast(),
                count: 4,
                peer: 2,
                ..call(OpKind::Broadcast)
            };
            w.run(&b).and_then(|()| w.run(&b)).and_then(|()| {
                std::thread::sleep(Duration::from_millis(200));
                w.run(&b)
            })
        } else {
            let mut out = [0.0; 8];
            w.run(&all_reduce(&buf, &mut out))
        };
        let e = e.unwrap_err();
        assert_eq!(e.code, Code::InvalidUsage, "{e}");
        assert!(e.text.contains("AllReduce") && e.text.contains("Broadcast"), "{e}");
        w.destroy().unwrap();
    });
}

#[test]
fn abort_ends_pending_operations_here_and_breaks_the_world_there() {
    ranks(2, |w| {
        let mut x = [0.0];
        if w.rank() == 0 {
            std::thread::scope(|s| {
                let pending = s.spawn(|| {
                    let mut x = [0.0];
                    w.run(&recv(&mut x, 1))
                });
                std::thread::sleep(Duration::from_millis(20));
                w.abort();
                assert_eq!(pending.join().unwrap().unwrap_err().code, Code::Aborted);
            });
        } else {
            let e = w.run(&recv(&mut x, 0)).unwrap_err();
            assert_eq!((e.code, e.culprit, w.failed_ranks()), (Code::Remote, Some(0), vec![0]));
            w.destroy().unwrap();
        }
    });
}

#[test]
fn a_deadline_breaks_the_world_for_all() {
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        let c = Config { timeout: Duration::from_millis(100), ..config(transport) };
        let worlds = World::init_all(2, &c).unwrap();
        let mut x = [0.0];
        let e = worlds[0].run(&recv(&mut x, 1)).unwrap_err();
        assert_eq!(e.code, Code::Timeout);
        assert!(e.text.contains("for rank 1"), "{e}");
        assert_eq!(worlds[1].run(&recv(&mut x, 0)).unwrap_err().code, Code::Timeout);
        worlds.iter().for_each(|w| w.destroy().unwrap());
    }
}

#[test]
fn whoever_leaves_leaves_its_messages_behind() {
    ranks(3, |w| match w.rank() {
        0 => {
            w.run(&send(&[1.0, 2.0], 1)).unwrap();
            w.destroy().unwrap();
        }
        1 => {
            std::thread::sleep(Duration::from_millis(50));
            let mut x = [0.0; 2];
            w.run(&recv(&mut x, 0)).unwrap();
            assert_eq!(x, [1.0, 2.0]);
            let e = w.run(&recv(&mut x, 0)).unwrap_err();
            assert_eq!((e.code, e.culprit), (Code::Remote, Some(0)), "{e}");
            assert_eq!(w.state(), State::Active, "others may go on");
            w.run(&send(&[3.0], 2)).unwrap();
            w.destroy().unwrap();
        }
        _ => {
            let mut x = [0.0];
            w.run(&recv(&mut x, 1)).unwrap();
            w.destroy().unwrap();
        }
    });
}

#[test]
fn groups_run_across_worlds_and_in_the_background() {
    let a = World::init_all(2, &config(TransportChoice::Shm)).unwrap();
    let b = World::init_all(2, &config(TransportChoice::Tcp)).unwrap();
    std::thread::scope(|s| {
        for me in 0..2usize {
            let (wa, wb) = (a[me].clone(), b[me].clone());
            s.spawn(move || {
                let peer = 1 - me as i32;
                let (out, mut ia, mut ib) =
                    (vec![me as f32; 100_000], vec![9.0; 100_000], vec![9.0; 100_000]);
                let calls = vec![
                    (wa.clone(), send(&out, peer)),
                    (wb.clone(), recv(&mut ib, peer)),
                    (wb.clone(), send(&out, peer)),
                    (wa.clone(), recv(&mut ia, peer)),
                ];
                let r = Request::submit(&mut calls.into(), me == 0);
                if me == 0 {
                    // Nobody waits: the progress thread does it.
                    let until = Instant::now() + Duration::from_secs(30);
                    while !r.is_done() && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                r.wait(None).unwrap().unwrap();
                assert!(ia.iter().chain(&ib).all(|x| *x == peer as f32));
            });
        }
    });
    a.iter().chain(&b).for_each(|w| w.destroy().unwrap());
}

#[test]
fn splits_by_color_and_key() {
    ranks(5, |w| {
        let color = if w.rank() == 4 { -1 } else { (w.rank() % 2) as i32 };
        let child = w.split(color, -(w.rank() as i32), None).unwrap();
        match child {
            None => assert_eq!(w.rank(), 4),
            Some(c) => {
                assert_eq!((c.nranks(), c.rank()), (2, u32::from(w.rank() < 2)));
                let mut out = [0.0];
                c.run(&all_reduce(&[w.rank() as f32], &mut out)).unwrap();
                assert_eq!(out, [if color == 0 { 2.0 } else { 4.0 }]);
                c.destroy().unwrap();
            }
        }
        w.destroy().unwrap();
    });
}

#[test]
fn a_message_to_oneself_needs_a_group() {
    let w = World::init_all(1, &config(TransportChoice::Auto)).unwrap().remove(0);
    let mut x = [0.0];
    assert_eq!(w.run(&send(&[1.0], 0)).unwrap_err().code, Code::InvalidUsage);
    let calls = vec![(w.clone(), send(&[5.0], 0)), (w.clone(), recv(&mut x, 0))];
    Request::submit(&mut calls.into(), false).wait(None).unwrap().unwrap();
    assert_eq!(x, [5.0]);
    w.destroy().unwrap();
}
