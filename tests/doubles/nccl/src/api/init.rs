//! Creation of communicators.

use crate::abi::{
    Code, CommPointer, IN_PROGRESS, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE, SUCCESS, SYSTEM_ERROR,
    UNHANDLED_CUDA_ERROR, UniqueId,
};
use crate::comm::Comm;
use crate::config::{Config, Settings};
use crate::cuda::Device;
use crate::entry::Call;
use crate::group;
use crate::handle::Inside;
use crate::key::{Key, fresh_id};
use crate::record::{lock, set_last_error, violation};
use crate::script::Fault;
use crate::stop::Stop;
use crate::wireup;
use std::collections::HashSet;
use std::ffi::c_int;
use std::sync::{Arc, Mutex};

/// The ids that ranks of this process have used: each is good for one communicator.
static USED: Mutex<Option<HashSet<(Key, usize)>>> = Mutex::new(None);

/// `ncclGetUniqueId`.
///
/// # Safety
/// `id` is NULL or writable.
pub unsafe fn get_unique_id(call: &Call, id: *mut UniqueId) -> Code {
    if id.is_null() {
        return call.invalid("uniqueId is NULL");
    }
    match fresh_id() {
        Ok(fresh) => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { id.write(fresh) };
            SUCCESS
        }
        Err(error) => {
            set_last_error(&format!("no random bytes: {error}"));
            SYSTEM_ERROR
        }
    }
}

/// `ncclCommInitRank`, with or without a configuration, and `ncclCommInitRankScalable`.
///
/// # Safety `newcomm` is NULL or writable, `ids` is NULL or an array of `count` ids, `config` is as in
/// [`Config::read`].
pub unsafe fn init_rank(
    call: &Call,
    newcomm: *mut CommPointer,
    ranks: c_int,
    rank: c_int,
    ids: *const UniqueId,
    count: c_int,
    config: *const Config,
) -> Code {
    let mut made = None;
    // The thread is inside the new communicator until it returns.
    let mut inside = None;
    let (answer, end) = group::scope(|| {
        if count < 1 || count > ranks || ids.is_null() {
            return refuse(newcomm, call.invalid("number of ids"));
        }
        // SAFETY: not NULL, and the caller's promise about the length.
        let ids = unsafe { std::slice::from_raw_parts(ids, count as usize) };
        // SAFETY: the caller's promise.
        let settings = match unsafe { Config::read(config) } {
            Ok(settings) => settings,
            Err(code) => return refuse(newcomm, code),
        };
        let Ok(device) = Device::current() else { return refuse(newcomm, no_device(call)) };
        // SAFETY: the caller's promise.
        match unsafe { begin(call, newcomm, ranks, rank, ids, settings, device) } {
            Ok(comm) => {
                inside = comm.shell().map(|shell| Inside::enter(shell, call.function.name()));
                made = Some(comm);
                SUCCESS
            }
            Err(code) => code,
        }
    });
    drop(inside);
    conclude(made.as_deref(), answer, end)
}

/// What a call returns that may have left a job behind: the end of the group decides, then the communicator.
pub fn conclude(comm: Option<&Comm>, answer: Code, end: Code) -> Code {
    match (answer, end, comm) {
        (SUCCESS | IN_PROGRESS, SUCCESS | IN_PROGRESS, Some(comm)) if !comm.settings.blocking => comm.poll(),
        (SUCCESS | IN_PROGRESS, end, _) if end != IN_PROGRESS => end,
        _ => answer,
    }
}

fn refuse(newcomm: *mut CommPointer, code: Code) -> Code {
    if !newcomm.is_null() {
        // SAFETY: not NULL; the callers of this module promise that it is writable.
        unsafe { newcomm.write(std::ptr::null_mut()) };
    }
    code
}

fn no_device(call: &Call) -> Code {
    set_last_error(&format!("{}: CUDA has failed", call.function.name()));
    UNHANDLED_CUDA_ERROR
}

/// Makes a communicator and adds its bootstrap to the group.
///
/// # Safety
/// `newcomm` is NULL or writable.
unsafe fn begin(
    call: &Call,
    newcomm: *mut CommPointer,
    ranks: c_int,
    rank: c_int,
    ids: &[UniqueId],
    settings: Settings,
    device: Device,
) -> Result<Arc<Comm>, Code> {
    if let Some(code) = call.fault.error {
        set_last_error(&format!("{}: the script says {code}", call.function.name()));
        return Err(refuse(newcomm, code));
    }
    if newcomm.is_null() {
        return Err(call.invalid("newcomm is NULL"));
    }
    let (Ok(count), Ok(own)) = (usize::try_from(ranks), usize::try_from(rank)) else {
        return Err(refuse(newcomm, call.invalid("negative rank or number of ranks")));
    };
    if own >= count {
        return Err(refuse(newcomm, call.invalid("rank is not below the number of ranks")));
    }
    let mut parts: Vec<&[u8]> = ids.iter().map(|id| id.0.as_slice()).collect();
    let ranks = ranks.to_le_bytes();
    parts.push(&ranks);
    let key = Key::of(&parts);
    if !lock(&USED).get_or_insert_default().insert((key, own)) {
        violation(&format!("{}: rank {own} uses a unique id for the second time", call.function.name()));
    }
    let comm = Comm::new(key, own, count, settings, device, None).map_err(|code| refuse(newcomm, code))?;
    let shell = comm.shell().ok_or(INTERNAL_ERROR)?;
    // SAFETY: not NULL, and the caller's promise.
    unsafe { newcomm.write(shell.pointer()) };
    let (job, fault) = (comm.clone(), call.fault);
    let added = group::add_job(&comm, false, Box::new(move || bootstrap(&job, &[], &fault)));
    if added != SUCCESS {
        shell.bury();
        return Err(refuse(newcomm, added));
    }
    Ok(comm)
}

/// Connects the ranks of a communicator, or does what the script wants instead.
pub fn bootstrap(comm: &Comm, others: &[&Stop], fault: &Fault) -> Code {
    let mut stops = vec![&*comm.stop];
    stops.extend(others);
    if let Some(code) = stage(&stops, fault) {
        return code;
    }
    if comm.device.enter().is_err() {
        return UNHANDLED_CUDA_ERROR;
    }
    match wireup::connect(comm.key, comm.rank, comm.ranks, &stops) {
        Ok(mesh) => {
            *lock(&comm.mesh) = Some(mesh);
            SUCCESS
        }
        Err(code) => code,
    }
}

/// What the script has in store for a job: it is late, it hangs until it is aborted, or it fails.
pub fn stage(stops: &[&Stop], fault: &Fault) -> Option<Code> {
    if let Some(time) = fault.slow {
        Stop::park(stops, Some(time));
    }
    if fault.hang {
        Stop::park(stops, None);
        return Some(INTERNAL_ERROR);
    }
    fault.later
}

/// `ncclCommInitAll`.
///
/// # Safety
/// `comms` has room for `count` handles, and `devices` is NULL or has as many numbers.
pub unsafe fn init_all(call: &Call, comms: *mut CommPointer, count: c_int, devices: *const c_int) -> Code {
    let (Ok(ranks), false) = (usize::try_from(count), comms.is_null()) else {
        return call.invalid("comm is NULL or ndev negative");
    };
    let numbers: Vec<c_int> = if devices.is_null() {
        (0..count).collect()
    } else {
        // SAFETY: not NULL, and the caller's promise about the length.
        unsafe { std::slice::from_raw_parts(devices, ranks) }.to_vec()
    };
    if let Err(code) = check_devices(call, &numbers) {
        return code;
    }
    let Ok(before) = Device::current() else { return no_device(call) };
    let id = match fresh_id() {
        Ok(id) => id,
        Err(_) => return SYSTEM_ERROR,
    };
    let (answer, end) = group::scope(|| {
        for (rank, number) in numbers.iter().enumerate() {
            let Ok(device) = Device::select(*number) else { return no_device(call) };
            // SAFETY: the caller promised room for as many handles.
            let begun = unsafe {
                begin(call, comms.add(rank), count, rank as c_int, &[id], Settings::DEFAULT, device)
            };
            if let Err(code) = begun {
                return code;
            }
        }
        SUCCESS
    });
    // The thread's device is put back; that it was a device has been seen above.
    let _ = before.enter();
    conclude(None, answer, end)
}

fn check_devices(call: &Call, numbers: &[c_int]) -> Result<(), Code> {
    let limit = match Device::current().map(|device| device.cuda) {
        Ok(Some(cuda)) => cuda.device_count().map_err(|_| no_device(call))?,
        Ok(None) => c_int::MAX,
        Err(_) => return Err(no_device(call)),
    };
    if numbers.iter().any(|number| !(0..limit).contains(number)) {
        call.invalid("no such device");
        return Err(INVALID_ARGUMENT);
    }
    let distinct: HashSet<_> = numbers.iter().collect();
    let shared = std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").is_ok_and(|value| value == "1");
    if distinct.len() < numbers.len() && !shared {
        call.misused("a device is named twice");
        return Err(INVALID_USAGE);
    }
    Ok(())
}
