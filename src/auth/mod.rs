//! Proof of knowledge of a secret, for every connection, before anything else is heard.
//!
//! A mutual challenge and response with HMAC-SHA-256. It authenticates both ends of a connection at its start; it
//! does not encrypt, and does not protect what follows from somebody who can alter packets on the way.
//!
//! ```text
//! server -> client   greeting  magic, version, nonce                                          40 bytes
//! client -> server   response  magic, version, key id, nonce, purpose, claim (padded), MAC   347 bytes
//! server -> client   verdict   accepted or not, MAC over both frames above                    33 bytes
//! ```
//!
//! Every frame has a fixed size, so a stranger costs 347 bytes at most, of which only the magic, the version
//! and the key id are looked at before the MAC has been checked. The server speaks first, so that the
//! client's one frame already answers a fresh nonce; the client proves itself first, so that a stranger
//! learns nothing from the server. Each direction has its own key, so that no frame can be reflected. An
//! unknown key id is checked against a secret nobody has and refused like a wrong secret.
//!
//! The state machines in [`handshake`] do no I/O; [`dial`] and [`accept`] run them over a blocking stream.

mod crowd;
pub mod handshake;
mod io;

pub use crowd::gives_way;
pub use handshake::{ClientHandshake, ClientStep, Peer, ServerHandshake, ServerStep};
pub use io::{Timed, accept, dial};

use crate::error::{Code, Error, Extent, Result};
use crate::types::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Longest claim.
pub const MAX_CLAIM: usize = 256;

/// Bytes of a nonce.
pub const NONCE: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// Tells which secret is meant, without telling the secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// The key id of a secret that has no other name. It goes over the network in the clear: a secret that can be
    /// guessed can be guessed from it.
    pub fn of(secret: &Secret) -> KeyId {
        let mut id = [0; 16];
        let digest = digest(secret, "key id", &[]);
        id.copy_from_slice(&digest[..16]);
        KeyId(id)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..4] {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// What a connection is for. The numbers travel on the wire; append-only.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A client of the built-in store.
    Store = 1,
    /// The control link between two processes.
    Control = 2,
    /// Messages between two members of a world.
    Data = 3,
}

impl Purpose {
    /// The purpose with this number.
    pub const fn from_raw(raw: u8) -> Option<Purpose> {
        match raw {
            1 => Some(Purpose::Store),
            2 => Some(Purpose::Control),
            3 => Some(Purpose::Data),
            _ => None,
        }
    }
}

/// A fresh nonce from the kernel's generator.
pub fn nonce() -> Result<[u8; NONCE]> {
    let mut out = [0; NONCE];
    fill_random(&mut out)?;
    Ok(out)
}

/// A fresh 256-bit secret from the kernel's generator.
pub fn new_secret() -> Result<Secret> {
    let mut out = vec![0; 32];
    fill_random(&mut out)?;
    Ok(Secret(out))
}

/// Stands in where no secret is configured: whoever reaches the store may join.
pub fn no_secret() -> Secret {
    Secret(b"multiworld without a secret".to_vec())
}

/// Whether that is what stands in where no secret is configured.
pub fn is_no_secret(secret: &Secret) -> bool {
    *secret == no_secret()
}

/// Fills `out` from the kernel's generator.
pub fn fill_random(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out)
        .map_err(|e| Error::new(Code::System, Extent::Operation, format!("getting random bytes: {e}")))
}

/// A 256-bit secret that follows from `secret` and depends on `label` (what it is for) and `context` (for whom).
/// Knowing it tells nothing about `secret` or about what other labels and contexts give.
pub fn derive(secret: &Secret, label: &str, context: &[u8]) -> Secret {
    Secret(digest(secret, label, context).to_vec())
}

fn digest(secret: &Secret, label: &str, context: &[u8]) -> [u8; 32] {
    // The label's length in front keeps ("ab", "c") and ("a", "bc") apart.
    let len = (label.len() as u64).to_le_bytes();
    mac(secret, &[&len, label.as_bytes(), context]).finalize().into_bytes().into()
}

/// The MAC over the concatenation of `parts`.
fn mac(secret: &Secret, parts: &[&[u8]]) -> HmacSha256 {
    let Ok(mut mac) = HmacSha256::new_from_slice(&secret.0) else {
        unreachable!("HMAC takes keys of every length")
    };
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_secrets_differ_by_label_context_and_secret() {
        let a = Secret(vec![1; 32]);
        let all = [
            derive(&a, "ab", b"c"),
            derive(&a, "a", b"bc"),
            derive(&a, "ab", b""),
            derive(&Secret(vec![2; 32]), "ab", b"c"),
        ];
        for (i, x) in all.iter().enumerate() {
            assert_eq!(x.0.len(), 32);
            assert!(all[i + 1..].iter().all(|y| x != y));
        }
        assert_eq!(all[0], derive(&a, "ab", b"c"));
    }

    /// RFC 4231, test case 2, so that the MAC is the one that everybody else computes.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let out: [u8; 32] = mac(&Secret(b"Jefe".to_vec()), &[b"what do ya want ", b"for nothing?"])
            .finalize()
            .into_bytes()
            .into();
        assert_eq!(out[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }

    #[test]
    fn nonces_and_secrets_are_fresh() {
        assert_ne!(nonce().unwrap(), nonce().unwrap());
        assert_ne!(new_secret().unwrap(), new_secret().unwrap());
        let s = new_secret().unwrap();
        assert_eq!(KeyId::of(&s), KeyId::of(&s));
        assert_ne!(KeyId::of(&s).0[..], s.0[..16]);
    }
}
