//! The nouns that every layer shares: data types, reductions, operation kinds, identities.

use std::fmt;
use std::net::SocketAddr;

/// Element types, numbered as in NCCL.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DataType {
    Int8 = 0,
    Uint8 = 1,
    Int32 = 2,
    Uint32 = 3,
    Int64 = 4,
    Uint64 = 5,
    Float16 = 6,
    Float32 = 7,
    Float64 = 8,
    Bfloat16 = 9,
    Float8e4m3 = 10,
    Float8e5m2 = 11,
}

impl DataType {
    /// Every type, by number.
    pub const ALL: [DataType; 12] = [
        DataType::Int8,
        DataType::Uint8,
        DataType::Int32,
        DataType::Uint32,
        DataType::Int64,
        DataType::Uint64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Bfloat16,
        DataType::Float8e4m3,
        DataType::Float8e5m2,
    ];

    /// The type with this number.
    pub fn from_raw(raw: i32) -> Option<DataType> {
        usize::try_from(raw).ok().and_then(|i| DataType::ALL.get(i).copied())
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DataType::Int8 | DataType::Uint8 | DataType::Float8e4m3 | DataType::Float8e5m2 => 1,
            DataType::Float16 | DataType::Bfloat16 => 2,
            DataType::Int32 | DataType::Uint32 | DataType::Float32 => 4,
            DataType::Int64 | DataType::Uint64 | DataType::Float64 => 8,
        }
    }

    /// The type's name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Int8 => "int8",
            DataType::Uint8 => "uint8",
            DataType::Int32 => "int32",
            DataType::Uint32 => "uint32",
            DataType::Int64 => "int64",
            DataType::Uint64 => "uint64",
            DataType::Float16 => "float16",
            DataType::Float32 => "float32",
            DataType::Float64 => "float64",
            DataType::Bfloat16 => "bfloat16",
            DataType::Float8e4m3 => "float8e4m3",
            DataType::Float8e5m2 => "float8e5m2",
        }
    }
}

/// Built-in reductions, numbered as in NCCL.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RedOp {
    Sum = 0,
    Prod = 1,
    Max = 2,
    Min = 3,
    Avg = 4,
}

impl RedOp {
    /// Every reduction, by number.
    pub const ALL: [RedOp; 5] = [RedOp::Sum, RedOp::Prod, RedOp::Max, RedOp::Min, RedOp::Avg];

    /// The reduction with this number.
    pub fn from_raw(raw: i32) -> Option<RedOp> {
        usize::try_from(raw).ok().and_then(|i| RedOp::ALL.get(i).copied())
    }

    /// The reduction's name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            RedOp::Sum => "sum",
            RedOp::Prod => "prod",
            RedOp::Max => "max",
            RedOp::Min => "min",
            RedOp::Avg => "avg",
        }
    }
}

/// A reduction as an operation uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// One of NCCL's built-in operators.
    Builtin(RedOp),
    /// Every rank's input is multiplied by this rank's scalar (one element of the operation's data type,
    /// in the first `DataType::size` bytes), then summed.
    PreMulSum([u8; 8]),
}

/// What an operation is. The numbers travel on the wire; append-only.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OpKind {
    /// Send on one side, Recv on the other.
    PointToPoint = 1,
    Broadcast = 2,
    Reduce = 3,
    AllReduce = 4,
    AllGather = 5,
    ReduceScatter = 6,
    AllToAll = 7,
    Gather = 8,
    Scatter = 9,
    Barrier = 10,
}

impl OpKind {
    /// The kind with this number.
    pub const fn from_raw(raw: u8) -> Option<OpKind> {
        Some(match raw {
            1 => OpKind::PointToPoint,
            2 => OpKind::Broadcast,
            3 => OpKind::Reduce,
            4 => OpKind::AllReduce,
            5 => OpKind::AllGather,
            6 => OpKind::ReduceScatter,
            7 => OpKind::AllToAll,
            8 => OpKind::Gather,
            9 => OpKind::Scatter,
            10 => OpKind::Barrier,
            _ => return None,
        })
    }

    /// The operation's name as in the API.
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::PointToPoint => "Send/Recv",
            OpKind::Broadcast => "Broadcast",
            OpKind::Reduce => "Reduce",
            OpKind::AllReduce => "AllReduce",
            OpKind::AllGather => "AllGather",
            OpKind::ReduceScatter => "ReduceScatter",
            OpKind::AllToAll => "AllToAll",
            OpKind::Gather => "Gather",
            OpKind::Scatter => "Scatter",
            OpKind::Barrier => "Barrier",
        }
    }

    /// Whether the operation has a root rank.
    pub const fn rooted(self) -> bool {
        matches!(self, OpKind::Broadcast | OpKind::Reduce | OpKind::Gather | OpKind::Scatter)
    }

    /// Whether the operation reduces.
    pub const fn reduces(self) -> bool {
        matches!(self, OpKind::Reduce | OpKind::AllReduce | OpKind::ReduceScatter)
    }
}

/// What both sides of a message must agree on. It travels in front of every message, so that ranks which
/// called different operations find out before any byte reaches a user's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The operation.
    pub kind: OpKind,
    /// Number of the data type.
    pub dtype: u8,
    /// Number of the reduction; 255 where there is none, 254 for a pre-multiplied sum.
    pub redop: u8,
    /// The root rank; -1 where there is none.
    pub root: i32,
    /// The how manyeth collective of this world, or message of this direction of a pair, it is.
    pub seq: u32,
    /// Element count as the caller gave it.
    pub count: u64,
}

impl Fingerprint {
    /// `redop` of operations that do not reduce.
    pub const NO_REDOP: u8 = 255;
    /// `redop` of every pre-multiplied sum.
    pub const PREMULSUM: u8 = 254;
    /// Bytes of the encoded form.
    pub const SIZE: usize = 20;

    /// Whether `other` is the `n`th message behind this one, and like it.
    #[inline]
    pub fn is_followed(&self, n: u32, other: &Fingerprint) -> bool {
        *other == Fingerprint { seq: self.seq.wrapping_add(n), ..*self }
    }

    /// The wire form, little-endian.
    pub fn encode(&self) -> [u8; Fingerprint::SIZE] {
        let mut out = [0; Fingerprint::SIZE];
        out[0] = self.kind as u8;
        out[1] = self.dtype;
        out[2] = self.redop;
        out[3..7].copy_from_slice(&self.root.to_le_bytes());
        out[8..12].copy_from_slice(&self.seq.to_le_bytes());
        out[12..20].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// Reads the wire form; `None` when it is none of ours.
    pub fn decode(raw: &[u8; Fingerprint::SIZE]) -> Option<Fingerprint> {
        let kind = OpKind::from_raw(raw[0])?;
        let root = i32::from_le_bytes([raw[3], raw[4], raw[5], raw[6]]);
        let seq = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]);
        let mut count = [0; 8];
        count.copy_from_slice(&raw[12..20]);
        Some(Fingerprint { kind, dtype: raw[1], redop: raw[2], root, seq, count: u64::from_le_bytes(count) })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = DataType::from_raw(i32::from(self.dtype)).map_or("?", DataType::name);
        write!(f, "{}({} x {}", self.kind.name(), self.count, dtype)?;
        match self.redop {
            Fingerprint::NO_REDOP => {}
            Fingerprint::PREMULSUM => f.write_str(", premulsum")?,
            raw => write!(f, ", {}", RedOp::from_raw(i32::from(raw)).map_or("?", RedOp::name))?,
        }
        if self.root >= 0 {
            write!(f, ", root {}", self.root)?;
        }
        write!(f, ") #{}", self.seq)
    }
}

/// 128 random bits that name one membership of a world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorldId(pub [u8; 16]);

/// 128 random bits that name one process for its lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(pub [u8; 16]);

/// Names one machine as far as shared memory reaches: equal on processes that can map each other's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub [u8; 16]);

macro_rules! hex_debug {
    ($($t:ident)*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Eight digits tell two apart in a log line.
                for b in &self.0[..4] {
                    write!(f, "{b:02x}")?;
                }
                Ok(())
            }
        }
    )*};
}
hex_debug!(WorldId ProcessId HostId);

/// How to reach a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its identity.
    pub process: ProcessId,
    /// Its machine.
    pub host: HostId,
    /// Where it listens.
    pub tcp: SocketAddr,
}

/// The 128-bit or longer key that members of a world share. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_survives_the_wire() {
        let fp = Fingerprint {
            kind: OpKind::Reduce,
            dtype: 7,
            redop: 0,
            root: -1,
            seq: 0xdead_beef,
            count: u64::MAX - 3,
        };
        assert_eq!(Fingerprint::decode(&fp.encode()), Some(fp));
        assert_eq!(Fingerprint::decode(&[0; Fingerprint::SIZE]), None);
    }

    #[test]
    fn fingerprint_reads_as_a_call() {
        let fp = Fingerprint { kind: OpKind::Broadcast, dtype: 9, redop: 255, root: 2, seq: 77, count: 4096 };
        assert_eq!(fp.to_string(), "Broadcast(4096 x bfloat16, root 2) #77");
    }
}
