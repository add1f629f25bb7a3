//! Worlds: one membership of this process in a communicator each, and the requests that span them.
//!
//! | module | does |
//! |---|---|
//! | `join` | the ways into a world: by name, by unique id, all in one process, by splitting |
//! | `wireup` | from a list of members to connected endpoints |
//! | `call` | checking an operation's arguments |
//! | `device` | the worlds whose operations NCCL carries out |
//! | `operate` | running operations, deadlines, trouble |
//! | `news` | what the watchdog and the peers tell |
//! | `reshape` | worlds from worlds: without some members, or with more |
//! | `reform` | the next epoch of a named world |
//! | `request` | groups and asynchronous operations, across worlds |
//! | `background` | the thread that drives asynchronous operations nobody waits for |

mod background;
mod call;
mod device;
mod join;
mod news;
mod operate;
mod reform;
mod request;
mod reshape;
mod wireup;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;

pub use call::{Call, Message};
pub use join::UniqueId;
pub use reform::Size;
pub use request::{Calls, Posts, Request};
pub use reshape::Ranking;

pub use crate::fault::health::State;

use crate::backend::Device;
use crate::config::Config;
use crate::error::Error;
use crate::fault::health::{Health, News};
use crate::progress::Engine;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::transport::shm::Segment;
use crate::types::{Address, Secret, WorldId};
use news::Outbox;
use reform::Origin;
use std::time::{Duration, Instant};

/// Counters of a world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Operations completed.
    pub operations: u64,
    /// Payload bytes of completed sends.
    pub bytes_sent: u64,
    /// Payload bytes of completed receives.
    pub bytes_received: u64,
    /// Peers reached through shared memory.
    pub shm_peers: u32,
    /// Peers reached through TCP.
    pub tcp_peers: u32,
    /// Bytes of address space that the world's shared memory takes; pages are taken when touched.
    pub memory_bytes: u64,
}

/// One member of one world.
pub struct World {
    id: WorldId,
    epoch: u64,
    name: Arc<str>,
    rank: u32,
    config: Config,
    secret: Secret,
    members: Vec<Address>,
    /// What a next epoch follows from, in a world that was made by name.
    origin: OnceLock<Origin>,
    /// There are more members on this machine than processors.
    is_crowded: AtomicBool,
    health: Mutex<Health>,
    /// Mirror of `health`'s state, for the operations' path.
    state: AtomicU8,
    engine: Mutex<Engine>,
    segment: OnceLock<Arc<Segment>>,
    /// The bell of a world without shared memory.
    bell: AtomicU32,
    peers: OnceLock<(u32, u32)>,
    /// Who carries out operations, if not the engine.
    device: OnceLock<Arc<dyn Device>>,
    outbox: Mutex<Outbox>,
    /// All members have been connected.
    joined: AtomicBool,
    /// A thread found the engine locked.
    refused: AtomicBool,
    /// Threads that wait for the engine's lock.
    queuing: AtomicU32,
    /// Destroyed, aborted or failed to join.
    forgotten: AtomicBool,
    /// Peers whose connection ended for a reason not known yet, and until when to wait for it.
    suspects: Mutex<Vec<(u32, Instant)>>,
    splits: AtomicU32,
    /// The collective that a thread here waits in: its number, since when, and whether the others were asked.
    stuck: Mutex<Option<(u32, Instant, bool)>>,
    /// A mismatch, and when to announce it if nobody has a better explanation by then.
    unsaid: Mutex<Option<(Instant, News)>>,
}

impl World {
    /// Name given at joining.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Members.
    pub fn nranks(&self) -> u32 {
        self.members.len() as u32
    }

    /// This member.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Epoch of this membership.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Deadline of operations.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The state.
    pub fn state(&self) -> State {
        State::from_raw(self.state.load(Ordering::Acquire))
    }

    /// Why the world is no longer active.
    pub fn error(&self) -> Option<Error> {
        self.health.lock().error().cloned()
    }

    /// Members known to have failed, ascending.
    pub fn failed_ranks(&self) -> Vec<u32> {
        self.health.lock().failed()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let (shm_peers, tcp_peers) = self.peers.get().copied().unwrap_or_default();
        let (operations, bytes) = self.with_engine(|e| (e.operations, e.bytes));
        if let Some(device) = self.device.get() {
            let s = device.stats();
            return Stats { operations: s.operations, memory_bytes: s.memory_bytes, ..Stats::default() };
        }
        Stats {
            operations,
            bytes_sent: bytes.0,
            bytes_received: bytes.1,
            shm_peers,
            tcp_peers,
            memory_bytes: self.segment.get().map_or(0, |s| s.len() as u64),
        }
    }

    /// The number that C sees as the world's handle, so that events can name it. Events wait for it.
    pub fn set_token(&self, token: usize) {
        self.outbox.lock().open(token);
    }
}
