//! Other ways for a process to go: exec, exit, a death that nobody has buried, several at once, the store's host; and
//! a fork, which is none.

use crate::common::Rank;
use crate::common::cast::Cast;

const SURVIVORS: usize = 3;
const RANKS: usize = SURVIVORS + 1;

fn idle(cast: &mut Cast, world: &str) {
    cast.each(|_, _| format!("idle {world}"));
    cast.all_say(world, "going");
}

fn works(cast: &mut Cast, world: &str, v: &mut Rank) {
    let line = format!("once {world} AllReduce 100000 0");
    cast.each(|_, _| line.clone());
    v.tell(&line);
    assert_eq!(v.hear_of(world), "done");
    cast.all_say(world, "done");
}

fn ends(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for how in ["exec", "exit", "end", "zombie"] {
        for busy in [false, true] {
            let w = cast.fresh(how);
            let victim = cast.dice.below(RANKS);
            let mut v = cast.world(&w, victim);
            if busy {
                let line = format!("op {w} AllReduce 200000 0");
                cast.each(|_, _| line.clone());
                v.tell(&line);
                cast.all_say(&w, "going");
                cast.dice.pause(10);
            } else {
                idle(&mut cast, &w);
            }
            cast.note_sockets(&v);
            match how {
                // Not waited for until the end of this round: a zombie.
                "zombie" => {
                    v.kill();
                }
                how => v.tell(how),
            }
            cast.all_know(&w, &[victim]);
            cast.bury(&w, &format!("RankFailed({victim})"));
        }
    }
    cast.end();
}

#[test]
fn exec_exit_and_zombies_shm() {
    ends("shm");
}

#[test]
fn exec_exit_and_zombies_tcp() {
    ends("tcp");
}

fn forks(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for busy in [false, true, true, true] {
        let w = cast.fresh("fork");
        let mut v = cast.world(&w, 1);
        let other = format!("{w}-other");
        cast.join(&other, 1, &mut v);
        if busy {
            let line = format!("op {other} AllReduce 20000 0");
            cast.each(|_, _| line.clone());
            v.tell(&line);
            cast.all_say(&other, "going");
            assert_eq!(v.hear_of(&other), "going");
        }
        v.tell(&format!("fork {w}"));
        assert_eq!(v.hear_of(&w), "forked 0", "number of the check that failed in the child, times 256");
        works(&mut cast, &w, &mut v);
        v.tell(&format!("events {w} 0"));
        assert_eq!(v.hear_of(&w), "");
        if busy {
            v.kill();
            cast.all_know(&other, &[1]);
        } else {
            idle(&mut cast, &other);
            v.kill();
            cast.all_know(&other, &[1]);
        }
        cast.bury(&w, "RankFailed(1)");
        cast.bury(&other, "RankFailed(1)");
    }
    cast.end();
}

#[test]
fn a_fork_is_refused_and_disturbs_nobody_shm() {
    forks("shm");
}

#[test]
fn a_fork_is_refused_and_disturbs_nobody_tcp() {
    forks("tcp");
}

/// Two members die at the same time: everybody hears of both, once.
fn two_deaths(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    for round in 0..6 {
        let w = cast.fresh("two");
        let n = SURVIVORS + 2;
        let first = cast.dice.below(n - 1);
        let second = first + 1 + cast.dice.below(n - 1 - first);
        let mut v = [cast.start(), cast.start()];
        let ranks: Vec<usize> = (0..n).filter(|r| *r != first && *r != second).collect();
        cast.each(|_, i| format!("join {w} {n} {}", ranks[i]));
        for (v, r) in v.iter_mut().zip([first, second]) {
            v.tell(&format!("join {w} {n} {r}"));
        }
        for v in &mut v {
            assert_eq!(v.hear_of(&w), "joined");
        }
        cast.all_say(&w, "joined");
        let line = format!("op {w} AllGather {} 0", [10, 100_000][round % 2]);
        cast.each(|_, _| line.clone());
        v.iter_mut().for_each(|v| v.tell(&line));
        cast.all_say(&w, "going");
        cast.dice.pause(5);
        v.iter_mut().for_each(|v| {
            v.kill();
        });
        for s in &mut cast.survivors {
            let said = s.hear_of(&w);
            assert!(said.starts_with("over Remote Remote ["), "{said}");
            s.tell(&format!("events {w} 2"));
            let events = s.hear_of(&w);
            let mut events: Vec<&str> = events.split(' ').collect();
            events.sort_unstable();
            assert_eq!(events, [format!("RankFailed({first})"), format!("RankFailed({second})")]);
            s.tell(&format!("failed {w}"));
            assert_eq!(s.hear_of(&w), format!("[{first}, {second}]"));
            s.tell(&format!("destroy {w}"));
            assert_eq!(s.hear_of(&w), "destroyed");
        }
    }
    cast.end();
}

#[test]
fn two_deaths_at_once_shm() {
    two_deaths("shm");
}

#[test]
fn two_deaths_at_once_tcp() {
    two_deaths("tcp");
}

/// The process that hosts the store dies: worlds without it go on, and the next world that is joined by name has its
/// rank 0 host the store anew.
fn store_host(transport: &str) {
    let mut cast = Cast::new(transport, SURVIVORS, &[]);
    // The survivors' own store has another host: use one that the victim hosts.
    let store = crate::common::store_address();
    let start = |cast: &Cast| cast.start_with(&[("MW_STORE", &store)]);
    let mut others: Vec<Rank> = (0..2).map(|_| start(&cast)).collect();
    for round in 0..4 {
        let mut host = start(&cast);
        let (w, whole) = (cast.fresh("hosted"), cast.fresh("whole"));
        host.tell(&format!("join {w} 3 0"));
        others.iter_mut().enumerate().for_each(|(i, o)| o.tell(&format!("join {w} 3 {}", i + 1)));
        assert_eq!(host.hear_of(&w), "joined");
        for (i, o) in others.iter_mut().enumerate() {
            assert_eq!(o.hear_of(&w), "joined");
            o.tell(&format!("join {whole} 2 {i}"));
        }
        for o in &mut others {
            assert_eq!(o.hear_of(&whole), "joined");
            o.tell(&format!("op {whole} AllGather 10000 0"));
            o.tell(&format!("idle {w}"));
            assert_eq!(o.hear_of(&w), "going");
        }
        for o in &mut others {
            assert_eq!(o.hear_of(&whole), "going");
        }
        // In the last rounds while somebody waits for a world to be complete.
        let waiting = cast.fresh("waiting");
        if round >= 2 {
            others[1].tell(&format!("enter {waiting} 2 1"));
            cast.dice.pause(20);
        }
        host.kill();
        for o in &mut others {
            let said = o.hear_of(&w);
            assert!(said.starts_with("over Remote Remote [0]"), "{said}");
            o.tell(&format!("destroy {w}"));
            assert_eq!(o.hear_of(&w), "destroyed");
        }
        if round < 2 {
            others[1].tell(&format!("enter {waiting} 2 1"));
        }
        others[0].tell(&format!("enter {waiting} 2 0"));
        for o in &mut others {
            let said = o.hear_of(&waiting);
            assert!(said.starts_with("entered"), "{said}");
            println!("round {round}: {said}");
            o.tell(&format!("events {whole} 0"));
            assert_eq!(o.hear_of(&whole), "", "the old world has gone on all the time");
        }
        // The next round's store is hosted by a new process again: everybody starts anew.
        for mut o in others {
            o.tell("exit");
            o.finish();
        }
        others = (0..2).map(|_| start(&cast)).collect();
    }
    drop(others);
    cast.end();
}

#[test]
fn the_host_of_the_store_dies_shm() {
    store_host("shm");
}

#[test]
fn the_host_of_the_store_dies_tcp() {
    store_host("tcp");
}
