//! Settings of a world: what the caller's `mwConfig_t` says, else the environment, else the default.

use crate::error::Result;
use crate::types::Secret;
use std::time::Duration;

/// Which transports a world may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportChoice {
    /// Shared memory where two members can share it, else TCP.
    Auto,
    /// Shared memory only; joining fails where it does not reach.
    Shm,
    /// TCP only.
    Tcp,
}

/// Settings of one world.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the store (`tcp://host:port`), if one is configured.
    pub store: Option<String>,
    /// Transports allowed.
    pub transport: TransportChoice,
    /// Interface choice, in the syntax of `NCCL_SOCKET_IFNAME`.
    pub ifname: Option<String>,
    /// The secret of named worlds.
    pub secret: Option<Secret>,
    /// Deadline of every operation.
    pub timeout: Duration,
    /// Deadline of joining.
    pub join_timeout: Duration,
    /// How often a sign of life is given.
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is taken for failed.
    pub heartbeat_timeout: Duration,
}

impl Config {
    /// Environment and defaults.
    pub fn from_env() -> Result<Config> {
        todo!()
    }
}
