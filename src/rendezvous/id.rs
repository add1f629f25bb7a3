//! Unique ids: where to meet, and the secret that says who may come.

use crate::auth::KeyId;
use crate::error::{Error, Result};
use crate::types::Secret;
use std::net::{IpAddr, SocketAddr};

/// Bytes of a unique id, as in NCCL.
pub const SIZE: usize = 128;

const MAGIC: [u8; 8] = *b"mwuniqid";
const SECRET: usize = 16;

/// What an id holds. The rest of its bytes is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The store of the process that made it.
    pub store: SocketAddr,
    /// Which secret, at that store; also the name of the meeting.
    pub key: KeyId,
    /// The secret.
    pub secret: Secret,
}

impl Ticket {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut out = [0; SIZE];
        out[..8].copy_from_slice(&MAGIC);
        let ip = match self.store.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        out[8..24].copy_from_slice(&ip.octets());
        out[24..26].copy_from_slice(&self.store.port().to_le_bytes());
        out[32..48].copy_from_slice(&self.key.0);
        for (o, s) in out[48..48 + SECRET].iter_mut().zip(&self.secret.0) {
            *o = *s;
        }
        out
    }

    /// Reads an id that a caller passed.
    pub fn decode(raw: &[u8; SIZE]) -> Result<Ticket> {
        if raw[..8] != MAGIC || raw[48 + SECRET..].iter().any(|b| *b != 0) {
            return Err(Error::argument("id: not a unique id made by mwGetUniqueId"));
        }
        let mut ip = [0; 16];
        ip.copy_from_slice(&raw[8..24]);
        let mut key = [0; 16];
        key.copy_from_slice(&raw[32..48]);
        let port = u16::from_le_bytes([raw[24], raw[25]]);
        Ok(Ticket {
            store: SocketAddr::new(IpAddr::from(ip).to_canonical(), port),
            key: KeyId(key),
            secret: Secret(raw[48..48 + SECRET].to_vec()),
        })
    }

    /// A key and a secret of the sizes that fit, from random bytes.
    pub fn fresh(store: SocketAddr) -> Result<Ticket> {
        let (mut key, mut secret) = ([0; 16], [0; SECRET]);
        crate::auth::fill_random(&mut key)?;
        crate::auth::fill_random(&mut secret)?;
        Ok(Ticket { store, key: KeyId(key), secret: Secret(secret.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_and_garbage_is_refused() {
        for store in ["127.0.0.1:4000", "[::1]:4001"] {
            let t = Ticket::fresh(store.parse().unwrap()).unwrap();
            let raw = t.encode();
            assert_eq!(Ticket::decode(&raw).unwrap(), t);
            let mut bad = raw;
            bad[0] ^= 1;
            assert!(Ticket::decode(&bad).is_err());
            bad = raw;
            bad[127] = 1;
            assert!(Ticket::decode(&bad).is_err());
        }
        assert!(Ticket::decode(&[0; SIZE]).is_err());
    }
}
