//! The built-in store's server: one thread, epoll, nothing that blocks.
//!
//! What strangers can cost: at most [`HALF_OPEN`] connections that have not proven themselves, each with a
//! fixed-size handshake and [`HANDSHAKE`] of time; a new one takes the place of the oldest from where most come from.
//! Connections that have proven themselves are served before new ones are accepted, and few are accepted at a time, so that a
//! flood costs the others little. Each key id has a store of its own: clients of one secret see nothing of
//! another's.
//!
//! A client with a session says so in the claim of its handshake ([`super::wire::claim`]) and is welcomed before
//! anything else. When it comes while its former connection is still there, that one is dropped with all that lies in
//! it unread: what the client still wants, it asks again.
//!
//! With a journal, what a round of events has changed is written down before any of its answers is sent. When that
//! fails, the server ends: it must not promise what it cannot keep.

mod conn;

use super::history::Stores;
use super::journal::{Fsync, Journal};
use super::state::{ClientId, Limits, SESSION, State};
use super::wire::{self, Answer, Frames};
use crate::auth::{KeyId, Purpose, ServerHandshake, ServerStep, gives_way, nonce};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{Epoll, Event, Interest};
use crate::sys::{clock, process, socket};
use crate::types::Secret;
use conn::{Conn, Phase};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The secret of a key id. Called on the server's thread: it must be quick.
pub type Keys = Arc<dyn Fn(KeyId) -> Option<Secret> + Send + Sync>;

/// Connections that may be in their handshake at the same time.
pub const HALF_OPEN: usize = 64;
/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(2);

const BACKLOG: u16 = 4096;
/// New connections per round.
const ACCEPTS: usize = 16;
/// Events per round.
const EVENTS: usize = 256;
/// Rounds in a row that may be full before expired leases are looked for all the same.
const FULL_ROUNDS: u32 = 8;
/// Output beyond which a client is not listened to any more until it has read some.
const SOFT_OUTPUT: usize = 1024 * 1024;
/// Output beyond which a client is given up: it has not read for long.
const HARD_OUTPUT: usize = 2 * wire::MAX_ANSWER + SOFT_OUTPUT;
/// How long nothing is accepted after the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silence after which a client's machine is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(15);
const WARN_EVERY: Duration = Duration::from_secs(10);

const LISTENER: u64 = 0;
const STOP: u64 = 1;

/// A running server. Dropping it stops it and closes all its connections.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    failed: Failed,
}

/// Why a server has ended by itself.
type Failed = Arc<Mutex<Option<Error>>>;

impl Server {
    /// Serves clients that know one of the secrets that `keys` gives.
    pub fn start(listener: TcpListener, keys: Keys) -> Result<Server> {
        Server::start_with(listener, keys, Limits::default())
    }

    /// The same with other limits for each key id's store.
    pub fn start_with(listener: TcpListener, keys: Keys, limits: Limits) -> Result<Server> {
        Server::run(listener, keys, limits, None, false)
    }

    /// The same for a process that is nothing but a store: clients wait until it is started again, and put none of their
    /// own in its place.
    pub fn start_alone(listener: TcpListener, keys: Keys) -> Result<Server> {
        Server::run(listener, keys, Limits::default(), None, true)
    }

    /// The same for stores that are kept in the folder `dir`, which is made if it is not there: a server that is
    /// started with it later goes on where this one has ended, however that happens.
    pub fn start_kept(listener: TcpListener, keys: Keys, dir: &Path, fsync: Fsync) -> Result<Server> {
        Server::run(listener, keys, Limits::default(), Some((dir, fsync)), true)
    }

    fn run(
        listener: TcpListener,
        keys: Keys,
        limits: Limits,
        kept: Option<(&Path, Fsync)>,
        returns: bool,
    ) -> Result<Server> {
        let fail = |e: io::Error| Error::system("starting the store", &e);
        listener.set_nonblocking(true).map_err(fail)?;
        socket::set_backlog(&listener, BACKLOG).map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        let epoll = Epoll::new().map_err(fail)?;
        let stop = Arc::new(EventFd::new().map_err(fail)?);
        epoll.add(&listener, LISTENER, Interest::READ).map_err(fail)?;
        epoll.add(&*stop, STOP, Interest::READ).map_err(fail)?;
        // Stores of other processes, at this address and before, have counted from an earlier time. So none of their
        // revisions means anything here, and watches that name one are answered.
        let mut dropped_revision = clock::unix_micros();
        let mut stores = Stores::new();
        let mut journal = None;
        let incarnation = match kept {
            Some((dir, fsync)) => {
                let (opened, found) = Journal::open(dir, fsync, limits, Instant::now())?;
                dropped_revision = dropped_revision.max(found.revision);
                stores = found.stores;
                journal.insert(opened).incarnation()
            }
            None => {
                let mut id = [0; 8];
                crate::auth::fill_random(&mut id)?;
                u64::from_le_bytes(id)
            }
        };
        let failed = Failed::default();
        let mut service = Service {
            epoll,
            listener,
            keys,
            limits,
            conns: HashMap::new(),
            half_open: VecDeque::new(),
            last_token: STOP,
            stores,
            clients: HashMap::new(),
            dropped_revision,
            incarnation,
            returns,
            journal,
            failed: failed.clone(),
            dirty: Vec::new(),
            paused_until: None,
            strangers: Strangers::default(),
            scratch: vec![0; 64 * 1024],
        };
        // The thread holds the other end of the bell, so that the descriptor outlives the epoll.
        let bell = stop.clone();
        let thread = process::spawn("mw-store", move || {
            service.run();
            drop(bell);
        })?;
        Ok(Server { addr, stop, thread: Some(thread), failed })
    }

    /// Why it has ended by itself, if it has.
    pub fn failed(&self) -> Option<Error> {
        self.failed.lock().clone()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(e) = self.stop.signal() {
            // The thread would never end: joining it would hang.
            tracing::error!(error = %e, "the store cannot be stopped");
            return;
        }
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the store's thread has panicked");
        }
    }
}

struct Service {
    epoll: Epoll,
    listener: TcpListener,
    keys: Keys,
    limits: Limits,
    conns: HashMap<u64, Conn>,
    /// Connections in their handshake, oldest first.
    half_open: VecDeque<u64>,
    last_token: u64,
    stores: Stores,
    /// The connection of each client.
    clients: HashMap<(KeyId, ClientId), u64>,
    /// Where a store that comes into being begins to count: above all that were dropped, so that a revision
    /// from before never lies in its future.
    dropped_revision: u64,
    /// Names what the stores know.
    incarnation: u64,
    /// Whether it is started again when it ends, and worth waiting for.
    returns: bool,
    journal: Option<Journal>,
    failed: Failed,
    /// Connections with something to send.
    dirty: Vec<u64>,
    paused_until: Option<Instant>,
    strangers: Strangers,
    scratch: Vec<u8>,
}

impl Service {
    fn run(&mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut full_rounds = 0;
        loop {
            let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            if let Err(e) = self.epoll.wait(&mut events, EVENTS, timeout) {
                tracing::error!(error = %e, "the store stops");
                *self.failed.lock() = Some(Error::system("waiting for clients of the store", &e));
                break;
            }
            let now = Instant::now();
            let mut incoming = false;
            for event in &events {
                match event.token {
                    LISTENER => incoming = true,
                    STOP => return self.close_all(),
                    token => self.on_event(token, *event, now),
                }
            }
            // Signs of life that already lie in the sockets count before leases end: this thread may have
            // been stopped for a while.
            full_rounds = if events.len() == EVENTS { full_rounds + 1 } else { 0 };
            if full_rounds % FULL_ROUNDS == 0 {
                self.tick(now);
            }
            if let Err(e) = self.settle(now) {
                tracing::error!(error = %e, "the store stops");
                *self.failed.lock() = Some(e);
                break;
            }
            if incoming {
                self.accept(now);
            }
        }
        self.close_all();
    }

    fn next_deadline(&self) -> Option<Instant> {
        let handshake = self.half_open.front().and_then(|t| self.conns.get(t)).and_then(|c| match c.phase {
            Phase::Handshake { deadline, .. } => Some(deadline),
            Phase::Client { .. } => None,
        });
        let leases = self.stores.values().filter_map(State::next_deadline);
        let sync = self.journal.as_ref().and_then(Journal::next_deadline);
        leases.chain(handshake).chain(self.paused_until).chain(sync).min()
    }

    fn tick(&mut self, now: Instant) {
        for state in self.stores.values_mut() {
            state.tick(now);
        }
        self.drop_idle();
        while let Some(&token) = self.half_open.front()
            && let Some(conn) = self.conns.get(&token)
            && let Phase::Handshake { deadline, .. } = conn.phase
            && deadline <= now
        {
            self.strangers.note(conn.addr, "it did not finish the handshake in time", now);
            self.close(token);
        }
        if self.paused_until.is_some_and(|at| at <= now) {
            match self.epoll.modify(&self.listener, LISTENER, Interest::READ) {
                Ok(()) => self.paused_until = None,
                Err(_) => self.paused_until = Some(now + ACCEPT_PAUSE),
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS {
            match socket::accept_tcp(&self.listener) {
                Ok(Some((stream, addr))) => self.welcome(stream, addr, now),
                Ok(None) => return,
                Err(e) => {
                    // A stranger gives way; when there is none, who waits in the backlog waits on.
                    if socket::is_exhausted(&e) && self.evict(now) {
                        continue;
                    }
                    if self.epoll.modify(&self.listener, LISTENER, Interest::NONE).is_ok() {
                        self.paused_until = Some(now + ACCEPT_PAUSE);
                    }
                    return;
                }
            }
        }
    }

    /// Closes a connection that has not proven itself; `false` when there is none.
    fn evict(&mut self, now: Instant) -> bool {
        let conns = &self.conns;
        let waiting = self.half_open.iter().map(|t| (*t, conns.get(t).map(|c| c.addr.ip())));
        let Some(token) = gives_way(waiting) else { return false };
        if let Some(conn) = self.conns.get(&token) {
            self.strangers.note(conn.addr, "too many connections are in their handshake", now);
        }
        self.close(token);
        true
    }

    fn welcome(&mut self, mut stream: TcpStream, addr: SocketAddr, now: Instant) {
        if self.half_open.len() >= HALF_OPEN {
            self.evict(now);
        }
        let Ok(nonce) = nonce() else { return };
        let handshake = Box::new(ServerHandshake::new(nonce));
        let greeting = handshake.greeting();
        // A new connection has room for so little.
        if !matches!(stream.write(&greeting), Ok(n) if n == greeting.len()) {
            return;
        }
        self.last_token += 1;
        let token = self.last_token;
        if self.epoll.add(&stream, token, Interest::READ).is_err() {
            return;
        }
        let phase = Phase::Handshake { handshake, deadline: now + HANDSHAKE };
        self.conns.insert(token, Conn::new(stream, addr, phase));
        self.half_open.push_back(token);
    }

    fn on_event(&mut self, token: u64, event: Event, now: Instant) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        if event.writable() {
            mark(&mut self.dirty, conn, token);
        }
        if conn.is_choked() {
            if event.hangup() {
                self.close(token);
            }
            return;
        }
        if !event.readable() {
            return;
        }
        let n = match conn.stream.read(&mut self.scratch) {
            Ok(0) => return self.lose(token, now),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.lose(token, now),
        };
        let mut newcomer = None;
        let mut input = self.scratch.get(..n).unwrap_or_default();
        if let Phase::Handshake { handshake, .. } = &mut conn.phase {
            let (used, step) = handshake.receive(input, &*self.keys);
            match step {
                ServerStep::NeedMore => return,
                ServerStep::Refused { reply, reason } => {
                    // If it does not get through, the stranger learns less.
                    let _ = conn.stream.write(&reply);
                    self.strangers.note(conn.addr, &reason.text, now);
                    return self.close(token);
                }
                ServerStep::Done { peer, .. } if peer.purpose != Purpose::Store => {
                    self.strangers.note(conn.addr, "it is no client of a store", now);
                    return self.close(token);
                }
                ServerStep::Done { reply, peer } => {
                    if let Err(e) = socket::set_keepalive(&conn.stream, KEEPALIVE) {
                        tracing::debug!(error = %e, peer = %conn.addr, "no keep-alive for a store client");
                    }
                    let Some(client) = wire::client_of(&peer.claim, token) else {
                        self.strangers.note(conn.addr, "it claims what no client of a store does", now);
                        return self.close(token);
                    };
                    conn.out().extend_from_slice(&reply);
                    mark(&mut self.dirty, conn, token);
                    self.half_open.retain(|&t| t != token);
                    input = input.get(used..).unwrap_or_default();
                    conn.phase =
                        Phase::Client { key_id: peer.key_id, client, frames: Frames::new(wire::MAX_REQUEST) };
                    newcomer = Some((peer.key_id, client));
                }
            }
        }
        if let Phase::Client { frames, .. } = &mut conn.phase {
            frames.extend(input);
        }
        if let Some((key_id, client)) = newcomer {
            self.greet(token, key_id, client, now);
        }
        self.serve(token, now);
    }

    /// A client has proven itself.
    fn greet(&mut self, token: u64, key_id: KeyId, client: ClientId, now: Instant) {
        if let Some(former) = self.clients.insert((key_id, client), token) {
            self.discard(former);
        }
        let (limits, revision, is_kept) = (self.limits, self.dropped_revision, self.journal.is_some());
        let state = self.stores.entry(key_id).or_insert_with(|| match is_kept {
            true => State::recorded(limits, revision),
            false => State::new(limits, revision),
        });
        let resumed = state.connect(client, now);
        if client & SESSION != 0
            && let Some(conn) = self.conns.get_mut(&token)
        {
            let leases = state.leases_of(client);
            let welcome =
                Answer::Welcome { incarnation: self.incarnation, resumed, returns: self.returns, leases };
            wire::encode_answer(0, &welcome, conn.out());
        }
    }

    /// Carries out the requests of a client that have arrived completely, until it has to read answers first.
    fn serve(&mut self, token: u64, now: Instant) {
        while let Some(conn) = self.conns.get_mut(&token)
            && !conn.is_choked()
            && let Phase::Client { key_id, client, frames } = &mut conn.phase
        {
            let Some(state) = self.stores.get_mut(key_id) else { return };
            state.alive(*client, now);
            let decoded = match frames.next_body() {
                Ok(None) => return,
                Ok(Some(body)) => wire::decode_request(body),
                Err(e) => Err(e),
            };
            match decoded {
                Ok((id, request)) => {
                    state.request(*client, id, request, now);
                    for action in state.take_actions() {
                        wire::encode_answer(action.request, &action.answer, conn.out());
                    }
                    mark(&mut self.dirty, conn, token);
                }
                Err(e) => {
                    tracing::warn!(peer = %conn.addr, "a store client sent {}", e.0);
                    return self.close(token);
                }
            }
        }
    }

    /// Answers watches, writes down what has changed and sends everything that is to be sent.
    fn settle(&mut self, now: Instant) -> Result<()> {
        loop {
            for (key_id, state) in &mut self.stores {
                state.settle();
                for action in state.take_actions() {
                    if let Some(&token) = self.clients.get(&(*key_id, action.client))
                        && let Some(conn) = self.conns.get_mut(&token)
                    {
                        wire::encode_answer(action.request, &action.answer, conn.out());
                        mark(&mut self.dirty, conn, token);
                    }
                }
            }
            self.write_down(now)?;
            if self.dirty.is_empty() {
                return Ok(());
            }
            // What one of them asks while it is pumped is answered in the next round only.
            for token in std::mem::take(&mut self.dirty) {
                self.pump(token, now);
            }
        }
    }

    /// Nothing that has an answer is lost after this.
    fn write_down(&mut self, now: Instant) -> Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        for (key_id, state) in &mut self.stores {
            for record in state.take_records() {
                journal.append(*key_id, &record);
            }
        }
        journal.commit(now)?;
        journal.tick(now)?;
        if journal.is_long() {
            journal.compact(&self.stores);
        }
        Ok(())
    }

    /// Stores that hold nothing and have no client.
    fn drop_idle(&mut self) {
        let Service { stores, journal, dropped_revision, .. } = self;
        stores.retain(|key_id, state| {
            if !state.is_idle() {
                return true;
            }
            *dropped_revision = (*dropped_revision).max(state.revision());
            for record in state.take_records() {
                if let Some(journal) = journal {
                    journal.append(*key_id, &record);
                }
            }
            false
        });
    }

    /// Sends what a connection has to send. A client that has read enough is listened to again.
    fn pump(&mut self, token: u64, now: Instant) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        conn.dirty = false;
        let was_choked = conn.is_choked();
        if conn.flush().is_err() {
            return self.close(token);
        }
        if conn.pending() > HARD_OUTPUT {
            tracing::warn!(peer = %conn.addr, "a store client does not read its answers and is given up");
            return self.close(token);
        }
        if conn.update_interest(&self.epoll, token).is_err() {
            return self.close(token);
        }
        if was_choked {
            self.serve(token, now);
        }
    }

    /// The peer has closed the connection.
    fn lose(&mut self, token: u64, now: Instant) {
        if let Some(conn) = self.conns.get(&token)
            && let Phase::Handshake { .. } = conn.phase
        {
            self.strangers.note(conn.addr, "it left before it had proven anything", now);
        }
        self.close(token);
    }

    fn close(&mut self, token: u64) {
        let Some(conn) = self.conns.remove(&token) else { return };
        self.release(&conn);
        match conn.phase {
            Phase::Handshake { .. } => self.half_open.retain(|&t| t != token),
            Phase::Client { key_id, client, .. } => {
                self.clients.remove(&(key_id, client));
                if let Some(state) = self.stores.get_mut(&key_id) {
                    state.disconnect(client);
                    if state.is_idle() {
                        self.drop_idle();
                    }
                }
            }
        }
    }

    /// A client has come back on another connection than this one.
    fn discard(&mut self, token: u64) {
        if let Some(conn) = self.conns.remove(&token) {
            self.release(&conn);
        }
    }

    /// Closing alone would not do when the process has forked: the child holds the connection, too, and with
    /// it the epoll's interest.
    fn release(&self, conn: &Conn) {
        // Both fail on a connection that is gone already.
        let _ = self.epoll.delete(&conn.stream);
        let _ = conn.stream.shutdown(Shutdown::Both);
    }

    fn close_all(&mut self) {
        for (_, conn) in std::mem::take(&mut self.conns) {
            self.release(&conn);
        }
    }
}

/// Has the connection looked after at the end of the round.
fn mark(dirty: &mut Vec<u64>, conn: &mut Conn, token: u64) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push(token);
    }
}

/// Who was turned away since the last log line.
#[derive(Default)]
struct Strangers {
    count: u64,
    last: Option<Instant>,
}

impl Strangers {
    fn note(&mut self, peer: SocketAddr, why: &str, now: Instant) {
        self.count += 1;
        if self.last.is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY) {
            return;
        }
        tracing::warn!(%peer, why, count = self.count, "the store has refused connections; peer is the last one");
        self.count = 0;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;
