//! Communicators made from communicators: split, shrink, grow.

use crate::abi::{Code, CommPointer, IN_PROGRESS, INTERNAL_ERROR, SUCCESS};
use crate::api::init::{bootstrap, stage};
use crate::comm::Comm;
use crate::config::{Config, Settings};
use crate::control;
use crate::entry::Call;
use crate::group;
use crate::key::Key;
use crate::script::Fault;
use crate::stop::Stop;
use crate::wireup;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(not(nccl_old))]
use crate::abi::UNHANDLED_CUDA_ERROR;
#[cfg(not(nccl_old))]
pub use grow::{get_grow_id, grow};

#[cfg(not(nccl_old))]
#[path = "grow.rs"]
mod grow;

/// The color of a rank that wants no new communicator.
const NO_COLOR: c_int = -1;

/// Where a handle is to be written, as an address since a job on another thread may do it.
#[derive(Clone, Copy)]
struct Place(usize);

impl Place {
    fn of(pointer: *mut CommPointer) -> Place {
        Place(pointer.expose_provenance())
    }

    /// # Safety
    /// The program keeps the place until the call, or its job, is over.
    unsafe fn put(self, handle: CommPointer) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::with_exposed_provenance_mut::<CommPointer>(self.0).write(handle) };
    }
}

/// The configuration of a child: its own or its parent's.
unsafe fn settings(parent: &Comm, config: *const Config) -> Result<Settings, Code> {
    if config.is_null() {
        return Ok(parent.settings);
    }
    // SAFETY: the caller's promise is that of Config::read.
    unsafe { Config::read(config) }
}

/// What split and shrink return: an error, or success even when a job was left behind, as in NCCL.
fn answer(answer: Code, end: Code) -> Code {
    match (answer, end) {
        (SUCCESS, IN_PROGRESS) if control::script().reshape_in_progress => IN_PROGRESS,
        (SUCCESS, IN_PROGRESS) => SUCCESS,
        (SUCCESS, end) => end,
        (answer, _) => answer,
    }
}

/// The checks that split and shrink share; the parent comes back.
unsafe fn parent(call: &Call, newcomm: *mut CommPointer) -> Result<Arc<Comm>, Code> {
    let comm = call.comm()?;
    if newcomm.is_null() {
        return Err(call.invalid("newcomm is NULL"));
    }
    match comm.ensure_ready(call.function.name()) {
        SUCCESS => {}
        code => return Err(code),
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { Place::of(newcomm).put(std::ptr::null_mut()) };
    Ok(comm)
}

/// The abort flag of a child: its own, unless it shares its parent's resources.
fn child_stop(parent: &Comm, share: bool) -> Result<Arc<Stop>, Code> {
    if share && !parent.is_revoked() {
        return Ok(parent.stop.clone());
    }
    Stop::new().map_err(|_| INTERNAL_ERROR)
}

/// What a child is made of.
struct Child {
    parent: Arc<Comm>,
    key: Key,
    settings: Settings,
    stop: Arc<Stop>,
    place: Place,
}

impl Child {
    /// Connects the members and hands the new communicator out.
    fn make(self, rank: usize, ranks: usize) -> Code {
        let Child { parent, key, settings, stop, place } = self;
        let made = Comm::new(key, rank, ranks, settings, parent.device, Some(stop));
        let comm = match made {
            Ok(comm) => comm,
            Err(code) => return code,
        };
        let code = bootstrap(&comm, &[&parent.stop], &Fault::default());
        let Some(shell) = comm.shell() else { return INTERNAL_ERROR };
        if code != SUCCESS {
            shell.bury();
            return code;
        }
        // SAFETY: the program keeps the place until the parent is no longer in progress.
        unsafe { place.put(shell.pointer()) };
        SUCCESS
    }
}

/// `ncclCommSplit`.
///
/// # Safety `newcomm` is NULL or writable until the parent is no longer in progress; `config` is as in
/// [`Config::read`].
pub unsafe fn split(
    call: &Call,
    color: c_int,
    key: c_int,
    newcomm: *mut CommPointer,
    config: *const Config,
) -> Code {
    let (code, end) = group::scope(|| {
        // SAFETY: the caller's promise.
        let parent = match unsafe { parent(call, newcomm) } {
            Ok(parent) => parent,
            Err(code) => return code,
        };
        parent.check_condemned(call.function.name());
        // SAFETY: the caller's promise.
        let settings = match unsafe { settings(&parent, config) } {
            Ok(settings) => settings,
            Err(code) => return code,
        };
        let stop = match child_stop(&parent, parent.settings.split_share) {
            Ok(stop) => stop,
            Err(code) => return code,
        };
        let generation = parent.children.fetch_add(1, Ordering::AcqRel) + 1;
        let (place, fault, comm) = (Place::of(newcomm), call.fault, parent.clone());
        let work = move || {
            let stops = [&*comm.stop, &*stop];
            if let Some(code) = stage(&stops, &fault) {
                return code;
            }
            let members = match colors(&comm, generation, color, key, &stops) {
                Ok(members) => members,
                Err(code) => return code,
            };
            let Some(rank) = members.iter().position(|member| *member == comm.rank) else { return SUCCESS };
            let detail = [generation.to_le_bytes().as_slice(), &color.to_le_bytes()].concat();
            let key = comm.key.child("split into", &detail);
            Child { parent: comm, key, settings, stop, place }.make(rank, members.len())
        };
        group::add_job(&parent, false, Box::new(work))
    });
    if code != SUCCESS {
        call.fail(code);
    }
    answer(code, end)
}

/// Asks all ranks for their colors. The members of this rank's, in the order of their keys.
fn colors(
    comm: &Comm,
    generation: u64,
    color: c_int,
    key: c_int,
    stops: &[&Stop],
) -> Result<Vec<usize>, Code> {
    let meeting = comm.key.child("split", &generation.to_le_bytes());
    let mut mesh = wireup::connect(meeting, comm.rank, comm.ranks, stops)?;
    let own = [color.to_le_bytes(), key.to_le_bytes()].concat();
    let answers = wireup::exchange(&mut mesh, comm.ranks, &own, stops);
    wireup::leave(meeting);
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(NO_COLOR, c_int::from_le_bytes)
    };
    let answers = answers?;
    let mine = answers.iter().enumerate().filter(|(_, bytes)| color != NO_COLOR && number(bytes, 0) == color);
    let mut members: Vec<(c_int, usize)> = mine.map(|(rank, bytes)| (number(bytes, 4), rank)).collect();
    members.sort_unstable();
    Ok(members.into_iter().map(|(_, rank)| rank).collect())
}

/// `ncclCommShrink`.
///
/// # Safety
/// `excluded` is NULL or an array of `count` ranks; the rest is as for [`split`].
#[cfg(not(nccl_old))]
pub unsafe fn shrink(
    call: &Call,
    excluded: *mut c_int,
    count: c_int,
    newcomm: *mut CommPointer,
    config: *const Config,
    flags: c_int,
) -> Code {
    const ABORT: c_int = 1;
    let aborts = flags & ABORT != 0;
    let (code, end) = group::scope(|| {
        if aborts {
            match call.comm() {
                Ok(comm) if stop_kernels(&comm) => {}
                Ok(_) => return UNHANDLED_CUDA_ERROR,
                Err(code) => return code,
            }
        }
        let length = match usize::try_from(count) {
            Ok(length) if length > 0 && !excluded.is_null() => length,
            _ => return call.invalid("excludeRanksList is empty"),
        };
        // SAFETY: not NULL, and the caller's promise about the length.
        let mut excluded = unsafe { std::slice::from_raw_parts(excluded, length) }.to_vec();
        excluded.sort_unstable();
        // SAFETY: the caller's promise.
        let parent = match unsafe { parent(call, newcomm) } {
            Ok(parent) => parent,
            Err(code) => return code,
        };
        let is_out = |rank: usize| excluded.iter().any(|out| usize::try_from(*out) == Ok(rank));
        if is_out(parent.rank) {
            return call.invalid("an excluded rank takes part");
        }
        let survivors: Vec<usize> = (0..parent.ranks).filter(|rank| !is_out(*rank)).collect();
        // SAFETY: the caller's promise.
        let settings = match unsafe { settings(&parent, config) } {
            Ok(settings) => settings,
            Err(code) => return code,
        };
        let stop = match child_stop(&parent, !aborts && parent.settings.shrink_share) {
            Ok(stop) => stop,
            Err(code) => return code,
        };
        let generation = parent.children.fetch_add(1, Ordering::AcqRel) + 1;
        let mut detail = generation.to_le_bytes().to_vec();
        excluded.iter().for_each(|out| detail.extend(out.to_le_bytes()));
        let key = parent.key.child("shrink", &detail);
        let (place, fault, comm) = (Place::of(newcomm), call.fault, parent.clone());
        let work = move || {
            if let Some(code) = stage(&[&*comm.stop, &*stop], &fault) {
                return code;
            }
            let rank = survivors.iter().take_while(|rank| **rank < comm.rank).count();
            Child { parent: comm, key, settings, stop, place }.make(rank, survivors.len())
        };
        group::add_job(&parent, false, Box::new(work))
    });
    if code != SUCCESS {
        call.fail(code);
    }
    answer(code, end)
}

/// Ends what runs on the parent, which is good for nothing but an abort from then on. False when CUDA has
/// failed.
#[cfg(not(nccl_old))]
fn stop_kernels(comm: &Comm) -> bool {
    comm.stop.raise();
    comm.abort_job();
    let idle = comm.kernels.wait_idle(&comm.device);
    comm.stop.lower();
    comm.condemn("CommShrink with NCCL_SHRINK_ABORT");
    idle.is_ok()
}
