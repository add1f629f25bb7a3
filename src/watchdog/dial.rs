//! Dialling another process: connecting, proving oneself, and finding out that nobody is there.

use super::unix_name;
use crate::auth::{self, KeyId, Purpose, Timed};
use crate::error::{Code, Error, Extent, Result};
use crate::sys::socket;
use crate::types::{Address, Secret};
use std::time::{Duration, Instant};

/// How long one attempt may take: longer than the patience at the door.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What a process says at another one's door.
pub(super) struct Knock<'a> {
    pub key: KeyId,
    pub secret: &'a Secret,
    pub purpose: Purpose,
    pub claim: &'a [u8],
}

impl Knock<'_> {
    /// Connects and proves itself. A door that hangs up, or lets wait, is crowded: it is tried again.
    pub fn until<S: Timed>(
        &self,
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
        connect: impl Fn(Instant) -> Result<S>,
        who_is_gone: impl Fn() -> Option<Error>,
    ) -> Result<S> {
        let mut wait = Duration::from_millis(2);
        loop {
            let soon = deadline.min(Instant::now() + ATTEMPT);
            let e = match connect(soon) {
                Ok(mut s) => {
                    match auth::dial(&mut s, self.key, self.secret, self.purpose, self.claim, soon) {
                        Ok(_) => return Ok(s),
                        Err(e) if matches!(e.code, Code::System | Code::Timeout) => e,
                        Err(e) if e.code == Code::Unauthorized => return Err(refused(give_up)),
                        Err(e) => return Err(e),
                    }
                }
                Err(e) if e.code == Code::Timeout => e,
                Err(e) => return Err(who_is_gone().unwrap_or(e)),
            };
            give_up()?;
            if Instant::now() + wait >= deadline {
                return Err(e);
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }
}

/// An error if nobody listens where a process does as long as it lives.
pub(super) fn find_gone(to: &Address, same_host: bool) -> Option<Error> {
    let is_gone = match same_host {
        true => socket::is_deserted_abstract(&unix_name(&to.process)),
        false => socket::is_deserted_tcp(to.tcp, Duration::from_millis(500)),
    };
    is_gone.then(|| gone(to, same_host))
}

/// Of a process where nobody listens any more.
fn gone(to: &Address, same_host: bool) -> Error {
    // The kernel of this machine has answered, whichever machine the process is on.
    let why = match !same_host && to.tcp.ip().is_loopback() {
        true => {
            "its process is gone, or it is on another machine and listens on its loopback only, as members of worlds \
             without a secret do (MW_SECRET, MW_SECRET_FILE)"
        }
        false => "its process is gone",
    };
    Error::new(Code::Remote, Extent::Operation, why)
}

/// Why a door stays shut: it was opened before anybody could know of this world, so its owner has given up joining.
/// Its reason is on its way here.
fn refused(give_up: &dyn Fn() -> Result<()>) -> Error {
    for _ in 0..20 {
        if let Err(e) = give_up() {
            return e;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Error::new(Code::Remote, Extent::World, "joining: another member has given up joining")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HostId, ProcessId, WorldId};
    use crate::watchdog::Watchdog;
    use std::cell::Cell;
    use std::os::unix::net::UnixStream;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn secret() -> Secret {
        Secret(vec![3; 32])
    }

    fn knock(
        secret: &Secret,
        give_up: &dyn Fn() -> Result<()>,
        server: impl Fn(u32, UnixStream),
    ) -> (Result<UnixStream>, u32) {
        let tries = Cell::new(0);
        let connect = |_| {
            tries.set(tries.get() + 1);
            let (a, b) = UnixStream::pair().unwrap();
            server(tries.get(), b);
            Ok(a)
        };
        let k = Knock { key: KeyId([1; 16]), secret, purpose: Purpose::Data, claim: b"me" };
        let result = k.until(far(), give_up, connect, || None);
        (result, tries.get())
    }

    fn accept(mut b: UnixStream) {
        std::thread::spawn(move || auth::accept(&mut b, &|_| Some(secret()), far()));
    }

    #[test]
    fn a_crowded_door_is_tried_again_until_the_world_ends() {
        let crowded = |n, b| if n > 3 { accept(b) } else { drop(b) };
        let (result, tries) = knock(&secret(), &|| Ok(()), crowded);
        result.unwrap();
        assert_eq!(tries, 4);
        let left = Cell::new(3);
        let give_up = || {
            left.set(left.get() - 1);
            if left.get() == 0 { Err(Error::usage("it has ended")) } else { Ok(()) }
        };
        let (result, tries) = knock(&secret(), &give_up, |_, b| drop(b));
        assert_eq!((result.unwrap_err().code, tries), (Code::InvalidUsage, 3));
    }

    #[test]
    fn a_door_that_was_closed_is_a_peer_that_gave_up() {
        let (result, tries) = knock(&Secret(vec![4; 32]), &|| Ok(()), |_, b| accept(b));
        assert_eq!((result.unwrap_err().code, tries), (Code::Remote, 1));
        let why = || Err(Error::timeout("the reason"));
        let (result, _) = knock(&Secret(vec![4; 32]), &why, |_, b| accept(b));
        assert_eq!(result.unwrap_err().code, Code::Timeout);
    }

    #[test]
    fn who_has_died_before_it_could_be_linked_is_noticed() {
        let w = Watchdog::get(Some("lo")).unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // The smaller one dials, the other one waits to be dialled.
        for process in [ProcessId([0; 16]), ProcessId([0xff; 16])] {
            for host in [w.address().host, HostId([9; 16])] {
                let to = Address { process, host, tcp: closed };
                let begin = Instant::now();
                let e = w.ensure_link(&to, WorldId([5; 16]), &secret(), far(), &|| Ok(())).unwrap_err();
                assert_eq!(e.code, Code::Remote, "{e}");
                assert!(begin.elapsed() < Duration::from_secs(5));
            }
        }
    }
}
