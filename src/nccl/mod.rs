//! The genuine NCCL, found and loaded at run time.
//!
//! | module | does |
//! |---|---|
//! | `types`, `functions` | NCCL's C interface, made from its headers by `make bindings` |
//! | `loader` | where the library may be |
//! | `library` | the library that was found: a table of its functions |
//! | `cuda` | the driver: devices, marks on streams, capture |
//! | `comm` | one communicator: one lock, never blocking inside, deadlines |
//! | `gate` | its lock, and the short way in for operations |
//! | `order` | one launch at a time on a device |
//! | `recipe` | what is done with one that broke, as a state machine |
//! | `janitor` | the thread that watches all of them and carries the recipe out |
//!
//! Nothing here is linked against NCCL. What an older version lacks is `None` in the table.
#![allow(non_upper_case_globals)] // NCCL's constants keep their names.

pub mod comm;
pub mod cuda;
pub mod functions;
mod gate;
pub mod janitor;
mod library;
pub mod loader;
mod order;
pub mod recipe;
pub mod types;

pub use comm::{Comm, Options, Outcome};
pub use gate::{Gate, Pass};
pub use library::{Functions, Library};

use core::ffi::c_int;

/// "Not set" in `ncclConfig_t`.
pub const CONFIG_UNDEF_INT: c_int = c_int::MIN;

/// What `NCCL_CONFIG_INITIALIZER` says in C, but non-blocking and without sharing resources with other communicators:
/// those that share are aborted together.
pub fn config() -> types::ncclConfig_t {
    const UNDEF: c_int = CONFIG_UNDEF_INT;
    types::ncclConfig_t {
        size: size_of::<types::ncclConfig_t>(),
        magic: types::NCCL_API_MAGIC,
        version: types::NCCL_VERSION_CODE,
        blocking: 0,
        cgaClusterSize: UNDEF,
        minCTAs: UNDEF,
        maxCTAs: UNDEF,
        netName: core::ptr::null(),
        splitShare: 0,
        trafficClass: UNDEF,
        commName: core::ptr::null(),
        collnetEnable: UNDEF,
        CTAPolicy: UNDEF,
        shrinkShare: 0,
        nvlsCTAs: UNDEF,
        nChannelsPerNetPeer: UNDEF,
        nvlinkCentricSched: UNDEF,
        graphUsageMode: UNDEF,
        numRmaCtx: UNDEF,
        maxP2pPeers: UNDEF,
        graphStreamOrdering: UNDEF,
        launchOrderImplicit: UNDEF,
        numRmaSig: UNDEF,
        rmaEagerInit: UNDEF,
        hostCftMode: UNDEF,
        nvlsHostMode: UNDEF,
    }
}
