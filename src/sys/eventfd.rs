//! A counter that `poll` can wait for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd: readable from [`EventFd::signal`] until [`EventFd::clear`]. Never blocks.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not readable, closed on exec.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else has it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable.
    pub fn signal(&self) -> io::Result<()> {
        let one = 1u64.to_ne_bytes();
        retry(|| {
            // SAFETY: the buffer has the eight bytes.
            unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) }
        })
    }

    /// Makes it unreadable.
    pub fn clear(&self) -> io::Result<()> {
        let mut count = [0u8; 8];
        retry(|| {
            // SAFETY: the buffer has the eight bytes.
            unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) }
        })
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Repeats what a signal interrupted. A full (write) or empty (read) counter is already what the caller
/// wants.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<()> {
    loop {
        if call() >= 0 {
            return Ok(());
        }
        let err = io::Error::last_os_error();
        match err.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(()),
            _ => return Err(err),
        }
    }
}

/// Whether the descriptor is readable now.
#[cfg(test)]
pub(crate) fn readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_from_signal_to_clear() {
        let event = EventFd::new().unwrap();
        let fd = event.as_raw_fd();
        assert!(!readable(fd));
        event.clear().unwrap();
        event.signal().unwrap();
        event.signal().unwrap();
        assert!(readable(fd));
        event.clear().unwrap();
        assert!(!readable(fd));
    }
}
