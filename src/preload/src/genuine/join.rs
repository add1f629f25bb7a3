//! Making genuine communicators.
//!
//! NCCL makes a communicator in the background, because it is non-blocking, while a thread joins the world that watches
//! it: both meet the same ranks. If the world learns that one of them has died, the communicator is given up at once,
//! where NCCL would wait for ever. A world that cannot be joined for another reason leaves the communicator unwatched,
//! which is said in the log.

use super::config::ConfigCopy;
use super::ward::{Policy, Ward};
use super::{Communicator, GRACE, enter, forward, patience};
use crate::arg::Out;
use crate::boundary::caught;
use crate::comm::Comm as Either;
use crate::id::{self, Parts};
use crate::{config as settings, group, handle, lanes};
use multiworld::backend::nccl::unique_id;
use multiworld::config::{BackendChoice, Config};
use multiworld::error::{Code, Error, Result};
use multiworld::nccl::cuda;
use multiworld::nccl::recipe::Limits;
use multiworld::nccl::types::*;
use multiworld::nccl::{Comm, Library, Options, Outcome};
use multiworld::sync::Arc;
use multiworld::sync::atomic::Ordering;
use multiworld::sys::process;
use multiworld::world::{Ranking, World};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Instant;

/// Numbers the exchange in which survivors learn the identity of their new communicator.
const RENEWAL: u32 = (u32::MAX >> 1) - 1;

/// Makes NCCL begin with a communicator; `None` where this rank gets none.
type Begin = Box<dyn FnOnce() -> Result<Option<Arc<Comm>>> + Send>;
/// Joins the world that watches it.
type Watch = Box<dyn FnOnce() -> Result<Option<Arc<World>>> + Send>;

/// A communicator in the making.
pub struct Task {
    /// Its ranks make its children in the same order.
    parent: Option<u64>,
    owner: Option<Arc<Communicator>>,
    blocking: bool,
    begin: Begin,
    watch: Option<Watch>,
    token: usize,
    out: Option<Out<ncclComm_t>>,
    device: Option<i32>,
}

/// What identifies a clique, from something that all its ranks know.
fn clique(of: impl Hash) -> u64 {
    // Without random keys: the same in all processes.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Settings of the worlds that only watch.
fn watching() -> Result<Config> {
    Ok(Config { backend: BackendChoice::Watch, ..settings::world_config()? })
}

fn options(name: String) -> Options {
    // Only what the user asked for: most programs have operations that take as long as they take.
    let asked = std::env::var_os("MW_TIMEOUT_MS").is_some_and(|v| !v.is_empty());
    let config = settings::world_config().ok();
    let limits = config.as_ref().map(|c| Limits::within(c.abort_timeout, c.timeout)).unwrap_or_default();
    Options { name, timeout: config.filter(|_| asked).map(|c| c.timeout), limits }
}

/// An identity of the genuine library, with a world's in its tail.
pub fn unique_id_with_world(library: &Library) -> Result<ncclUniqueId> {
    let genuine = unique_id(library)?;
    with_world(&genuine)
}

/// Puts a world's identity into the tail of a genuine one, if that is free.
pub fn with_world(genuine: &[u8; 128]) -> Result<ncclUniqueId> {
    let plain = || ncclUniqueId { internal: genuine.map(|b| b.cast_signed() as core::ffi::c_char) };
    let (head, tail) = genuine.split_at(id::HEAD);
    if tail.iter().any(|b| *b != 0) {
        tracing::warn!("this NCCL uses all bytes of a unique id: communicators will not be watched");
        return Ok(plain());
    }
    match World::unique_id(&watching()?) {
        Ok(world) => {
            let mut parts = Parts { head: [0; id::HEAD], world };
            parts.head.copy_from_slice(head);
            Ok(id::encode(&parts))
        }
        Err(e) => {
            tracing::warn!("communicators of this id will not be watched: {e}");
            Ok(plain())
        }
    }
}

/// The watch over a communicator that is made from an id: nothing where the id says nothing.
fn watch_by_id(id: &ncclUniqueId, nranks: i32, rank: i32) -> Result<Option<Watch>> {
    if nranks == 1 {
        return Ok(None);
    }
    let Ok(parts) = id::decode(id, "commId") else {
        tracing::warn!(
            "this unique id was not made by multiworld's libnccl: its communicator is not watched"
        );
        return Ok(None);
    };
    let config = watching()?;
    Ok(Some(Box::new(move || World::init_rank(&parts.world, nranks, rank, &config).map(Some))))
}

/// A communicator from an id.
///
/// # Safety
/// `config` is NULL or an `ncclConfig_t` of any version.
pub unsafe fn init_rank(
    library: &Arc<Library>,
    out: Out<ncclComm_t>,
    nranks: i32,
    id: ncclUniqueId,
    rank: i32,
    config: *const ncclConfig_t,
) -> Result<ncclResult_t> {
    crate::create::check_ranks(nranks, rank)?;
    // SAFETY: by this function's contract.
    let mut config = unsafe { ConfigCopy::of(config, true) }?;
    let owner = Communicator::new(config.blocking, clique(id::bytes(&id)));
    let watch = watch_by_id(&id, nranks, rank)?;
    let library = library.clone();
    let begin = move || {
        let mut real = ptr::null_mut();
        // SAFETY: `real` is writable, and the configuration a whole one.
        let result = unsafe {
            forward::ncclCommInitRankConfig(&library, &mut real, nranks, id, rank, config.as_ptr())
        }?;
        adopt(&library, real, result, "ncclCommInitRankConfig", format!("rank {rank} of {nranks}")).map(Some)
    };
    Task::new(owner, out, begin, watch)?.start()
}

/// Takes what the library made into care.
fn adopt(
    library: &Arc<Library>,
    real: ncclComm_t,
    result: ncclResult_t,
    what: &str,
    name: String,
) -> Result<Arc<Comm>> {
    if !matches!(result, ncclSuccess | ncclInProgress) || real.is_null() {
        return Err(library.failure(what, result));
    }
    Comm::adopt(library.clone(), real, options(name))
}

/// A communicator whose ranks find each other by several ids.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn init_rank_scalable(
    library: &Arc<Library>,
    out: Out<ncclComm_t>,
    nranks: i32,
    rank: i32,
    ids: Vec<ncclUniqueId>,
    config: *const ncclConfig_t,
) -> Result<ncclResult_t> {
    crate::create::check_ranks(nranks, rank)?;
    // SAFETY: by this function's contract.
    let mut config = unsafe { ConfigCopy::of(config, true) }?;
    let Some(first) = ids.first() else { return Err(Error::argument("nId: 0")) };
    let owner = Communicator::new(config.blocking, clique(id::bytes(first)));
    let watch = watch_by_id(first, nranks, rank)?;
    let (library, mut ids) = (library.clone(), ids);
    let begin = move || {
        let mut real = ptr::null_mut();
        let n = i32::try_from(ids.len()).unwrap_or(i32::MAX);
        // SAFETY: `real` is writable, the ids are as many as stated, and the configuration is a whole one.
        let result = unsafe {
            forward::ncclCommInitRankScalable(
                &library,
                &mut real,
                nranks,
                rank,
                n,
                ids.as_mut_ptr(),
                config.as_ptr(),
            )
        }?;
        adopt(&library, real, result, "ncclCommInitRankScalable", format!("rank {rank} of {nranks}"))
            .map(Some)
    };
    Task::new(owner, out, begin, watch)?.start()
}

/// All ranks of a communicator in this process. They die together, but one may be aborted alone.
///
/// # Safety
/// `comms` has room for as many as there are devices.
pub unsafe fn init_all(
    library: &Arc<Library>,
    comms: *mut ncclComm_t,
    devices: &[i32],
) -> Result<ncclResult_t> {
    let nranks = i32::try_from(devices.len()).map_err(|_| Error::argument("ndev: too many"))?;
    let bytes = unique_id(library)?;
    let id = ncclUniqueId { internal: bytes.map(|b| b.cast_signed() as core::ffi::c_char) };
    let before = if cuda::is_usable() { Some(cuda::current_device()?) } else { None };
    let mut worlds = World::init_all(nranks, &watching()?)?.into_iter();
    let mut tasks = Vec::new();
    for (rank, device) in devices.iter().enumerate() {
        // SAFETY: so many may be written by this function's contract.
        let out = unsafe { Out::new(comms.wrapping_add(rank), "comm") }?;
        let rank = rank as i32;
        let owner = Communicator::new(true, clique(bytes));
        let mut config = ConfigCopy::inherited(true);
        let (library, device) = (library.clone(), *device);
        let begin = move || {
            let mut real = ptr::null_mut();
            // SAFETY: `real` is writable, and the configuration a whole one.
            let result = unsafe {
                forward::ncclCommInitRankConfig(&library, &mut real, nranks, id, rank, config.as_ptr())
            }?;
            adopt(&library, real, result, "ncclCommInitAll", format!("rank {rank} of {nranks}")).map(Some)
        };
        let watch = worlds.next().map(|w| -> Watch { Box::new(move || Ok(Some(w))) });
        tasks.push(Task { device: before.map(|_| device), ..Task::new(owner, out, begin, watch)? });
    }
    let mut issued = Vec::new();
    for task in tasks {
        issued.push(task.issue()?);
    }
    run_all(issued)
}

/// Splits.
///
/// # Safety
/// `config` is NULL or an `ncclConfig_t` of any version.
pub unsafe fn split(
    parent: &Arc<Communicator>,
    color: i32,
    key: i32,
    out: Out<ncclComm_t>,
    config: *const ncclConfig_t,
) -> Result<ncclResult_t> {
    // SAFETY: by this function's contract.
    let mut config = unsafe { ConfigCopy::of(config, parent.blocking) }?;
    if color < NCCL_SPLIT_NOCOLOR {
        return Err(Error::argument(format!("color: {color} is neither a color nor NCCL_SPLIT_NOCOLOR")));
    }
    let number = parent.children.fetch_add(1, Ordering::Relaxed);
    let comm = parent.comm()?.clone();
    let world = parent.world().cloned();
    // How many there will be is asked of NCCL when it knows.
    let owner = (color >= 0)
        .then(|| Communicator::new(config.blocking, clique((parent.clique, "split", number, color))));
    let blocking = config.blocking;
    let begin = move || {
        child(&comm, "ncclCommSplit", color >= 0, true, move |library, real, slot| {
            // SAFETY: a live handle, entered; `slot` stays writable until the parent has settled.
            unsafe { forward::ncclCommSplit(library, real, color, key, slot, config.as_ptr()) }
        })
    };
    let watch: Option<Watch> = world.map(|w| -> Watch { Box::new(move || w.split(color, key, None)) });
    Task::of_child(owner, blocking, out, begin, watch)?.of(parent).start()
}

/// A communicator of the others. NCCL's own function where it can still be used; where the parent is gone already, a
/// new communicator of the survivors, who find each other by their world.
///
/// # Safety
/// `config` is NULL or an `ncclConfig_t` of any version.
pub unsafe fn shrink(
    parent: &Arc<Communicator>,
    excluded: Vec<i32>,
    out: Out<ncclComm_t>,
    config: *const ncclConfig_t,
    flags: i32,
) -> Result<ncclResult_t> {
    // SAFETY: by this function's contract.
    let mut config = unsafe { ConfigCopy::of(config, parent.blocking) }?;
    let comm = parent.comm()?.clone();
    let (rank, nranks) = parent.place()?;
    if let Some(r) = excluded.iter().find(|r| **r == rank || !(0..nranks).contains(*r)) {
        let what = if *r == rank { "the calling rank itself" } else { "not a rank of the communicator" };
        return Err(Error::argument(format!("excludeRanksList: {r} is {what}")));
    }
    if !matches!(flags.cast_unsigned(), NCCL_SHRINK_DEFAULT | NCCL_SHRINK_ABORT) {
        return Err(Error::argument(format!("shrinkFlags: {flags} is no flag of it")));
    }
    let key = clique((parent.clique, "shrink", &excluded));
    let owner = Communicator::new(config.blocking, key);
    let blocking = config.blocking;
    let native = comm.is_open() && comm.library().functions.ncclCommShrink.is_some();
    let world = parent.world().cloned();
    let ranks: Vec<u32> = excluded.iter().filter_map(|r| u32::try_from(*r).ok()).collect();
    if native {
        let begin = move || {
            let mut excluded = excluded;
            child(&comm, "ncclCommShrink", true, true, move |library, real, slot| {
                let n = i32::try_from(excluded.len()).unwrap_or(i32::MAX);
                let list = excluded.as_mut_ptr();
                // SAFETY: a live handle, entered; `slot` stays writable until the parent has settled.
                unsafe { forward::ncclCommShrink(library, real, list, n, slot, config.as_ptr(), flags) }
            })
        };
        let watch: Option<Watch> =
            world.map(|w| -> Watch { Box::new(move || w.shrink(&ranks, Ranking::InOrder, None).map(Some)) });
        return Task::of_child(Some(owner), blocking, out, begin, watch)?.of(parent).start();
    }
    let Some(world) = world else {
        return Err(Error::usage(
            "ncclCommShrink: the communicator is gone, and nobody watched it who could find the survivors",
        ));
    };
    let library = comm.library().clone();
    let survivors = world.shrink(&ranks, Ranking::InOrder, None)?;
    let begin = {
        let survivors = survivors.clone();
        move || renew(&library, &survivors, &mut config).map(Some)
    };
    let watch: Watch = Box::new(move || Ok(Some(survivors)));
    Task::of_child(Some(owner), blocking, out, begin, Some(watch))?.start()
}

/// A new communicator of the members of a world: rank 0 gets an identity and tells it.
fn renew(library: &Arc<Library>, world: &Arc<World>, config: &mut ConfigCopy) -> Result<Arc<Comm>> {
    let mine = if world.rank() == 0 { unique_id(library)? } else { [0; 128] };
    let all = world.exchange(&mine, RENEWAL, Instant::now() + patience()?)?;
    let bytes = all.first().copied().unwrap_or([0; 128]);
    let id = ncclUniqueId { internal: bytes.map(|b| b.cast_signed() as core::ffi::c_char) };
    let (nranks, rank) = (world.nranks() as i32, world.rank() as i32);
    let mut real = ptr::null_mut();
    // SAFETY: `real` is writable, and the configuration a whole one.
    let result =
        unsafe { forward::ncclCommInitRankConfig(library, &mut real, nranks, id, rank, config.as_ptr()) }?;
    adopt(library, real, result, "ncclCommInitRankConfig", format!("rank {rank} of {nranks}"))
}

/// Grows; `parent` is missing on a newcomer.
///
/// # Safety
/// `config` is NULL or an `ncclConfig_t` of any version.
pub unsafe fn grow(
    library: &Arc<Library>,
    parent: Option<&Arc<Communicator>>,
    nranks: i32,
    id: Option<ncclUniqueId>,
    rank: i32,
    out: Out<ncclComm_t>,
    config: *const ncclConfig_t,
) -> Result<ncclResult_t> {
    // SAFETY: by this function's contract.
    let mut config = unsafe { ConfigCopy::of(config, parent.is_none_or(|p| p.blocking)) }?;
    match parent {
        Some(parent) => {
            let (_, now) = parent.place()?;
            if rank != -1 {
                let text = format!("rank: {rank}, but a member keeps its rank and passes -1");
                return Err(Error::argument(text));
            }
            if nranks <= now {
                return Err(Error::argument(format!(
                    "nRanks: {nranks} is not more than the {now} there are"
                )));
            }
        }
        None => {
            crate::create::check_ranks(nranks, rank)?;
            if id.is_none() {
                return Err(Error::argument("uniqueId: NULL, but a new rank needs it"));
            }
        }
    }
    let number = parent.map_or(0, |p| p.children.fetch_add(1, Ordering::Relaxed));
    // Newcomers know nothing of the parent, and no group spans this and older communicators before all have joined.
    let owner = Communicator::new(config.blocking, clique(("grow", nranks, number)));
    let blocking = config.blocking;
    let world = parent.and_then(|p| p.world()).cloned();
    let theirs = id.and_then(|id| id::decode(&id, "uniqueId").ok()).map(|p| p.world);
    let settings = watching()?;
    let watch: Option<Watch> = match (parent.is_some(), world, theirs) {
        (true, Some(w), mine) => Some(Box::new(move || w.grow(nranks, mine.as_ref(), None).map(Some))),
        (false, _, Some(id)) => {
            Some(Box::new(move || World::init_rank(&id, nranks, rank, &settings).map(Some)))
        }
        _ => None,
    };
    let comm = parent.map(|p| p.comm().cloned()).transpose()?;
    let library = library.clone();
    let begin = move || {
        let id = id;
        let at = id.as_ref().map_or(ptr::null(), ptr::from_ref);
        match &comm {
            Some(comm) => child(comm, "ncclCommGrow", true, false, move |library, real, slot| {
                // SAFETY: a live handle, entered; `slot` stays writable until the parent has settled, the id until the
                // call returns.
                unsafe { forward::ncclCommGrow(library, real, nranks, at, rank, slot, config.as_ptr()) }
            }),
            None => {
                let mut real = ptr::null_mut();
                // SAFETY: `real` is writable, the id readable, and the configuration a whole one.
                let result = unsafe {
                    let none = ptr::null_mut();
                    forward::ncclCommGrow(&library, none, nranks, at, rank, &mut real, config.as_ptr())
                }?;
                adopt(&library, real, result, "ncclCommGrow", format!("rank {rank} of {nranks}")).map(Some)
            }
        }
    };
    // Ranks 0 and n-1 wait in the call for the coordinator: never on the application's thread of a non-blocking one.
    Task::of_child(Some(owner), blocking, out, begin, watch)?.start()
}

/// Lets the library make a child of a communicator, and waits until it has told which: with `later` it tells when the
/// parent has nothing under way any more, whatever the call answered.
fn child(
    parent: &Arc<Comm>,
    what: &str,
    wanted: bool,
    later: bool,
    make: impl FnOnce(&Library, ncclComm_t, *mut ncclComm_t) -> Result<ncclResult_t>,
) -> Result<Option<Arc<Comm>>> {
    // On the heap, for NCCL writes it when the parent's job is done, however long the caller has waited for that.
    let slot: *mut ncclComm_t = Box::into_raw(Box::new(ptr::null_mut()));
    let outcome = enter(parent, what, |library, real| {
        // NCCL may answer success while its job is under way.
        let answer = make(library, real, slot)?;
        Ok(if later && answer == ncclSuccess { ncclInProgress } else { answer })
    });
    // A slot whose parent did not settle is left to NCCL, which may still write to it.
    parent.settle(outcome?, Instant::now() + patience()?)?;
    // SAFETY: ours, and the parent's job is done.
    let real = *unsafe { Box::from_raw(slot) };
    if !wanted {
        return Ok(None);
    }
    adopt(parent.library(), real, ncclSuccess, what, format!("a child of {}", parent.name())).map(Some)
}

impl Task {
    fn new(
        owner: Arc<Communicator>,
        out: Out<ncclComm_t>,
        begin: impl FnOnce() -> Result<Option<Arc<Comm>>> + Send + 'static,
        watch: Option<Watch>,
    ) -> Result<Task> {
        let blocking = owner.blocking;
        Task::of_child(Some(owner), blocking, out, begin, watch)
    }

    fn of_child(
        owner: Option<Arc<Communicator>>,
        blocking: bool,
        out: Out<ncclComm_t>,
        begin: impl FnOnce() -> Result<Option<Arc<Comm>>> + Send + 'static,
        watch: Option<Watch>,
    ) -> Result<Task> {
        Policy::get()?;
        // The background must use the caller's device.
        let device = if cuda::is_usable() { Some(cuda::current_device()?) } else { None };
        let (begin, out) = (Box::new(begin), Some(out));
        Ok(Task { parent: None, owner, blocking, begin, watch, token: 0, out, device })
    }

    fn of(self, parent: &Arc<Communicator>) -> Task {
        // Its address: other ranks of the same clique may be in this process.
        Task { parent: Some(Arc::as_ptr(parent).addr() as u64), ..self }
    }

    /// Gives the application its handle.
    fn issue(mut self) -> Result<Task> {
        if let Some(out) = &self.out {
            out.set(ptr::null_mut());
        }
        if let Some(owner) = &self.owner {
            let handle = handle::issue_comm(Either::Genuine(owner.clone()))?;
            self.token = handle.addr();
            if let Some(out) = &self.out {
                out.set(handle);
            }
        }
        Ok(self)
    }

    /// Makes it now, in the background, or at the end of this thread's group.
    pub fn start(self) -> Result<ncclResult_t> {
        let task = self.issue()?;
        if group::is_open() {
            group::add_genuine_task(task);
            return Ok(ncclSuccess);
        }
        run_all(vec![task])
    }

    /// Takes back what was handed out: the group that it is part of failed.
    pub fn cancel(self) {
        if let Some(owner) = &self.owner {
            owner.settle(Err(Error::usage("comm: the group that was to make it failed")));
            owner.settle_world();
        }
        withdraw(self.token, self.out.as_ref());
    }

    /// Makes it and joins its world. A blocking communicator that fails is gone, as in NCCL; another waits to be asked.
    fn run(self) -> Result<()> {
        let Task { owner, blocking, begin, watch, token, out, device, .. } = self;
        if let Some(owner) = &owner {
            owner.started.store(true, Ordering::SeqCst);
            if owner.abandoned.load(Ordering::SeqCst) {
                // Destroyed in the group that was to make it.
                owner.settle(Err(Error::usage("comm: it was given up before it was made")));
                owner.settle_world();
                return Ok(());
            }
        }
        let begun = catch_unwind(AssertUnwindSafe(|| match device {
            Some(device) => cuda::on(device, begin),
            None => begin(),
        }));
        let begun = begun.unwrap_or_else(|payload| Err(caught(payload)));
        let made = begun.and_then(|comm| {
            if let (Some(owner), Some(comm)) = (&owner, &comm) {
                owner.begin(comm);
            }
            // All ranks take part in watching, those who get no communicator, too.
            attend(owner.as_ref(), comm.as_ref(), watch)?;
            let Some(comm) = comm else { return Ok(None) };
            let until = Instant::now() + settings::world_config()?.join_timeout;
            comm.settle(Outcome::Pending, until).inspect_err(|e| comm.end(e))?;
            if let Some(owner) = &owner {
                // Its children are watched if it is: all ranks must think the same.
                owner.wait_watched(Instant::now() + GRACE);
            }
            Ok(Some(comm))
        });
        let Some(owner) = owner else { return made.map(drop) };
        let made = made.and_then(|comm| comm.ok_or_else(|| Error::internal("NCCL made no communicator")));
        let error = made.as_ref().err().cloned();
        owner.settle(made);
        let Some(error) = error else { return Ok(()) };
        owner.settle_world();
        if blocking {
            withdraw(token, out.as_ref());
        }
        Err(error)
    }
}

fn withdraw(token: usize, out: Option<&Out<ncclComm_t>>) {
    // Somebody may have aborted it meanwhile.
    let _ = handle::remove_comm(ptr::without_provenance_mut(token));
    if let Some(out) = out {
        out.set(ptr::null_mut());
    }
}

/// Lets a thread join the world of a communicator in the making.
fn attend(owner: Option<&Arc<Communicator>>, comm: Option<&Arc<Comm>>, watch: Option<Watch>) -> Result<()> {
    let Some(watch) = watch else {
        owner.iter().for_each(|o| o.settle_world());
        return Ok(());
    };
    let (owner, comm) = (owner.cloned(), comm.cloned());
    let policy = Policy::get()?;
    process::spawn("mw-watch", move || {
        let joined = catch_unwind(AssertUnwindSafe(watch)).unwrap_or_else(|payload| Err(caught(payload)));
        let (Some(owner), Some(comm)) = (owner, comm) else { return };
        match joined {
            Ok(Some(world)) => {
                world.care_for(&comm);
                let attached = world.attach(Arc::new(Ward { comm: comm.clone(), policy }));
                // Set once, here.
                let _ = owner.world.set(world.clone());
                if let Err(e) = attached {
                    tracing::warn!("{e}");
                }
                if owner.abandoned.load(Ordering::SeqCst) {
                    world.abort();
                }
            }
            Ok(None) => {}
            // One of those that NCCL waits for is dead.
            Err(e) if e.code == Code::Remote => comm.fail(e),
            Err(e) => tracing::warn!("communicator '{}' is not watched: {e}", comm.name()),
        }
        owner.settle_world();
    })
    .map(drop)
}

/// Makes several at once, because their ranks may wait for each other.
pub fn run_all(tasks: Vec<Task>) -> Result<ncclResult_t> {
    let (waiting, background): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|t| t.blocking);
    let mut result = Ok(if background.is_empty() { ncclSuccess } else { ncclInProgress });
    for mut task in background {
        // The caller's place for the handle need not be there any more when it is done.
        task.out = None;
        let owner = task.owner.clone();
        let started = process::spawn("mw-join", move || {
            // Its communicator knows how it ended.
            let _ = task.run();
        });
        if let Err(e) = started {
            owner.iter().for_each(|o| o.settle(Err(e.clone())));
            result = result.and(Err(e));
        }
    }
    lanes::run_all(waiting, |t| t.parent, Task::run).and(result)
}
