//! What processes tell each other over control links: the codec, without I/O.

use crate::error::Code;
use crate::fault::health::News;
use crate::sys::memory::Identity;
use crate::types::{Fingerprint, ProcessId, WorldId};

/// Longest frame.
pub const MAX_FRAME: usize = 4096;
/// Longest sentence in a message.
const MAX_TEXT: usize = 1024;

/// A few bytes that one member gives to all: the identity that NCCL makes for a communicator.
pub type Handout = [u8; 128];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing but a sign of life.
    Heartbeat,
    /// Something about a world.
    News {
        /// Which world.
        world: WorldId,
        /// Its epoch.
        epoch: u64,
        /// What.
        news: News,
    },
    /// The shared memory of a world; one descriptor comes along.
    Segment {
        /// Which world.
        world: WorldId,
        /// Its epoch.
        epoch: u64,
    },
    /// How to watch the sender on this machine; its liveness page and its doorbell come along.
    Alive {
        /// The robust word that belongs to the receiver.
        slot: Option<u32>,
    },
    /// A member waits in this collective, and wants to know whether the receiver called another.
    Calling {
        /// Which world.
        world: WorldId,
        /// Its epoch.
        epoch: u64,
        /// The member that waits.
        rank: u32,
        /// What it called.
        call: Fingerprint,
    },
    /// What one member of a world gives to all others before they begin.
    Handout {
        /// Which world.
        world: WorldId,
        /// Its epoch.
        epoch: u64,
        /// What.
        bytes: Handout,
    },
    /// Memory of the sender's; its descriptor comes along.
    Region {
        /// Its number.
        id: u64,
        /// Its bytes.
        len: u64,
        /// Which file it is.
        identity: Identity,
    },
    /// What came of it.
    RegionAnswer {
        /// Its number.
        id: u64,
        /// Whether it is mapped.
        mapped: bool,
    },
    /// The sender has freed it.
    RegionFreed {
        /// Its number.
        id: u64,
    },
    /// A process on the sender's machine has died.
    ProcessDied {
        /// Which.
        process: ProcessId,
    },
}

impl Message {
    /// Descriptors that come along.
    pub fn fds(&self) -> usize {
        match self {
            Message::Segment { .. } | Message::Region { .. } => 1,
            Message::Alive { .. } => 2,
            _ => 0,
        }
    }

    /// The frame: length, kind, body; little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; 4];
        match self {
            Message::Heartbeat => b.push(1),
            Message::News { world, epoch, news } => {
                b.push(2);
                b.extend(world.0);
                b.extend(epoch.to_le_bytes());
                match news {
                    News::Failed { rank, reason } => {
                        b.push(1);
                        b.extend(rank.to_le_bytes());
                        push_text(&mut b, reason);
                    }
                    News::Left { rank } => {
                        b.push(2);
                        b.extend(rank.to_le_bytes());
                    }
                    News::Revoked { by } => {
                        b.push(3);
                        b.extend(by.to_le_bytes());
                    }
                    News::Broken { code, culprit, text } => {
                        b.push(4);
                        b.extend((*code as i32).to_le_bytes());
                        b.extend(culprit.unwrap_or(u32::MAX).to_le_bytes());
                        push_text(&mut b, text);
                    }
                }
            }
            Message::Segment { world, epoch } => {
                b.push(3);
                b.extend(world.0);
                b.extend(epoch.to_le_bytes());
            }
            Message::Alive { slot } => {
                b.push(4);
                b.extend(slot.unwrap_or(u32::MAX).to_le_bytes());
            }
            Message::ProcessDied { process } => {
                b.push(5);
                b.extend(process.0);
            }
            Message::Region { id, len, identity } => {
                b.push(8);
                let words = [*id, *len, identity.device, identity.inode];
                b.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
            Message::RegionAnswer { id, mapped } => {
                b.push(9);
                b.extend(id.to_le_bytes());
                b.push(u8::from(*mapped));
            }
            Message::RegionFreed { id } => {
                b.push(10);
                b.extend(id.to_le_bytes());
            }
            Message::Calling { world, epoch, rank, call } => {
                b.push(6);
                b.extend(world.0);
                b.extend(epoch.to_le_bytes());
                b.extend(rank.to_le_bytes());
                b.extend(call.encode());
            }
            Message::Handout { world, epoch, bytes } => {
                b.push(7);
                b.extend(world.0);
                b.extend(epoch.to_le_bytes());
                b.extend(bytes);
            }
        }
        let len = (b.len() - 4) as u32;
        b[..4].copy_from_slice(&len.to_le_bytes());
        b
    }

    /// Reads one frame from the front of `input`. `Ok(None)`: more bytes are needed. `Err`: no correct peer sends
    /// this.
    pub fn decode(input: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
        let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len == 0 || len > MAX_FRAME {
            return Err("frame of an impossible length");
        }
        let Some(body) = input.get(4..4 + len) else { return Ok(None) };
        let mut r = Reader(body);
        let message = r.message().ok_or("malformed message")?;
        if !r.0.is_empty() {
            return Err("message longer than its kind");
        }
        Ok(Some((message, 4 + len)))
    }
}

fn push_text(b: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    b.extend((end as u16).to_le_bytes());
    b.extend(&text.as_bytes()[..end]);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(u16::from_le_bytes(self.take()?));
        let (head, rest) = self.0.split_at_checked(len.min(MAX_TEXT))?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }

    fn message(&mut self) -> Option<Message> {
        Some(match self.take::<1>()?[0] {
            1 => Message::Heartbeat,
            2 => Message::News { world: WorldId(self.take()?), epoch: self.u64()?, news: self.news()? },
            3 => Message::Segment { world: WorldId(self.take()?), epoch: self.u64()? },
            4 => Message::Alive { slot: Some(self.u32()?).filter(|s| *s != u32::MAX) },
            5 => Message::ProcessDied { process: ProcessId(self.take()?) },
            6 => Message::Calling {
                world: WorldId(self.take()?),
                epoch: self.u64()?,
                rank: self.u32()?,
                call: Fingerprint::decode(&self.take()?)?,
            },
            7 => Message::Handout { world: WorldId(self.take()?), epoch: self.u64()?, bytes: self.take()? },
            8 => {
                let [id, len, device, inode] = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
                Message::Region { id, len, identity: Identity { device, inode } }
            }
            9 => {
                let id = self.u64()?;
                let mapped = match self.take()? {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                Message::RegionAnswer { id, mapped }
            }
            10 => Message::RegionFreed { id: self.u64()? },
            _ => return None,
        })
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn news(&mut self) -> Option<News> {
        Some(match self.take::<1>()?[0] {
            1 => News::Failed { rank: self.u32()?, reason: self.text()? },
            2 => News::Left { rank: self.u32()? },
            3 => News::Revoked { by: self.u32()? },
            4 => {
                let code = code(i32::from_le_bytes(self.take()?))?;
                let culprit = Some(self.u32()?).filter(|c| *c != u32::MAX);
                News::Broken { code, culprit, text: self.text()? }
            }
            _ => return None,
        })
    }
}

fn code(raw: i32) -> Option<Code> {
    [
        Code::UnhandledCuda,
        Code::System,
        Code::Internal,
        Code::InvalidUsage,
        Code::Remote,
        Code::Timeout,
        Code::Revoked,
        Code::Aborted,
    ]
    .into_iter()
    .find(|c| *c as i32 == raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OpKind;
    use proptest::prelude::*;

    fn samples() -> Vec<Message> {
        let world = WorldId([7; 16]);
        let news = [
            News::Failed { rank: 3, reason: "its process died".into() },
            News::Left { rank: 0 },
            News::Revoked { by: 9 },
            News::Broken { code: Code::Timeout, culprit: None, text: "späť".into() },
            News::Broken { code: Code::InvalidUsage, culprit: Some(1), text: "x".into() },
        ];
        let mut all: Vec<_> = news.into_iter().map(|news| Message::News { world, epoch: 5, news }).collect();
        all.extend([
            Message::Heartbeat,
            Message::Segment { world, epoch: 1 },
            Message::Handout { world, epoch: 3, bytes: [5; 128] },
            Message::Alive { slot: None },
            Message::Alive { slot: Some(3) },
            Message::ProcessDied { process: ProcessId([1; 16]) },
            Message::Region { id: 1 << 40, len: 3, identity: Identity { device: 5, inode: u64::MAX } },
            Message::RegionAnswer { id: 7, mapped: true },
            Message::RegionAnswer { id: 8, mapped: false },
            Message::RegionFreed { id: 9 },
            Message::Calling {
                world,
                epoch: 2,
                rank: 3,
                call: Fingerprint {
                    kind: OpKind::Gather,
                    dtype: 7,
                    redop: 255,
                    root: 1,
                    seq: 9,
                    count: 1 << 40,
                },
            },
        ]);
        all
    }

    #[test]
    fn every_message_survives_the_wire_in_any_pieces() {
        let mut stream = Vec::new();
        for m in samples() {
            let frame = m.encode();
            for cut in 0..frame.len() {
                assert_eq!(Message::decode(&frame[..cut]), Ok(None));
            }
            assert_eq!(Message::decode(&frame), Ok(Some((m, frame.len()))));
            stream.extend(frame);
        }
        let mut at = 0;
        for m in samples() {
            let (got, used) = Message::decode(&stream[at..]).unwrap().unwrap();
            assert_eq!(got, m);
            at += used;
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_waits(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some((m, used))) = Message::decode(&bytes) {
                prop_assert_eq!(&m.encode()[..], &bytes[..used]);
            }
        }
    }
}
