//! Members that die, stop or misbehave in every phase, as real processes, beside a world that must not notice.

#[path = "../common/mod.rs"]
mod common;

mod joining;
mod mismatches;
mod operations;
mod processes;

#[test]
fn rank() {
    common::actor::play();
}
