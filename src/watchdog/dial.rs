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
        is_gone: impl Fn() -> bool,
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
                Err(_) if is_gone() => return Err(gone()),
                Err(e) => return Err(e),
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

/// Whether nobody listens where a process does as long as it lives.
pub(super) fn is_gone(to: &Address, same_host: bool) -> bool {
    if same_host {
        socket::is_deserted_abstract(&unix_name(&to.process))
    } else {
        socket::is_deserted_tcp(to.tcp, Duration::from_millis(500))
    }
}

pub(super) fn gone() -> Error {
    Error::new(Code::Remote, Extent::Operation, "its process is gone")
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
