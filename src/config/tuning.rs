//! Where one algorithm takes over from another.

/// Declares the values with their names, of which tables and members of a world make use.
macro_rules! values {
    ($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $key:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $type {
            $($(#[$doc])* pub $key: usize,)*
        }

        impl $type {
            /// The names of all values.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// The value of a name.
            pub fn get(&self, key: &str) -> Option<usize> {
                match key {
                    $(stringify!($key) => Some(self.$key),)*
                    _ => None,
                }
            }

            /// Where the value of a name is.
            pub fn get_mut(&mut self, key: &str) -> Option<&mut usize> {
                match key {
                    $(stringify!($key) => Some(&mut self.$key),)*
                    _ => None,
                }
            }

            /// All values, in the order of the names, as one member tells them to another.
            pub fn to_words(&self) -> Words {
                [$(self.$key as u64),*]
            }

            /// The reverse.
            pub fn from_words(words: &Words) -> $type {
                let [$($key),*] = words.map(|word| usize::try_from(word).unwrap_or(usize::MAX));
                $type { $($key),* }
            }
        }
    };
}

values! {
    /// Sizes, in bytes, at which the choice of algorithm changes. All members of a world must use the same,
    /// because the choice must be the same on all of them. Any value is right, 0 and `usize::MAX` as well.
    Tuning {
        /// Piece that a pipeline passes on at a time; rounded up to a multiple of 64.
        chunk,
        /// Ranks up to which everybody may send to everybody, or one to everybody, instead of going through others.
        flat_ranks,
        /// Below this size, with few ranks, the root of a Broadcast sends to everybody.
        broadcast_flat,
        /// Bytes, of all senders together, that a flat Broadcast and a direct AllGather send to several ranks at a
        /// time.
        shared_piece,
        /// From this size on Broadcast is a pipelined chain, where that has less to send than the tree.
        broadcast_chain,
        /// From this size on Reduce is a pipelined chain, where that has less to send than the tree.
        reduce_chain,
        /// While the others' inputs together are below this size, AllReduce with few ranks, but more than two,
        /// exchanges whole inputs.
        all_reduce_flat,
        /// Below this size AllReduce of two ranks exchanges whole inputs, which is no more than anything else would
        /// send and takes one round.
        all_reduce_pair,
        /// From this size, times the number of ranks, on AllReduce is a reduce-scatter and an all-gather.
        all_reduce_direct,
        /// From this size, times the number of ranks, on AllReduce goes around a ring.
        all_reduce_ring,
        /// Bytes of an AllReduce, for all blocks together, that are scattered while those before are gathered.
        all_reduce_segment,
        /// Below this size of one rank's contribution AllGather with few ranks exchanges all at once.
        all_gather_flat,
        /// From this size of one rank's contribution on AllGather exchanges all at once. Below, with more than three
        /// ranks, it goes through others in log2 n rounds.
        all_gather_direct,
        /// From this size of one rank's contribution on AllGather goes around a ring.
        all_gather_ring,
        /// Below this size of one part ReduceScatter with few ranks exchanges all at once.
        reduce_scatter_flat,
        /// From this size of one part on ReduceScatter exchanges all at once. Below, with more than three ranks, it goes
        /// through others in log2 n rounds.
        reduce_scatter_direct,
        /// From this size of all ranks' parts together on ReduceScatter goes rank by rank.
        reduce_scatter_pairwise,
        /// Bytes of one part that a direct ReduceScatter of more than two ranks takes at a time.
        reduce_scatter_piece,
        /// From this size of all ranks' parts together on an AllToAll in place exchanges part by part instead of
        /// setting all of them aside first.
        all_to_all_pairwise,
    }
}

/// All values as one member tells them to another.
pub type Words = [u64; Tuning::KEYS.len()];

/// How the members of a world are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// They all share one memory.
    SharedMemory,
    /// By a network, or some of them.
    Network,
}

impl Topology {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Topology::SharedMemory => "shared-memory",
            Topology::Network => "network",
        }
    }
}

impl Tuning {
    /// What is built in.
    pub fn of(topology: Topology) -> Tuning {
        match topology {
            Topology::SharedMemory => Tuning::shared_memory(),
            Topology::Network => Tuning::network(),
        }
    }

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
            all_gather_flat: 0,
            all_gather_direct: 64 << 10,
            all_gather_ring: 64 << 10,
            reduce_scatter_flat: 0,
            reduce_scatter_direct: 32 << 10,
            reduce_scatter_pairwise: 256 << 10,
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
            all_gather_flat: 12 << 10,
            all_gather_direct: 256 << 10,
            all_gather_ring: usize::MAX,
            reduce_scatter_flat: 6 << 10,
            reduce_scatter_direct: 256 << 10,
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
