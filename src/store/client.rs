//! A client of the built-in store: one connection, used by many threads at once.
//!
//! No thread of its own. Of the threads that wait for an answer one is the reader: it sleeps in poll, takes
//! in what arrives, hands the others theirs and sends the signs of life that keep the leases. When it has its
//! own answer, the next one takes over. All I/O is nonblocking and under the lock; only sleeping is not.

use super::LeaseId;
use super::calls::Ask;
use super::wire::{self, Answer, Frames, Request};
use crate::auth::{self, KeyId, Purpose};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::poll::{Interest, wait_fd};
use crate::sys::socket;
use crate::types::Secret;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A call that waits gives a sign of life at least this often.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// The shortest interval between two, however short a lease is.
const ALIVE_MIN: Duration = Duration::from_millis(2);
/// Unsent bytes beyond which a call waits before it adds its own.
const MAX_OUT: usize = 1024 * 1024;
/// Silence of the store's machine after which the connection is taken for lost.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection to the built-in store. When it is lost, it stays lost: the leases are gone, and who needs the
/// store again connects anew.
pub struct Client {
    addr: SocketAddr,
    stream: TcpStream,
    inner: Mutex<Inner>,
    /// An answer has arrived, the place of the reader is free, or the connection is lost.
    changed: Condvar,
}

struct Inner {
    out: Vec<u8>,
    frames: Frames,
    last_request: u64,
    waiting: HashMap<u64, Waiting>,
    leases: HashMap<LeaseId, Duration>,
    /// Whether a thread sleeps in poll until something arrives.
    reading: bool,
    last_sent: Instant,
    lost: Option<Error>,
}

#[derive(Default)]
struct Waiting {
    answer: Option<Answer>,
    /// Of the lease that was asked for.
    ttl: Option<Duration>,
    /// The lease that is being revoked.
    revokes: Option<LeaseId>,
}

impl Inner {
    /// When the next sign of life is due.
    fn next_alive(&self) -> Instant {
        let shortest = self.leases.values().min().map_or(ALIVE_EVERY, |ttl| *ttl / 3);
        self.last_sent + shortest.clamp(ALIVE_MIN, ALIVE_EVERY)
    }
}

impl Client {
    /// Connects to `tcp://host:port`. `Code::Unauthorized`: one of the two does not know the secret.
    /// `Code::System`: nobody listens there. `Code::InvalidUsage`: something else listens there.
    /// `Code::Timeout`: no connection by `deadline`.
    pub fn connect(address: &str, key_id: KeyId, secret: &Secret, deadline: Instant) -> Result<Client> {
        let (host, port) = super::parse_address(address)?;
        let addrs = socket::resolve(&host, port, deadline)?;
        let mut first = None;
        for (i, addr) in addrs.iter().enumerate() {
            // Each address gets its share of the time: the first may lead nowhere without saying so.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addrs.len() - i).unwrap_or(u32::MAX);
            match Client::connect_to(*addr, key_id, secret, Instant::now() + share) {
                Ok(client) => return Ok(client),
                Err(e) if matches!(e.code, Code::System | Code::Timeout) => first = first.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        Err(first.unwrap_or_else(|| Error::internal("store: a name resolved to nothing")))
    }

    /// Connects to one address; errors as with [`Client::connect`].
    pub fn connect_to(addr: SocketAddr, key_id: KeyId, secret: &Secret, deadline: Instant) -> Result<Client> {
        let mut pause = Duration::from_millis(2);
        loop {
            let mut stream = socket::connect_tcp(addr, deadline).map_err(|e| match e.code {
                Code::Remote => Error { code: Code::System, ..e },
                _ => e,
            })?;
            match auth::dial(&mut stream, key_id, secret, Purpose::Store, b"", deadline) {
                Ok(_) => return Client::over(addr, stream),
                // Hung up on in the middle: the store is shedding strangers, or is only just starting or
                // stopping.
                Err(e) if e.code == Code::System => {
                    if Instant::now() + pause >= deadline {
                        return Err(Error::timeout(format!("store at {addr}: it keeps hanging up ({e})")));
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(e) => return Err(Error { text: format!("store at {addr}: {e}").into(), ..e }),
            }
        }
    }

    fn over(addr: SocketAddr, stream: TcpStream) -> Result<Client> {
        let fail = |e: io::Error| Error::system("setting up the connection to the store", &e);
        stream.set_nonblocking(true).map_err(fail)?;
        socket::set_user_timeout(&stream, SILENCE).map_err(fail)?;
        socket::set_keepalive(&stream, SILENCE).map_err(fail)?;
        let inner = Inner {
            out: Vec::new(),
            frames: Frames::new(wire::MAX_ANSWER),
            last_request: 0,
            waiting: HashMap::new(),
            leases: HashMap::new(),
            reading: false,
            last_sent: Instant::now(),
            lost: None,
        };
        Ok(Client { addr, stream, inner: Mutex::new(inner), changed: Condvar::new() })
    }

    /// Where the store is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connection's descriptor, for a watchdog that wants to know when the store is gone: to be polled
    /// for [`Interest::HANGUP`] only, never read.
    pub fn session_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Why the connection is lost, if it is.
    pub fn lost(&self) -> Option<Error> {
        let mut inner = self.inner.lock();
        if !inner.reading {
            self.receive(&mut inner);
            // What came along may be another thread's.
            self.changed.notify_all();
        }
        inner.lost.clone()
    }

    /// A sign of life, and a proof that the store answers.
    pub fn ping(&self, deadline: Instant) -> Result<()> {
        self.ask(Request::Ping, deadline).map(drop)
    }

    fn lose(&self, inner: &mut Inner, why: &str) {
        if inner.lost.is_some() {
            return;
        }
        let text = format!("store at {}: the connection is lost: {why}", self.addr);
        inner.lost = Some(Error::new(Code::System, Extent::Operation, text));
        // So that the session descriptor says so, too. Fails when the kernel knows already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    /// Sends what it can.
    fn flush(&self, inner: &mut Inner) {
        let mut sent = 0;
        while let Some(rest) = inner.out.get(sent..).filter(|r| !r.is_empty()) {
            match (&self.stream).write(rest) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.lose(inner, &e.to_string()),
            }
        }
        if sent > 0 {
            inner.out.drain(..sent);
            inner.last_sent = Instant::now();
        }
    }

    /// Takes in what has arrived.
    fn receive(&self, inner: &mut Inner) {
        let mut buf = [0; 16 * 1024];
        while inner.lost.is_none() {
            match (&self.stream).read(&mut buf) {
                Ok(0) => self.lose(inner, "the store has closed it"),
                Ok(n) => {
                    inner.frames.extend(buf.get(..n).unwrap_or_default());
                    if let Err(e) = take_answers(inner) {
                        self.lose(inner, &format!("the store sent {}", e.0));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.lose(inner, &e.to_string()),
            }
        }
    }

    /// Sleeps until the connection is ready, without the lock.
    fn sleep(&self, inner: &mut MutexGuard<'_, Inner>, interest: Interest, until: Instant) {
        let woken = MutexGuard::unlocked(inner, || wait_fd(&self.stream, interest, until));
        if let Err(e) = woken {
            self.lose(inner, &e.to_string());
        }
    }

    /// One step of waiting for an answer.
    fn wait(&self, inner: &mut MutexGuard<'_, Inner>, deadline: Instant) {
        let interest = if inner.out.is_empty() { Interest::READ } else { Interest::READ | Interest::WRITE };
        if inner.reading {
            if inner.out.is_empty() {
                self.changed.wait_until(inner, deadline);
            } else {
                // The reader may have gone to sleep before there was something to send.
                self.sleep(inner, Interest::WRITE, deadline);
            }
            return;
        }
        inner.reading = true;
        // With bytes unsent no sign of life is due: they are one.
        let until = if inner.out.is_empty() { inner.next_alive().min(deadline) } else { deadline };
        self.sleep(inner, interest, until);
        inner.reading = false;
        self.receive(inner);
        if Instant::now() >= inner.next_alive() && inner.out.is_empty() {
            wire::encode_request(0, &Request::Alive, &mut inner.out);
        }
        if inner.waiting.len() > 1 {
            // Some have their answers now, and should this thread be done, one of them must read on.
            self.changed.notify_all();
        }
    }

    fn late(&self) -> Error {
        Error::timeout(format!("store at {}: no answer in time", self.addr))
    }
}

impl Ask for Client {
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer> {
        let mut inner = self.inner.lock();
        self.flush(&mut inner);
        while inner.out.len() > MAX_OUT && inner.lost.is_none() {
            if Instant::now() >= deadline {
                return Err(self.late());
            }
            self.sleep(&mut inner, Interest::WRITE, deadline);
            self.flush(&mut inner);
        }
        let mut waiting = Waiting::default();
        match request {
            Request::Lease { ttl } => waiting.ttl = Some(ttl),
            Request::Revoke { lease } => waiting.revokes = Some(lease),
            _ => {}
        }
        inner.last_request += 1;
        let id = inner.last_request;
        inner.waiting.insert(id, waiting);
        wire::encode_request(id, &request, &mut inner.out);
        loop {
            self.flush(&mut inner);
            if let Some(answer) = inner.waiting.get_mut(&id).and_then(|w| w.answer.take()) {
                inner.waiting.remove(&id);
                return Ok(answer);
            }
            if let Some(e) = inner.lost.clone() {
                inner.waiting.remove(&id);
                return Err(e);
            }
            if Instant::now() >= deadline {
                inner.waiting.remove(&id);
                if let Request::Watch { .. } = request {
                    wire::encode_request(0, &Request::Cancel { request: id }, &mut inner.out);
                    self.flush(&mut inner);
                }
                return Err(self.late());
            }
            self.wait(&mut inner, deadline);
        }
    }
}

fn take_answers(inner: &mut Inner) -> std::result::Result<(), wire::Malformed> {
    while let Some(body) = inner.frames.next_body()? {
        let (id, answer) = wire::decode_answer(body)?;
        // The answer to a call that has given up is nobody's.
        let Some(waiting) = inner.waiting.get_mut(&id) else { continue };
        if let (Answer::Lease(lease), Some(ttl)) = (&answer, waiting.ttl) {
            inner.leases.insert(*lease, ttl);
        }
        if let Some(lease) = waiting.revokes {
            inner.leases.remove(&lease);
        }
        waiting.answer = Some(answer);
    }
    Ok(())
}

impl Drop for Client {
    fn drop(&mut self) {
        // Closing alone would leave the leases alive in a process that has forked.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
