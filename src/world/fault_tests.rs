//! What goes wrong between threads: wake-ups, leaving while others are at work, failures of some members.

use super::tests::{config, recv, send};
use super::{Request, World};
use crate::config::TransportChoice;
use std::time::{Duration, Instant};

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
            Request::submit(calls, false).wait(None).unwrap().unwrap();
            assert_eq!((x, y), ([1.0], [2.0]));
        }
        assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    });
    a.iter().chain(&b).for_each(|w| w.destroy().unwrap());
}
