//! A communicator, whoever carries it. Each family of functions looks the handle up and decides between the
//! two in one place.

use crate::genuine;
use crate::host::Host;
use multiworld::sync::Arc;

/// What a handle stands for.
pub enum Comm {
    /// A world on host memory.
    Host(Arc<Host>),
    /// A communicator of the genuine NCCL.
    Genuine(Arc<genuine::Communicator>),
}
