//! Growing. The coordinator asks for an id, which the newcomers are told by the program and the ranks 0 and
//! n-1 by the coordinator: those two wait for it in the call, whether the communicator blocks or not.

use super::{Place, answer, settings};
use crate::abi::UNHANDLED_CUDA_ERROR;
use crate::abi::{Code, CommPointer, INTERNAL_ERROR, INVALID_ARGUMENT, SUCCESS, SYSTEM_ERROR, UniqueId};
use crate::api::init::bootstrap;
use crate::comm::Comm;
use crate::config::Config;
use crate::cuda::Device;
use crate::entry::Call;
use crate::group;
use crate::key::{Key, grow_id};
use crate::record::{lock, set_last_error, violation};
use crate::stop::Stop;
use std::collections::HashSet;
use std::ffi::c_int;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How much of an id counts: the tail is not known to the ranks that get it from the coordinator.
const USED_BYTES: usize = 40;

/// The ids that newcomers of this process have used.
static CONSUMED: Mutex<Option<HashSet<(Key, usize)>>> = Mutex::new(None);

fn key_of(id: &UniqueId, ranks: usize) -> Key {
    let used = id.0.get(..USED_BYTES).unwrap_or_default();
    Key::of(&[b"grow", used, &ranks.to_le_bytes()])
}

/// Where the coordinator says that growing may begin.
fn signal_address(comm: &Comm, generation: u64) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(comm.key.child("grow", &generation.to_le_bytes()).address(0))
}

/// `ncclCommGetUniqueId`.
///
/// # Safety
/// `id` is NULL or writable.
pub unsafe fn get_grow_id(call: &Call, id: *mut UniqueId) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    match comm.ensure_ready(call.function.name()) {
        SUCCESS => {}
        code => return call.fail(code),
    }
    if id.is_null() {
        return call.invalid("uniqueId is NULL");
    }
    let mut growth = lock(&comm.growth);
    if growth.is_some() {
        return call.misused("the last id has not been used yet");
    }
    let generation = comm.children.load(Ordering::Acquire) + 1;
    match signal_address(&comm, generation).and_then(|address| UnixListener::bind_addr(&address)) {
        Ok(listener) => *growth = Some(listener),
        Err(error) => {
            set_last_error(&format!("cannot reach the other ranks: {error}"));
            return SYSTEM_ERROR;
        }
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { id.write(grow_id(comm.key, generation)) };
    SUCCESS
}

/// `ncclCommGrow`.
///
/// # Safety
/// `id` is NULL or readable, `newcomm` is NULL or writable; `config` is as in [`Config::read`].
pub unsafe fn grow(
    call: &Call,
    ranks: c_int,
    id: *const UniqueId,
    rank: c_int,
    newcomm: *mut CommPointer,
    config: *const Config,
) -> Code {
    let count = match usize::try_from(ranks) {
        Ok(count) if count > 0 && !newcomm.is_null() => count,
        _ => return call.invalid("newcomm is NULL or nRanks not positive"),
    };
    let place = Place::of(newcomm);
    // SAFETY: not NULL, and the caller's promise.
    unsafe { place.put(std::ptr::null_mut()) };
    // SAFETY: the caller's promise.
    let id = unsafe { id.as_ref() };
    let (code, end) = group::scope(|| {
        // SAFETY: the caller's promise.
        let made = unsafe {
            match call.is_null() {
                true => join(call, count, id, rank, config),
                false => extend(call, count, id, rank, config),
            }
        };
        let (comm, parent) = match made {
            Ok(made) => made,
            Err(code) => return code,
        };
        let Some(shell) = comm.shell() else { return INTERNAL_ERROR };
        // SAFETY: not NULL, and the caller's promise.
        unsafe { place.put(shell.pointer()) };
        // The coordinator's sign stays up until all are there.
        let signal = parent.as_ref().and_then(|parent| lock(&parent.growth).take());
        let (job, fault) = (comm.clone(), call.fault);
        let work = move || {
            let others: Vec<&Stop> = parent.iter().map(|parent| &*parent.stop).collect();
            let code = bootstrap(&job, &others, &fault);
            drop(signal);
            code
        };
        group::add_job(&comm, false, Box::new(work))
    });
    if code != SUCCESS {
        call.fail(code);
    }
    answer(code, end)
}

type Grown = (Arc<Comm>, Option<Arc<Comm>>);

/// A newcomer.
unsafe fn join(
    call: &Call,
    ranks: usize,
    id: Option<&UniqueId>,
    rank: c_int,
    config: *const Config,
) -> Result<Grown, Code> {
    let (Ok(rank), Some(id)) = (usize::try_from(rank), id) else {
        return Err(call.invalid("a new rank needs its rank and the id"));
    };
    if rank >= ranks {
        return Err(call.invalid("rank is not below nRanks"));
    }
    let key = key_of(id, ranks);
    if !lock(&CONSUMED).get_or_insert_default().insert((key, rank)) {
        violation(&format!("CommGrow: new rank {rank} uses an id for the second time"));
    }
    // SAFETY: the caller's promise is that of Config::read.
    let settings = unsafe { Config::read(config) }?;
    let device = Device::current().map_err(|_| UNHANDLED_CUDA_ERROR)?;
    Ok((Comm::new(key, rank, ranks, settings, device, None)?, None))
}

/// A rank of the communicator that grows.
unsafe fn extend(
    call: &Call,
    ranks: usize,
    id: Option<&UniqueId>,
    rank: c_int,
    config: *const Config,
) -> Result<Grown, Code> {
    let parent = call.comm()?;
    if ranks <= parent.ranks {
        return Err(call.invalid("nRanks is not larger than before"));
    }
    match parent.ensure_ready(call.function.name()) {
        SUCCESS => {}
        code => return Err(code),
    }
    if rank != -1 {
        return Err(call.invalid("an existing rank passes -1"));
    }
    let generation = parent.children.fetch_add(1, Ordering::AcqRel) + 1;
    if parent.ranks > 1 && (parent.rank == 0 || parent.rank == parent.ranks - 1) {
        await_signal(&parent, generation)?;
    }
    let expected = grow_id(parent.key, generation);
    if id.is_some_and(|id| id.0.get(..USED_BYTES) != expected.0.get(..USED_BYTES)) {
        call.invalid("the id is not of this communicator");
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise is that of Config::read.
    let settings = unsafe { settings(&parent, config) }?;
    let comm = Comm::new(key_of(&expected, ranks), parent.rank, ranks, settings, parent.device, None)?;
    Ok((comm, Some(parent)))
}

/// Waits in the call until the coordinator has asked for the id.
fn await_signal(parent: &Comm, generation: u64) -> Result<(), Code> {
    let address = signal_address(parent, generation).map_err(|_| SYSTEM_ERROR)?;
    while UnixStream::connect_addr(&address).is_err() {
        if Stop::park(&[&parent.stop], Some(Duration::from_millis(2))) {
            return Err(INTERNAL_ERROR);
        }
    }
    Ok(())
}
