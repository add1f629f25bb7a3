//! Kernels and sandboxes without a facility: everything works, deaths are noticed, and it is said once.

mod common;

use common::{Rank, barrier, listen, now_ns, recv, role, say, send, store_address};
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::world::World;

#[test]
fn rank() {
    let Some((_, args)) = role() else { return };
    let me: u32 = args[0].parse().expect("a rank");
    multiworld::observe::log::init(tracing::Level::WARN);
    let w =
        World::init_named("fallback", 3, me as i32, &Config::from_env().expect("settings")).expect("joining");
    for len in [0, 8, 5000, 100_000, 8 << 20] {
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut got = vec![0; len];
        // Around the ring, so that every pair's both directions are used.
        if me == 0 {
            w.run(&send(&data, 1)).expect("send");
            w.run(&recv(&mut got, 2)).expect("recv");
        } else {
            w.run(&recv(&mut got, me - 1)).expect("recv");
            w.run(&send(&got, (me + 1) % 3)).expect("send");
        }
        assert!(got == data, "{len} bytes");
        w.run(&barrier()).expect("barrier");
    }
    say("ready");
    if me == 2 {
        // Waits for its end.
        listen();
        return;
    }
    let mut byte = [0];
    let e = w.run(&recv(&mut byte, 2)).expect_err("rank 2 never sends");
    let at = now_ns();
    assert_eq!((e.code, w.failed_ranks()), (Code::Remote, vec![2]), "{e}");
    say(&at.to_string());
    w.destroy().expect("destroying");
}

#[test]
fn every_facility_can_be_missing() {
    if role().is_some() {
        return;
    }
    for (disabled, said) in [
        ("futex_waitv", "futex_waitv"),
        ("robust", "sockets only"),
        ("cma", "process_vm_readv"),
        ("memfd", "memfd_create"),
        ("futex_waitv,robust,cma,memfd", "memfd_create"),
    ] {
        for transport in ["shm", "tcp"] {
            let store = store_address();
            let env = [("MW_STORE", &*store), ("MW_TRANSPORT", transport), ("MW_DISABLE", disabled)];
            let mut ranks: Vec<Rank> =
                (0..3).map(|me| Rank::start("rank", "rank", &[me.to_string()], &env)).collect();
            ranks.iter_mut().for_each(|r| r.expect("ready"));
            let at = ranks[2].kill();
            for r in &mut ranks[..2] {
                let known: u64 = r.hear().expect("a survivor reports").parse().expect("a time");
                println!(
                    "without {disabled} ({transport}): a death is known after {:.2} ms",
                    known.saturating_sub(at) as f64 / 1e6
                );
            }
            ranks.truncate(2);
            for r in ranks {
                let log = r.log();
                // Large messages over TCP need no direct reads.
                if transport == "shm" || !matches!(disabled, "cma") {
                    let times = log.lines().filter(|l| l.contains(said)).count();
                    assert_eq!(times, 1, "without {disabled}, {transport}: {log}");
                }
            }
        }
    }
}
