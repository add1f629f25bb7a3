//! The connections of one rank to all others, and the messages that come over them.
//!
//! Whoever holds the mesh moves its bytes: a kernel while it runs, destroy for its last words. Nobody notices
//! that a peer has died: its connection falls silent, and what waits for it waits until the abort flag is
//! raised.

use crate::stop::Stop;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// What a message is for. The numbers are counted alike on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tag {
    /// The n-th send from this rank to that one.
    Pair(u64),
    /// A part of the n-th collective.
    Collective(u64),
    /// The sender will not use the communicator any more.
    Farewell,
}

impl Tag {
    fn to_wire(self) -> (u32, u64) {
        match self {
            Tag::Pair(number) => (1, number),
            Tag::Collective(number) => (2, number),
            Tag::Farewell => (3, 0),
        }
    }

    fn from_wire(kind: u32, number: u64) -> Option<Tag> {
        match kind & !ACKNOWLEDGED {
            1 => Some(Tag::Pair(number)),
            2 => Some(Tag::Collective(number)),
            3 => Some(Tag::Farewell),
            _ => None,
        }
    }
}

/// Set in the kind of a frame that confirms a message rather than bringing one.
const ACKNOWLEDGED: u32 = 1 << 16;
const FRAME: usize = 28;

/// A message that has arrived.
pub struct Message {
    /// A hash of what the sender believes the operation to be.
    pub signature: u64,
    pub payload: Arc<[u8]>,
}

/// All connections of one rank.
pub struct Mesh {
    rank: usize,
    links: Vec<Option<Link>>,
    inbox: HashMap<(usize, Tag), Message>,
    confirmed: HashSet<(usize, Tag)>,
    sent_to: Vec<u64>,
    received_from: Vec<u64>,
    collectives: u64,
}

struct Link {
    stream: UnixStream,
    /// The peer may still have said something.
    open: bool,
    /// The peer may still hear something. What it said before it went is read all the same.
    heard: bool,
    header: [u8; FRAME],
    header_have: usize,
    body: Option<Body>,
    outgoing: VecDeque<Outgoing>,
}

struct Body {
    tag: Tag,
    signature: u64,
    bytes: Vec<u8>,
    have: usize,
}

struct Outgoing {
    header: [u8; FRAME],
    payload: Arc<[u8]>,
    sent: usize,
}

impl Mesh {
    /// A mesh over connections that are made; the own rank has none.
    pub fn new(rank: usize, streams: Vec<Option<UnixStream>>) -> std::io::Result<Mesh> {
        let count = streams.len();
        let link = |stream: Option<UnixStream>| {
            let Some(stream) = stream else { return Ok(None) };
            stream.set_nonblocking(true)?;
            let (header, outgoing) = ([0; FRAME], VecDeque::new());
            Ok(Some(Link { stream, open: true, heard: true, header, header_have: 0, body: None, outgoing }))
        };
        Ok(Mesh {
            rank,
            links: streams.into_iter().map(link).collect::<std::io::Result<_>>()?,
            inbox: HashMap::new(),
            confirmed: HashSet::new(),
            sent_to: vec![0; count],
            received_from: vec![0; count],
            collectives: 0,
        })
    }

    /// The tag of the next send to a peer.
    pub fn next_send(&mut self, peer: usize) -> Tag {
        Tag::Pair(bump(self.sent_to.get_mut(peer)))
    }

    /// The tag of the next receive from a peer.
    pub fn next_receive(&mut self, peer: usize) -> Tag {
        Tag::Pair(bump(self.received_from.get_mut(peer)))
    }

    /// The tag of the next collective.
    pub fn next_collective(&mut self) -> Tag {
        Tag::Collective(bump(Some(&mut self.collectives)))
    }

    /// Queues a message. One to this rank itself has arrived at once.
    pub fn post(&mut self, peer: usize, tag: Tag, signature: u64, payload: Arc<[u8]>) {
        if peer == self.rank {
            self.inbox.insert((peer, tag), Message { signature, payload });
        } else if let Some(link) = self.link(peer) {
            let (kind, number) = tag.to_wire();
            link.queue(kind, number, signature, payload);
        }
    }

    /// A message that has arrived, without taking it.
    pub fn peek(&self, peer: usize, tag: Tag) -> Option<&Message> {
        self.inbox.get(&(peer, tag))
    }

    /// Takes a message and confirms it to its sender.
    pub fn take(&mut self, peer: usize, tag: Tag) -> Option<Message> {
        let message = self.inbox.remove(&(peer, tag))?;
        if peer == self.rank {
            self.confirmed.insert((peer, tag));
        } else if let Some(link) = self.link(peer) {
            let (kind, number) = tag.to_wire();
            link.queue(kind | ACKNOWLEDGED, number, 0, Arc::new([]));
        }
        Some(message)
    }

    /// Whether the receiver has taken a message; asking forgets it.
    pub fn is_confirmed(&mut self, peer: usize, tag: Tag) -> bool {
        self.confirmed.remove(&(peer, tag))
    }

    /// Whether everything queued is on its way, as far as peers live.
    pub fn is_flushed(&self) -> bool {
        self.links.iter().flatten().all(|link| link.outgoing.is_empty() || !link.heard)
    }

    fn link(&mut self, peer: usize) -> Option<&mut Link> {
        self.links.get_mut(peer).and_then(Option::as_mut).filter(|link| link.heard)
    }

    /// Moves what can be moved, and waits until more can be or the abort flag is raised, for at most `limit`
    /// milliseconds (negative: no limit).
    pub fn step(&mut self, stop: &Stop, limit: i32) {
        let mut moved = false;
        for (peer, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            moved |= link.write();
            let (inbox, confirmed) = (&mut self.inbox, &mut self.confirmed);
            moved |= link.read(|tag, message| match message {
                Some(message) => drop(inbox.insert((peer, tag), message)),
                None => drop(confirmed.insert((peer, tag))),
            });
        }
        if moved {
            return;
        }
        let mut waits = vec![libc::pollfd { fd: stop.fd(), events: libc::POLLIN, revents: 0 }];
        for link in self.links.iter().flatten().filter(|link| link.open) {
            let writing = if link.outgoing.is_empty() || !link.heard { 0 } else { libc::POLLOUT };
            let fd = link.stream.as_raw_fd();
            waits.push(libc::pollfd { fd, events: libc::POLLIN | writing, revents: 0 });
        }
        // SAFETY: an array of as many entries as are stated. An interruption is a reason to look again
        // anyway.
        unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, limit) };
    }
}

fn bump(counter: Option<&mut u64>) -> u64 {
    counter.map_or(u64::MAX, |counter| {
        *counter += 1;
        *counter
    })
}

impl Link {
    fn queue(&mut self, kind: u32, number: u64, signature: u64, payload: Arc<[u8]>) {
        let mut header = [0; FRAME];
        let length = payload.len() as u64;
        let fields = kind
            .to_le_bytes()
            .into_iter()
            .chain(number.to_le_bytes())
            .chain(signature.to_le_bytes())
            .chain(length.to_le_bytes());
        header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        self.outgoing.push_back(Outgoing { header, payload, sent: 0 });
    }

    /// Writes as much as the connection takes. True when something changed.
    fn write(&mut self) -> bool {
        let mut moved = false;
        while self.heard {
            let Some(next) = self.outgoing.front_mut() else { break };
            let rest = match next.sent.checked_sub(FRAME) {
                None => next.header.get(next.sent..),
                Some(sent) => next.payload.get(sent..),
            }
            .unwrap_or_default();
            if rest.is_empty() {
                self.outgoing.pop_front();
                continue;
            }
            // SAFETY: the bytes of a live slice. A peer that is gone gives an error instead of a signal.
            let sent = unsafe {
                libc::send(self.stream.as_raw_fd(), rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL)
            };
            match usize::try_from(sent) {
                Ok(sent) => {
                    next.sent += sent;
                    moved = true;
                }
                Err(_) if is_pause() => break,
                Err(_) => {
                    self.heard = false;
                    moved = true;
                }
            }
        }
        moved
    }

    /// Reads what has arrived. True when something changed.
    fn read(&mut self, mut deliver: impl FnMut(Tag, Option<Message>)) -> bool {
        let mut moved = false;
        while self.open {
            let space = match &mut self.body {
                Some(body) => body.bytes.get_mut(body.have..),
                None => self.header.get_mut(self.header_have..),
            }
            .unwrap_or_default();
            if !space.is_empty() {
                // SAFETY: the bytes of a live slice.
                let got =
                    unsafe { libc::recv(self.stream.as_raw_fd(), space.as_mut_ptr().cast(), space.len(), 0) };
                match usize::try_from(got) {
                    Ok(0) => self.open = false,
                    Ok(got) => {
                        moved = true;
                        match &mut self.body {
                            Some(body) => body.have += got,
                            None => self.header_have += got,
                        }
                    }
                    Err(_) if is_pause() => break,
                    Err(_) => self.open = false,
                }
                if !self.open {
                    moved = true;
                    break;
                }
            }
            self.advance(&mut deliver);
        }
        moved
    }

    /// Goes from a full header to its body, and from a full body to its delivery.
    fn advance(&mut self, deliver: &mut impl FnMut(Tag, Option<Message>)) {
        if self.body.is_none() && self.header_have == FRAME {
            self.header_have = 0;
            let word = |at: usize| {
                let bytes = self.header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                u64::from_le_bytes(bytes.unwrap_or_default())
            };
            let kind = word(0) as u32;
            let (number, signature, length) = (word(4), word(12), word(20));
            let mut bytes = Vec::new();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(tag) = Tag::from_wire(kind, number).filter(|_| bytes.try_reserve_exact(length).is_ok())
            else {
                // Not a peer that speaks this protocol, or more than there is memory for: it falls silent.
                self.open = false;
                return;
            };
            if kind & ACKNOWLEDGED != 0 {
                deliver(tag, None);
                return;
            }
            bytes.resize(length, 0);
            self.body = Some(Body { tag, signature, bytes, have: 0 });
        }
        if let Some(body) = self.body.take_if(|body| body.have == body.bytes.len()) {
            deliver(body.tag, Some(Message { signature: body.signature, payload: body.bytes.into() }));
        }
    }
}

fn is_pause() -> bool {
    let error = std::io::Error::last_os_error().kind();
    matches!(error, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
