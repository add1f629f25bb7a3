//! The operations that can be measured, and what is particular about each: names, buffers, factors. Pure.

use clap::ValueEnum;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// Half a ping-pong round trip between ranks 0 and 1
    #[value(name = "sendrecv", aliases = ["lat", "latency", "send_recv", "pingpong"])]
    SendRecv,
    /// Windows of 64 sends of one buffer from rank 0 to rank 1, and one answer
    #[value(name = "bw", aliases = ["bandwidth"])]
    Bw,
    /// The same with a buffer of its own for each of the 64 (8 above 4 MB)
    #[value(name = "bwd")]
    Bwd,
    /// Every rank gets the reduction of all vectors
    #[value(name = "all_reduce", aliases = ["allreduce", "all-reduce"])]
    AllReduce,
    /// Every rank gets all parts
    #[value(name = "all_gather", aliases = ["allgather", "all-gather"])]
    AllGather,
    /// Every rank gets its part of the reduction
    #[value(name = "reduce_scatter", aliases = ["reducescatter", "reduce-scatter"])]
    ReduceScatter,
    /// Every rank gets the root's vector
    #[value(name = "broadcast", aliases = ["bcast"])]
    Broadcast,
    /// The root gets the reduction of all vectors
    Reduce,
    /// Every rank sends a part to every other
    #[value(name = "all_to_all", aliases = ["alltoall", "all-to-all"])]
    AllToAll,
    /// The root gets all parts
    Gather,
    /// Every rank gets its part from the root
    Scatter,
    /// No data; every rank waits for all
    Barrier,
}

/// Bytes of the two buffers of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub send: usize,
    pub recv: usize,
}

impl Op {
    pub const ALL: [Op; 12] = [
        Op::SendRecv,
        Op::Bw,
        Op::Bwd,
        Op::AllReduce,
        Op::AllGather,
        Op::ReduceScatter,
        Op::Broadcast,
        Op::Reduce,
        Op::AllToAll,
        Op::Gather,
        Op::Scatter,
        Op::Barrier,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Op::SendRecv => "sendrecv",
            Op::Bw => "bw",
            Op::Bwd => "bwd",
            Op::AllReduce => "all_reduce",
            Op::AllGather => "all_gather",
            Op::ReduceScatter => "reduce_scatter",
            Op::Broadcast => "broadcast",
            Op::Reduce => "reduce",
            Op::AllToAll => "all_to_all",
            Op::Gather => "gather",
            Op::Scatter => "scatter",
            Op::Barrier => "barrier",
        }
    }

    /// Its name in RESULT lines.
    pub const fn short_name(self) -> &'static str {
        match self {
            Op::SendRecv => "lat",
            Op::AllReduce => "allreduce",
            Op::AllGather => "allgather",
            Op::ReduceScatter => "reducescatter",
            Op::AllToAll => "alltoall",
            other => other.name(),
        }
    }

    /// Whether only ranks 0 and 1 take part.
    pub const fn is_point_to_point(self) -> bool {
        matches!(self, Op::SendRecv | Op::Bw | Op::Bwd)
    }

    /// Whether a window of sends is one iteration, and so bandwidth what is asked for.
    pub const fn is_bandwidth(self) -> bool {
        matches!(self, Op::Bw | Op::Bwd)
    }

    pub const fn reduces(self) -> bool {
        matches!(self, Op::AllReduce | Op::ReduceScatter | Op::Reduce)
    }

    pub const fn has_root(self) -> bool {
        matches!(self, Op::Broadcast | Op::Reduce | Op::Gather | Op::Scatter)
    }

    pub const fn has_in_place(self) -> bool {
        !self.is_point_to_point() && !matches!(self, Op::AllToAll | Op::Barrier)
    }

    pub const fn least_ranks(self) -> usize {
        if self.is_point_to_point() { 2 } else { 1 }
    }

    /// Whether a size is that of all ranks' parts together, as in nccl-tests.
    const fn is_divided(self) -> bool {
        matches!(self, Op::AllGather | Op::ReduceScatter | Op::AllToAll | Op::Gather | Op::Scatter)
    }

    /// Elements in one call for a size in bytes, at least one.
    pub fn count(self, size: u64, element: usize, nranks: usize) -> usize {
        if self == Op::Barrier {
            return 0;
        }
        let parts = if self.is_divided() { nranks } else { 1 };
        (size as usize / element / parts).max(1)
    }

    /// The size that so many elements really come to.
    pub fn size(self, count: usize, element: usize, nranks: usize) -> u64 {
        let parts = if self.is_divided() { nranks } else { 1 };
        (count * element * parts) as u64
    }

    /// Messages that are under way together.
    pub fn window(self, size: u64) -> usize {
        match self {
            Op::Bw => 64,
            Op::Bwd if size > 4_000_000 => 8,
            Op::Bwd => 64,
            _ => 1,
        }
    }

    /// What calls with `part` bytes need.
    pub fn buffers(self, part: usize, nranks: usize) -> Buffers {
        let all = part * nranks;
        let (send, recv) = match self {
            Op::Barrier => (0, 0),
            Op::Bwd => (part * self.window(part as u64), part * self.window(part as u64)),
            Op::AllGather | Op::Gather => (part, all),
            Op::ReduceScatter | Op::Scatter => (all, part),
            Op::AllToAll => (all, all),
            _ => (part, part),
        };
        Buffers { send, recv }
    }

    /// What algorithm bandwidth is multiplied by for bus bandwidth: nccl-tests' factors.
    pub fn bus_factor(self, nranks: usize) -> f64 {
        let others = (nranks - 1) as f64 / nranks as f64;
        match self {
            Op::AllReduce => 2.0 * others,
            Op::AllGather | Op::ReduceScatter | Op::AllToAll | Op::Gather | Op::Scatter => others,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_both_of_its_names() {
        for op in Op::ALL {
            for name in [op.name(), op.short_name()] {
                assert_eq!(Op::from_str(name, false), Ok(op), "{name}");
            }
        }
        assert_eq!(Op::value_variants(), Op::ALL);
    }

    #[test]
    fn factors_are_those_of_nccl_tests() {
        assert_eq!(Op::AllReduce.bus_factor(4), 1.5);
        assert_eq!(Op::AllGather.bus_factor(4), 0.75);
        assert_eq!(Op::Broadcast.bus_factor(4), 1.0);
        assert_eq!(Op::AllReduce.bus_factor(1), 0.0);
    }

    #[test]
    fn sizes_are_of_all_parts_together() {
        assert_eq!(Op::AllReduce.count(4096, 4, 4), 1024);
        assert_eq!(Op::AllGather.count(4096, 4, 4), 256);
        assert_eq!(Op::AllGather.count(8, 4, 4), 1);
        assert_eq!(Op::AllGather.size(1, 4, 4), 16);
        assert_eq!(Op::Barrier.count(8, 4, 4), 0);
    }

    #[test]
    fn buffers_hold_what_calls_take() {
        assert_eq!(Op::AllGather.buffers(8, 4), Buffers { send: 8, recv: 32 });
        assert_eq!(Op::Scatter.buffers(8, 4), Buffers { send: 32, recv: 8 });
        assert_eq!(Op::Bwd.buffers(400_000, 2).send, 64 * 400_000);
        assert_eq!(Op::Bwd.buffers(64_000_000, 2).send, 8 * 64_000_000);
        assert_eq!(Op::Bw.buffers(8, 2), Buffers { send: 8, recv: 8 });
    }
}
