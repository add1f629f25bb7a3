//! Groups: what a thread posts between ncclGroupStart and ncclGroupEnd.

use crate::config;
use crate::genuine;
use crate::host::join::{self, Task};
use crate::host::run::{self, Queued};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use std::cell::{Cell, RefCell};

thread_local! {
    /// Open groups of this thread. Apart from what they hold, because every operation asks.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static GROUP: RefCell<Group> = const { RefCell::new(Group::new()) };
}

/// What this thread has posted since its outermost ncclGroupStart.
struct Group {
    calls: Vec<Queued>,
    tasks: Vec<Task>,
    genuine: Vec<genuine::run::Queued>,
    genuine_tasks: Vec<genuine::join::Task>,
    /// The first error of a call in the group. Its end returns it, and nothing of the group is started.
    error: Option<Error>,
}

impl Group {
    const fn new() -> Group {
        Group {
            calls: Vec::new(),
            tasks: Vec::new(),
            genuine: Vec::new(),
            genuine_tasks: Vec::new(),
            error: None,
        }
    }

    /// What the outermost end starts; `None` at an inner one.
    fn end(&mut self, function: &str) -> Result<Option<Group>> {
        let Some(left) = DEPTH.get().checked_sub(1) else {
            return Err(Error::usage(format!("{function}: no group is open in this thread")));
        };
        DEPTH.set(left);
        Ok((left == 0).then(|| std::mem::replace(self, Group::new())))
    }
}

/// Whether this thread has an open group.
#[inline]
pub fn is_open() -> bool {
    DEPTH.get() > 0
}

/// Keeps an operation for the end of the group.
pub fn add(call: Queued) {
    GROUP.with_borrow_mut(|group| group.calls.push(call));
}

/// Keeps a communicator in the making for the end of the group.
pub fn add_task(task: Task) {
    GROUP.with_borrow_mut(|group| group.tasks.push(task));
}

/// Keeps an operation of a genuine communicator for the end of the group.
pub fn add_genuine(call: genuine::run::Queued) {
    GROUP.with_borrow_mut(|group| group.genuine.push(call));
}

/// Keeps a genuine communicator in the making for the end of the group.
pub fn add_genuine_task(task: genuine::join::Task) {
    GROUP.with_borrow_mut(|group| group.genuine_tasks.push(task));
}

/// Makes the open group, if there is one, fail with this error.
#[cold]
pub fn poison(err: Error) -> Error {
    GROUP.with_borrow_mut(|group| {
        if is_open() && group.error.is_none() {
            group.error = Some(err.clone());
        }
    });
    err
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGroupStart() -> Result<ncclResult_t> {
    let deeper = DEPTH.get().checked_add(1);
    DEPTH.set(deeper.ok_or_else(|| Error::usage("ncclGroupStart: too many open groups"))?);
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGroupEnd() -> Result<ncclResult_t> {
    let Some(group) = GROUP.with_borrow_mut(|group| group.end("ncclGroupEnd"))? else {
        return Ok(ncclSuccess);
    };
    if let Some(e) = group.error {
        group.tasks.into_iter().for_each(Task::cancel);
        group.genuine_tasks.into_iter().for_each(genuine::join::Task::cancel);
        return Err(e);
    }
    let made = join::run_all(group.tasks);
    let genuine_made = genuine::join::run_all(group.genuine_tasks);
    // Also after an error: the other ranks of those communicators do not know of it.
    let ran = run::run_group(group.calls);
    let genuine_ran = genuine::run::run_group(group.genuine);
    let all = [made?, genuine_made?, ran.map(|()| ncclSuccess)?, genuine_ran?];
    Ok(if all.contains(&ncclInProgress) { ncclInProgress } else { ncclSuccess })
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGroupSimulateEnd(simInfo: *mut ncclSimInfo_t) -> Result<ncclResult_t> {
    // SAFETY: NULL or a struct of this kind by NCCL's contract.
    let checked = unsafe { config::check_sim_info(simInfo) };
    let Some(group) = GROUP.with_borrow_mut(|group| group.end("ncclGroupSimulateEnd"))? else {
        return checked.map(|()| ncclSuccess);
    };
    let has_tasks = !group.tasks.is_empty() || !group.genuine_tasks.is_empty();
    group.tasks.into_iter().for_each(Task::cancel);
    group.genuine_tasks.into_iter().for_each(genuine::join::Task::cancel);
    if let Some(e) = group.error {
        return Err(e);
    }
    checked?;
    if has_tasks {
        return Err(Error::usage("ncclGroupSimulateEnd: making communicators cannot be simulated"));
    }
    if !group.genuine.is_empty() {
        // SAFETY: checked above.
        return unsafe { genuine::run::simulate(group.genuine, simInfo) };
    }
    if !simInfo.is_null() {
        // There is no model of time for host memory: nothing is promised.
        // SAFETY: not NULL, and long enough, as was just checked; writable by NCCL's contract.
        unsafe { (&raw mut (*simInfo).estimatedTime).write(0.0) };
    }
    Ok(ncclSuccess)
}
