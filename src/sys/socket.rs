//! Stream sockets: TCP of both families and abstract Unix addresses. Every descriptor is close-on-exec.

use crate::error::{Code, Error, Extent, Result};
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Who is at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process, as numbered in this process's namespace; 0 when it lies outside.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// A listener bound to `addr` (port 0 lets the kernel choose), nonblocking, with room for `backlog`
/// connections that nobody has accepted yet.
pub fn listen_tcp(addr: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    set_backlog(&listener, backlog)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listener on an abstract Unix address, nonblocking. The address vanishes with the listener.
pub fn listen_abstract(name: &[u8]) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Changes how many connections may wait to be accepted.
pub fn set_backlog(listener: &impl AsFd, backlog: u16) -> io::Result<()> {
    // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
    check(unsafe { libc::listen(raw(listener.as_fd()), i32::from(backlog)) }).map(drop)
}

/// The next connection, nonblocking and without Nagle's delay; `None` when nobody waits. A connection that
/// its peer has given up meanwhile is skipped.
pub fn accept_tcp(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        match listener.accept() {
            Ok((stream, addr)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                return Ok(Some((stream, addr)));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The next connection, nonblocking; `None` when nobody waits.
pub fn accept_unix(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                return Ok(Some(stream));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether accepting failed because the process or the machine is out of descriptors or memory: a state that
/// passes, in which the connection stays in the backlog.
pub fn is_exhausted(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Why connecting failed: `Code::Remote` where the other side is to blame, so that nobody is held responsible for
/// descriptors that ran out here.
fn unreachable(what: &str, e: &io::Error) -> Error {
    let code = match e.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => Code::Remote,
        _ => Code::System,
    };
    Error { code, ..Error::system(what, e) }
}

/// Connects, blocking until `deadline` at most. The stream is blocking and without Nagle's delay.
/// `Code::Timeout` when the deadline passed, `Code::Remote` when nobody listens there, else `Code::System`.
pub fn connect_tcp(addr: SocketAddr, deadline: Instant) -> Result<TcpStream> {
    let what = format!("connecting to {addr}");
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::timeout(format!("{what}: the deadline has passed")));
    }
    let stream = match TcpStream::connect_timeout(&addr, left) {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => {
            return Err(Error::timeout(format!("{what}: no answer in time")));
        }
        Err(e) => return Err(unreachable(&what, &e)),
    };
    // A port out of the ephemeral range that nobody listens on can be picked for this end as well, and then
    // TCP connects the socket to itself.
    if stream.local_addr().ok() == Some(addr) {
        return Err(unreachable(&what, &io::Error::from(io::ErrorKind::ConnectionRefused)));
    }
    stream.set_nodelay(true).map_err(|e| Error::system(&what, &e))?;
    Ok(stream)
}

/// Connects to an abstract Unix address, waiting until `deadline` at most for a place in its backlog. The stream
/// is blocking. Errors as with [`connect_tcp`].
pub fn connect_abstract(name: &[u8], deadline: Instant) -> Result<UnixStream> {
    let what = || format!("connecting to @{}", String::from_utf8_lossy(name));
    let fail = |e: io::Error| unreachable(&what(), &e);
    let (addr, len) = abstract_addr(name).map_err(fail)?;
    // std's connect would wait without limit for a full backlog.
    // SAFETY: takes no pointers.
    let fd = check(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    })
    .map_err(fail)?;
    // SAFETY: the call above has just opened it; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut pause = Duration::from_micros(200);
    loop {
        // SAFETY: `addr` is a sockaddr_un of which the first `len` bytes are filled in.
        let rc = unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), len) };
        match check(rc) {
            Ok(_) => break,
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Error::timeout(format!("{}: its backlog stays full", what())));
                }
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(e) => return Err(fail(e)),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).map_err(fail)?;
    Ok(stream)
}

/// Whether nobody listens on an abstract Unix address. Does not block.
pub fn is_deserted_abstract(name: &[u8]) -> bool {
    let Ok((addr, len)) = abstract_addr(name) else { return false };
    // SAFETY: takes no pointers.
    let fd = unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the call above has just opened it; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `addr` is a sockaddr_un of which the first `len` bytes are filled in.
    let rc = unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), len) };
    matches!(check(rc), Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED))
}

/// Whether nobody listens at a TCP address, as far as that is said within `limit`.
pub fn is_deserted_tcp(addr: SocketAddr, limit: Duration) -> bool {
    match TcpStream::connect_timeout(&addr, limit) {
        Ok(stream) => stream.local_addr().ok() == Some(addr),
        Err(e) => e.kind() == io::ErrorKind::ConnectionRefused,
    }
}

/// The addresses of `host`: at once when it is numeric, else from the resolver, waiting until `deadline` at
/// most.
pub fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    // getaddrinfo knows no deadline; a thread that is stuck in it is left behind.
    let (tx, rx) = mpsc::sync_channel(1);
    let name = host.to_owned();
    super::process::spawn("mw-resolve", move || {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port));
        // The receiver is gone when the deadline has passed.
        let _ = tx.send(found.map(Iterator::collect::<Vec<_>>));
    })?;
    let found = rx
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .map_err(|_| Error::timeout(format!("resolving {host}: no answer in time")))?
        .map_err(|e| Error::system(&format!("resolving {host}"), &e))?;
    if found.is_empty() {
        return Err(Error::new(
            Code::System,
            Extent::Operation,
            format!("resolving {host}: it has no address"),
        ));
    }
    Ok(found)
}

/// Who is at the other end.
pub fn peer_credentials(stream: &UnixStream) -> io::Result<Credentials> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` and `len` outlive the call, and `len` is the size of `cred`.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    })?;
    Ok(Credentials { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// Whether the other end belongs to this process's user, or to root. The kernel answers, from when the other end
/// connected or began to listen.
pub fn is_trusted_user(stream: &UnixStream) -> io::Result<bool> {
    let theirs = peer_credentials(stream)?.uid;
    Ok(theirs == 0 || theirs == super::process::euid())
}

/// Makes the kernel ask an idle peer for a sign of life after `idle`, three times, and close the connection
/// when none comes.
pub fn set_keepalive(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    let seconds = i32::try_from(idle.as_secs().max(1)).unwrap_or(i32::MAX);
    set_option(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (seconds / 3).max(1))?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

/// Makes the kernel close the connection when the peer's machine has left sent bytes unacknowledged for
/// `limit`.
pub fn set_user_timeout(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let ms = i32::try_from(limit.as_millis().max(1)).unwrap_or(i32::MAX);
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms)
}

/// Marks a descriptor that came from elsewhere close-on-exec.
pub fn set_cloexec(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
    check(unsafe { libc::fcntl(raw(fd.as_fd()), libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

fn set_option(stream: &TcpStream, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` outlives the call and has `len` bytes.
    check(unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), len) })
        .map(drop)
}

fn abstract_addr(name: &[u8]) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // The path's first byte stays zero: that makes it abstract.
    if name.len() >= addr.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in addr.sun_path.iter_mut().skip(1).zip(name) {
        *to = *from as libc::c_char;
    }
    let len = mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Ok((addr, len as libc::socklen_t))
}

fn raw(fd: BorrowedFd<'_>) -> i32 {
    fd.as_raw_fd()
}

fn check(rc: i32) -> io::Result<i32> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    fn cloexec(fd: &impl AsFd) -> bool {
        // SAFETY: takes no pointers; the descriptor is borrowed.
        let flags = unsafe { libc::fcntl(raw(fd.as_fd()), libc::F_GETFD) };
        flags & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn tcp_of_both_families_connects_close_on_exec() {
        for ip in ["127.0.0.1", "::1"] {
            let Ok(listener) = listen_tcp(SocketAddr::new(ip.parse().unwrap(), 0), 16) else {
                assert_eq!(ip, "::1", "a machine without IPv6 still has IPv4");
                continue;
            };
            assert!(accept_tcp(&listener).unwrap().is_none());
            let client = connect_tcp(listener.local_addr().unwrap(), soon(1000)).unwrap();
            let (server, addr) = accept_tcp(&listener).unwrap().unwrap();
            assert_eq!(addr, client.local_addr().unwrap());
            assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
            assert!(cloexec(&listener) && cloexec(&client) && cloexec(&server));
            set_keepalive(&server, Duration::from_secs(9)).unwrap();
            set_user_timeout(&client, Duration::from_secs(5)).unwrap();
        }
    }

    #[test]
    fn a_closed_port_refuses_at_once() {
        let addr = listen_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap().local_addr().unwrap();
        let begin = Instant::now();
        assert_eq!(connect_tcp(addr, soon(5000)).unwrap_err().code, Code::Remote);
        assert!(is_deserted_tcp(addr, Duration::from_secs(5)));
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(connect_tcp(addr, Instant::now()).unwrap_err().code, Code::Timeout);
    }

    #[test]
    fn abstract_sockets_know_their_peer() {
        let name = format!("multiworld-test-{}", std::process::id());
        let listener = listen_abstract(name.as_bytes()).unwrap();
        assert!(listen_abstract(name.as_bytes()).is_err());
        let client = connect_abstract(name.as_bytes(), soon(1000)).unwrap();
        let server = accept_unix(&listener).unwrap().unwrap();
        assert_eq!(peer_credentials(&server).unwrap().pid, std::process::id() as i32);
        assert_eq!(peer_credentials(&client).unwrap(), peer_credentials(&server).unwrap());
        assert!(is_trusted_user(&client).unwrap() && is_trusted_user(&server).unwrap());
        assert!(cloexec(&listener) && cloexec(&client) && cloexec(&server));
        assert!(!is_deserted_abstract(name.as_bytes()));
        drop(listener);
        assert!(is_deserted_abstract(name.as_bytes()));
        assert_eq!(connect_abstract(name.as_bytes(), soon(1000)).unwrap_err().code, Code::Remote);
        assert!(connect_abstract(&[b'x'; 200], soon(10)).is_err());
    }

    #[test]
    fn a_full_backlog_ends_at_the_deadline() {
        let name = format!("multiworld-full-{}", std::process::id());
        let listener = listen_abstract(name.as_bytes()).unwrap();
        set_backlog(&listener, 0).unwrap();
        let mut held = Vec::new();
        let e = loop {
            match connect_abstract(name.as_bytes(), soon(30)) {
                Ok(s) => held.push(s),
                Err(e) => break e,
            }
            assert!(held.len() < 100);
        };
        assert_eq!(e.code, Code::Timeout);
    }

    #[test]
    fn names_and_numbers_resolve() {
        assert_eq!(resolve("127.0.0.1", 7, soon(0)).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("::1", 7, soon(0)).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(resolve("localhost", 7, soon(5000)).unwrap().iter().all(|a| a.ip().is_loopback()));
    }
}
