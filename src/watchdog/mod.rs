//! The background of a process: control links, liveness, listeners.
//!
//! | thread | does |
//! |---|---|
//! | mw-watchdog | control links, heartbeats, deadlines of silence |
//! | mw-sentinel | sleeps on the robust words of the peers on this machine; its own end marks this process's words |
//! | mw-accept | strangers at the door: handshakes of inbound connections |
//!
//! None of them runs user code or moves payload. They exist once per process, from the first world on, and end with
//! it. What they find out they pass to the [`Member`]s, which decide in `fault` what follows.

pub mod acceptor;
mod dial;
pub mod link;
mod memory;
pub mod message;
mod sentinel;
mod service;
#[cfg(test)]
mod tests;
mod wiring;

use crate::auth::{self, KeyId};
use crate::config::Facilities;
use crate::error::{Error, Result};
use crate::fault::health::News;
use crate::observe::events::{self, Event, EventKind};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{Epoll, Interest};
use crate::sys::robust::Liveness;
use crate::sys::{clock, interfaces, process, sleeper, socket};
use crate::transport::shm::Neighbour;
use crate::types::{Address, Fingerprint, HostId, ProcessId, Secret, WorldId};
use link::Link;
use message::{Handout, Message};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A world as the watchdog sees it.
pub trait Member: Send + Sync {
    /// The world and its epoch.
    fn world(&self) -> (WorldId, u64);
    /// Rank of this member.
    fn rank(&self) -> u32;
    /// Silence that this world tolerates.
    fn heartbeat_timeout(&self) -> Duration;
    /// How often this world wants a sign of life.
    fn heartbeat_interval(&self) -> Duration;
    /// Whether a process has members in this world.
    fn includes(&self, process: &ProcessId) -> bool;
    /// A process is gone. With `tell`, the other members may not know yet.
    fn process_failed(&self, process: &ProcessId, reason: &str, tell: bool);
    /// A member of process `from` tells something.
    fn hear(&self, from: &ProcessId, news: &News);
    /// Member `rank`, of process `from`, waits in this collective.
    fn compare(&self, from: &ProcessId, rank: u32, call: &Fingerprint);
    /// Time passes.
    fn tick(&self, now: Instant);
}

/// Which data connection: world, epoch, dialling rank, accepting rank.
pub type DataKey = (WorldId, u64, u32, u32);

/// Connections that wait to be accepted: beyond that many a member among strangers would have to knock again, a second
/// later.
const BACKLOG: u16 = 4096;

/// The abstract Unix address of a process.
fn unix_name(process: &ProcessId) -> Vec<u8> {
    let mut name = b"multiworld-".to_vec();
    for b in process.0 {
        name.extend(format!("{b:02x}").bytes());
    }
    name
}

#[derive(Default)]
struct Links {
    by_process: HashMap<ProcessId, Arc<Link>>,
    by_token: HashMap<u64, Arc<Link>>,
    dialling: HashSet<ProcessId>,
}

/// News that came before the world they are about was known here.
struct Early {
    at: Instant,
    from: ProcessId,
    world: (WorldId, u64),
    news: News,
}

/// The most demanding of all members here; `None` without any.
#[derive(Clone, Copy)]
struct Pace {
    /// How often to beat and to look, often enough that silence is noticed within a tenth of its limit.
    every: Option<Duration>,
    /// The least silence that one of them does not tolerate.
    silence: Option<Duration>,
}

const MAX_EARLY: usize = 256;
const EARLY_FOR: Duration = Duration::from_secs(10);
/// How long to wait for a peer to dial before looking whether it is still there.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);
/// Pause before a background thread that failed begins anew.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub struct Watchdog {
    /// On this machine.
    address: Address,
    /// The interface for the others.
    ip: IpAddr,
    /// Where they reach this process, from the first world on that may have members there.
    beyond: OnceLock<(TcpListener, Address)>,
    /// Tells the door of the listener above.
    opened: EventFd,
    facilities: Facilities,
    liveness: Liveness,
    epoll: Epoll,
    wake: EventFd,
    /// Changed to make the sentinel look at its list again.
    kick: AtomicU32,
    links: Mutex<Links>,
    links_changed: Condvar,
    next_token: AtomicU64,
    members: RwLock<Vec<Arc<dyn Member>>>,
    /// What they ask for taken together, until one of them changes its mind: looking at hundreds of idle worlds ten
    /// times a second would cost more than all the rest.
    pace: Mutex<Option<Pace>>,
    /// With the number of members here that joined or are joining.
    keys: RwLock<HashMap<KeyId, (Secret, usize)>>,
    inbox: Mutex<HashMap<DataKey, TcpStream>>,
    inbox_changed: Condvar,
    segments: Mutex<HashMap<(WorldId, u64), OwnedFd>>,
    segments_changed: Condvar,
    handouts: Mutex<HashMap<(WorldId, u64), Handout>>,
    handouts_changed: Condvar,
    early: Mutex<VecDeque<Early>>,
    /// What the processes on this machine that there is a link to know of each other's memory.
    neighbours: Mutex<HashMap<ProcessId, Arc<Neighbour>>>,
    /// Connections to stores, by token: when one hangs up the application is told.
    stores: Mutex<HashMap<u64, (OwnedFd, String)>>,
    /// Something is waiting for verdicts: tick the members.
    pub suspicions: AtomicBool,
}

impl Watchdog {
    /// This process's watchdog; started by the first call, which says by `ifname` where other machines reach it.
    pub fn get(ifname: Option<&str>) -> Result<&'static Arc<Watchdog>> {
        Watchdog::get_toward(ifname, || None)
    }

    /// The same; if it is the first call, it listens where this machine speaks to `peer`, as far as `ifname` allows.
    pub fn get_toward(
        ifname: Option<&str>,
        peer: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<&'static Arc<Watchdog>> {
        static ONE: OnceLock<Arc<Watchdog>> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        if process::is_forked() {
            return Err(forked());
        }
        if let Some(w) = ONE.get() {
            return Ok(w);
        }
        let _one_at_a_time = STARTING.lock();
        if let Some(w) = ONE.get() {
            return Ok(w);
        }
        let w = Watchdog::start(ifname, peer())?;
        Ok(ONE.get_or_init(|| w))
    }

    fn start(ifname: Option<&str>, peer: Option<IpAddr>) -> Result<Arc<Watchdog>> {
        let facilities = Facilities::get();
        let system = |what: &'static str| move |e: std::io::Error| Error::system(what, &e);
        let mut id = [0; 16];
        auth::fill_random(&mut id)?;
        let mut host = [0; 16];
        host.copy_from_slice(&auth::derive(&Secret(Vec::new()), "host", &process::host_identity()).0[..16]);
        let ip = interfaces::choose(ifname, peer)?;
        let local = if ip.is_loopback() { ip } else { Ipv4Addr::LOCALHOST.into() };
        let tcp = socket::listen_tcp(SocketAddr::new(local, 0), BACKLOG).map_err(system("listening"))?;
        let address = Address {
            process: ProcessId(id),
            host: HostId(host),
            tcp: tcp.local_addr().map_err(system("getsockname"))?,
        };
        let unix = socket::listen_abstract(&unix_name(&address.process))
            .map_err(system("listening on a Unix socket"))?;
        socket::set_backlog(&unix, BACKLOG).map_err(system("listening on a Unix socket"))?;
        process::watch_forks();
        sleeper::doorbell()?;
        let epoll = Epoll::new().map_err(system("epoll_create1"))?;
        let wake = EventFd::new().map_err(system("eventfd"))?;
        let opened = EventFd::new().map_err(system("eventfd"))?;
        epoll.add(&wake, 0, Interest::READ).map_err(system("epoll_ctl"))?;
        let (give, take) = crossbeam::channel::bounded(1);
        let (hand, handed) = crossbeam::channel::bounded::<Arc<Watchdog>>(1);
        process::spawn("mw-sentinel", move || {
            if !facilities.robust {
                tracing::warn!(
                    "robust futexes are disabled; deaths on this machine are noticed by sockets only"
                );
            }
            let liveness = Liveness::adopt_thread(facilities.memfd, facilities.robust).or_else(|e| {
                tracing::warn!("{e}; deaths on this machine are noticed by sockets only");
                Liveness::adopt_thread(facilities.memfd, false)
            });
            if give.send(liveness).is_ok()
                && let Ok(w) = handed.recv()
            {
                sentinel::run(&w);
            }
        })?;
        let gone = |_| Error::internal("the sentinel thread did not start");
        let liveness = take.recv().map_err(gone)??;
        let w = Arc::new(Watchdog {
            address,
            ip,
            beyond: OnceLock::new(),
            opened,
            facilities,
            liveness,
            epoll,
            wake,
            kick: AtomicU32::new(0),
            links: Mutex::default(),
            links_changed: Condvar::new(),
            next_token: AtomicU64::new(1),
            members: RwLock::default(),
            pace: Mutex::default(),
            keys: RwLock::default(),
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            segments: Mutex::default(),
            segments_changed: Condvar::new(),
            handouts: Mutex::default(),
            handouts_changed: Condvar::new(),
            early: Mutex::default(),
            neighbours: Mutex::default(),
            stores: Mutex::default(),
            suspicions: AtomicBool::new(false),
        });
        hand.send(w.clone()).map_err(|_| Error::internal("the sentinel thread has ended"))?;
        let x = w.clone();
        process::spawn("mw-watchdog", move || service::run(&x))?;
        let x = w.clone();
        process::spawn("mw-accept", move || acceptor::run(&x, &tcp, &unix))?;
        Ok(w)
    }

    /// Where this process can be reached on this machine.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where this process can be reached from other machines; it listens there from the first call on. Not for worlds
    /// without a secret.
    pub fn address_beyond(&self) -> Result<&Address> {
        if self.ip.is_loopback() {
            return Ok(&self.address);
        }
        if let Some((_, address)) = self.beyond.get() {
            return Ok(address);
        }
        let listener = socket::listen_tcp(SocketAddr::new(self.ip, 0), BACKLOG)
            .map_err(|e| Error::system("listening", &e))?;
        let tcp = listener.local_addr().map_err(|e| Error::system("getsockname", &e))?;
        // Of two threads that come here at once, one's listener is closed again before anybody has heard of it.
        let (_, address) = self.beyond.get_or_init(|| (listener, Address { tcp, ..self.address.clone() }));
        self.opened.signal().map_err(|e| Error::system("opening the door", &e))?;
        Ok(address)
    }

    /// What may be used.
    pub fn facilities(&self) -> Facilities {
        self.facilities
    }

    /// Lets connections in that know `secret`; `world` is its name at the door. Once per member here.
    pub fn admit(&self, world: WorldId, secret: Secret) {
        self.keys.write().entry(KeyId(world.0)).or_insert((secret, 0)).1 += 1;
    }

    /// Takes one [`Watchdog::admit`] back.
    pub fn dismiss(&self, world: WorldId) {
        let mut keys = self.keys.write();
        let Some((_, members)) = keys.get_mut(&KeyId(world.0)) else { return };
        *members -= 1;
        if *members == 0 {
            keys.remove(&KeyId(world.0));
            drop(keys);
            self.early.lock().retain(|e| e.world.0 != world);
            self.inbox.lock().retain(|k, _| k.0 != world);
            self.segments.lock().retain(|k, _| k.0 != world);
            self.handouts.lock().retain(|k, _| k.0 != world);
        }
    }

    /// Begins to watch the peers of a member. What was heard about its world before is told to it now.
    pub fn register(&self, member: Arc<dyn Member>) {
        self.members.write().push(member.clone());
        self.pace_changed();
        // Kept for the others until it is too old: ranks can be threads.
        let mine: Vec<_> = {
            let early = self.early.lock();
            early.iter().filter(|e| e.world == member.world()).map(|e| (e.from, e.news.clone())).collect()
        };
        for (from, news) in mine {
            member.hear(&from, &news);
        }
        self.nudge();
    }

    /// Forgets a member, and takes its admission back.
    pub fn unregister(&self, world: (WorldId, u64), rank: u32) {
        self.members.write().retain(|m| m.world() != world || m.rank() != rank);
        self.pace_changed();
        self.dismiss(world.0);
    }

    /// A member wants other heartbeats than before, or tolerates another silence.
    pub fn pace_changed(&self) {
        *self.pace.lock() = None;
    }

    fn pace(&self) -> Pace {
        // The lock is held meanwhile, so that a change made after the look is not overwritten by what the look saw.
        let mut pace = self.pace.lock();
        *pace.get_or_insert_with(|| {
            let members = self.members.read();
            Pace {
                every: members.iter().map(|m| m.heartbeat_interval().min(m.heartbeat_timeout() / 10)).min(),
                silence: members.iter().map(|m| m.heartbeat_timeout()).min(),
            }
        })
    }

    /// Makes the watchdog's thread look at everything again.
    pub fn nudge(&self) {
        if let Err(e) = self.wake.signal() {
            tracing::warn!("waking the watchdog: {e}");
        }
    }

    /// Tells the application when this connection to the store at `address` ends. Worlds that exist do not care.
    pub fn watch_store(&self, connection: OwnedFd, address: &str) -> Result<()> {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let mut stores = self.stores.lock();
        self.epoll
            .add(&connection, token, Interest::HANGUP)
            .map_err(|e| Error::system("epoll_ctl of a store's connection", &e))?;
        stores.insert(token, (connection, address.to_string()));
        Ok(())
    }

    /// The connection of this token has ended; answers whether it was a store's.
    fn store_lost(&self, token: u64) -> bool {
        let Some((connection, address)) = self.stores.lock().remove(&token) else { return false };
        // Closing this descriptor would not do: the store's client keeps the connection, and with it the epoll's
        // interest, which would report the end for ever.
        if let Err(e) = self.epoll.delete(&connection) {
            tracing::debug!("epoll_ctl: {e}");
        }
        let reason =
            format!("the store at '{address}' is gone; worlds that exist go on, joining has to wait for it");
        tracing::warn!("{reason}");
        events::publish(Event {
            kind: EventKind::StoreLost,
            code: None,
            world_token: 0,
            world_name: "".into(),
            epoch: 0,
            rank: None,
            timestamp_ns: clock::monotonic_ns(),
            reason: reason.into(),
        });
        true
    }

    /// A member waits for a verdict that time will bring.
    pub fn suspect(&self) {
        self.suspicions.store(true, Ordering::Release);
        self.nudge();
    }

    fn has_members_in(&self, process: &ProcessId) -> Vec<Arc<dyn Member>> {
        self.members.read().iter().filter(|m| m.includes(process)).cloned().collect()
    }

    /// Tells a process something about a world; a process without a link will find out by itself.
    pub fn tell(&self, process: &ProcessId, world: (WorldId, u64), news: &News) {
        let link = self.links.lock().by_process.get(process).cloned();
        if let Some(link) = link {
            let message = Message::News { world: world.0, epoch: world.1, news: news.clone() };
            self.send(&link, &message, Vec::new());
        }
    }

    /// Waits, at most until `limit`, until the kernel has everything that was told to these processes: then they hear
    /// it even if this process ends now.
    pub fn see_off(&self, processes: impl Iterator<Item = ProcessId>, limit: Instant) {
        let links: Vec<Arc<Link>> = {
            let links = self.links.lock();
            processes.filter_map(|p| links.by_process.get(&p).cloned()).collect()
        };
        while links.iter().any(|l| l.has_backlog()) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Delivers news to the members of a world in this process, apart from `except`. If they are not `expected`
    /// many, the missing ones hear it when they come.
    pub fn tell_local(&self, world: (WorldId, u64), except: u32, expected: usize, news: &News) {
        let local: Vec<_> = {
            let members = self.members.read();
            members.iter().filter(|m| m.world() == world && m.rank() != except).cloned().collect()
        };
        for m in local.iter() {
            m.hear(&self.address.process, news);
        }
        if local.len() < expected {
            self.keep(self.address.process, world, news, Some(except));
        }
    }

    /// Asks all other members of a world, in these processes and here, whether they called the same collective.
    pub fn ask(&self, processes: &[ProcessId], world: (WorldId, u64), rank: u32, call: &Fingerprint) {
        for process in processes.iter().filter(|p| **p != self.address.process) {
            let link = self.links.lock().by_process.get(process).cloned();
            if let Some(link) = link {
                let message = Message::Calling { world: world.0, epoch: world.1, rank, call: *call };
                self.send(&link, &message, Vec::new());
            }
        }
        for m in self.members_of(world).iter().filter(|m| m.rank() != rank) {
            m.compare(&self.address.process, rank, call);
        }
    }

    fn members_of(&self, world: (WorldId, u64)) -> Vec<Arc<dyn Member>> {
        self.members.read().iter().filter(|m| m.world() == world).cloned().collect()
    }

    /// Keeps news for members that will register soon, if any may: who joins has been admitted before anybody can
    /// know of it.
    fn keep(&self, from: ProcessId, world: (WorldId, u64), news: &News, except: Option<u32>) {
        {
            let at = Instant::now();
            let mut early = self.early.lock();
            // With the lock held: `dismiss` takes the key away first and then what is kept.
            if !self.keys.read().contains_key(&KeyId(world.0.0)) {
                return;
            }
            early.retain(|e| at.saturating_duration_since(e.at) < EARLY_FOR);
            if early.len() >= MAX_EARLY {
                early.pop_front();
            }
            early.push_back(Early { at, from, world, news: news.clone() });
        }
        // Who has registered since the caller looked did not find it there. What is heard twice is no news.
        let local: Vec<_> = self.members.read().iter().filter(|m| m.world() == world).cloned().collect();
        for m in local.iter().filter(|m| Some(m.rank()) != except) {
            m.hear(&from, news);
        }
    }

    fn send(&self, link: &Link, message: &Message, fds: Vec<OwnedFd>) {
        if link.send(message, fds) {
            self.set_interest(link, Interest::READ | Interest::WRITE);
        }
    }

    fn set_interest(&self, link: &Link, interest: Interest) {
        if let Err(e) = self.epoll.modify(&link.fd(), link.token, interest) {
            // A link that has ended meanwhile.
            tracing::debug!("epoll_ctl: {e}");
        }
    }

    /// Lets go of what belongs to a link that is not in the tables any more.
    fn retire_link(&self, link: &Link) {
        link.open.store(false, Ordering::Relaxed);
        if let Err(e) = self.epoll.delete(&link.fd()) {
            tracing::debug!("epoll_ctl: {e}");
        }
        if let Some(slot) = link.slot {
            self.liveness.release_slot(slot);
        }
    }

    /// The process at the other end of a link is gone, or as good as gone: every world it was in hears it.
    fn process_died(&self, link: &Link, reason: &str, tell: bool) {
        let process = &link.peer;
        {
            let mut links = self.links.lock();
            if links.by_process.get(process).is_none_or(|current| current.token != link.token) {
                // Another thread was first, and may be reading the last words just now; or a newer link is here.
                return;
            }
            links.by_process.remove(process);
            links.by_token.remove(&link.token);
        }
        self.retire_link(link);
        // The death may be known before its last words have been read: who said good-bye has not failed.
        if link.host == self.address.host {
            self.pass_on(process);
            self.hear_out(link, &link.hearing.lock());
        } else if let Some(in_order) = link.hearing.try_lock() {
            // This thread may be here because another such link spoke of this one's end: two that wait for each other
            // would never end.
            self.hear_out(link, &in_order);
        }
        for m in self.has_members_in(process) {
            m.process_failed(process, reason, tell);
        }
        self.forget_neighbour(process);
        self.links_changed.notify_all();
        self.segments_changed.notify_all();
        self.handouts_changed.notify_all();
        self.inbox_changed.notify_all();
        self.kick_sentinel();
    }

    /// Other machines learn of a death here later than we do: their connections close when the dead process's memory
    /// has been freed.
    fn pass_on(&self, process: &ProcessId) {
        let far: Vec<_> = {
            let links = self.links.lock();
            links.by_process.values().filter(|l| l.host != self.address.host).cloned().collect()
        };
        for link in far {
            self.send(&link, &Message::ProcessDied { process: *process }, Vec::new());
        }
    }

    fn kick_sentinel(&self) {
        self.kick.fetch_add(1, Ordering::Release);
        crate::sys::futex::wake_all(&self.kick);
    }

    fn receive(&self, link: &Link) {
        let (end, _) = self.hear(link, &link.hearing.lock());
        if let Some(why) = end {
            // All who share its machine see a process die, and tell the other machines. A connection that ends
            // otherwise may have ended for us alone.
            let died = link.watch.get().is_some_and(|watch| watch.is_dead());
            self.process_died(link, &why, !died);
        }
    }

    /// Acts upon what a peer has said, all of it.
    fn hear_out(&self, link: &Link, in_order: &MutexGuard<'_, ()>) {
        while self.hear(link, in_order).1 {}
    }

    /// Acts upon a part of what a peer has said. Answers why it will say no more, if that is so, and whether there may
    /// be more to hear. Whoever calls holds the link's `hearing`.
    fn hear(&self, link: &Link, _in_order: &MutexGuard<'_, ()>) -> (Option<String>, bool) {
        let received = link.receive();
        if !received.messages.is_empty() {
            link.liveness.lock().heard(Instant::now());
        }
        for (message, fds) in received.messages {
            self.handle(link, message, fds);
        }
        (received.end, received.more)
    }

    fn handle(&self, link: &Link, message: Message, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match message {
            Message::Heartbeat => {}
            Message::Alive { slot } => {
                let (Some(page), Some(bell)) = (fds.next(), fds.next()) else { return };
                match crate::sys::robust::Watch::open(page, slot) {
                    Ok(watch) => {
                        // A second announcement changes nothing.
                        let _ = link.watch.set(watch);
                    }
                    Err(e) => tracing::warn!("liveness of {:?}: {e}", link.peer),
                }
                let _ = link.doorbell.set(Arc::new(bell));
                // The lock keeps a waiter from missing this between its look and its sleep.
                drop(self.links.lock());
                self.links_changed.notify_all();
                self.kick_sentinel();
            }
            Message::Segment { world, epoch } => {
                let Some(fd) = fds.next() else { return };
                let mut segments = self.segments.lock();
                // With the lock held: `dismiss` takes the key away first and then what came for it.
                if self.keys.read().contains_key(&KeyId(world.0)) {
                    segments.insert((world, epoch), fd);
                    self.segments_changed.notify_all();
                }
            }
            Message::Handout { world, epoch, bytes } => {
                let mut handouts = self.handouts.lock();
                // As above.
                if self.keys.read().contains_key(&KeyId(world.0)) {
                    handouts.insert((world, epoch), bytes);
                    self.handouts_changed.notify_all();
                }
            }
            Message::Region { id, len, identity } => self.map_region(link, id, len, identity, fds.next()),
            Message::RegionAnswer { id, mapped } => {
                if let Some(neighbour) = self.known_neighbour(&link.peer) {
                    neighbour.answered(id, mapped);
                }
            }
            Message::RegionFreed { id } => {
                if let Some(neighbour) = self.known_neighbour(&link.peer) {
                    neighbour.unmap(id);
                }
            }
            Message::ProcessDied { process } => {
                if link.host == self.address.host {
                    return;
                }
                let theirs = self.links.lock().by_process.get(&process).cloned();
                if let Some(theirs) = theirs.filter(|l| l.host == link.host) {
                    self.process_died(&theirs, "its process died, says its machine", false);
                }
            }
            Message::Calling { world, epoch, rank, call } => {
                for m in self.members_of((world, epoch)) {
                    m.compare(&link.peer, rank, &call);
                }
            }
            Message::News { world, epoch, news } => {
                let world = (world, epoch);
                let local: Vec<_> =
                    self.members.read().iter().filter(|m| m.world() == world).cloned().collect();
                if local.is_empty() {
                    return self.keep(link.peer, world, &news, None);
                }
                for m in local {
                    m.hear(&link.peer, &news);
                }
            }
        }
    }
}

fn forked() -> Error {
    Error::usage(
        "this process is a fork of one that uses multiworld: threads and connections stayed with the parent; \
         fork before the first world, or exec after fork",
    )
}

/// Runs a thread's body again when it comes back or panics: what depends on this thread must not wait in vain.
fn for_ever(name: &str, body: impl Fn()) {
    loop {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(&body)) {
            tracing::error!("{name}: a panic was caught, which is a bug in multiworld");
            // Dropping a payload can panic again.
            std::mem::forget(payload);
        }
        std::thread::sleep(RESTART_PAUSE);
    }
}
