//! Sleeping on sockets and on the process's doorbell at once.

use super::eventfd::EventFd;
use super::poll::{Epoll, Event, Interest as Bits};
use crate::error::{Error, Result};
use crate::sync::{Arc, OnceLock};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Longest sleep: sockets that vanish while they are waited for are looked at again.
const LONGEST: Duration = Duration::from_secs(60);

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

impl Interest {
    fn bits(&self) -> Bits {
        let read = if self.read { Bits::READ | Bits::HANGUP } else { Bits::NONE };
        if self.write { read | Bits::WRITE } else { read }
    }
}

/// This process's doorbell: one eventfd, given to the peers on the machine. See `bell`.
pub fn doorbell() -> Result<&'static Arc<EventFd>> {
    static BELL: OnceLock<Arc<EventFd>> = OnceLock::new();
    if let Some(b) = BELL.get() {
        return Ok(b);
    }
    let bell = Arc::new(EventFd::new().map_err(|e| Error::system("eventfd", &e))?);
    Ok(BELL.get_or_init(|| bell))
}

/// The doorbell, for whoever rings: where there is none nobody sleeps on it.
pub fn doorbell_if_any() -> Option<BorrowedFd<'static>> {
    doorbell().ok().map(|b| b.as_fd())
}

/// One thread's way to sleep.
struct Sleeper {
    epoll: Epoll,
    events: Vec<Event>,
}

impl Sleeper {
    fn new() -> Result<Sleeper> {
        let failed = |e| Error::system("epoll", &e);
        let epoll = Epoll::new().map_err(failed)?;
        // Edge-triggered and never read: each thread's instance remembers a push by itself.
        epoll.add(doorbell()?.as_ref(), 0, Bits::READ | Bits::EDGE).map_err(failed)?;
        Ok(Sleeper { epoll, events: Vec::new() })
    }

    fn sleep(&mut self, interests: &[Interest], timeout: Duration) -> Result<()> {
        let failed = |e| Error::system("epoll", &e);
        // SAFETY: the descriptors belong to endpoints of worlds that the caller drives and that outlive this call;
        // should one be closed all the same, the kernel refuses the number or another thread's wait ends early.
        let borrow = |i: &Interest| unsafe { BorrowedFd::borrow_raw(i.fd) };
        for i in interests {
            self.epoll.add(&borrow(i), 1, i.bits()).map_err(failed)?;
        }
        let slept = self.epoll.wait(&mut self.events, 16, Some(timeout.min(LONGEST))).map_err(failed);
        for i in interests {
            // Closed by another thread meanwhile, it has left by itself.
            let _ = self.epoll.delete(&borrow(i));
        }
        slept
    }
}

thread_local! {
    static SLEEPER: RefCell<Option<Sleeper>> = const { RefCell::new(None) };
}

/// Sleeps until one of the sockets is ready or the doorbell was pushed (since the last call of this thread), at
/// most for `timeout`.
pub fn sleep(interests: &[Interest], timeout: Duration) -> Result<()> {
    SLEEPER.with(|cell| {
        let mut sleeper = cell.borrow_mut();
        if sleeper.is_none() {
            *sleeper = Some(Sleeper::new()?);
        }
        let Some(s) = sleeper.as_mut() else { return Ok(()) };
        s.sleep(interests, timeout).inspect_err(|_| {
            // What was added stays in the set of a sleeper that failed half-way: begin anew.
            *sleeper = None;
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn bytes_and_the_doorbell_end_a_sleep() {
        let long = Duration::from_secs(30);
        let started = Instant::now();
        let (mut a, b) = UnixStream::pair().unwrap();
        let on = [Interest { fd: b.as_raw_fd(), read: true, write: false }];
        a.write_all(b"x").unwrap();
        sleep(&on, long).unwrap();
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            doorbell().unwrap().signal().unwrap();
        });
        sleep(&[], long).unwrap();
        assert!(started.elapsed() < long);
        assert!(sleep(&[Interest { fd: 1 << 20, read: true, write: false }], long).is_err());
    }
}
