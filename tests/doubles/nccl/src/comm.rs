//! A communicator: its identity, its asynchronous result, and what it has running.

use crate::abi::{Code, IN_PROGRESS, INVALID_ARGUMENT, SUCCESS, SYSTEM_ERROR};
use crate::config::Settings;
use crate::cuda::Device;
use crate::handle::{self, Shell};
use crate::job::Job;
use crate::kernels::Kernels;
use crate::key::Key;
use crate::mesh::Mesh;
use crate::record::{lock, set_last_error, violation};
use crate::stop::Stop;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// One rank of a communicator.
pub struct Comm {
    pub key: Key,
    pub rank: usize,
    pub ranks: usize,
    pub settings: Settings,
    pub device: Device,
    pub stop: Arc<Stop>,
    /// The connections, once the ranks have found each other.
    pub mesh: Mutex<Option<Mesh>>,
    pub kernels: Kernels,
    pub flags: Flags,
    /// Communicators made from this one so far: every rank counts alike.
    pub children: AtomicU64,
    pub operators: Mutex<Vec<Option<Operator>>>,
    /// Registered buffers and windows: handle, pointer, size.
    pub registrations: Mutex<Vec<(usize, usize, usize)>>,
    #[cfg(not(nccl_old))]
    pub growth: Mutex<Option<std::os::unix::net::UnixListener>>,
    shell: OnceLock<&'static Shell>,
    result: AtomicI32,
    job: Mutex<Option<Arc<Job>>>,
    condemned: Mutex<Option<String>>,
}

/// What has been done to a communicator.
#[derive(Default)]
pub struct Flags {
    pub revoked: AtomicBool,
    pub finalized: AtomicBool,
    pub suspended: AtomicBool,
}

/// An operator of `ncclRedOpCreatePreMulSum`.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    pub datatype: i32,
    pub scalar: Scalar,
}

/// Where the scalar of an operator is.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    Immediate([u8; 8]),
    /// In device memory: read when the kernel runs.
    Device(usize),
}

impl Comm {
    /// A communicator whose ranks have not met yet, and its handle.
    pub fn new(
        key: Key,
        rank: usize,
        ranks: usize,
        settings: Settings,
        device: Device,
        stop: Option<Arc<Stop>>,
    ) -> Result<Arc<Comm>, Code> {
        let stop = match stop {
            Some(stop) => stop,
            None => Stop::new().map_err(|error| {
                set_last_error(&format!("no descriptor for the abort flag: {error}"));
                SYSTEM_ERROR
            })?,
        };
        let comm = Arc::new(Comm {
            key,
            rank,
            ranks,
            settings,
            device,
            stop,
            mesh: Mutex::new(None),
            kernels: Kernels::default(),
            flags: Flags::default(),
            children: AtomicU64::new(0),
            operators: Mutex::default(),
            registrations: Mutex::default(),
            #[cfg(not(nccl_old))]
            growth: Mutex::new(None),
            shell: OnceLock::new(),
            result: AtomicI32::new(SUCCESS),
            job: Mutex::new(None),
            condemned: Mutex::new(None),
        });
        let Some(shell) = handle::create(&comm) else {
            set_last_error("the double's communicators are used up");
            return Err(SYSTEM_ERROR);
        };
        comm.shell.get_or_init(|| shell);
        Ok(comm)
    }

    /// The handle. It exists from the constructor on.
    pub fn shell(&self) -> Option<&'static Shell> {
        self.shell.get().copied()
    }

    /// The asynchronous result, which also completes and clears a job that is over.
    pub fn poll(&self) -> Code {
        // Acquire: pairs with the release in settle; what the job did is visible.
        let result = self.result.load(Ordering::Acquire);
        let over = if result == SUCCESS { lock(&self.job).take() } else { None };
        if let Some(job) = over {
            job.join();
        }
        result
    }

    /// Binds a job to the communicator, which is in progress from now on.
    pub fn begin(&self, job: &Arc<Job>) {
        self.result.store(IN_PROGRESS, Ordering::Release);
        lock(&self.job).get_or_insert_with(|| job.clone());
    }

    /// The job is over with this result, unless an error came first.
    pub fn settle(&self, result: Code) {
        let _ = self.result.compare_exchange(IN_PROGRESS, result, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sets the asynchronous result whatever it was.
    pub fn strike(&self, result: Code) {
        self.result.store(result, Ordering::Release);
    }

    /// Lets the pending job leave and waits for it, as abort and revoke do.
    pub fn abort_job(&self) {
        let job = lock(&self.job).take();
        if let Some(job) = job {
            job.abort();
            job.join();
        }
    }

    /// Whether the communicator can take a call, as NCCL judges: a raised abort flag joins the job and is
    /// fine, a pending job is `ncclInvalidArgument`, an asynchronous error is returned.
    pub fn ensure_ready(&self, name: &str) -> Code {
        if self.stop.is_raised() {
            self.abort_job();
            return SUCCESS;
        }
        match self.poll() {
            IN_PROGRESS => {
                let sentence =
                    format!("{name}: rank {} was used before its last call had completed", self.rank);
                violation(&sentence);
                set_last_error(&sentence);
                INVALID_ARGUMENT
            }
            SUCCESS => SUCCESS,
            error => {
                set_last_error(&format!("{name}: the communicator has failed with {error}"));
                error
            }
        }
    }

    /// After an error the communicator may only be aborted.
    pub fn condemn(&self, reason: &str) {
        lock(&self.condemned).get_or_insert_with(|| reason.to_owned());
    }

    /// Notes a use that an earlier error forbids.
    pub fn check_condemned(&self, name: &str) {
        if let Some(reason) = &*lock(&self.condemned) {
            violation(&format!("{name} on rank {} after {reason}", self.rank));
        }
    }

    /// Whether the communicator was revoked.
    pub fn is_revoked(&self) -> bool {
        self.flags.revoked.load(Ordering::Acquire)
    }
}
