//! What an `ncclUniqueId` of this library holds.
//!
//! | bytes | hold |
//! |---|---|
//! | 0..40 | what the genuine NCCL put there; zeros where communicators are on host memory |
//! | 40..104 | the payload of the world's own unique id: where to meet, and the secret |
//! | 104..128 | zeros |
//!
//! NCCL uses the first 40 bytes only, and the rest travels along with whatever the application does with its
//! id.

use multiworld::error::{Error, Result};
use multiworld::nccl::types::ncclUniqueId;
use multiworld::rendezvous::id::Ticket;
use multiworld::world::UniqueId;

/// Bytes that belong to the genuine NCCL.
pub const HEAD: usize = 40;
/// Bytes of a world's id that are not always zero.
const PAYLOAD: usize = 64;

/// An id as its two owners see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// NCCL's own bytes.
    pub head: [u8; HEAD],
    /// The world's id.
    pub world: UniqueId,
}

/// The id that C gets.
pub fn encode(parts: &Parts) -> ncclUniqueId {
    let mut bytes = [0u8; 128];
    bytes[..HEAD].copy_from_slice(&parts.head);
    bytes[HEAD..HEAD + PAYLOAD].copy_from_slice(&parts.world[..PAYLOAD]);
    ncclUniqueId { internal: bytes.map(|b| b.cast_signed() as core::ffi::c_char) }
}

/// The bytes of an id.
pub fn bytes(id: &ncclUniqueId) -> [u8; 128] {
    id.internal.map(|c| c as u8)
}

/// Reads an id that C passed under the name `argument`.
pub fn decode(id: &ncclUniqueId, argument: &str) -> Result<Parts> {
    let bytes = bytes(id);
    let mut parts = Parts { head: [0; HEAD], world: [0; 128] };
    parts.head.copy_from_slice(&bytes[..HEAD]);
    parts.world[..PAYLOAD].copy_from_slice(&bytes[HEAD..HEAD + PAYLOAD]);
    if bytes[HEAD + PAYLOAD..].iter().any(|b| *b != 0) || Ticket::decode(&parts.world).is_err() {
        return Err(Error::argument(format!(
            "{argument}: this id was made by a libnccl that multiworld does not stand in for"
        )));
    }
    Ok(parts)
}

/// As [`decode`], of a communicator on host memory.
pub fn of_host(id: &ncclUniqueId, argument: &str) -> Result<UniqueId> {
    let parts = decode(id, argument)?;
    if parts.head != [0; HEAD] {
        return Err(Error::argument(format!(
            "{argument}: this id was made by a process that uses the genuine NCCL, but this one is on host memory; \
             set MW_BACKEND alike on all ranks"
        )));
    }
    Ok(parts.world)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn ids_survive_and_foreign_ones_are_told() {
        let store: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let world = Ticket::fresh(store).unwrap().encode();
        let id = encode(&Parts { head: [0; HEAD], world });
        assert_eq!(of_host(&id, "commId"), Ok(world));
        let genuine = encode(&Parts { head: [7; HEAD], world });
        assert_eq!(decode(&genuine, "commId"), Ok(Parts { head: [7; HEAD], world }));
        assert!(of_host(&genuine, "commId").unwrap_err().text.contains("genuine NCCL"));
        let mut foreign = ncclUniqueId { internal: [0; 128] };
        foreign.internal[..8].fill(3);
        assert!(decode(&foreign, "commId").unwrap_err().text.contains("does not stand in for"));
        let mut odd = id;
        odd.internal[127] = 1;
        assert!(decode(&odd, "commId").is_err());
    }
}
