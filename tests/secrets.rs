//! Worlds with a secret and without: who may reach them, and where they listen.

mod common;

use common::{Rank, listen, role, say, store_address};
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::sys::interfaces;
use multiworld::types::Secret;
use multiworld::world::World;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Arguments: own rank. Joins, and is looked at.
#[test]
fn rank() {
    let Some((_, args)) = role() else { return };
    let me: i32 = args[0].parse().expect("a rank");
    let config = Config::from_env().expect("settings");
    let w = World::init_named("secrets", 2, me, &config).expect("joining");
    say("ready");
    listen();
    w.destroy().expect("destroying");
}

/// The IPv4 addresses that a process listens at.
fn listening(pid: u32) -> Vec<IpAddr> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let sockets: Vec<String> = fds
        .flatten()
        .filter_map(|e| std::fs::read_link(e.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let mut out = Vec::new();
    for line in table.lines().skip(1) {
        let f: Vec<&str> = line.split_whitespace().collect();
        // State 0A: it listens.
        if f[3] == "0A" && sockets.contains(&format!("socket:[{}]", f[9])) {
            let ip = f[1].split(':').next().expect("an address");
            let ip = u32::from_str_radix(ip, 16).expect("an address");
            out.push(IpAddr::from(ip.to_ne_bytes()));
        }
    }
    out
}

#[test]
fn without_a_secret_nobody_beyond_this_machine_is_heard() {
    if role().is_some() {
        return;
    }
    let beyond = interfaces::choose(None, None).expect("an interface");
    for (secret, insecure) in [("", ""), ("a secret of some length", ""), ("", "1")] {
        let store = store_address();
        let env =
            [("MW_STORE", &*store), ("MW_IFNAME", ""), ("MW_SECRET", secret), ("MW_INSECURE", insecure)];
        let mut ranks: Vec<Rank> =
            (0..2).map(|me| Rank::start("rank", "rank", &[me.to_string()], &env)).collect();
        ranks.iter_mut().for_each(|r| r.expect("ready"));
        let all: Vec<Vec<IpAddr>> = ranks.iter().map(|r| listening(r.child.id())).collect();
        println!("secret '{secret}', MW_INSECURE '{insecure}': {all:?}");
        let is_open = !secret.is_empty() || !insecure.is_empty();
        for addresses in all {
            assert!(!addresses.is_empty());
            let expected = |a: &IpAddr| a.is_loopback() || (is_open && *a == beyond);
            assert!(addresses.iter().all(expected), "{addresses:?}");
            assert!(!is_open || addresses.contains(&beyond), "{addresses:?}");
        }
        ranks.iter_mut().for_each(|r| r.tell("end"));
        ranks.into_iter().for_each(Rank::finish);
    }
}

#[test]
fn a_store_beyond_this_machine_needs_a_secret() {
    if role().is_some() {
        return;
    }
    let config = |store: &str| Config {
        store: Some(store.into()),
        ifname: Some("lo".into()),
        join_timeout: Duration::from_millis(100),
        ..Config::from_env().expect("settings")
    };
    // Addresses that are nobody's.
    for store in
        ["tcp://198.51.100.1:29400", "tcp://[2001:db8::1]:29400", "etcd://127.0.0.1:1,198.51.100.1:2379"]
    {
        for rank in [0, 1] {
            let started = Instant::now();
            let refused = World::init_named("far", 2, rank, &config(store)).err().expect("refused");
            assert_eq!(refused.code, Code::InvalidArgument, "{refused}");
            let reformed = World::reform(None, "far", multiworld::world::Size::Theirs, &config(store));
            let reformed = reformed.err().expect("refused");
            assert_eq!(reformed, refused);
            for word in ["config.secret", store, "MW_SECRET", "MW_SECRET_FILE", "MW_INSECURE=1"] {
                assert!(refused.text.contains(word), "{word}: {refused}");
            }
            assert!(started.elapsed() < Duration::from_millis(90), "nobody was asked");
        }
    }
    let far = config("tcp://198.51.100.1:29400");
    let known = Config { secret: Some(Secret(b"a secret of some length".to_vec())), ..far.clone() };
    for allowed in [known, Config { insecure: true, ..far }] {
        let e = World::init_named("far", 2, 1, &allowed).err().expect("nobody is there");
        assert_ne!(e.code, Code::InvalidArgument, "{e}");
    }
}
