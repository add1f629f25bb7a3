//! Worlds on device memory that fail in every way that the double of NCCL can be made to fail. Every process says at its
//! end that no rule of NCCL was broken.

#[path = "nccl_faults/actor.rs"]
mod actor;
#[path = "nccl_faults/cast.rs"]
mod cast;
#[path = "nccl_faults/codes.rs"]
mod codes;
mod common;
#[path = "nccl_faults/ends.rs"]
mod ends;
#[path = "nccl_faults/gpu.rs"]
mod gpu;
#[path = "nccl_faults/join.rs"]
mod join;
#[path = "nccl_faults/kills.rs"]
mod kills;
#[path = "nccl_faults/recipe.rs"]
mod recipe;

#[test]
fn rank() {
    actor::play();
}
