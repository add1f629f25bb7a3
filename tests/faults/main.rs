//! Members that die, stop or misbehave in every phase, as real processes, beside a world that must not notice.

#[path = "../common/mod.rs"]
mod common;

mod operations;

#[test]
fn rank() {
    common::actor::play();
}
