//! From a list of members to connected endpoints.

use super::news::Watched;
use super::{Call, World};
use crate::config::tuning::{Topology, Tuning};
use crate::config::{BackendChoice, Config, TransportChoice};
use crate::error::{Code, Error, Extent, Result};
use crate::fault::health::{Health, News, State};
use crate::progress::Engine;
use crate::rendezvous::Membership;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::sys::process;
use crate::transport::Endpoint;
use crate::transport::shm::endpoint::Wiring;
use crate::transport::shm::{Segment, ShmEndpoint};
use crate::transport::tcp::TcpEndpoint;
use crate::types::{DataType, OpKind, ProcessId, RedOp, Reduction, Secret};
use crate::watchdog::Watchdog;
use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Numbers the exchange with which a world begins whose operations go another way; no other one has it.
pub(super) const MEETING: u32 = u32::MAX >> 1;

/// How often to ask the store whether a member for whose link this one waits is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The rank that could not be reached, unless the world has ended for another reason.
fn blame(e: Error, rank: u32) -> Error {
    if e.culprit.is_some() || e.extent == Extent::World { e } else { e.by(rank) }
}

impl World {
    /// This member's place in the shared memory.
    pub(super) fn local_index(&self) -> u32 {
        let host = self.members[self.rank as usize].host;
        self.members[..self.rank as usize].iter().filter(|m| m.host == host).count() as u32
    }

    /// Connects this rank to all others and waits until everybody is connected. The caller has admitted the world's
    /// peers once; from here on the world takes that back when it ends. `absent` tells which ranks have gone meanwhile.
    pub(super) fn connect(
        name: &str,
        rank: u32,
        membership: Membership,
        secret: Secret,
        config: &Config,
        deadline: Instant,
        absent: &dyn Fn() -> Result<Vec<u32>>,
    ) -> Result<Arc<World>> {
        let w = Watchdog::get(config.ifname.as_deref())?;
        let nranks = membership.members.len() as u32;
        let here = membership.members.get(rank as usize).map(|me| me.host);
        let neighbours = membership.members.iter().filter(|m| Some(m.host) == here).count();
        let world = Arc::new(World {
            id: membership.world,
            epoch: membership.epoch,
            name: name.into(),
            rank,
            config: config.clone(),
            secret,
            members: membership.members,
            origin: OnceLock::new(),
            is_crowded: AtomicBool::new(neighbours > process::processors_of_all()),
            health: Mutex::new(Health::new(name, rank, nranks)),
            state: AtomicU8::new(State::Active as u8),
            engine: Mutex::new(Engine::new(rank, Vec::new())),
            segment: OnceLock::new(),
            bell: AtomicU32::new(0),
            peers: OnceLock::new(),
            device: OnceLock::new(),
            outbox: Mutex::default(),
            joined: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            queuing: AtomicU32::new(0),
            forgotten: AtomicBool::new(false),
            suspects: Mutex::new(Vec::new()),
            splits: AtomicU32::new(0),
            stuck: Mutex::new(None),
            unsaid: Mutex::new(None),
        });
        w.register(Arc::new(Watched(world.clone())));
        let wired = world.wire(w, deadline, absent);
        if let Err(e) = wired {
            // Nobody knows it yet, if this member is the first to find a peer gone. The others are told who has failed,
            // not that this one reacts to it.
            if let (Code::Remote, Some(rank)) = (e.code, e.culprit) {
                world.announce(&News::Failed { rank, reason: e.text.to_string() });
            }
            // A member that fails to join is a failure for those who already have.
            world.abort();
            return Err(world_error(&world, e));
        }
        if let Some(segment) = world.segment.get() {
            // Each may be bound to processors of its own.
            let processors = segment.processors().min(process::quota().unwrap_or(usize::MAX));
            world.is_crowded.store(neighbours > processors, Ordering::Relaxed);
        }
        // Everybody has met, so everybody here has mapped it.
        w.forget_segment((world.id, world.epoch));
        world.joined.store(true, Ordering::Release);
        w.pace_changed();
        Ok(world)
    }

    fn wire(
        self: &Arc<World>,
        w: &Watchdog,
        deadline: Instant,
        absent: &dyn Fn() -> Result<Vec<u32>>,
    ) -> Result<()> {
        let broken = || match self.state() {
            State::Active => Ok(()),
            _ => Err(self.error().unwrap_or_else(|| Error::internal("the world ended while joining"))),
        };
        let bells = self.link(w, deadline, &broken, absent)?;
        match self.config.backend {
            BackendChoice::Host => self.wire_memory(w, &bells, deadline, &broken)?,
            BackendChoice::Nccl => return self.wire_device(w, deadline, &broken),
            // Whoever has a link to all others will hear of their ends. Nobody leaves before all have come so far: the
            // list of members is his until then.
            BackendChoice::Watch => return self.exchange(&[0; 128], MEETING, deadline).map(drop),
        }
        self.meet(deadline)
    }

    /// Shared memory or a connection to every other member.
    fn wire_memory(
        &self,
        w: &Watchdog,
        bells: &HashMap<ProcessId, Option<Arc<OwnedFd>>>,
        deadline: Instant,
        broken: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let segment = self.share(w, deadline, broken)?;
        let mut endpoints: Vec<Option<Box<dyn Endpoint>>> = Vec::new();
        let (mut shm, mut tcp) = (0, 0);
        let mut index = 0;
        for (rank, member) in self.members.iter().enumerate() {
            let rank = rank as u32;
            let here = member.host == w.address().host;
            let at = index;
            index += u32::from(here);
            if rank == self.rank {
                endpoints.push(None);
                continue;
            }
            if let Some(segment) = segment.as_ref().filter(|_| here) {
                let wiring = Wiring {
                    segment: segment.clone(),
                    me: self.local_index(),
                    peer: at,
                    direct: w.facilities().cma,
                    doorbell: bells.get(&member.process).cloned().flatten(),
                    neighbour: w.neighbour(&member.process),
                };
                shm += 1;
                endpoints.push(Some(Box::new(ShmEndpoint::new(wiring))));
                continue;
            }
            let stream = if rank < self.rank {
                let key = (self.id, self.epoch, self.rank, rank);
                w.dial_data(member, key, &self.secret, deadline, broken).map_err(|e| blame(e, rank))?
            } else {
                w.await_data((self.id, self.epoch, rank, self.rank), deadline, broken)?
            };
            let end = TcpEndpoint::new(stream).map_err(|e| Error::system("preparing a connection", &e))?;
            if let Some(name) = &self.config.congestion {
                let what = format!("choosing congestion control '{name}' (MW_TCP_CONGESTION)");
                end.set_congestion(name).map_err(|e| Error::system(&what, &e))?;
            }
            tcp += 1;
            endpoints.push(Some(Box::new(end)));
        }
        if let Some(s) = segment {
            s.introduce(self.local_index());
            // Set once, here.
            let _ = self.segment.set(s);
        }
        let _ = self.peers.set((shm, tcp));
        *self.engine.lock() = Engine::new(self.rank, endpoints);
        Ok(())
    }

    /// Control links to every other process; answers their doorbells.
    fn link(
        &self,
        w: &Watchdog,
        deadline: Instant,
        broken: &dyn Fn() -> Result<()>,
        absent: &dyn Fn() -> Result<Vec<u32>>,
    ) -> Result<HashMap<ProcessId, Option<Arc<OwnedFd>>>> {
        let mut bells = HashMap::new();
        // In the same order everywhere, so that nobody waits for one who waits for somebody else.
        let mut others: Vec<_> =
            self.members.iter().enumerate().filter(|(_, m)| m.process != w.address().process).collect();
        others.sort_by_key(|(_, m)| m.process);
        // Who dies before there is a link to it is missed by nobody but the store.
        let look = Cell::new(Instant::now() + LOOK_EVERY);
        for (rank, member) in others {
            let gone = || {
                broken()?;
                if Instant::now() < look.get() {
                    return Ok(());
                }
                // Without a store there is only the deadline.
                let absent = absent().unwrap_or_default();
                look.set(Instant::now() + LOOK_EVERY);
                if absent.contains(&(rank as u32)) {
                    let text = "it died or gave up while joining";
                    return Err(Error::new(Code::Remote, Extent::Operation, text));
                }
                Ok(())
            };
            if bells.contains_key(&member.process) {
                continue;
            }
            let bell = w
                .ensure_link(member, self.id, &self.secret, deadline, &gone)
                .map_err(|e| blame(e, rank as u32))?;
            bells.insert(member.process, bell);
        }
        Ok(bells)
    }

    /// The shared memory of the members on this machine, if there are several and it is wanted.
    fn share(
        &self,
        w: &Watchdog,
        deadline: Instant,
        broken: &dyn Fn() -> Result<()>,
    ) -> Result<Option<Arc<Segment>>> {
        let host = w.address().host;
        let local: Vec<usize> = (0..self.members.len()).filter(|r| self.members[*r].host == host).collect();
        match self.config.transport {
            TransportChoice::Tcp => return Ok(None),
            TransportChoice::Shm if local.len() < self.members.len() => {
                return Err(Error::usage(format!(
                    "transport: 'shm' was asked for, but only ranks {local:?} of world '{}' can share memory",
                    self.name
                )));
            }
            _ => {}
        }
        if local.len() < 2 {
            return Ok(None);
        }
        let members = local.len() as u32;
        let world = (self.id, self.epoch);
        if local.first() != Some(&(self.rank as usize)) {
            let fd = w.await_segment(world, deadline, broken)?;
            return Segment::open(fd, members).map(Some);
        }
        let (segment, fd) = Segment::create(members, w.facilities().memfd)?;
        let mut told = Vec::new();
        for r in &local[1..] {
            let process = self.members[*r].process;
            if !told.contains(&process) {
                told.push(process);
                let fd = fd.try_clone().map_err(|e| Error::system("duplicating a descriptor", &e))?;
                w.share_segment(&process, world, fd).map_err(|e| blame(e, *r as u32))?;
            }
        }
        Ok(Some(segment))
    }

    /// Waits until every member is connected, and takes rank 0's word for where one algorithm takes over from another:
    /// members that chose differently would wait for each other for ever.
    fn meet(&self, deadline: Instant) -> Result<()> {
        let topology = match self.peers.get() {
            Some((_, tcp)) if *tcp > 0 => Topology::Network,
            _ => Topology::SharedMemory,
        };
        let built_in = Tuning::of(topology);
        let wanted =
            self.config.tuning.as_ref().map_or(built_in, |table| table.choose(topology, self.nranks()));
        let none = [0; Tuning::KEYS.len()];
        let mine = if self.rank == 0 { wanted.to_words() } else { none };
        let mut all = none;
        // Nobody has the sum before everybody is there. Until then all have what is built in.
        let sum = Call {
            kind: OpKind::AllReduce,
            send: false,
            sendbuf: mine.as_ptr().cast(),
            recvbuf: all.as_mut_ptr().cast(),
            count: mine.len(),
            dtype: DataType::Uint64,
            reduction: Reduction::Builtin(RedOp::Sum),
            peer: 0,
            stream: std::ptr::null_mut(),
            scalar_on_device: false,
        };
        self.run_until(&sum, deadline)?;
        let agreed = Tuning::from_words(&all);
        if self.config.tuning.is_some() && agreed != wanted {
            let name = &self.name;
            tracing::warn!("world '{name}': the table that MW_TUNING names is not rank 0's, which counts");
        }
        self.with_engine(|e| {
            e.tune(agreed);
            // That was nobody's payload.
            e.bytes = (0, 0);
        });
        Ok(())
    }
}

/// A broken world's own reason says more than the step of joining that it interrupted.
fn world_error(world: &World, e: Error) -> Error {
    match world.error() {
        Some(reason) if reason.code == e.code && reason.culprit.is_some() => reason,
        _ => e,
    }
}
