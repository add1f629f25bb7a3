//! A world: one membership of a process in a communicator. (Interface for the C layer; being filled in.)

use crate::config::Config;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{DataType, OpKind, Reduction};
use std::time::{Duration, Instant};

/// A unique id's 128 bytes.
pub type UniqueId = [u8; 128];

/// One call of an operation, already checked for what does not depend on the world (null pointers, enum ranges are
/// checked by capi; ranks, overflow, reduction against type by `World::check`).
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Operation; for point-to-point, `send` tells the direction.
    pub kind: OpKind,
    /// Point-to-point only: true for Send.
    pub send: bool,
    /// Send buffer (or null where the operation has none on this rank).
    pub sendbuf: *const u8,
    /// Receive buffer.
    pub recvbuf: *mut u8,
    /// Elements, as in the C call.
    pub count: usize,
    /// Element type.
    pub dtype: DataType,
    /// Reduction, else `Builtin(Sum)`.
    pub reduction: Reduction,
    /// Peer of point-to-point, root of a rooted operation, else 0. Raw from the caller.
    pub peer: i32,
}

/// States of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum State {
    Active = 0,
    Broken = 1,
    Revoked = 2,
    Aborted = 3,
    Finalized = 4,
}

/// Counters of a world.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub operations: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub shm_peers: u32,
    pub tcp_peers: u32,
    pub memory_bytes: u64,
}

/// One member of one world.
pub struct World {}

#[allow(unused_variables, missing_docs)]
impl World {
    pub fn init_named(name: &str, nranks: i32, rank: i32, config: &Config) -> Result<Arc<World>> {
        todo!()
    }
    pub fn init_rank(id: &UniqueId, nranks: i32, rank: i32, config: &Config) -> Result<Arc<World>> {
        todo!()
    }
    pub fn init_all(nranks: i32, config: &Config) -> Result<Vec<Arc<World>>> {
        todo!()
    }
    pub fn unique_id() -> Result<UniqueId> {
        todo!()
    }
    pub fn split(
        self: &Arc<World>,
        color: i32,
        key: i32,
        config: Option<&Config>,
    ) -> Result<Option<Arc<World>>> {
        todo!()
    }
    pub fn revoke(&self) -> Result<()> {
        todo!()
    }
    /// Bounded: never waits for a peer.
    pub fn abort(&self) {
        todo!()
    }
    pub fn finalize(&self) -> Result<()> {
        todo!()
    }
    /// Finalizes if that has not been done, and frees everything; errors of finalizing are returned, the world is gone
    /// anyway.
    pub fn destroy(&self) -> Result<()> {
        todo!()
    }
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn nranks(&self) -> u32 {
        todo!()
    }
    pub fn rank(&self) -> u32 {
        todo!()
    }
    pub fn epoch(&self) -> u64 {
        todo!()
    }
    pub fn state(&self) -> State {
        todo!()
    }
    /// Why the world is no longer active.
    pub fn error(&self) -> Option<Error> {
        todo!()
    }
    pub fn failed_ranks(&self) -> Vec<u32> {
        todo!()
    }
    pub fn stats(&self) -> Stats {
        todo!()
    }
    /// The number that C sees as the world's handle; set once by capi right after init so that events can name it.
    pub fn set_token(&self, token: usize) {
        todo!()
    }
    /// Checks ranks, sizes and the reduction; `Error::argument` naming the C argument. No effect.
    pub fn check(&self, call: &Call) -> Result<()> {
        todo!()
    }
    /// Runs one operation to its end on the calling thread (includes `check`).
    pub fn run(self: &Arc<World>, call: &Call) -> Result<()> {
        todo!()
    }
}

/// Everything one group posted.
pub struct Request {}

#[allow(unused_variables, missing_docs)]
impl Request {
    /// Starts the calls of a group (all checked before); per world, collectives in call order first, then all
    /// point-to-point operations together. Never blocks. With `background`, the progress thread drives it while
    /// nobody waits.
    pub fn submit(calls: Vec<(Arc<World>, Call)>, background: bool) -> Arc<Request> {
        todo!()
    }
    /// `None` while not done; else the first error of any of its operations, or Ok. Drives progress.
    pub fn test(&self) -> Option<Result<()>> {
        todo!()
    }
    /// Waits until done or `until`; `None` when the time is up. Without `until`: until done (the operations' own
    /// deadlines bound it).
    pub fn wait(&self, until: Option<Instant>) -> Option<Result<()>> {
        todo!()
    }
    /// Waits until one of them is done; answers its index.
    pub fn wait_any(requests: &[Arc<Request>], until: Option<Duration>) -> Option<usize> {
        todo!()
    }
}
