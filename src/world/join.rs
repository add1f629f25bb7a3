//! The ways into a world.

use super::reform::Origin;
use super::{Call, World};
use crate::auth;
use crate::config::{BackendChoice, Config};
use crate::error::{Code, Error, Extent, Result};
use crate::nccl::cuda;
use crate::rendezvous::hosting::Reached;
use crate::rendezvous::id::{self, Ticket};
use crate::rendezvous::reform::Member;
use crate::rendezvous::{Joining, Membership, hosting};
use crate::store::{self, Store};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sys::interfaces;
use crate::types::{Address, DataType, OpKind, RedOp, Reduction, Secret, WorldId};
use crate::watchdog::Watchdog;
use std::time::{Duration, Instant};

/// A unique id's bytes.
pub type UniqueId = [u8; id::SIZE];

/// Largest world.
pub(super) const MAX_RANKS: i32 = 1 << 20;
/// Longest name, without the NUL.
const MAX_NAME: usize = 63;

/// How long to wait for the store's word on who is still there.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Nobody is absent who would not be missed otherwise: all members are in this process, or linked with it.
pub(super) fn nobody() -> Result<Vec<u32>> {
    Ok(Vec::new())
}

fn check_ranks(nranks: i32, rank: i32) -> Result<(u32, u32)> {
    if !(1..=MAX_RANKS).contains(&nranks) {
        return Err(Error::argument(format!("nranks: {nranks} is not between 1 and {MAX_RANKS}")));
    }
    if !(0..nranks).contains(&rank) {
        return Err(Error::argument(format!("rank: {rank} is not between 0 and {}", nranks - 1)));
    }
    Ok((nranks as u32, rank as u32))
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::argument(format!("name: must have 1 to {MAX_NAME} bytes, has {}", name.len())));
    }
    if name.contains('/') || name.chars().any(char::is_control) {
        return Err(Error::argument("name: must not contain '/' or control characters"));
    }
    Ok(())
}

/// What the members of named worlds know of each other.
pub(super) fn base_secret(config: &Config) -> Secret {
    config.secret.clone().unwrap_or_else(auth::no_secret)
}

/// What the members of one world know of each other.
pub(super) fn world_secret(base: &Secret, world: &WorldId) -> Secret {
    auth::derive(base, "world", &world.0)
}

/// This process's watchdog, which listens where the store can be reached from: the others can reach that as well.
pub(super) fn watchdog(config: &Config, deadline: Instant) -> Result<&'static Arc<Watchdog>> {
    let soon = deadline.min(Instant::now() + PATIENCE);
    Watchdog::get_toward(config.ifname.as_deref(), || hosting::whereabouts(config.store.as_deref()?, soon))
}

/// Where the others of a named world reach this process. Without a secret, whoever reaches a member or the store is let
/// in, so that both have to be on this machine, unless the user wants it otherwise.
pub(super) fn reachable<'w>(
    w: &'w Watchdog,
    config: &Config,
    secret: &Secret,
    deadline: Instant,
) -> Result<&'w Address> {
    if config.insecure || !auth::is_no_secret(secret) {
        return w.address_beyond();
    }
    match config.store.as_deref() {
        Some(store) if !hosting::is_local(store, deadline)? => Err(Error::argument(format!(
            "config.secret: none is set, and the store '{}' is not on this machine's loopback, so that whoever reaches \
             it could join; set MW_SECRET or MW_SECRET_FILE for all members and the store, or MW_INSECURE=1 to let \
             everybody in",
            store::shown(store)
        ))),
        _ => Ok(w.address()),
    }
}

/// The configured store. With `host` this process becomes it where nobody else is.
pub(super) fn reach_store(
    w: &Watchdog,
    config: &Config,
    secret: &Secret,
    host: bool,
    deadline: Instant,
) -> Result<Arc<dyn Store>> {
    let Some(address) = config.store.as_deref() else {
        return Err(Error::argument(
            "config: no store is configured; set MW_STORE, as to tcp://host:port, or the field 'store'",
        ));
    };
    let Reached { store, session } = hosting::reach_any(address, secret, host, deadline)?;
    if let Some(session) = session {
        w.watch_store(session, address)?;
    }
    Ok(store)
}

impl World {
    /// Joins by name, through the configured store. Collective.
    pub fn init_named(name: &str, nranks: i32, rank: i32, config: &Config) -> Result<Arc<World>> {
        check_name(name)?;
        let (nranks, rank) = check_ranks(nranks, rank)?;
        let deadline = Instant::now() + config.join_timeout;
        let w = watchdog(config, deadline)?;
        if nranks == 1 && config.store.is_none() {
            return World::alone(name, w, config, deadline);
        }
        let secret = base_secret(config);
        let me = reachable(w, config, &secret, deadline)?;
        let store = reach_store(w, config, &secret, rank == 0, deadline)?;
        let world = World::join(&*store, name, name, nranks, rank, me, &secret, config, deadline)?;
        // Set once, here.
        let _ = world.origin.set(Origin { secret, members: Member::first(&world.members) });
        Ok(world)
    }

    /// Joins by unique id. Collective.
    pub fn init_rank(id: &UniqueId, nranks: i32, rank: i32, config: &Config) -> Result<Arc<World>> {
        let (nranks, rank) = check_ranks(nranks, rank)?;
        let ticket = Ticket::decode(id)?;
        let deadline = Instant::now() + config.join_timeout;
        let w = Watchdog::get_toward(config.ifname.as_deref(), || Some(ticket.store.ip()))?;
        let me = w.address_beyond()?;
        let store = hosting::reach_id(&ticket, deadline)?;
        let key: String = ticket.key.0.iter().map(|b| format!("{b:02x}")).collect();
        let name = format!("id-{}", &key[..8]);
        World::join(&*store, &key, &name, nranks, rank, me, &ticket.secret, config, deadline)
    }

    /// All ranks of a new world at once, as members in this process. Returned in rank order. On device memory rank i has
    /// device i, as in NCCL.
    pub fn init_all(nranks: i32, config: &Config) -> Result<Vec<Arc<World>>> {
        let (n, _) = check_ranks(nranks, 0)?;
        if config.backend == BackendChoice::Nccl && nranks > cuda::devices() {
            let there = cuda::devices();
            return Err(Error::argument(format!("nranks: {nranks} is more than the {there} CUDA devices")));
        }
        let deadline = Instant::now() + config.join_timeout;
        let w = Watchdog::get(config.ifname.as_deref())?;
        let (membership, secret) = fresh(w.address(), n)?;
        let all: Vec<Result<Arc<World>>> = std::thread::scope(|s| {
            let join = |rank| {
                let (m, secret) = (membership.clone(), secret.clone());
                w.admit(m.world, secret.clone());
                let device = (config.backend == BackendChoice::Nccl).then_some(rank as i32);
                let config = Config { device, ..config.clone() };
                s.spawn(move || World::connect("all", rank, m, secret, &config, deadline, &nobody))
            };
            let threads: Vec<_> = (0..n).map(join).collect();
            let lost = |_| Err(Error::internal("a joining thread panicked"));
            threads.into_iter().map(|t| t.join().unwrap_or_else(lost)).collect()
        });
        if let Some(e) = all.iter().find_map(|r| r.as_ref().err().cloned()) {
            all.iter().flatten().for_each(|w| w.abort());
            return Err(e);
        }
        Ok(all.into_iter().flatten().collect())
    }

    /// A new unique id, at a store in this process.
    pub fn unique_id(config: &Config) -> Result<UniqueId> {
        // Also notices a forked process.
        let w = watchdog(config, Instant::now() + config.join_timeout)?;
        let ip = match config.ifname.as_deref() {
            Some(spec) => interfaces::choose(Some(spec), None)?,
            None => w.address().tcp.ip(),
        };
        Ok(hosting::new_id(ip)?.encode())
    }

    fn alone(name: &str, w: &Watchdog, config: &Config, deadline: Instant) -> Result<Arc<World>> {
        let (membership, secret) = fresh(w.address(), 1)?;
        w.admit(membership.world, secret.clone());
        World::connect(name, 0, membership, secret, config, deadline, &nobody)
    }

    #[allow(clippy::too_many_arguments)]
    fn join(
        store: &dyn Store,
        key: &str,
        name: &str,
        nranks: u32,
        rank: u32,
        me: &Address,
        secret: &Secret,
        config: &Config,
        deadline: Instant,
    ) -> Result<Arc<World>> {
        let w = Watchdog::get(config.ifname.as_deref())?;
        // Peers may dial as soon as they know the list, so the door is opened before anybody can.
        let derive = |world: &WorldId| world_secret(secret, world);
        let admitted = std::cell::RefCell::new(Vec::new());
        let admit = |world: &WorldId| {
            if !admitted.borrow().contains(world) {
                w.admit(*world, derive(world));
                admitted.borrow_mut().push(*world);
            }
        };
        let joining = Joining::new(store, key, nranks, rank, me, &admit, deadline)?;
        // The store of a unique id has no further use.
        let joining = if key == name { joining.recorded() } else { joining };
        let found = joining.run();
        let used = found.as_ref().ok().map(|m| m.world);
        let joined = found.and_then(|m| {
            let secret = derive(&m.world);
            let id = m.world;
            let absent = || joining.absent(&id, deadline.min(Instant::now() + PATIENCE));
            World::connect(name, rank, m, secret, config, deadline, &absent)
        });
        joining.finish();
        // Attempts that rank 0 gave up and began anew.
        admitted.take().into_iter().filter(|id| Some(*id) != used).for_each(|id| w.dismiss(id));
        joined
    }

    /// Splits into worlds of equal color, ranked by key and then by rank here; `None` for a negative color.
    /// Collective.
    pub fn split(
        self: &Arc<World>,
        color: i32,
        key: i32,
        config: Option<&Config>,
    ) -> Result<Option<Arc<World>>> {
        if color < -1 {
            return Err(Error::argument(format!(
                "color: {color} is neither MW_SPLIT_NOCOLOR nor at least 0"
            )));
        }
        let config = config.unwrap_or(&self.config);
        let deadline = Instant::now() + config.join_timeout;
        let number = self.splits.fetch_add(1, Ordering::Relaxed);
        // Everybody knows each child's name and secret before it can be dialled: its door is opened before the
        // parent's members learn the colors.
        let mut context = self.id.0.to_vec();
        context.extend(self.epoch.to_le_bytes());
        context.extend(number.to_le_bytes());
        context.extend(color.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&auth::derive(&self.secret, "split", &context).0[..16]);
        let (id, secret) = (WorldId(id), auth::derive(&self.secret, "split secret", &context));
        let w = Watchdog::get(config.ifname.as_deref())?;
        if color >= 0 {
            w.admit(id, secret.clone());
        }
        let all = match self.everybodys([color, key], number, deadline) {
            Ok(all) => all,
            Err(e) => {
                if color >= 0 {
                    w.dismiss(id);
                }
                return Err(e);
            }
        };
        if color < 0 {
            return Ok(None);
        }
        let mut group: Vec<u32> = (0..self.nranks()).filter(|r| all[*r as usize][0] == color).collect();
        group.sort_by_key(|r| (all[*r as usize][1], *r));
        let rank = group.iter().position(|r| *r == self.rank).unwrap_or_default() as u32;
        let members = group.iter().map(|r| self.members[*r as usize].clone()).collect();
        let membership = Membership { world: id, epoch: 1, members };
        let name = child_name(&self.name, number, color);
        World::connect(&name, rank, membership, secret, config, deadline, &nobody).map(Some)
    }

    /// Every rank's two numbers, by rank; `number` tells the calls of this world apart. Collective.
    fn everybodys(&self, mine: [i32; 2], number: u32, deadline: Instant) -> Result<Vec<[i32; 2]>> {
        let mut all = vec![[0i32; 2]; self.nranks() as usize];
        if self.config.backend != BackendChoice::Host {
            // Operations take device memory, if any: the words go by the control links.
            let mut word = [0; 128];
            word[..4].copy_from_slice(&mine[0].to_le_bytes());
            word[4..8].copy_from_slice(&mine[1].to_le_bytes());
            for (theirs, word) in all.iter_mut().zip(self.exchange(&word, number, deadline)?) {
                let number =
                    |at: usize| i32::from_le_bytes([word[at], word[at + 1], word[at + 2], word[at + 3]]);
                *theirs = [number(0), number(4)];
            }
            return Ok(all);
        }
        let gather = Call {
            kind: OpKind::AllGather,
            send: false,
            sendbuf: mine.as_ptr().cast(),
            recvbuf: all.as_mut_ptr().cast(),
            count: 2,
            dtype: DataType::Int32,
            reduction: Reduction::Builtin(RedOp::Sum),
            peer: 0,
            stream: std::ptr::null_mut(),
            scalar_on_device: false,
        };
        self.run(&gather)?;
        Ok(all)
    }
}

/// `parent.3.0`, shortened at the front of the suffix if it must be.
fn child_name(parent: &str, number: u32, color: i32) -> String {
    let suffix = format!(".{number}.{color}");
    let mut end = parent.len().min(MAX_NAME - suffix.len());
    while !parent.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &parent[..end])
}

/// A membership of `n` ranks in this process.
fn fresh(me: &Address, n: u32) -> Result<(Membership, Secret)> {
    let mut id = [0; 16];
    auth::fill_random(&mut id)?;
    let secret = auth::new_secret().map_err(|e| Error::new(Code::System, Extent::Operation, e.text))?;
    let members = vec![me.clone(); n as usize];
    Ok((Membership { world: WorldId(id), epoch: 1, members }, secret))
}
