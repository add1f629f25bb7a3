//! Waiting for descriptors: epoll for many, poll for one, eventfd to be woken.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What to wait for. Errors and a connection closed on both sides are reported whatever was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// Nothing but errors.
    pub const NONE: Interest = Interest(0);
    /// Bytes, a connection to accept, or the end of the stream.
    pub const READ: Interest = Interest(libc::EPOLLIN as u32);
    /// Room to write.
    pub const WRITE: Interest = Interest(libc::EPOLLOUT as u32);
    /// The peer has closed its end, whether or not bytes lie before that.
    pub const HANGUP: Interest = Interest(libc::EPOLLRDHUP as u32);
    /// With another: only changes are reported, and remembered until somebody waits.
    pub const EDGE: Interest = Interest(libc::EPOLLET as u32);
}

impl BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// What has happened to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number it was added under.
    pub token: u64,
    bits: u32,
}

impl Event {
    /// A read will not block: bytes, end of stream, or an error to fetch.
    pub fn readable(self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP)
    }

    /// A write will not block, if only because it fails.
    pub fn writable(self) -> bool {
        self.has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// The peer has closed its end, or the connection has broken.
    pub fn hangup(self) -> bool {
        self.has(libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP)
    }

    fn has(self, bits: i32) -> bool {
        self.bits & bits as u32 != 0
    }
}

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty one.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call above has just opened it; nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Begins to watch `fd`; its events carry `token`. Closing the descriptor ends that, unless it was
    /// duplicated.
    pub fn add(&self, fd: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn modify(&self, fd: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest)
    }

    /// Stops watching `fd`.
    pub fn delete(&self, fd: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::NONE)
    }

    fn control(&self, op: i32, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.0, u64: token };
        // SAFETY: both descriptors are open while borrowed; `event` outlives the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) }).map(drop)
    }

    /// Waits until something happens or `timeout` has passed (`None`: without limit), and puts what happened,
    /// at most `capacity` events, into `events`, which is emptied before. A signal ends the wait early and
    /// without events.
    pub fn wait(
        &self,
        events: &mut Vec<Event>,
        capacity: usize,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        const MAX: usize = 256;
        let mut raw = [libc::epoll_event { events: 0, u64: 0 }; MAX];
        let room = capacity.clamp(1, MAX) as i32;
        events.clear();
        // SAFETY: `raw` has room for `room` events and outlives the call.
        let n =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), raw.as_mut_ptr(), room, milliseconds(timeout)) };
        match check(n) {
            Ok(n) => {
                let filled = raw.iter().take(n as usize);
                events.extend(filled.map(|e| Event { token: e.u64, bits: e.events }));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until `fd` is ready for `interest` or broken (true), or `until` has come or a signal has interrupted
/// (false).
pub fn wait_fd(fd: &impl AsFd, interest: Interest, until: Instant) -> io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    // The bits of poll and epoll are the same; RDHUP and below fit.
    let mut p = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: interest.0 as i16, revents: 0 };
    // SAFETY: `p` is one pollfd and outlives the call.
    match check(unsafe { libc::poll(&raw mut p, 1, milliseconds(Some(left))) }) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// Rounded up, so that a wait never ends just before its time and is then repeated in a busy loop.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(t) => i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

fn check(rc: i32) -> io::Result<i32> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn wait(epoll: &Epoll, ms: u64) -> Vec<Event> {
        let mut events = Vec::new();
        epoll.wait(&mut events, 16, Some(Duration::from_millis(ms))).unwrap();
        events
    }

    #[test]
    fn events_carry_their_token_and_follow_the_interest() {
        let epoll = Epoll::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        epoll.add(&a, 42, Interest::READ).unwrap();
        assert!(wait(&epoll, 0).is_empty());
        b.write_all(b"x").unwrap();
        let events = wait(&epoll, 1000);
        assert_eq!(events.len(), 1);
        assert!(events[0].token == 42 && events[0].readable() && !events[0].writable());
        epoll.modify(&a, 43, Interest::WRITE).unwrap();
        let events = wait(&epoll, 1000);
        assert!(events[0].token == 43 && events[0].writable() && !events[0].readable());
        // Bytes alone are no hangup; a closed end behind unread bytes is.
        epoll.modify(&a, 44, Interest::HANGUP).unwrap();
        assert!(wait(&epoll, 0).is_empty());
        drop(b);
        assert!(wait(&epoll, 1000)[0].hangup());
        epoll.delete(&a).unwrap();
        assert!(wait(&epoll, 0).is_empty());
        assert!(epoll.delete(&a).is_err());
    }

    #[test]
    fn an_eventfd_wakes_and_is_drained() {
        let epoll = Epoll::new().unwrap();
        let bell = EventFd::new().unwrap();
        epoll.add(&bell, 1, Interest::READ).unwrap();
        assert!(!bell.drain().unwrap());
        std::thread::scope(|s| {
            s.spawn(|| bell.signal().unwrap());
            assert_eq!(wait(&epoll, 5000).len(), 1);
        });
        assert!(bell.drain().unwrap());
        assert!(wait(&epoll, 0).is_empty());
    }

    #[test]
    fn one_descriptor_is_waited_for_until_a_time() {
        let (a, b) = UnixStream::pair().unwrap();
        let begin = Instant::now();
        assert!(!wait_fd(&a, Interest::READ, begin + Duration::from_millis(20)).unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(20));
        drop(b);
        assert!(wait_fd(&a, Interest::READ, begin + Duration::from_secs(5)).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}
