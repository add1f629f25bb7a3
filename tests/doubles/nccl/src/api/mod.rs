//! What the exported functions do, by subject.

#[cfg(not(nccl_old))]
pub mod device;
pub mod groups;
pub mod init;
pub mod memory;
pub mod operations;
#[cfg(not(nccl_old))]
pub mod params;
pub mod query;
pub mod reshape;
pub mod teardown;
