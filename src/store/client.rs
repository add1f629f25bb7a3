//! A client of the built-in store: one connection, used by many threads at once, and made anew when it is lost.
//!
//! No thread of its own. Of the threads that wait for an answer one is the reader: it sleeps in poll, takes
//! in what arrives, hands the others theirs and sends the signs of life that keep the leases. When it has its
//! own answer, the next one takes over. Without a connection, one of them makes a new one in the same way. All I/O on
//! a connection is nonblocking and under the lock; only sleeping, and connecting, is not.
//!
//! # When the connection is lost
//!
//! Calls go on until their deadlines. The client has a session, whose id it chooses; a store that knows it says so
//! in its welcome, and which of its leases live. Everything that has no answer yet is then asked again, in order and
//! under its old number:
//!
//! - What reads may be asked twice. A watch names its revision, so it misses nothing.
//! - What changes something must not be done twice, and its answer may be what was lost. Reading back would not tell
//!   whether a value is this client's or one that another has put there since, or has put over it. So the store
//!   remembers what requests have done ([`super::state`]) until it hears that the answers have arrived, writes
//!   that down where it writes down the change, and answers from memory. A store that has forgotten the session, which
//!   takes it [`MEMORY`] without a sign of life, cannot tell any more, nor can the call: its error says so.
//! - Another incarnation of the store knows nothing of what was. Whatever is asked is asked it for the first time; a
//!   watch becomes a list, because all may have changed; a lease is lost, and calls that name it say why.
//!
//! A store that stands alone, or keeps what it knows, is waited for. Where the store was another process's memory, nobody may come back:
//! a client that was told how ([`Client::stand_in`]) puts another in its place after a while.

use super::LeaseId;
use super::calls::Ask;
use super::state::{ClientId, MEMORY, SESSION};
use super::wire::{self, Answer, Frames, Refusal, Request};
use crate::auth::{self, KeyId, Purpose};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use crate::sys::poll::{Interest, wait_fd};
use crate::sys::socket;
use crate::types::Secret;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A call that waits gives a sign of life at least this often.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// The shortest interval between two, however short a lease is.
const ALIVE_MIN: Duration = Duration::from_millis(2);
/// Unsent bytes beyond which a call waits before it adds its own.
const MAX_OUT: usize = 1024 * 1024;
/// Silence of the store's machine after which the connection is taken for lost.
const SILENCE: Duration = Duration::from_secs(10);
/// How long one attempt to connect anew may take, so that a packet that was lost does not cost much more.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The first pause between two attempts, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long after a request was sent its store must still know what it has done: [`MEMORY`], but for a margin.
const KNOWN: Duration = MEMORY.saturating_sub(Duration::from_secs(10));
/// How long a store that forgets may be away before another is put in its place.
const ABSENCE: Duration = Duration::from_secs(2);
/// Lost leases of which it is remembered why.
const LOST_LEASES: usize = 1024;

/// Puts a store where nobody listens; answers whether it could.
pub type StandIn = Box<dyn Fn() -> Result<bool> + Send + Sync>;

/// A client of the built-in store.
pub struct Client {
    addr: SocketAddr,
    key_id: KeyId,
    secret: Secret,
    session: ClientId,
    /// Whether it connects anew.
    lasting: bool,
    stand_in: OnceLock<StandIn>,
    inner: Mutex<Inner>,
    /// An answer has arrived, the place of the reader or of who connects is free, or the connection is lost or there.
    changed: Condvar,
}

struct Inner {
    link: Option<Arc<TcpStream>>,
    /// Connections so far.
    links: u64,
    out: Vec<u8>,
    frames: Frames,
    last_request: u64,
    waiting: BTreeMap<u64, Waiting>,
    leases: HashMap<LeaseId, Duration>,
    lost_leases: BTreeMap<LeaseId, &'static str>,
    /// The store has been told that all answers before this request's have arrived.
    settled: u64,
    /// Of the store that it was last connected to.
    incarnation: u64,
    /// Whether that one is started again when it ends.
    returns: bool,
    /// Whether a thread sleeps in poll until something arrives.
    reading: bool,
    /// Whether a thread makes a new connection.
    connecting: bool,
    /// Before the next attempt.
    pause: Duration,
    last_sent: Instant,
    /// Why there is no connection, and since when.
    lost: Option<Error>,
    lost_since: Instant,
}

struct Waiting {
    request: Request,
    /// When the request was put on its way first, if it was.
    since: Option<Instant>,
    answer: Option<Result<Answer>>,
}

/// A connection on which the store has said its welcome.
struct Link {
    stream: TcpStream,
    frames: Frames,
    incarnation: u64,
    resumed: bool,
    returns: bool,
    leases: Vec<LeaseId>,
}

impl Inner {
    /// When the next sign of life is due.
    fn next_alive(&self) -> Instant {
        let shortest = self.leases.values().min().map_or(ALIVE_EVERY, |ttl| *ttl / 3);
        self.last_sent + shortest.clamp(ALIVE_MIN, ALIVE_EVERY)
    }

    /// Puts a new request on its way, if there is one.
    fn post(&mut self, request: Request) -> u64 {
        self.last_request += 1;
        let id = self.last_request;
        let since = self.link.is_some().then(Instant::now);
        if since.is_some() {
            if request.changes() {
                let below = self.waiting.iter().find(|(_, w)| w.request.changes()).map_or(id, |(id, _)| *id);
                if below > self.settled {
                    self.settled = below;
                    wire::encode_request(0, &Request::Settled { below }, &mut self.out);
                }
            }
            wire::encode_request(id, &request, &mut self.out);
        }
        self.waiting.insert(id, Waiting { request, since, answer: None });
        id
    }

    fn lose_lease(&mut self, lease: LeaseId, why: &'static str) {
        if self.leases.remove(&lease).is_some() {
            self.lost_leases.insert(lease, why);
            if self.lost_leases.len() > LOST_LEASES {
                self.lost_leases.pop_first();
            }
        }
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
        Client::start(addr, key_id, secret, true, deadline)
    }

    /// The same to a store that is there once: when the connection is lost, it stays lost, and calls end at once.
    pub fn connect_once(
        addr: SocketAddr,
        key_id: KeyId,
        secret: &Secret,
        deadline: Instant,
    ) -> Result<Client> {
        Client::start(addr, key_id, secret, false, deadline)
    }

    fn start(
        addr: SocketAddr,
        key_id: KeyId,
        secret: &Secret,
        lasting: bool,
        deadline: Instant,
    ) -> Result<Client> {
        let mut id = [0; 8];
        auth::fill_random(&mut id)?;
        let session = u64::from_le_bytes(id) | SESSION;
        let link = dial(addr, key_id, secret, session, deadline)?;
        let inner = Inner {
            link: None,
            links: 0,
            out: Vec::new(),
            frames: Frames::new(wire::MAX_ANSWER),
            last_request: 0,
            waiting: BTreeMap::new(),
            leases: HashMap::new(),
            lost_leases: BTreeMap::new(),
            settled: 0,
            incarnation: link.incarnation,
            returns: link.returns,
            reading: false,
            connecting: false,
            pause: PAUSE.0,
            last_sent: Instant::now(),
            lost: None,
            lost_since: Instant::now(),
        };
        let (secret, inner, stand_in) = (secret.clone(), Mutex::new(inner), OnceLock::new());
        let client =
            Client { addr, key_id, secret, session, lasting, stand_in, inner, changed: Condvar::new() };
        client.adopt(&mut client.inner.lock(), link);
        Ok(client)
    }

    /// Where the store is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connection's descriptor, for a watchdog that wants to know when the store is gone: to be polled
    /// for [`Interest::HANGUP`] only, never read.
    pub fn session_fd(&self) -> Result<OwnedFd> {
        let inner = self.inner.lock();
        match &inner.link {
            Some(link) => {
                link.as_fd().try_clone_to_owned().map_err(|e| Error::system("duplicating a descriptor", &e))
            }
            None => Err(self.gone(&inner)),
        }
    }

    /// Why there is no connection now, if there is none. A call would try to make one.
    pub fn lost(&self) -> Option<Error> {
        let mut inner = self.inner.lock();
        if !inner.reading {
            self.receive(&mut inner);
            // What came along may be another thread's.
            self.changed.notify_all();
        }
        inner.link.is_none().then(|| self.gone(&inner))
    }

    /// How many connections there have been: another one has another descriptor.
    pub fn connections(&self) -> u64 {
        self.inner.lock().links
    }

    /// Whether the store is worth waiting for: it is started again when it ends.
    pub fn returns(&self) -> bool {
        self.inner.lock().returns
    }

    /// From now on, a call that has waited long for a store that does not return puts another one in its place.
    pub fn stand_in(&self, stand_in: StandIn) {
        // Any other does the same.
        let _ = self.stand_in.set(stand_in);
    }

    /// A sign of life, and a proof that the store answers.
    pub fn ping(&self, deadline: Instant) -> Result<()> {
        self.ask(Request::Ping, deadline).map(drop)
    }

    fn gone(&self, inner: &Inner) -> Error {
        let unknown = || Error::new(Code::System, Extent::Operation, "store: there is no connection");
        inner.lost.clone().unwrap_or_else(unknown)
    }

    fn lose(&self, inner: &mut Inner, why: &str) {
        let Some(link) = inner.link.take() else { return };
        let text = format!("store at {}: the connection is lost: {why}", self.addr);
        inner.lost = Some(Error::new(Code::System, Extent::Operation, text));
        inner.lost_since = Instant::now();
        inner.out.clear();
        // So that who sleeps on it wakes, and its descriptor says so, too. Fails when the kernel knows already.
        let _ = link.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    /// Sends what it can.
    fn flush(&self, inner: &mut Inner) {
        let Some(link) = inner.link.clone() else { return };
        let mut sent = 0;
        while let Some(rest) = inner.out.get(sent..).filter(|r| !r.is_empty()) {
            match (&*link).write(rest) {
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
        while let Some(link) = inner.link.clone() {
            match (&*link).read(&mut buf) {
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
        let Some(link) = inner.link.clone() else { return };
        let woken = MutexGuard::unlocked(inner, || wait_fd(&*link, interest, until));
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
        if inner.link.is_some() && Instant::now() >= inner.next_alive() && inner.out.is_empty() {
            wire::encode_request(0, &Request::Alive, &mut inner.out);
        }
        if inner.waiting.len() > 1 {
            // Some have their answers now, and should this thread be done, one of them must read on.
            self.changed.notify_all();
        }
    }

    /// One attempt to make a new connection, by one of the threads that want one.
    fn reconnect(&self, inner: &mut MutexGuard<'_, Inner>, deadline: Instant) {
        if inner.connecting {
            self.changed.wait_until(inner, deadline);
            return;
        }
        inner.connecting = true;
        let pause = inner.pause;
        inner.pause = (pause * 2).min(PAUSE.1);
        // Many clients lose a store in the same instant, and are to come back at different times.
        let jitter = (self.session ^ inner.last_request).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let pause = pause / 2 + pause * jitter as u32 / 512;
        let stand_in = self.stand_in.get().filter(|_| !inner.returns && inner.lost_since.elapsed() > ABSENCE);
        let dialled = MutexGuard::unlocked(inner, || {
            std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
            let until = deadline.min(Instant::now() + ATTEMPT);
            let dial = || dial(self.addr, self.key_id, &self.secret, self.session, until);
            match (dial(), stand_in) {
                // Nobody listens.
                (Err(e), Some(stand_in)) if e.code == Code::System => match stand_in() {
                    Ok(true) => dial(),
                    Ok(false) => Err(e),
                    Err(e) => Err(e),
                },
                (dialled, _) => dialled,
            }
        });
        inner.connecting = false;
        match dialled {
            Ok(link) => self.adopt(inner, link),
            // Somebody else is there now: waiting will not help.
            Err(e) if matches!(e.code, Code::Unauthorized | Code::InvalidUsage) => {
                for waiting in inner.waiting.values_mut().filter(|w| w.answer.is_none()) {
                    waiting.answer = Some(Err(e.clone()));
                }
                inner.lost = Some(e);
            }
            Err(e) => {
                let text = format!("store at {}: the connection is lost, and no new one: {e}", self.addr);
                inner.lost = Some(Error::new(Code::System, Extent::Operation, text));
            }
        }
        self.changed.notify_all();
    }

    /// Goes on over this connection: what has no answer is asked again.
    fn adopt(&self, inner: &mut Inner, link: Link) {
        let Link { stream, frames, incarnation, resumed, returns, leases } = link;
        let is_same = inner.incarnation == incarnation;
        inner.link = Some(Arc::new(stream));
        inner.links += 1;
        inner.frames = frames;
        inner.out.clear();
        inner.incarnation = incarnation;
        inner.returns = returns;
        inner.pause = PAUSE.0;
        inner.last_sent = Instant::now();
        inner.lost = None;
        let mine: Vec<LeaseId> = inner.leases.keys().copied().collect();
        for lease in mine.into_iter().filter(|lease| !is_same || !leases.contains(lease)) {
            let why = match is_same {
                true => "the connection to it was lost, and the lease ended",
                false => "it is another one than before, without what that one knew",
            };
            tracing::warn!(store = %self.addr, lease = lease.0, why, "a lease at the store is lost");
            inner.lose_lease(lease, why);
        }
        let now = Instant::now();
        let Inner { waiting, out, lost_leases, .. } = inner;
        for (&id, waiting) in waiting.iter_mut().filter(|(_, w)| w.answer.is_none()) {
            if !is_same {
                if let Request::Watch { prefix, .. } = &mut waiting.request {
                    waiting.request = Request::List { prefix: std::mem::take(prefix) };
                }
                if let Some(lease) = waiting.request.lease()
                    && let Some(why) = lost_leases.get(&lease)
                {
                    waiting.answer = Some(Err(lease_lost(self.addr, lease, why)));
                    continue;
                }
            } else if waiting.request.changes()
                && !resumed
                && waiting.since.is_some_and(|at| now > at + KNOWN)
            {
                let text = format!(
                    "store at {}: the connection was lost, and whether the change was made is not known",
                    self.addr
                );
                waiting.answer = Some(Err(Error::new(Code::System, Extent::Operation, text)));
                continue;
            }
            waiting.since.get_or_insert(now);
            wire::encode_request(id, &waiting.request, out);
        }
        // Welcomes may have answers behind them only once something was asked, but the codec does not forbid it.
        if let Err(e) = take_answers(inner) {
            self.lose(inner, &format!("the store sent {}", e.0));
        }
    }

    fn late(&self, inner: &Inner) -> Error {
        match &inner.lost {
            Some(why) => Error::timeout(format!("store: no answer in time: {why}")),
            None => Error::timeout(format!("store at {}: no answer in time", self.addr)),
        }
    }

    /// The answer, with the reason why a lease is none any more.
    fn explain(&self, inner: &Inner, lease: Option<LeaseId>, answer: Result<Answer>) -> Result<Answer> {
        match (answer, lease) {
            (Ok(Answer::Refused(Refusal::NoLease)), Some(lease)) => match inner.lost_leases.get(&lease) {
                Some(why) => Err(lease_lost(self.addr, lease, why)),
                None => Ok(Answer::Refused(Refusal::NoLease)),
            },
            (answer, _) => answer,
        }
    }
}

/// Connects and hears the welcome.
fn dial(
    addr: SocketAddr,
    key_id: KeyId,
    secret: &Secret,
    session: ClientId,
    deadline: Instant,
) -> Result<Link> {
    let mut pause = Duration::from_millis(2);
    loop {
        let mut stream = socket::connect_tcp(addr, deadline).map_err(|e| match e.code {
            Code::Remote => Error { code: Code::System, ..e },
            _ => e,
        })?;
        let dialled =
            auth::dial(&mut stream, key_id, secret, Purpose::Store, &wire::claim(session), deadline);
        match dialled.and_then(|_| welcomed(stream, deadline)) {
            Ok(link) => return Ok(link),
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

fn welcomed(stream: TcpStream, deadline: Instant) -> Result<Link> {
    let fail = |e: io::Error| Error::system("setting up the connection to the store", &e);
    stream.set_nonblocking(true).map_err(fail)?;
    socket::set_user_timeout(&stream, SILENCE).map_err(fail)?;
    socket::set_keepalive(&stream, SILENCE).map_err(fail)?;
    let mut frames = Frames::new(wire::MAX_ANSWER);
    let mut buf = [0; 4096];
    let foreign = |what: &str| Error::usage(format!("it welcomes its clients with {what}"));
    loop {
        match (&stream).read(&mut buf) {
            Ok(0) => return Err(fail(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => frames.extend(buf.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(Error::timeout("no welcome in time"));
                }
                wait_fd(&stream, Interest::READ, deadline).map_err(fail)?;
            }
            Err(e) => return Err(fail(e)),
        }
        let answer = match frames.next_body() {
            Ok(None) => continue,
            Ok(Some(body)) => wire::decode_answer(body),
            Err(e) => Err(e),
        };
        return match answer.map_err(|e| foreign(e.0))?.1 {
            Answer::Welcome { incarnation, resumed, returns, leases } => {
                Ok(Link { stream, frames, incarnation, resumed, returns, leases })
            }
            _ => Err(foreign("something else")),
        };
    }
}

fn lease_lost(addr: SocketAddr, lease: LeaseId, why: &str) -> Error {
    let text = format!("store at {addr}: lease {:#x} is lost: {why}", lease.0);
    Error::new(Code::InvalidUsage, Extent::Operation, text)
}

impl Ask for Client {
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer> {
        let mut inner = self.inner.lock();
        self.flush(&mut inner);
        while inner.out.len() > MAX_OUT {
            if Instant::now() >= deadline {
                return Err(self.late(&inner));
            }
            self.sleep(&mut inner, Interest::WRITE, deadline);
            self.flush(&mut inner);
        }
        let lease = request.lease();
        let id = inner.post(request);
        loop {
            self.flush(&mut inner);
            if let Some(answer) = inner.waiting.get_mut(&id).and_then(|w| w.answer.take()) {
                inner.waiting.remove(&id);
                return self.explain(&inner, lease, answer);
            }
            if !self.lasting && inner.link.is_none() {
                inner.waiting.remove(&id);
                return Err(self.gone(&inner));
            }
            if Instant::now() >= deadline {
                let given_up = inner.waiting.remove(&id).map(|w| w.request);
                if let Some(Request::Watch { .. }) = given_up
                    && inner.link.is_some()
                {
                    wire::encode_request(0, &Request::Cancel { request: id }, &mut inner.out);
                    self.flush(&mut inner);
                }
                return Err(self.late(&inner));
            }
            match inner.link {
                Some(_) => self.wait(&mut inner, deadline),
                None => self.reconnect(&mut inner, deadline),
            }
        }
    }
}

fn take_answers(inner: &mut Inner) -> std::result::Result<(), wire::Malformed> {
    while let Some(body) = inner.frames.next_body()? {
        let (id, answer) = wire::decode_answer(body)?;
        // The answer to a call that has given up is nobody's.
        let Some(waiting) = inner.waiting.get_mut(&id) else { continue };
        match (&answer, &waiting.request) {
            (Answer::Lease(lease), Request::Lease { ttl }) => {
                inner.leases.insert(*lease, *ttl);
            }
            (_, Request::Revoke { lease }) => {
                inner.leases.remove(lease);
            }
            _ => {}
        }
        waiting.answer = Some(Ok(answer));
    }
    Ok(())
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        if inner.link.is_some() {
            // Whoever says so is not remembered.
            wire::encode_request(0, &Request::Leave, &mut inner.out);
            self.flush(&mut inner);
        }
        // Closing alone would leave the leases alive in a process that has forked.
        if let Some(link) = &inner.link {
            let _ = link.shutdown(Shutdown::Both);
        }
    }
}
