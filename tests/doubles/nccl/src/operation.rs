//! What a call of a send, a receive or a collective asks for.

use std::ffi::c_int;

/// The operations.
#[cfg_attr(nccl_old, allow(dead_code, reason = "2.19 has fewer"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Send,
    Receive,
    AllReduce,
    Broadcast,
    Reduce,
    AllGather,
    ReduceScatter,
    AllToAll,
    Gather,
    Scatter,
}

impl Kind {
    /// Whether some rank is the root or the peer.
    pub fn has_peer(self) -> bool {
        matches!(
            self,
            Kind::Send | Kind::Receive | Kind::Broadcast | Kind::Reduce | Kind::Gather | Kind::Scatter
        )
    }

    /// Whether values are combined.
    pub fn reduces(self) -> bool {
        matches!(self, Kind::AllReduce | Kind::Reduce | Kind::ReduceScatter)
    }
}

/// One operation, its buffers as addresses since it is carried out on another thread.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub kind: Kind,
    pub send: usize,
    pub receive: usize,
    pub count: usize,
    pub datatype: c_int,
    pub reduction: c_int,
    /// Root, or the peer of a send or receive.
    pub peer: usize,
    pub stream: usize,
    /// It never completes by itself.
    pub hang: bool,
    /// It starts that much later.
    pub slow: Option<std::time::Duration>,
    /// The multiplier of the reduction, if it has one.
    pub multiplier: Option<crate::comm::Scalar>,
}

/// How much of a buffer an operation touches, in counts.
impl Operation {
    /// Elements that are read on this rank.
    pub fn elements_read(&self, rank: usize, ranks: usize) -> usize {
        let all = self.count.saturating_mul(ranks);
        match self.kind {
            Kind::Receive => 0,
            Kind::Broadcast if rank != self.peer => 0,
            Kind::Scatter => {
                if rank == self.peer {
                    all
                } else {
                    0
                }
            }
            Kind::ReduceScatter | Kind::AllToAll => all,
            _ => self.count,
        }
    }

    /// Elements that are written on this rank.
    pub fn elements_written(&self, rank: usize, ranks: usize) -> usize {
        let all = self.count.saturating_mul(ranks);
        match self.kind {
            Kind::Send => 0,
            Kind::Reduce if rank != self.peer => 0,
            Kind::Gather => {
                if rank == self.peer {
                    all
                } else {
                    0
                }
            }
            Kind::AllGather | Kind::AllToAll => all,
            _ => self.count,
        }
    }
}
