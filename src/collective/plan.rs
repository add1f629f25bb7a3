//! The choice of an algorithm, and its face to the engine.

use super::all_gather::{AllGatherBruck, AllGatherDirect, AllGatherRing};
use super::all_reduce::{AllReduceDirect, AllReduceDoubling, AllReduceFlat, AllReduceRing};
use super::all_to_all::{AllToAllDirect, AllToAllPairwise};
use super::barrier::{BarrierFlat, Dissemination};
use super::broadcast::{BroadcastChain, BroadcastFlat, BroadcastTree};
use super::frame::Frame;
use super::gather::{Gather, Scatter};
use super::reduce_scatter::{ReduceScatterDirect, ReduceScatterHalving, ReduceScatterPairwise};
use super::reduce_to_root::{ReduceChain, ReduceTree};
use super::{Action, Buf, Shape, Tuning};
use crate::types::OpKind;

/// One rank's part in one operation: a number of steps.
///
/// A step's local actions are done first, in order. Then all its messages are posted together and progress
/// concurrently. The next step begins when all of them are complete. Messages between two ranks are matched
/// in the order in which they were posted, and have the same length on both sides; an empty one exists on
/// both sides.
///
/// No step deadlocks even where a send completes only when its receive has been posted. Within a step no
/// message writes bytes that another one reads or writes, also where the input is the output.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    algorithm: Algorithm,
}

/// What an algorithm is to the plan.
pub(super) trait Schedule {
    /// Bytes of temporary memory.
    fn scratch_len(&self) -> usize;
    /// How many steps this rank takes.
    fn steps(&self) -> usize;
    /// Appends the actions of step `k`, which is less than `steps`.
    fn step(&self, k: usize, out: &mut Vec<Action>);
}

/// One operation by one algorithm.
#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Alone(Alone),
    BroadcastFlat(BroadcastFlat),
    BroadcastTree(BroadcastTree),
    BroadcastChain(BroadcastChain),
    ReduceTree(ReduceTree),
    ReduceChain(ReduceChain),
    AllReduceFlat(AllReduceFlat),
    AllReduceDoubling(AllReduceDoubling),
    AllReduceDirect(AllReduceDirect),
    AllReduceRing(AllReduceRing),
    AllGatherBruck(AllGatherBruck),
    AllGatherDirect(AllGatherDirect),
    AllGatherRing(AllGatherRing),
    ReduceScatterHalving(ReduceScatterHalving),
    ReduceScatterDirect(ReduceScatterDirect),
    ReduceScatterPairwise(ReduceScatterPairwise),
    AllToAllDirect(AllToAllDirect),
    AllToAllPairwise(AllToAllPairwise),
    Gather(Gather),
    Scatter(Scatter),
    BarrierFlat(BarrierFlat),
    Dissemination(Dissemination),
}

impl Plan {
    /// Chooses the algorithm, from what is the same on all ranks.
    ///
    /// The caller has checked that `rank` and `root` are below `nranks`, and that [`Shape::lengths`] has an
    /// answer.
    ///
    /// # Panics
    /// For [`OpKind::PointToPoint`], which needs no plan.
    pub fn new(shape: &Shape, tuning: &Tuning) -> Plan {
        debug_assert!(shape.rank < shape.nranks && shape.root < shape.nranks && shape.lengths().is_some());
        let frame = Frame::new(shape);
        Plan { algorithm: Algorithm::choose(shape.kind, frame, tuning) }
    }

    /// Bytes of [`Buf::Scratch`] that the steps use.
    pub fn scratch_len(&self) -> usize {
        self.algorithm.schedule().scratch_len()
    }

    /// Appends the actions of step `k` to `out`, which the caller has cleared; false when the operation was
    /// over before it. A step may have no actions.
    pub fn step(&self, k: usize, out: &mut Vec<Action>) -> bool {
        let schedule = self.algorithm.schedule();
        if k >= schedule.steps() {
            return false;
        }
        schedule.step(k, out);
        true
    }
}

impl Algorithm {
    fn choose(kind: OpKind, frame: Frame, tuning: &Tuning) -> Algorithm {
        let Frame { n, bytes, .. } = frame;
        if n == 1 {
            return Algorithm::Alone(Alone { frame, barrier: kind == OpKind::Barrier });
        }
        let all = bytes.saturating_mul(n);
        let few = n <= tuning.flat_ranks;
        // With fewer it takes no fewer messages to go through others.
        let many = n > 3;
        let all_gather_direct =
            || Algorithm::AllGatherDirect(AllGatherDirect::new(frame, piece(n, n, tuning)));
        let reduce_scatter_direct = || {
            // Two ranks combine all of it on the way.
            let piece = if n == 2 { usize::MAX } else { tuning.reduce_scatter_piece };
            Algorithm::ReduceScatterDirect(ReduceScatterDirect::new(frame, piece))
        };
        match kind {
            OpKind::Broadcast if few && bytes < tuning.broadcast_flat => {
                Algorithm::BroadcastFlat(BroadcastFlat::new(frame, piece(n, 1, tuning)))
            }
            OpKind::Broadcast if bytes >= tuning.broadcast_chain && chain_pays(n, bytes, tuning.chunk) => {
                Algorithm::BroadcastChain(BroadcastChain::new(frame, tuning.chunk))
            }
            OpKind::Broadcast => Algorithm::BroadcastTree(BroadcastTree::new(frame)),
            OpKind::Reduce if bytes >= tuning.reduce_chain && chain_pays(n, bytes, tuning.chunk) => {
                Algorithm::ReduceChain(ReduceChain::new(frame, tuning.chunk))
            }
            OpKind::Reduce => Algorithm::ReduceTree(ReduceTree::new(frame)),
            OpKind::AllReduce if flat_pays(n, bytes, tuning) => {
                Algorithm::AllReduceFlat(AllReduceFlat::new(frame))
            }
            OpKind::AllReduce if bytes >= tuning.all_reduce_ring.saturating_mul(n) => {
                Algorithm::AllReduceRing(AllReduceRing::new(frame))
            }
            OpKind::AllReduce if bytes >= tuning.all_reduce_direct.saturating_mul(n) => {
                Algorithm::AllReduceDirect(AllReduceDirect::new(frame, tuning.all_reduce_segment))
            }
            OpKind::AllReduce => Algorithm::AllReduceDoubling(AllReduceDoubling::new(frame)),
            OpKind::AllGather if few && bytes < tuning.all_gather_flat => all_gather_direct(),
            OpKind::AllGather if bytes >= tuning.all_gather_ring => {
                Algorithm::AllGatherRing(AllGatherRing { frame })
            }
            OpKind::AllGather if !many || bytes >= tuning.all_gather_direct => all_gather_direct(),
            OpKind::AllGather => Algorithm::AllGatherBruck(AllGatherBruck { frame }),
            OpKind::ReduceScatter if few && bytes < tuning.reduce_scatter_flat => reduce_scatter_direct(),
            OpKind::ReduceScatter if all >= tuning.reduce_scatter_pairwise => {
                Algorithm::ReduceScatterPairwise(ReduceScatterPairwise { frame })
            }
            OpKind::ReduceScatter if !many || bytes >= tuning.reduce_scatter_direct => {
                reduce_scatter_direct()
            }
            OpKind::ReduceScatter => Algorithm::ReduceScatterHalving(ReduceScatterHalving { frame }),
            // The one choice that may differ between ranks: both exchange one message with every other rank,
            // and the direct exchange never waits for an order.
            OpKind::AllToAll if frame.in_place && all >= tuning.all_to_all_pairwise => {
                Algorithm::AllToAllPairwise(AllToAllPairwise { frame })
            }
            OpKind::AllToAll => Algorithm::AllToAllDirect(AllToAllDirect { frame }),
            OpKind::Gather => Algorithm::Gather(Gather { frame }),
            OpKind::Scatter => Algorithm::Scatter(Scatter { frame }),
            OpKind::Barrier if few => Algorithm::BarrierFlat(BarrierFlat { frame }),
            OpKind::Barrier => Algorithm::Dissemination(Dissemination { frame }),
            OpKind::PointToPoint => unreachable!("point-to-point operations have no plan"),
        }
    }

    fn schedule(&self) -> &dyn Schedule {
        match self {
            Algorithm::Alone(a) => a,
            Algorithm::BroadcastFlat(a) => a,
            Algorithm::AllReduceFlat(a) => a,
            Algorithm::AllReduceDirect(a) => a,
            Algorithm::BarrierFlat(a) => a,
            Algorithm::BroadcastTree(a) => a,
            Algorithm::BroadcastChain(a) => a,
            Algorithm::ReduceTree(a) => a,
            Algorithm::ReduceChain(a) => a,
            Algorithm::AllReduceDoubling(a) => a,
            Algorithm::AllReduceRing(a) => a,
            Algorithm::AllGatherBruck(a) => a,
            Algorithm::AllGatherDirect(a) => a,
            Algorithm::AllGatherRing(a) => a,
            Algorithm::ReduceScatterHalving(a) => a,
            Algorithm::ReduceScatterDirect(a) => a,
            Algorithm::ReduceScatterPairwise(a) => a,
            Algorithm::AllToAllDirect(a) => a,
            Algorithm::AllToAllPairwise(a) => a,
            Algorithm::Gather(a) => a,
            Algorithm::Scatter(a) => a,
            Algorithm::Dissemination(a) => a,
        }
    }
}

/// Whether an AllReduce that sends (n - 1) B in one round beats one that sends less in more.
fn flat_pays(n: usize, bytes: usize, tuning: &Tuning) -> bool {
    if n == 2 {
        return bytes < tuning.all_reduce_pair;
    }
    n <= tuning.flat_ranks && bytes.saturating_mul(n - 1) < tuning.all_reduce_flat
}

/// Bytes that each of several senders sends to everybody at a time. For one reader there is nothing to keep in a cache.
fn piece(n: usize, senders: usize, tuning: &Tuning) -> usize {
    if n == 2 { usize::MAX } else { tuning.shared_piece / senders }
}

/// Whether a chain of n ranks, which is busy for B + (n - 2) chunks, beats a tree, whose root sends B for
/// each of its ceil(log2 n) children.
fn chain_pays(n: usize, bytes: usize, chunk: usize) -> bool {
    let rounds = n.next_power_of_two().trailing_zeros() as usize;
    (n - 2).saturating_mul(chunk) < (rounds - 1).saturating_mul(bytes)
}

/// A world of one rank: every operation hands the input over. A sum of one has nothing to divide. No
/// messages.
#[derive(Clone, Copy, Debug)]
struct Alone {
    frame: Frame,
    barrier: bool,
}

impl Schedule for Alone {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        1
    }

    fn step(&self, _k: usize, out: &mut Vec<Action>) {
        if !self.barrier {
            self.frame.load(self.frame.part(Buf::Input, 0), self.frame.part(Buf::Output, 0), out);
        }
    }
}
