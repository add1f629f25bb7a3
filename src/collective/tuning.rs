//! Where one algorithm takes over from another.

/// Sizes, in bytes, at which the choice of algorithm changes. All members of a world must use the same,
/// because the choice must be the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Piece that a pipeline passes on at a time; rounded up to a multiple of 64.
    pub chunk: usize,
    /// From this size on Broadcast is a pipelined chain, where that has less to send than the tree.
    pub broadcast_chain: usize,
    /// From this size on Reduce is a pipelined chain, where that has less to send than the tree.
    pub reduce_chain: usize,
    /// From this size, times the number of ranks, on AllReduce goes around a ring.
    pub all_reduce_ring: usize,
    /// From this size of one rank's contribution on AllGather goes around a ring.
    pub all_gather_ring: usize,
    /// From this size of all ranks' parts together on ReduceScatter goes rank by rank.
    pub reduce_scatter_pairwise: usize,
    /// From this size of all ranks' parts together on an AllToAll in place exchanges part by part instead of
    /// setting all of them aside first.
    pub all_to_all_pairwise: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            chunk: 256 << 10,
            broadcast_chain: 512 << 10,
            reduce_chain: 512 << 10,
            all_reduce_ring: 8 << 10,
            all_gather_ring: 64 << 10,
            reduce_scatter_pairwise: 128 << 10,
            all_to_all_pairwise: 1 << 20,
        }
    }
}
