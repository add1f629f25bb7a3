//! The name of a communicator: a hash of all that its ranks must agree on. The ranks find each other under
//! it.

use crate::abi::UniqueId;
use std::io::Read;

/// 128 bits that every rank of one communicator computes alike, and those of no other one do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(u128);

impl Key {
    /// The FNV-1a hash of the parts, each preceded by its length.
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let mut absorb = |byte: u8| {
            hash ^= u128::from(byte);
            hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        };
        for part in parts {
            part.len().to_le_bytes().into_iter().for_each(&mut absorb);
            part.iter().copied().for_each(&mut absorb);
        }
        Key(hash)
    }

    /// The key of something that is made from this communicator.
    pub fn child(self, purpose: &str, detail: &[u8]) -> Key {
        Key::of(&[&self.0.to_le_bytes(), purpose.as_bytes(), detail])
    }

    /// The name of a rank's listener in the abstract namespace, which vanishes with the process.
    pub fn address(self, rank: usize) -> String {
        format!("mwdouble-nccl-{:032x}-{rank}", self.0)
    }

    /// Half of it, for what needs no more.
    pub fn low(self) -> u64 {
        self.0 as u64
    }
}

/// A fresh id: a magic word, a loopback socket address and a count, 40 bytes; the tail is zero, as NCCL's is.
pub fn fresh_id() -> std::io::Result<UniqueId> {
    let mut random = [0; 10];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(compose(random))
}

/// The id under which a communicator grows, which every one of its ranks can compute.
#[cfg(not(nccl_old))]
pub fn grow_id(parent: Key, generation: u64) -> UniqueId {
    let mut seed = [0; 10];
    let derived = parent.child("grow id", &generation.to_le_bytes()).0.to_le_bytes();
    seed.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
    compose(seed)
}

fn compose(seed: [u8; 10]) -> UniqueId {
    let mut bytes = [0; 128];
    let family = (libc::AF_INET as u16).to_ne_bytes();
    let [magic @ .., high, low] = seed;
    let fields = magic.into_iter().chain(family).chain([high | 0x80, low, 127, 0, 0, 1]);
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    // The count, after the 28 bytes that the largest socket address takes.
    bytes[36] = 1;
    UniqueId(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_forty_bytes_and_a_zero_tail() {
        let id = fresh_id().expect("random bytes").0;
        assert!(id[40..].iter().all(|byte| *byte == 0));
        assert_eq!(&id[12..16], &[127, 0, 0, 1]);
        assert_ne!(id[..8], fresh_id().expect("random bytes").0[..8]);
    }

    #[test]
    fn every_byte_counts() {
        let mut bytes = [0; 128];
        let plain = Key::of(&[&bytes]);
        bytes[127] = 1;
        assert_ne!(plain, Key::of(&[&bytes]));
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
    }
}
