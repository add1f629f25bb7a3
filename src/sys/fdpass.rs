//! Sending descriptors along with bytes over a stream socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Most descriptors of one call.
pub const MAX_FDS: usize = 4;

const SPACE: usize = 64;

#[repr(C, align(8))]
struct Control([u8; SPACE]);

/// Sends some of `bytes`, and with the first of them `fds`. Answers how many bytes went; if any did, all the
/// descriptors did.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; SPACE]);
    // SAFETY: an all-zero msghdr is valid; its pointers are set to live buffers below. The control buffer is aligned
    // and large enough for MAX_FDS descriptors.
    let n = unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        if !fds.is_empty() {
            if fds.len() > MAX_FDS {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let len = size_of_val(fds) as u32;
            let raw: Vec<libc::c_int> = fds.iter().map(|f| f.as_raw_fd()).collect();
            let len = len.min((raw.len() * size_of::<libc::c_int>()) as u32);
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = libc::CMSG_SPACE(len) as _;
            let c = libc::CMSG_FIRSTHDR(&msg);
            (*c).cmsg_level = libc::SOL_SOCKET;
            (*c).cmsg_type = libc::SCM_RIGHTS;
            (*c).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(c), len as usize);
        }
        libc::sendmsg(socket.as_raw_fd(), &msg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Receives some bytes; descriptors that came with them are appended to `fds`. 0 bytes: the peer has closed.
pub fn recv(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; SPACE]);
    // SAFETY: as in `send`. Every descriptor found in the control data is new and ours alone.
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = SPACE as _;
        let n = libc::recvmsg(socket.as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut c = libc::CMSG_FIRSTHDR(&msg);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let len = (*c).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for i in 0..len / size_of::<libc::c_int>() {
                    let fd = libc::CMSG_DATA(c).cast::<libc::c_int>().add(i).read_unaligned();
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            }
            c = libc::CMSG_NXTHDR(&msg, c);
        }
        Ok(n as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut x, y) = UnixStream::pair().unwrap();
        assert_eq!(send(a.as_fd(), b"hello", &[y.as_fd()]).unwrap(), 5);
        drop(y);
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(b.as_fd(), &mut buf, &mut fds).unwrap(), 5);
        let mut far = UnixStream::from(fds.pop().unwrap());
        x.write_all(b"!").unwrap();
        far.read_exact(&mut buf[..1]).unwrap();
        assert_eq!(buf[0], b'!');
    }
}
