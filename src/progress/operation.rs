//! What an engine is asked to do, and what it says when it cannot settle something itself.

use crate::collective::Shape;
use crate::types::Fingerprint;

/// An operation to run.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Send to a peer.
    Send {
        /// First byte.
        ptr: *const u8,
        /// Bytes.
        len: usize,
        /// Rank.
        peer: u32,
        /// What both sides must agree on; the engine fills in `seq`.
        fp: Fingerprint,
    },
    /// Receive from a peer.
    Recv {
        /// First byte.
        ptr: *mut u8,
        /// Bytes.
        len: usize,
        /// Rank.
        peer: u32,
        /// As above.
        fp: Fingerprint,
    },
    /// A collective.
    Collective {
        /// What it is.
        shape: Shape,
        /// The caller's send buffer.
        input: *const u8,
        /// The caller's receive buffer.
        output: *mut u8,
        /// As above.
        fp: Fingerprint,
    },
}

/// A point-to-point operation of a batch.
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

impl From<Message> for Operation {
    fn from(m: Message) -> Operation {
        let Message { fp, ptr, len, peer, send } = m;
        if send { Operation::Send { ptr, len, peer, fp } } else { Operation::Recv { ptr, len, peer, fp } }
    }
}

impl Operation {
    /// A point-to-point operation as a message.
    pub fn message(self) -> Option<Message> {
        match self {
            Operation::Send { ptr, len, peer, fp } => {
                Some(Message { fp, ptr: ptr.cast_mut(), len, peer, send: true })
            }
            Operation::Recv { ptr, len, peer, fp } => Some(Message { fp, ptr, len, peer, send: false }),
            Operation::Collective { .. } => None,
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
