//! Sleeping on sockets and on the process's doorbell at once.

use crate::error::{Error, Result};
use crate::sync::{Arc, OnceLock};
use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// What to wait for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The socket.
    pub fd: RawFd,
    /// Wait until it can be read.
    pub read: bool,
    /// Wait until it can be written.
    pub write: bool,
}

/// This process's doorbell: one eventfd, given to the peers on the machine.
pub fn doorbell() -> Result<&'static Arc<OwnedFd>> {
    static BELL: OnceLock<Arc<OwnedFd>> = OnceLock::new();
    if let Some(b) = BELL.get() {
        return Ok(b);
    }
    // SAFETY: plain system call; the descriptor that comes back is ours alone.
    let fd = unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if fd < 0 {
            return Err(Error::system("eventfd", &io::Error::last_os_error()));
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok(BELL.get_or_init(|| Arc::new(fd)))
}

/// The doorbell where it exists already: a ringer has nobody to wake otherwise.
pub fn doorbell_if_any() -> Option<BorrowedFd<'static>> {
    doorbell().ok().map(|b| b.as_fd())
}

fn control(epoll: &OwnedFd, op: libc::c_int, fd: RawFd, events: u32) -> io::Result<()> {
    let mut ev = libc::epoll_event { events, u64: 0 };
    // SAFETY: `ev` is a valid event; a stale `fd` is the kernel's to refuse.
    let rc = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd, &mut ev) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn create() -> Result<OwnedFd> {
    // SAFETY: plain system call; the descriptor that comes back is ours alone.
    let epoll = unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        if fd < 0 {
            return Err(Error::system("epoll_create1", &io::Error::last_os_error()));
        }
        OwnedFd::from_raw_fd(fd)
    };
    // Edge-triggered and never read: each thread's instance remembers a push by itself.
    control(&epoll, libc::EPOLL_CTL_ADD, doorbell()?.as_raw_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32)
        .map_err(|e| Error::system("epoll_ctl", &e))?;
    Ok(epoll)
}

thread_local! {
    static EPOLL: OnceCell<OwnedFd> = const { OnceCell::new() };
}

/// Sleeps until one of the sockets is ready or the doorbell was pushed (since the last call of this thread), at
/// most for `timeout`.
pub fn sleep(interests: &[Interest], timeout: Duration) -> Result<()> {
    EPOLL.with(|cell| {
        let epoll = match cell.get() {
            Some(e) => e,
            None => {
                let e = create()?;
                cell.get_or_init(|| e)
            }
        };
        for i in interests {
            let mut events = 0;
            if i.read {
                events |= libc::EPOLLIN | libc::EPOLLRDHUP;
            }
            if i.write {
                events |= libc::EPOLLOUT;
            }
            control(epoll, libc::EPOLL_CTL_ADD, i.fd, events as u32)
                .map_err(|e| Error::system("epoll_ctl", &e))?;
        }
        // Round up: waking before the deadline would only spin.
        let ms = timeout.as_micros().div_ceil(1000).min(60_000) as libc::c_int;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        // SAFETY: room for as many events as is said. An interruption is as good as a wake-up.
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, ms) };
        for i in interests {
            // The socket may have been closed by another thread meanwhile; then it has left by itself.
            let _ = control(epoll, libc::EPOLL_CTL_DEL, i.fd, 0);
        }
        Ok(())
    })
}
