//! Waiting for the signals that ask a program to end.

use std::io;
use std::time::Duration;

/// SIGINT (Ctrl-C) and SIGTERM.
fn endings() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid to fill; the calls only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        set
    }
}

/// From now on these signals end neither this thread nor those that it starts: they wait for [`wait_ending`]. To be
/// called by a program's first thread before it starts others.
pub fn block_endings() -> io::Result<()> {
    let set = endings();
    // SAFETY: `set` is valid to read; nobody asks for the former mask.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

/// Waits until one of these signals is there, for `limit` at most; answers whether one was.
pub fn wait_ending(limit: Duration) -> io::Result<bool> {
    let set = endings();
    let time = libc::timespec {
        tv_sec: limit.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: i64::from(limit.subsec_nanos()) as _,
    };
    // SAFETY: `set` and `time` are valid to read; nobody asks for the details.
    if unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), &time) } >= 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(false),
        e => Err(e),
    }
}
