//! What reforming a world writes into the store, as bytes.

use super::{CARD, decode, encode};
use crate::auth;
use crate::error::Result;
use crate::fault::membership::{Candidate, Claim, View};
use crate::types::{Address, WorldId};

/// A member of an epoch. The nonce tells apart several that one process has, and those that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// How to reach it.
    pub address: Address,
    /// Its rank in the first epoch, or random.
    pub nonce: u64,
}

/// Bytes of an encoded member.
const MEMBER: usize = CARD + 8;

impl Member {
    /// One that was in no epoch yet.
    pub fn fresh(address: &Address) -> Result<Member> {
        let mut nonce = [0; 8];
        auth::fill_random(&mut nonce)?;
        Ok(Member { address: address.clone(), nonce: u64::from_le_bytes(nonce) })
    }

    /// Those of a first epoch, by rank.
    pub fn first(addresses: &[Address]) -> Vec<Member> {
        addresses.iter().zip(0..).map(|(a, nonce)| Member { address: a.clone(), nonce }).collect()
    }
}

/// Reads fields off the front of bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn world(&mut self) -> Option<WorldId> {
        self.take().map(WorldId)
    }

    fn member(&mut self) -> Option<Member> {
        let address = decode(&self.take::<CARD>()?)?;
        Some(Member { address, nonce: self.u64()? })
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn push_member(raw: &mut Vec<u8>, member: &Member) {
    raw.extend(encode(&member.address));
    raw.extend(member.nonce.to_le_bytes());
}

/// The latest epoch of the world of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The epoch.
    pub view: View<Member>,
    /// The world's identity before a store lost its record and a member wrote it down again.
    pub before: Option<WorldId>,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(40 + self.view.members.len() * MEMBER);
        raw.extend(self.view.world.0);
        raw.extend(self.before.unwrap_or(WorldId([0; 16])).0);
        raw.extend(self.view.epoch.to_le_bytes());
        self.view.members.iter().for_each(|m| push_member(&mut raw, m));
        raw
    }

    pub(super) fn decode(raw: &[u8]) -> Option<Record> {
        let mut fields = Fields(raw);
        let (world, before, epoch) = (fields.world()?, fields.world()?, fields.u64()?);
        let mut members = Vec::new();
        while !fields.0.is_empty() {
            members.push(fields.member()?);
        }
        let before = (before.0 != [0; 16]).then_some(before);
        (epoch > 0 && !members.is_empty()).then_some(Record { view: View { world, epoch, members }, before })
    }
}

/// What the next epoch has to be like, as the first who asks for it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest members.
    pub min: u32,
    /// Most members.
    pub max: u32,
}

impl Bounds {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.min.to_le_bytes(), self.max.to_le_bytes()].concat()
    }

    pub(super) fn decode(raw: &[u8]) -> Option<Bounds> {
        let mut fields = Fields(raw);
        let bounds = Bounds { min: fields.u32()?, max: fields.u32()? };
        fields.end(bounds)
    }
}

/// A candidate as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub candidate: Candidate<Member>,
    /// The world whose members its door is open to.
    pub world: WorldId,
}

impl Card {
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = self.world.0.to_vec();
        push_member(&mut raw, &self.candidate.member);
        let claim = self.candidate.claim.unwrap_or(Claim { epoch: 0, rank: 0 });
        raw.extend(claim.epoch.to_le_bytes());
        raw.extend(claim.rank.to_le_bytes());
        raw.extend(self.candidate.order.to_le_bytes());
        raw
    }

    pub fn decode(raw: &[u8]) -> Option<Card> {
        let mut fields = Fields(raw);
        let (world, member) = (fields.world()?, fields.member()?);
        let claim = Claim { epoch: fields.u64()?, rank: fields.u32()? };
        let claim = (claim.epoch > 0).then_some(claim);
        let order = fields.u64()?;
        fields.end(Card { candidate: Candidate { member, claim, order }, world })
    }
}
