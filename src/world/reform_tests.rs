//! Reforming with threads as members: who is killed here aborts.

use super::super::tests::{all_reduce, config, recv, send};
use super::*;
use crate::config::TransportChoice;
use std::net::TcpListener;

/// A world by name at a store of its own.
fn named(name: &str, n: i32, config: &Config) -> Vec<Arc<World>> {
    std::thread::scope(|s| {
        let join = |rank| s.spawn(move || World::init_named(name, n, rank, config).unwrap());
        let threads: Vec<_> = (0..n).map(join).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn with_store(transport: TransportChoice) -> Config {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Config { store: Some(format!("tcp://{free}")), ..config(transport) }
}

/// All of these call it at once, and newcomers with them; answers by member, newcomers last.
fn reform(
    old: &[&Arc<World>],
    newcomers: usize,
    name: &str,
    size: Size,
    config: &Config,
) -> Vec<Result<Arc<World>>> {
    std::thread::scope(|s| {
        let survivors = old.iter().map(|w| s.spawn(move || World::reform(Some(w), name, size, config)));
        let mut threads: Vec<_> = survivors.collect();
        let newcomer = || s.spawn(move || World::reform(None, name, Size::Theirs, config));
        threads.extend((0..newcomers).map(|_| newcomer()));
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Rank and epoch of each, after an operation in which all take part.
fn works(worlds: &[Arc<World>]) -> Vec<(u32, u64)> {
    std::thread::scope(|s| {
        let run = |w: &Arc<World>| {
            let mut out = [0.0];
            w.run(&all_reduce(&[1.0], &mut out)).unwrap();
            assert_eq!(out[0], w.nranks() as f32);
            (w.rank(), w.epoch())
        };
        let threads: Vec<_> = worlds.iter().map(|w| s.spawn(move || run(w))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn all(results: Vec<Result<Arc<World>>>) -> Vec<Arc<World>> {
    results.into_iter().map(|r| r.unwrap()).collect()
}

fn destroy(worlds: &[Arc<World>]) {
    std::thread::scope(|s| {
        worlds.iter().for_each(|w| {
            s.spawn(move || w.destroy().unwrap());
        })
    });
}

#[test]
fn newcomers_take_the_holes_again_and_again() {
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        let config = with_store(transport);
        let mut worlds = named("reborn", 3, &config);
        for epoch in 2..6 {
            let dead = (epoch % 3) as usize;
            worlds[dead].abort();
            let rest: Vec<&Arc<World>> = (0..3).filter(|r| *r != dead).map(|r| &worlds[r]).collect();
            let new = all(reform(&rest, 1, "reborn", Size::Between(3, 3), &config));
            let mut found = works(&new);
            assert_eq!(found[2], (dead as u32, epoch), "the newcomer has the place of the dead one");
            found.sort_unstable();
            assert_eq!(found, [(0, epoch), (1, epoch), (2, epoch)]);
            assert!(rest.iter().all(|w| w.forgotten.load(std::sync::atomic::Ordering::Relaxed)));
            worlds = new;
            worlds.sort_by_key(|w| w.rank());
        }
        // Nobody comes for the hole.
        worlds[0].abort();
        let new = all(reform(&[&worlds[1], &worlds[2]], 0, "reborn", Size::Between(2, 3), &config));
        assert_eq!(works(&new), [(1, 6), (0, 6)]);
        destroy(&new);
        let store = hosting::known(config.store.as_deref().unwrap(), &base_secret(&config)).unwrap();
        let left = crate::store::Store::list(&*store, b"", Instant::now() + Duration::from_secs(10)).unwrap();
        assert_eq!(left.entries, [], "the last ones take the record away");
    }
}

#[test]
fn a_world_that_is_well_grows_and_what_is_under_way_in_it_ends() {
    let config = with_store(TransportChoice::Auto);
    let worlds = named("growing", 2, &config);
    std::thread::scope(|s| {
        let waiting = s.spawn(|| {
            let mut never = [0.0];
            worlds[0].run(&recv(&mut never, 1)).unwrap_err()
        });
        let new = all(reform(&[&worlds[0], &worlds[1]], 2, "growing", Size::Between(4, 4), &config));
        let mut found = works(&new);
        assert_eq!(&found[..2], [(0, 2), (1, 2)]);
        found.sort_unstable();
        assert_eq!(found, [(0, 2), (1, 2), (2, 2), (3, 2)]);
        let e = waiting.join().unwrap();
        assert!(e.code == Code::Revoked && e.text.contains("goes on as epoch 2"), "{e}");
        destroy(&new);
    });
}

#[test]
fn who_leaves_in_good_order_breaks_nothing_and_is_replaced() {
    let config = with_store(TransportChoice::Auto);
    let worlds = named("leaving", 3, &config);
    // What it has accepted arrives.
    worlds[1].run(&send(&[7.0], 2)).unwrap();
    worlds[1].destroy().unwrap();
    let mut got = [0.0];
    worlds[2].run(&recv(&mut got, 1)).unwrap();
    assert_eq!(got, [7.0]);
    std::thread::scope(|s| {
        s.spawn(|| worlds[0].run(&send(&[8.0], 2)).unwrap());
        worlds[2].run(&recv(&mut got, 0)).unwrap();
    });
    assert_eq!((got, worlds[2].state()), ([8.0], State::Active));
    let new = all(reform(&[&worlds[0], &worlds[2]], 1, "leaving", Size::Between(3, 3), &config));
    assert_eq!(works(&new), [(0, 2), (2, 2), (1, 2)]);
    destroy(&new);
}

#[test]
fn who_is_left_out_is_not_left_waiting() {
    let config = Config { join_timeout: Duration::from_secs(2), ..with_store(TransportChoice::Auto) };
    let worlds = named("left", 3, &config);
    std::thread::scope(|s| {
        let waiting = s.spawn(|| {
            let mut never = [0.0];
            worlds[2].run(&recv(&mut never, 1)).unwrap_err()
        });
        let new = all(reform(&[&worlds[0], &worlds[1]], 0, "left", Size::Between(2, 3), &config));
        let e = waiting.join().unwrap();
        assert!(e.code == Code::Revoked && e.text.contains("goes on as epoch 2 without"), "{e}");
        let e = World::reform(Some(&worlds[2]), "left", Size::Between(2, 3), &config).err().unwrap();
        assert!(e.code == Code::Remote && e.text.contains("join it as a newcomer"), "{e}");
        assert_eq!(works(&new), [(0, 2), (1, 2)]);
        // Which it does.
        worlds[2].abort();
        let again = all(reform(&[&new[0], &new[1]], 1, "left", Size::Between(2, 3), &config));
        assert_eq!(works(&again), [(0, 3), (1, 3), (2, 3)]);
        destroy(&again);
    });
}

#[test]
fn wrong_arguments_change_nothing() {
    let config = Config { join_timeout: Duration::from_millis(300), ..with_store(TransportChoice::Auto) };
    let unnamed = World::init_all(1, &config).unwrap();
    let e = World::reform(Some(&unnamed[0]), "all", Size::Between(1, 1), &config).err().unwrap();
    assert!(e.code == Code::InvalidUsage && e.text.contains("not made by name"), "{e}");
    destroy(&unnamed);
    let worlds = named("wrong", 1, &config);
    for (size, what) in [
        (Size::Between(0, 1), "minRanks: 0"),
        (Size::Between(-3, 1), "minRanks: -3"),
        (Size::Between(2, 1), "maxRanks: 1 is not between minRanks (2)"),
        (Size::Between(1, i32::MAX), "maxRanks"),
        (Size::Theirs, "minRanks: a member"),
    ] {
        let e = World::reform(Some(&worlds[0]), "wrong", size, &config).err().unwrap();
        assert!(e.code == Code::InvalidArgument && e.text.contains(what), "{e}");
    }
    // More than there are: too late rather than wrong.
    let e = World::reform(Some(&worlds[0]), "wrong", Size::Between(2, 2), &config).err().unwrap();
    assert!(e.code == Code::Timeout && e.text.contains("1 members came"), "{e}");
    assert_eq!(works(&worlds), [(0, 1)], "it goes on as if nothing had been");
    destroy(&worlds);
    let none = Config { store: None, ..config };
    let e = World::reform(None, "wrong", Size::Between(1, 1), &none).err().unwrap();
    assert!(e.text.contains("no store is configured"), "{e}");
}
