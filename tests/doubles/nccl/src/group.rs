//! Groups. As in NCCL every call opens one, so a call outside a group is a group of one, and the outermost
//! end carries out what was collected: jobs (init, finalize, abort, split ...) side by side, then the
//! launches.

use crate::abi::{Code, IN_PROGRESS, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE, SUCCESS, SYSTEM_ERROR};
use crate::comm::Comm;
use crate::control;
use crate::job::Job;
use crate::launch;
use crate::operation::Operation;
use crate::record::{set_last_error, violation};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a job does; the answer is the result of its communicator.
pub type Work = Box<dyn FnOnce() -> Code + Send>;

/// A job that waits for the end of the group.
struct Pending {
    comm: Arc<Comm>,
    /// The communicator ends with it: such a job is never in the background.
    destroys: bool,
    work: Work,
}

/// A group in the making.
#[derive(Default)]
struct Group {
    depth: usize,
    error: Code,
    blocking: Option<bool>,
    jobs: Vec<Pending>,
    launches: Vec<(Arc<Comm>, Vec<Operation>)>,
}

thread_local! {
    static CURRENT: RefCell<Group> = RefCell::default();
}

/// Opens a group.
pub fn start() {
    CURRENT.with_borrow_mut(|group| group.depth += 1);
}

/// Remembers an error for the end of the group, if there is a group.
pub fn note_error(code: Code) {
    if code != SUCCESS && code != IN_PROGRESS {
        CURRENT.with_borrow_mut(|group| {
            if group.depth > 0 {
                group.error = code;
            }
        });
    }
}

/// Adds a job to the group that is open.
pub fn add_job(comm: &Arc<Comm>, destroys: bool, work: Work) -> Code {
    CURRENT.with_borrow_mut(|group| {
        let blocking = comm.settings.blocking;
        if destroys {
            group.blocking = Some(true);
        } else if *group.blocking.get_or_insert(blocking) != blocking {
            let sentence = "blocking and non-blocking communicators in one group";
            violation(sentence);
            set_last_error(sentence);
            return INVALID_ARGUMENT;
        }
        group.jobs.push(Pending { comm: comm.clone(), destroys, work });
        SUCCESS
    })
}

/// Adds an operation to the group that is open.
pub fn add_operation(comm: &Arc<Comm>, operation: Operation) {
    CURRENT.with_borrow_mut(|group| {
        let blocking = comm.settings.blocking;
        if group.blocking.replace(blocking).is_some_and(|other| other != blocking) {
            violation("blocking and non-blocking communicators in one group");
        }
        match group.launches.iter_mut().find(|(other, _)| Arc::ptr_eq(other, comm)) {
            Some((_, operations)) => operations.push(operation),
            None => group.launches.push((comm.clone(), vec![operation])),
        }
    });
}

/// Runs a call inside a group of its own and returns what the call and the group's end said.
pub fn scope(call: impl FnOnce() -> Code) -> (Code, Code) {
    start();
    let answer = call();
    note_error(answer);
    (answer, end(None, false))
}

/// Closes a group. The outermost end carries it out, unless it only simulates; `forced` is an error that the
/// script wants it to have.
pub fn end(forced: Option<Code>, simulate: bool) -> Code {
    let complete = CURRENT.with_borrow_mut(|group| match group.depth {
        0 => Err(INVALID_USAGE),
        1 => Ok(std::mem::take(group)),
        _ => {
            group.depth -= 1;
            Err(SUCCESS)
        }
    });
    let mut group = match complete {
        Ok(group) => group,
        Err(code) => {
            if code != SUCCESS {
                set_last_error("ncclGroupEnd: not in a group");
            }
            note_error(forced.unwrap_or(SUCCESS));
            return forced.unwrap_or(code);
        }
    };
    if group.error == SUCCESS {
        group.error = forced.unwrap_or(SUCCESS);
    }
    if group.error != SUCCESS {
        return group.fail(group.error);
    }
    if simulate {
        group.launches.clear();
    }
    if !group.jobs.is_empty() && !group.launches.is_empty() {
        violation("operations in one group with init, finalize, split or abort");
    }
    if group.jobs.is_empty() && group.launches.is_empty() {
        return SUCCESS;
    }
    match group.blocking {
        Some(false) => group.run_in_background(),
        _ => group.run(),
    }
}

impl Group {
    /// Drops what was collected: the communicators are condemned, and those that do not block say so.
    fn fail(&self, code: Code) -> Code {
        for comm in self.comms() {
            if !comm.settings.blocking {
                comm.strike(code);
            }
            if code != INVALID_ARGUMENT {
                comm.condemn(&format!("GroupEnd returned {code}"));
            }
        }
        code
    }

    fn comms(&self) -> impl Iterator<Item = &Arc<Comm>> {
        self.jobs.iter().map(|job| &job.comm).chain(self.launches.iter().map(|(comm, _)| comm))
    }

    /// Carries the group out in the calling thread.
    fn run(self) -> Code {
        let comms: Vec<_> =
            self.jobs.iter().filter(|job| !job.destroys).map(|job| job.comm.clone()).collect();
        let result = run_jobs(self.jobs);
        let result = if result == SUCCESS { launch::launch(self.launches) } else { result };
        if result != SUCCESS {
            comms.iter().for_each(|comm| comm.strike(result));
        }
        result
    }

    /// Carries the group out in a thread of its own.
    fn run_in_background(self) -> Code {
        let comms: Vec<Arc<Comm>> = self.comms().cloned().collect();
        let job = Job::new(comms.iter().map(|comm| comm.stop.clone()).collect());
        comms.iter().for_each(|comm| comm.begin(&job));
        let (theirs, ours) = (job.clone(), comms.clone());
        let slow = control::script().slow_jobs;
        let spawned = std::thread::Builder::new().name("mwdouble-job".into()).spawn(move || {
            if let Some(time) = slow {
                std::thread::sleep(time);
            }
            let run = AssertUnwindSafe(|| {
                let result = run_jobs(self.jobs);
                if result == SUCCESS { launch::launch(self.launches) } else { result }
            });
            let result = catch_unwind(run).unwrap_or(INTERNAL_ERROR);
            ours.iter().for_each(|comm| comm.settle(result));
            theirs.finish();
        });
        match spawned {
            Ok(_) => IN_PROGRESS,
            Err(error) => {
                set_last_error(&format!("no thread for the job: {error}"));
                comms.iter().for_each(|comm| comm.settle(SYSTEM_ERROR));
                job.finish();
                SYSTEM_ERROR
            }
        }
    }
}

/// Runs the jobs side by side, since those of one communicator may wait for each other; the first error
/// counts.
fn run_jobs(mut jobs: Vec<Pending>) -> Code {
    let Some(last) = jobs.pop() else { return SUCCESS };
    std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(jobs.len());
        for job in jobs {
            match std::thread::Builder::new().spawn_scoped(scope, job.work) {
                Ok(thread) => threads.push(thread),
                Err(_) => return SYSTEM_ERROR,
            }
        }
        let result = (last.work)();
        let others = threads.into_iter().map(|thread| thread.join().unwrap_or(INTERNAL_ERROR));
        // Every thread is joined, whatever the others said.
        others
            .collect::<Vec<_>>()
            .into_iter()
            .chain([result])
            .find(|code| *code != SUCCESS)
            .unwrap_or(SUCCESS)
    })
}
