//! Which addresses members of a world use.

use super::net::{Family, Net};
use super::scene::{Scene, store};

#[test]
fn ipv6_is_enough() {
    let Some(mut s) = Scene::new(3, Family::V6) else { return };
    let all = [0, 1, 2];
    s.join("all", &all);
    s.tell(&all, "exchange all 100000");
    for r in all {
        assert!(s.ranks[r].hear_of("all").starts_with("exchanged"));
    }
    s.end();
}

/// Machines with two networks, of which the first one that the system names does not lead to the others.
#[test]
fn the_interface_that_leads_to_the_store_is_chosen() {
    if let Some(why) = super::net::why_not() {
        return println!("skipped: {why}");
    }
    let mut net = Net::new(Family::V4);
    let mut hosts = Vec::new();
    for number in 1..=2 {
        // A network of its own on each, with nobody else in it.
        let before = format!(
            "link add eth0 type veth peer name far0\nlink set far0 up\naddr add 10.88.{number}.1/24 dev eth0\n\
             link set eth0 up\n"
        );
        hosts.push(net.connect("zeth0", &before));
    }
    let (_store, address) = store(&net);
    for ifname in ["", "zeth", "=zeth0", "^eth"] {
        let env = [
            ("MW_STORE", &*address),
            ("MW_SECRET", super::scene::SECRET),
            ("MW_JOIN_TIMEOUT_MS", "10000"),
            ("MW_IFNAME", ifname),
        ];
        let mut ranks: Vec<_> = hosts.iter().map(|h| h.start(&env)).collect();
        for (me, r) in ranks.iter_mut().enumerate() {
            r.expect("member ready");
            r.tell(&format!("join all 2 {me}"));
        }
        for (me, (r, host)) in ranks.iter_mut().zip(&hosts).enumerate() {
            let said = r.hear_of("all");
            assert_eq!(
                said,
                format!("joined epoch 1 rank {me} of 2, 0 by shm, 1 by tcp"),
                "MW_IFNAME='{ifname}'"
            );
            r.tell("address all");
            assert_eq!(r.hear_of("all"), host.ip.to_string(), "MW_IFNAME='{ifname}'");
        }
        for mut r in ranks {
            r.tell("end");
            r.finish();
        }
    }
}
