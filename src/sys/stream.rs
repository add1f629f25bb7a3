//! Non-blocking, vectored I/O on connected stream sockets.
//!
//! The standard library's vectored write raises SIGPIPE in a process that does not ignore it, and a library may
//! not change a signal's disposition; these calls never raise it, and never block whatever the descriptor's flags.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let err = io::Error::last_os_error();
                if err.kind() != io::ErrorKind::Interrupted {
                    return Err(err);
                }
            }
        }
    }
}

/// Sends as much of `buf` as the kernel takes now. `WouldBlock` when it takes nothing.
pub fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `buf` is readable for its length during the call.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) })
}

/// Receives into `buf` what has arrived. `Ok(0)` at the end of the stream, given room in `buf`; `WouldBlock` when
/// nothing has arrived.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buf` is mutably borrowed for the length of the call.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) })
}

/// Sends as much of `bufs`, in order, as the kernel takes now. `WouldBlock` when it takes nothing.
pub fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no address, no buffers, no control data.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice is documented to have iovec's layout; sendmsg only reads through the pointer.
    msg.msg_iov = bufs.as_ptr().cast::<libc::iovec>().cast_mut();
    msg.msg_iovlen = bufs.len() as _;
    // SAFETY: `msg` describes `bufs.len()` iovecs whose buffers are borrowed for the length of the call.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &msg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) })
}

/// Receives into `bufs`, in order, what has arrived. `Ok(0)` at the end of the stream, given room in `bufs`;
/// `WouldBlock` when nothing has arrived.
pub fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no address, no buffers, no control data.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = bufs.as_mut_ptr().cast::<libc::iovec>();
    msg.msg_iovlen = bufs.len() as _;
    // SAFETY: `msg` describes `bufs.len()` iovecs (IoSliceMut has iovec's layout) whose buffers are mutably
    // borrowed for the length of the call.
    retry(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &mut msg, libc::MSG_DONTWAIT) })
}

/// Throws away up to `limit` bytes that have arrived on a TCP socket, and says how many. `Ok(0)` at the end of the
/// stream.
pub fn discard(fd: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC, TCP drops the bytes and never writes through the buffer, so it may be null.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), limit, flags) })
}

/// How many of the bytes that were sent over a TCP socket the other machine has not acknowledged yet.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: the request, also known as SIOCOUTQ, writes an int, for which there is room during the call.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(waiting).unwrap_or(0)) }
}

/// Chooses the congestion control of a TCP socket by the kernel's name for it, such as `cubic` or `bbr`.
pub fn set_congestion(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
}

/// Sets how many bytes the kernel may hold for a socket in each direction, and so turns its own tuning off.
pub fn set_buffers(fd: BorrowedFd<'_>, send: u32, recv: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &send.to_ne_bytes())?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &recv.to_ne_bytes())
}

fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `value` is readable for `len` bytes during the call.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
