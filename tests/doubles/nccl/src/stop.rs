//! The abort flag of a communicator: what makes its kernels leave. Communicators that share resources share
//! it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A flag with a descriptor that is readable while it is raised.
pub struct Stop {
    raised: AtomicBool,
    fd: OwnedFd,
}

impl Stop {
    /// A lowered flag.
    pub fn new() -> io::Result<Arc<Stop>> {
        // SAFETY: eventfd takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Arc::new(Stop { raised: AtomicBool::new(false), fd }))
    }

    /// Tells every kernel to leave.
    pub fn raise(&self) {
        // Release: who sees the flag sees what was decided before it was raised.
        self.raised.store(true, Ordering::Release);
        let one = 1u64;
        // SAFETY: eight readable bytes. A full counter is readable already, so the result does not matter.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Makes the communicator usable again, after a revoke or for a shrink.
    #[cfg(not(nccl_old))]
    pub fn lower(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes. An empty counter is what is wanted, so the result does not matter.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        self.raised.store(false, Ordering::Release);
    }

    /// Whether kernels are to leave.
    pub fn is_raised(&self) -> bool {
        // Acquire: pairs with the release in raise and lower.
        self.raised.load(Ordering::Acquire)
    }

    /// For poll.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Parks until one of the flags is raised or the time is over; no time means for ever. True when raised.
    pub fn park(stops: &[&Stop], limit: Option<Duration>) -> bool {
        let until = limit.map(|limit| Instant::now() + limit);
        loop {
            if stops.iter().any(|stop| stop.is_raised()) {
                return true;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            std::thread::sleep(left.unwrap_or(STEP).min(STEP));
        }
    }
}

/// How long a parked job sleeps between two looks at the flag.
const STEP: Duration = Duration::from_millis(1);
