//! What an engine is asked to do, and what it says when it cannot settle something itself.

use crate::collective::Shape;
use crate::types::Fingerprint;

/// An operation to run.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// A send to a peer or a receive from one.
    Message(Message),
    /// A collective.
    Collective {
        /// What it is.
        shape: Shape,
        /// The caller's send buffer.
        input: *const u8,
        /// The caller's receive buffer.
        output: *mut u8,
        /// What all ranks must agree on; the engine fills in `seq`.
        fp: Fingerprint,
    },
}

/// A point-to-point operation.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// What both sides must agree on; the engine fills in `seq`.
    pub fp: Fingerprint,
    /// First byte; written only if it is received.
    pub ptr: *mut u8,
    /// Bytes.
    pub len: usize,
    /// Rank.
    pub peer: u32,
    /// Sent or received.
    pub send: bool,
}

impl Message {
    /// Payload bytes, out and in.
    pub fn bytes(&self) -> (u64, u64) {
        if self.send { (self.len as u64, 0) } else { (0, self.len as u64) }
    }
}

impl Operation {
    /// What the ranks must agree on.
    pub fn fp(&self) -> Fingerprint {
        match self {
            Operation::Message(Message { fp, .. }) | Operation::Collective { fp, .. } => *fp,
        }
    }
}

/// What the engine cannot settle by itself.
#[derive(Debug)]
pub enum Trouble {
    /// The connection to this rank has ended. Reported at most once per direction.
    Closed(u32),
    /// Two ranks called different things.
    Mismatch {
        /// The other one.
        peer: u32,
        /// What this rank called.
        mine: Fingerprint,
        /// What the other one called.
        theirs: Fingerprint,
        /// Bytes of the message that this rank expects.
        my_len: u64,
        /// Bytes of the message that the other one sends.
        their_len: u64,
    },
    /// This rank wrote something that no correct peer writes.
    Corrupt(u32, String),
    /// A system call on the connection to this rank failed here, which says nothing about that rank.
    System(u32, String),
}
