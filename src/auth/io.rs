//! The handshake over a blocking stream, with a deadline for all of it.

use super::{ClientHandshake, ClientStep, KeyId, Peer, Purpose, ServerHandshake, ServerStep, nonce};
use crate::error::{Error, Result};
use crate::types::Secret;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A blocking stream whose reads and writes can be given a timeout.
pub trait Timed: Read + Write {
    /// Sets the timeout of every later read and write; `None` takes it away.
    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()>;
}

macro_rules! timed {
    ($($t:ty)*) => {$(
        impl Timed for $t {
            fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.set_read_timeout(timeout)?;
                self.set_write_timeout(timeout)
            }
        }
    )*};
}
timed!(TcpStream UnixStream);

/// Runs the dialling side; answers the session key. Reads not a byte beyond the handshake.
/// `Code::Unauthorized`: one of the two does not know the secret. `Code::Timeout`: the deadline passed.
/// `Code::System`: the connection broke. `Code::InvalidUsage`: the peer speaks something else.
pub fn dial<S: Timed>(
    stream: &mut S,
    key_id: KeyId,
    secret: &Secret,
    purpose: Purpose,
    claim: &[u8],
    deadline: Instant,
) -> Result<Secret> {
    let mut handshake = ClientHandshake::new(key_id, secret, purpose, claim, nonce()?)?;
    let mut buf = [0; 64];
    let session = loop {
        let n = read_some(stream, &mut buf, handshake.wanted(), deadline)?;
        match handshake.receive(&buf[..n])?.1 {
            ClientStep::NeedMore => {}
            ClientStep::Send(bytes) => write_all(stream, &bytes, deadline)?,
            ClientStep::Done { session } => break session,
        }
    };
    stream.set_timeouts(None).map_err(|e| Error::system("handshake: setting a timeout", &e))?;
    Ok(session)
}

/// Runs the accepting side; answers who has dialled. Reads not a byte beyond the handshake. A refused client
/// has been told so when this returns `Code::Unauthorized` or `Code::InvalidUsage`.
pub fn accept<S: Timed>(
    stream: &mut S,
    lookup: &(impl Fn(KeyId) -> Option<Secret> + ?Sized),
    deadline: Instant,
) -> Result<Peer> {
    let mut handshake = ServerHandshake::new(nonce()?);
    write_all(stream, &handshake.greeting(), deadline)?;
    let mut buf = [0; 512];
    let peer = loop {
        let n = read_some(stream, &mut buf, handshake.wanted(), deadline)?;
        match handshake.receive(&buf[..n], lookup).1 {
            ServerStep::NeedMore => {}
            ServerStep::Done { reply, peer } => {
                write_all(stream, &reply, deadline)?;
                break peer;
            }
            ServerStep::Refused { reply, reason } => {
                // The stranger may be gone already; the reason for refusing it matters more.
                let _ = write_all(stream, &reply, deadline);
                return Err(reason);
            }
        }
    };
    stream.set_timeouts(None).map_err(|e| Error::system("handshake: setting a timeout", &e))?;
    Ok(peer)
}

fn arm<S: Timed>(stream: &S, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    // A timeout below the kernel's resolution would mean none.
    stream
        .set_timeouts(Some(left.max(Duration::from_millis(1))))
        .map_err(|e| Error::system("handshake: setting a timeout", &e))
}

fn late() -> Error {
    Error::timeout("handshake: the peer did not finish it in time")
}

fn read_some<S: Timed>(stream: &mut S, buf: &mut [u8], wanted: usize, deadline: Instant) -> Result<usize> {
    let end = wanted.min(buf.len());
    loop {
        arm(stream, deadline)?;
        match stream.read(&mut buf[..end]) {
            Ok(0) => {
                return Err(Error::system("handshake", &io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            Ok(n) => return Ok(n),
            Err(e) => retry(e)?,
        }
    }
}

fn write_all<S: Timed>(stream: &mut S, mut bytes: &[u8], deadline: Instant) -> Result<()> {
    while !bytes.is_empty() {
        arm(stream, deadline)?;
        match stream.write(bytes) {
            Ok(0) => return Err(Error::system("handshake", &io::Error::from(io::ErrorKind::WriteZero))),
            Ok(n) => bytes = &bytes[n.min(bytes.len())..],
            Err(e) => retry(e)?,
        }
    }
    Ok(())
}

fn retry(e: io::Error) -> Result<()> {
    match e.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(late()),
        _ => Err(Error::system("handshake", &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::thread;

    const ID: KeyId = KeyId([1; 16]);

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    fn run(client: u8, server: u8) -> (Result<Secret>, Result<Peer>) {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let t = thread::spawn(move || accept(&mut b, &|_| Some(Secret(vec![server; 32])), soon(2000)));
        let mine = dial(&mut a, ID, &Secret(vec![client; 32]), Purpose::Control, b"me", soon(2000));
        (mine, t.join().unwrap())
    }

    #[test]
    fn the_same_secret_connects() {
        let (mine, theirs) = run(5, 5);
        let theirs = theirs.unwrap();
        assert_eq!(mine.unwrap(), theirs.session);
        assert_eq!(theirs.claim, b"me");
    }

    #[test]
    fn another_secret_is_told_so_on_both_sides() {
        let (mine, theirs) = run(5, 6);
        assert_eq!(mine.unwrap_err().code, Code::Unauthorized);
        assert_eq!(theirs.unwrap_err().code, Code::Unauthorized);
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let begin = Instant::now();
        let e = dial(&mut a, ID, &Secret(vec![1]), Purpose::Store, b"", soon(50)).unwrap_err();
        assert_eq!(e.code, Code::Timeout);
        let mut b = b;
        let e = accept(&mut b, &|_| None, soon(50)).unwrap_err();
        assert_eq!(e.code, Code::Timeout);
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_closed_connection_is_a_system_error() {
        let (mut a, b) = UnixStream::pair().unwrap();
        drop(b);
        let e = dial(&mut a, ID, &Secret(vec![1]), Purpose::Store, b"", soon(1000)).unwrap_err();
        assert_eq!(e.code, Code::System);
    }
}
