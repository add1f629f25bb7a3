//! Worlds that are joined by name through stores other than the built-in one.

mod common;
#[path = "common/etcd.rs"]
mod etcd;

use common::{Rank, listen, recv, role, say, send};
use multiworld::config::Config;
use multiworld::world::World;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const ENTRY: &str = "rank";
const RANKS: i32 = 2;

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    let config = Config::from_env().expect("settings");
    let me: i32 = args[0].parse().expect("a rank");
    assert_eq!(role, "member");
    loop {
        let name = listen();
        if name.is_empty() {
            return;
        }
        say("joining");
        let w = match World::init_named(&name, RANKS, me, &config) {
            Ok(w) => w,
            Err(e) => {
                say(&format!("{:?} {e}", e.code));
                continue;
            }
        };
        let (mine, mut theirs) = ([me as u8 + 1], [0]);
        let other = 1 - me as u32;
        if me == 0 {
            w.run(&send(&mine, other)).expect("sending");
            w.run(&recv(&mut theirs, other)).expect("receiving");
        } else {
            w.run(&recv(&mut theirs, other)).expect("receiving");
            w.run(&send(&mine, other)).expect("sending");
        }
        assert_eq!(theirs[0], 2 - me as u8);
        w.destroy().expect("destroying");
        say("joined");
    }
}

fn start(store: &str, me: usize) -> Rank {
    Rank::start(ENTRY, "member", &[me.to_string()], &[("MW_STORE", store), ("MW_JOIN_TIMEOUT_MS", "20000")])
}

/// Two processes join one world after the other; one is killed while it waits for the other, and another takes its
/// place.
fn join(store: &str) {
    let mut members: Vec<Rank> = (0..2).map(|me| start(store, me)).collect();
    let meet = |members: &mut [Rank], name: &str| {
        members.iter_mut().for_each(|m| m.tell(name));
        for m in members {
            m.expect("joining");
            m.expect("joined");
        }
    };
    let begin = Instant::now();
    for i in 0..10 {
        meet(&mut members, &format!("w{i}"));
    }
    println!("{store}: {:?} for joining, two messages and leaving", begin.elapsed() / 10);
    meet(&mut members, "w0");

    for victim in [1, 0] {
        let name = format!("killed-{victim}");
        members[victim].tell(&name);
        members[victim].expect("joining");
        std::thread::sleep(Duration::from_millis(200));
        members[victim].kill();
        let begin = Instant::now();
        members[victim] = start(store, victim);
        meet(&mut members, &name);
        println!("{store}: replaced after {:?}", begin.elapsed());
    }
    for mut m in members {
        m.tell("");
        m.finish();
    }
}

#[test]
fn through_a_directory() {
    if role().is_some() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("store-{}", std::process::id()));
    join(&format!("file://{}", folder.display()));
    std::fs::remove_dir_all(&folder).expect("removing the directory");
}

#[test]
fn through_an_etcd_cluster() {
    if role().is_some() {
        return;
    }
    let Some(cluster) = etcd::Cluster::start(1, &[]) else { return };
    join(&format!("{}/jobs/7", cluster.address()));
}

/// One of three members is lost while a process waits for another one.
#[test]
fn through_an_etcd_cluster_that_loses_a_member() {
    if role().is_some() {
        return;
    }
    let Some(cluster) = etcd::Cluster::start(3, &[]) else { return };
    let mut members: Vec<Rank> = (0..2).map(|me| start(&cluster.address(), me)).collect();
    members[0].tell("w");
    members[0].expect("joining");
    std::thread::sleep(Duration::from_millis(300));
    cluster.kill(cluster.leader());
    members[1].tell("w");
    let begin = Instant::now();
    for m in &mut members {
        while m.hear().expect("a member") != "joined" {}
    }
    println!("joined {:?} after the leader was killed", begin.elapsed());
    for mut m in members {
        m.tell("");
        m.finish();
    }
}

#[test]
fn a_store_that_cannot_be_is_named() {
    if role().is_some() {
        return;
    }
    let config = |store: &str| Config { store: Some(store.into()), ..Config::from_env().expect("settings") };
    for (store, why) in
        [("http://h:1", "none of"), ("file://dir", "does not begin with /"), ("file:///proc/x", "proc")]
    {
        let e = World::init_named("w", 2, 0, &config(store)).err().expect("no such store");
        assert!(e.text.contains(store.trim_start_matches("file://")) && e.text.contains(why), "{e}");
    }
}
