//! The door of a process: inbound connections prove that they know a world's secret, or go.
//!
//! A stranger costs one of a bounded number of places for a bounded time, and changes nothing. When all places are
//! taken, somebody from where most come from gives way.

use super::{DataKey, Watchdog};
use crate::auth::handshake::{Peer, RESPONSE, ServerHandshake, ServerStep};
use crate::auth::{self, Purpose};
use crate::sync::Arc;
use crate::sys::poll::{Epoll, Interest};
use crate::sys::socket;
use crate::types::{HostId, ProcessId, WorldId};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Connections that may be in the middle of their handshake.
const HALF_OPEN: usize = 128;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Data connections nobody has asked for yet.
const INBOX: usize = 8192;
/// Pause when the process is out of descriptors.
const EXHAUSTED: Duration = Duration::from_millis(10);
/// At most one log line about strangers in this time.
const QUIET: Duration = Duration::from_secs(5);

const TCP: u64 = 0;
const UNIX: u64 = 1;
const BEYOND: u64 = 2;
const OPENED: u64 = 3;
const FIRST: u64 = 4;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buf),
            Stream::Unix(s) => s.read(buf),
        }
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.write_all(buf),
            Stream::Unix(s) => s.write_all(buf),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.set_nonblocking(true),
            Stream::Unix(s) => s.set_nonblocking(true),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}

struct Pending {
    stream: Stream,
    /// None: from this machine.
    from: Option<IpAddr>,
    handshake: ServerHandshake,
    since: Instant,
}

struct Door<'a> {
    w: &'a Watchdog,
    epoll: Epoll,
    /// By arrival: tokens only grow.
    pending: BTreeMap<u64, Pending>,
    next: u64,
    refused: u64,
    said: Option<Instant>,
}

pub(super) fn run(w: &Arc<Watchdog>, tcp: &TcpListener, unix: &UnixListener) {
    super::for_ever("mw-accept", || {
        if let Err(e) = serve(w, tcp, unix) {
            tracing::error!("accepting connections failed: {e}");
        }
    });
}

fn serve(w: &Watchdog, tcp: &TcpListener, unix: &UnixListener) -> io::Result<()> {
    let epoll = Epoll::new()?;
    tcp.set_nonblocking(true)?;
    unix.set_nonblocking(true)?;
    epoll.add(tcp, TCP, Interest::READ)?;
    epoll.add(unix, UNIX, Interest::READ)?;
    epoll.add(&w.opened, OPENED, Interest::READ)?;
    let mut beyond = None;
    let mut door = Door { w, epoll, pending: BTreeMap::new(), next: FIRST, refused: 0, said: None };
    let mut events = Vec::new();
    loop {
        if beyond.is_none()
            && let Some((listener, _)) = w.beyond.get()
        {
            listener.set_nonblocking(true)?;
            door.epoll.add(listener, BEYOND, Interest::READ)?;
            beyond = Some(listener);
        }
        let now = Instant::now();
        while let Some((&token, p)) = door.pending.iter().next()
            && now.saturating_duration_since(p.since) >= PATIENCE
        {
            door.refuse(token, "it did not finish its handshake in time");
        }
        let oldest = door.pending.values().next();
        let left = oldest.map(|p| (p.since + PATIENCE).saturating_duration_since(now));
        door.epoll.wait(&mut events, 64, left)?;
        for e in &events {
            match e.token {
                TCP => door.accept_tcp(tcp),
                BEYOND => beyond.into_iter().for_each(|listener| door.accept_tcp(listener)),
                OPENED => drop(w.opened.drain()?),
                UNIX => door.accept(|| Ok(socket::accept_unix(unix)?.map(|s| (Stream::Unix(s), None)))),
                token => door.hear(token),
            }
        }
    }
}

impl Door<'_> {
    fn accept_tcp(&mut self, listener: &TcpListener) {
        self.accept(|| Ok(socket::accept_tcp(listener)?.map(|(s, from)| (Stream::Tcp(s), Some(from.ip())))));
    }

    fn accept(&mut self, accept: impl Fn() -> io::Result<Option<(Stream, Option<IpAddr>)>>) {
        // Bounded, so that a flood at one listener does not starve the handshakes under way.
        for _ in 0..32 {
            match accept() {
                Ok(Some((stream, from))) => self.greet(stream, from),
                Ok(None) => return,
                Err(e) => {
                    self.say(&e.to_string());
                    if socket::is_exhausted(&e) {
                        std::thread::sleep(EXHAUSTED);
                    }
                    return;
                }
            }
        }
    }

    fn greet(&mut self, mut stream: Stream, from: Option<IpAddr>) {
        // Members of another user come by TCP: they count as on another machine.
        if let Stream::Unix(s) = &stream
            && !matches!(socket::is_trusted_user(s), Ok(true))
        {
            return self.say("it belongs to another user");
        }
        if self.pending.len() >= HALF_OPEN
            && let Some(token) = auth::gives_way(self.pending.iter().map(|(token, p)| (*token, p.from)))
        {
            self.refuse(token, "too many handshakes at once");
        }
        let Ok(nonce) = auth::nonce() else { return };
        let handshake = ServerHandshake::new(nonce);
        let token = self.next;
        self.next += 1;
        // A new socket has room for the greeting.
        if stream.set_nonblocking().is_ok()
            && stream.write_all(&handshake.greeting()).is_ok()
            && self.epoll.add(&stream, token, Interest::READ).is_ok()
        {
            self.pending.insert(token, Pending { stream, from, handshake, since: Instant::now() });
        }
    }

    fn refuse(&mut self, token: u64, why: &str) {
        if self.pending.remove(&token).is_some() {
            self.say(why);
        }
    }

    fn say(&mut self, why: &str) {
        self.refused += 1;
        let now = Instant::now();
        if self.said.is_none_or(|t| now.saturating_duration_since(t) >= QUIET) {
            self.said = Some(now);
            tracing::warn!("refused {} inbound connections so far; the last because {why}", self.refused);
        }
    }

    fn hear(&mut self, token: u64) {
        let Some(p) = self.pending.get_mut(&token) else { return };
        let mut buf = [0; 512];
        let want = p.handshake.wanted().min(buf.len());
        let n = match p.stream.read(&mut buf[..want]) {
            Ok(0) if want == RESPONSE.min(buf.len()) => {
                // It has only looked whether somebody is here.
                self.pending.remove(&token);
                return;
            }
            Ok(0) => return self.refuse(token, "it closed in the middle of its handshake"),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.refuse(token, "its connection failed"),
        };
        let keys = self.w.keys.read();
        let (_, step) = p.handshake.receive(&buf[..n], &|id| keys.get(&id).map(|(secret, _)| secret.clone()));
        drop(keys);
        match step {
            ServerStep::NeedMore => {}
            ServerStep::Refused { reply, reason } => {
                // It may be gone already.
                let _ = p.stream.write_all(&reply);
                self.refuse(token, &reason.text);
            }
            ServerStep::Done { reply, peer } => {
                let Some(mut p) = self.pending.remove(&token) else { return };
                if self.epoll.delete(&p.stream).is_ok()
                    && p.stream.write_all(&reply).is_ok()
                    && let Err(why) = admit(self.w, p.stream, &peer)
                {
                    self.say(&why);
                }
            }
        }
    }
}

/// Puts an authenticated connection where it belongs.
fn admit(w: &Watchdog, stream: Stream, peer: &Peer) -> Result<(), String> {
    let mut claim = Claim(&peer.claim);
    match (peer.purpose, stream) {
        (Purpose::Control, stream) => {
            let (from, host, to) = claim.control().ok_or("its claim is malformed")?;
            if to != w.address.process {
                return Err("it looks for another process".into());
            }
            let socket: OwnedFd = match stream {
                Stream::Tcp(s) => s.into(),
                Stream::Unix(s) => s.into(),
            };
            w.adopt_link(from, host, socket).map_err(|e| e.text.to_string())
        }
        (Purpose::Data, Stream::Tcp(s)) => {
            let key = claim.data().ok_or("its claim is malformed")?;
            if key.0.0 != peer.key_id.0 {
                return Err("it claims another world than its key's".into());
            }
            let mut inbox = w.inbox.lock();
            if inbox.len() >= INBOX {
                return Err("too many unclaimed connections".into());
            }
            // With the lock held: `dismiss` takes the key away first and then what came for it.
            if !w.keys.read().contains_key(&peer.key_id) {
                return Err("its world has ended".into());
            }
            inbox.insert(key, s);
            drop(inbox);
            w.inbox_changed.notify_all();
            Ok(())
        }
        _ => Err("this is not its door".into()),
    }
}

struct Claim<'a>(&'a [u8]);

impl Claim<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn control(&mut self) -> Option<(ProcessId, HostId, ProcessId)> {
        Some((ProcessId(self.take()?), HostId(self.take()?), ProcessId(self.take()?)))
    }

    fn data(&mut self) -> Option<DataKey> {
        let world = WorldId(self.take()?);
        let epoch = u64::from_le_bytes(self.take()?);
        let from = u32::from_le_bytes(self.take()?);
        Some((world, epoch, from, u32::from_le_bytes(self.take()?)))
    }
}
