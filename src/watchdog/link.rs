//! The control link to one peer process, shared by all worlds that have members in both.

use super::message::Message;
use crate::fault::liveness::Liveness;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::sys::robust::Watch;
use crate::sys::{fdpass, stream};
use crate::types::{HostId, ProcessId};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Descriptors that may wait for the message they came with.
const MAX_FDS: usize = 4;
/// Bytes that may wait for a peer that does not read. More means it hangs; the heartbeat will say so.
const MAX_BACKLOG: usize = 1 << 20;

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// What goes out.
#[derive(Default)]
struct Out {
    queue: VecDeque<Outgoing>,
    /// Bytes in the queue.
    len: usize,
    /// Bytes that the kernel has taken.
    taken: u64,
}

/// See the module's documentation.
pub struct Link {
    /// The process at the other end.
    pub peer: ProcessId,
    /// Its machine.
    pub host: HostId,
    /// Name in the watchdog's epoll set.
    pub token: u64,
    socket: OwnedFd,
    out: Mutex<Out>,
    input: Mutex<(Vec<u8>, VecDeque<OwnedFd>)>,
    /// Held while what came in is acted upon, so that news is heard in the order it was sent.
    pub hearing: Mutex<()>,
    /// Signs of life.
    pub liveness: Mutex<Liveness>,
    /// How to see the peer's death at once, if it is on this machine.
    pub watch: OnceLock<Arc<Watch>>,
    /// The peer's doorbell, if it is on this machine.
    pub doorbell: OnceLock<Arc<OwnedFd>>,
    /// The robust word of this process that the peer watches.
    pub slot: Option<u32>,
    /// Still open.
    pub open: AtomicBool,
}

/// What came in.
pub struct Received {
    /// Messages with their descriptors.
    pub messages: Vec<(Message, Vec<OwnedFd>)>,
    /// Why the link is over, if it is.
    pub end: Option<String>,
    /// There may be more.
    pub more: bool,
}

impl Link {
    /// A link over a connected, authenticated socket.
    pub fn new(peer: ProcessId, host: HostId, socket: OwnedFd, token: u64, slot: Option<u32>) -> Link {
        Link {
            peer,
            host,
            token,
            socket,
            out: Mutex::default(),
            input: Mutex::new((Vec::new(), VecDeque::new())),
            hearing: Mutex::new(()),
            liveness: Mutex::new(Liveness::new(Instant::now())),
            watch: OnceLock::new(),
            doorbell: OnceLock::new(),
            slot,
            open: AtomicBool::new(true),
        }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a message, or queues it; answers whether something is left to send when the socket has room.
    pub fn send(&self, message: &Message, fds: Vec<OwnedFd>) -> bool {
        if !self.open.load(Ordering::Relaxed) {
            return false;
        }
        let bytes = message.encode();
        let mut out = self.out.lock();
        if out.len + bytes.len() > MAX_BACKLOG {
            tracing::debug!("control link to {:?}: too much unread, dropping {message:?}", self.peer);
            return true;
        }
        out.len += bytes.len();
        out.queue.push_back(Outgoing { bytes, sent: 0, fds });
        Link::push(&self.socket, &mut out)
    }

    /// Sends what is queued; answers whether something is left.
    pub fn flush(&self) -> bool {
        Link::push(&self.socket, &mut self.out.lock())
    }

    /// Takes note of how much of what was sent has arrived at the peer's machine, for a peer on another one.
    pub fn heed_answers(&self, now: Instant) {
        let out = self.out.lock();
        // An end of the connection is found out by reading from it.
        let Ok(waiting) = stream::unacknowledged(self.socket.as_fd()) else { return };
        let waiting = waiting as u64;
        self.liveness.lock().answered(out.taken.saturating_sub(waiting), waiting, now);
    }

    fn push(socket: &OwnedFd, out: &mut Out) -> bool {
        while let Some(first) = out.queue.front_mut() {
            let rest = first.bytes.get(first.sent..).unwrap_or_default();
            let fds: Vec<_> = first.fds.iter().map(|f| f.as_fd()).collect();
            match fdpass::send(socket.as_fd(), rest, &fds) {
                Ok(n) => {
                    first.sent += n;
                    first.fds.clear();
                    out.len = out.len.saturating_sub(n);
                    out.taken += n as u64;
                    if first.sent == first.bytes.len() {
                        out.queue.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                // The reading side finds out why.
                Err(_) => {
                    out.queue.clear();
                    out.len = 0;
                    return false;
                }
            }
        }
        false
    }

    /// Whether something waits to be sent.
    pub fn has_backlog(&self) -> bool {
        self.open.load(Ordering::Relaxed) && !self.out.lock().queue.is_empty()
    }

    /// Descriptors that wait for their message.
    #[cfg(test)]
    pub fn held_fds(&self) -> usize {
        self.input.lock().1.len()
    }

    /// Reads what is there.
    pub fn receive(&self) -> Received {
        let mut received = Received { messages: Vec::new(), end: None, more: true };
        let mut input = self.input.lock();
        let (bytes, fds) = &mut *input;
        let mut chunk = [0; 4096];
        let mut new_fds = Vec::new();
        // Bounded, so that one chatty peer cannot keep the watchdog from its work.
        for _ in 0..16 {
            match fdpass::recv(self.socket.as_fd(), &mut chunk, &mut new_fds) {
                Ok(0) => {
                    received.end = Some("its control connection closed".into());
                    break;
                }
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    received.more = false;
                    break;
                }
                Err(e) => {
                    received.end = Some(format!("its control connection failed: {e}"));
                    break;
                }
            }
        }
        fds.extend(new_fds);
        let mut used = 0;
        loop {
            match Message::decode(bytes.get(used..).unwrap_or_default()) {
                Ok(Some((message, n))) => {
                    used += n;
                    let mine = fds.drain(..message.fds().min(fds.len())).collect();
                    received.messages.push((message, mine));
                }
                Ok(None) => break,
                Err(why) => {
                    received.end = Some(format!("it sent a malformed control message: {why}"));
                    break;
                }
            }
        }
        bytes.drain(..used);
        if bytes.is_empty() {
            // They come with the first byte of their message: these belong to none.
            fds.clear();
        } else if fds.len() > MAX_FDS {
            received.end = Some("it sent descriptors that nobody asked for".into());
        }
        received.more &= received.end.is_none();
        received
    }
}
