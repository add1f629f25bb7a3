//! Worlds between machines, whose cables are pulled, cut in one direction, slow, or bad. The machines are network
//! namespaces with interfaces and addresses of their own; making them takes root and `ip`. A test says why it skips.

#[path = "machines/addresses.rs"]
mod addresses;
#[path = "machines/cable.rs"]
mod cable;
mod common;
#[path = "machines/cuts.rs"]
mod cuts;
#[path = "machines/member.rs"]
mod member_role;
#[path = "machines/net.rs"]
mod net;
#[path = "machines/quality.rs"]
mod quality;
#[path = "machines/scene.rs"]
mod scene;

#[test]
fn member() {
    member_role::play();
}

/// Says why the others skip, if they do.
#[test]
fn where_it_runs() {
    match net::why_not() {
        Some(why) => println!("machines: skipped: {why}"),
        None => println!("machines: network namespaces"),
    }
}
