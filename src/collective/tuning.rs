//! Where one algorithm takes over from another.

/// Sizes, in bytes, at which the choice of algorithm changes. All members of a world must use the same,
/// because the choice must be the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Piece that a pipeline passes on at a time; rounded up to a multiple of 64.
    pub chunk: usize,
    /// Ranks up to which everybody may send to everybody, or one to everybody, instead of going through others.
    pub flat_ranks: usize,
    /// Below this size, with few ranks, the root of a Broadcast sends to everybody.
    pub broadcast_flat: usize,
    /// Bytes, of all senders together, that a flat Broadcast and a direct AllGather send to several ranks at a time.
    pub shared_piece: usize,
    /// From this size on Broadcast is a pipelined chain, where that has less to send than the tree.
    pub broadcast_chain: usize,
    /// From this size on Reduce is a pipelined chain, where that has less to send than the tree.
    pub reduce_chain: usize,
    /// While the others' inputs together are below this size, AllReduce with few ranks, but more than two,
    /// exchanges whole inputs.
    pub all_reduce_flat: usize,
    /// Below this size AllReduce of two ranks exchanges whole inputs, which is no more than anything else would
    /// send and takes one round.
    pub all_reduce_pair: usize,
    /// From this size, times the number of ranks, on AllReduce is a reduce-scatter and an all-gather.
    pub all_reduce_direct: usize,
    /// From this size, times the number of ranks, on AllReduce goes around a ring.
    pub all_reduce_ring: usize,
    /// Bytes of an AllReduce, for all blocks together, that are scattered while those before are gathered.
    pub all_reduce_segment: usize,
    /// From this size of one rank's contribution on AllGather goes around a ring.
    pub all_gather_ring: usize,
    /// From this size of all ranks' parts together on ReduceScatter goes rank by rank.
    pub reduce_scatter_pairwise: usize,
    /// Bytes of one part that a direct ReduceScatter of more than two ranks takes at a time.
    pub reduce_scatter_piece: usize,
    /// From this size of all ranks' parts together on an AllToAll in place exchanges part by part instead of
    /// setting all of them aside first.
    pub all_to_all_pairwise: usize,
}

impl Tuning {
    /// For members that are connected by a network, or some of them.
    pub fn network() -> Tuning {
        Tuning {
            chunk: 256 << 10,
            flat_ranks: 4,
            broadcast_flat: 8 << 10,
            shared_piece: usize::MAX,
            broadcast_chain: 512 << 10,
            reduce_chain: 512 << 10,
            all_reduce_flat: 8 << 10,
            all_reduce_pair: 64 << 10,
            all_reduce_direct: 8 << 10,
            all_reduce_ring: 256 << 10,
            all_reduce_segment: 8 << 20,
            all_gather_ring: 64 << 10,
            reduce_scatter_pairwise: 128 << 10,
            reduce_scatter_piece: 1 << 20,
            all_to_all_pairwise: 1 << 20,
        }
    }

    /// For members that all share one memory. Who receives a large message fetches it from the sender's buffer, so
    /// that the sender is not busy with it, and the fewest rounds are best.
    pub fn shared_memory() -> Tuning {
        Tuning {
            flat_ranks: 8,
            broadcast_flat: usize::MAX,
            shared_piece: 4 << 20,
            all_reduce_flat: 16 << 10,
            all_reduce_pair: 1 << 20,
            all_reduce_direct: 4 << 10,
            all_reduce_ring: usize::MAX,
            all_reduce_segment: 1 << 20,
            all_gather_ring: usize::MAX,
            reduce_scatter_pairwise: usize::MAX,
            reduce_scatter_piece: 256 << 10,
            ..Tuning::network()
        }
    }
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning::network()
    }
}
