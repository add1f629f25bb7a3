//! Worlds on device memory that fail in every way that the double of NCCL can be made to fail. Every process says at its
//! end that no rule of NCCL was broken.

mod common;
#[path = "nccl_faults/actor.rs"]
mod actor;
#[path = "nccl_faults/cast.rs"]
mod cast;
#[path = "nccl_faults/codes.rs"]
mod codes;
#[path = "nccl_faults/gpu.rs"]
mod gpu;

#[test]
fn rank() {
    actor::play();
}
