//! Starts the ranks of a run as processes of this machine, and sees to it that they end together.
//!
//! The ranks meet at a store that the parent hosts on the loopback interface. Each asks the kernel to be killed when
//! the parent ends, however that happens; one that ends badly has the parent kill the others.

use crate::api::{Failure, Result};
use multiworld::auth::KeyId;
use multiworld::store::server::Server;
use multiworld::sys::socket;
use multiworld::types::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Set for a rank that was started here: the process that did.
const PARENT: &str = "MW_PERF_PARENT";
/// How long the other ranks may take to say what they have seen of a failure.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The exit status of a rank that is through and has found wrong data.
pub const WRONG: u8 = 3;

/// How ranks that were started have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Well,
    WrongData,
}

struct Rank {
    number: u32,
    child: Child,
    fd: OwnedFd,
    ended: Option<ExitStatus>,
}

/// How a rank has ended, if it has.
#[derive(Clone, Copy, Debug)]
struct Fate {
    number: u32,
    pid: u32,
    status: Option<ExitStatus>,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} (process {}) ", self.number, self.pid)?;
        match self.status.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => write!(f, "was killed by signal {signal}"),
            Some((None, code)) => write!(f, "failed with status {}", code.unwrap_or_default()),
            None => write!(f, "did not end when others failed, and was killed"),
        }
    }
}

/// Whether this process is a rank that [`start`] has started. If so, it ends with its parent from now on.
pub fn is_rank() -> Result<bool> {
    let Ok(parent) = std::env::var(PARENT) else { return Ok(false) };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Failure::new(format!("asking to end with the parent: {e}")))?;
    if parent_id().to_string() != parent {
        return Err(Failure::new("the process that started this rank has ended"));
    }
    Ok(true)
}

/// What is particular about a rank's process.
pub type Prepare<'a> = &'a dyn Fn(u32, &mut Command) -> Result<()>;

/// Starts `ranks` processes with this one's arguments and waits for their end.
pub fn start(ranks: u32, prepare: Prepare<'_>) -> Result<Ending> {
    let secret = fresh_secret()?;
    let store = host_store(&secret)?;
    let address = format!("tcp://{}", store.addr());
    let mut started = Vec::new();
    let outcome = (0..ranks)
        .try_for_each(|number| {
            spawn(number, ranks, &address, &secret, prepare).map(|rank| started.push(rank))
        })
        .and_then(|()| wait(&mut started));
    for rank in started.iter_mut().filter(|rank| rank.ended.is_none()) {
        // Both fail only for one that has just ended.
        let _ = rank.child.kill();
        let _ = rank.child.wait();
    }
    outcome
}

fn fresh_secret() -> Result<String> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| Failure::new(format!("/dev/urandom: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn host_store(secret: &str) -> Result<Server> {
    let listener = socket::listen_tcp(([127, 0, 0, 1], 0).into(), 512)
        .map_err(|e| Failure::new(format!("listening on the loopback interface: {e}")))?;
    let secret = Secret(secret.as_bytes().to_vec());
    let key = KeyId::of(&secret);
    Ok(Server::start(listener, Arc::new(move |id| (id == key).then(|| secret.clone())))?)
}

fn spawn(number: u32, ranks: u32, store: &str, secret: &str, prepare: Prepare<'_>) -> Result<Rank> {
    let failed = |e: &dyn fmt::Display| Failure::new(format!("starting rank {number}: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(|e| failed(&e))?);
    command
        .args(std::env::args_os().skip(1))
        .env(PARENT, std::process::id().to_string())
        .env("MW_RANK", number.to_string())
        .env("MW_NRANKS", ranks.to_string())
        .env("MW_STORE", store)
        .env("MW_SECRET", secret)
        .env_remove("MW_SECRET_FILE")
        .stdin(Stdio::null());
    if std::env::var_os("MW_IFNAME").is_none_or(|name| name.is_empty()) {
        command.env("MW_IFNAME", "lo");
    }
    if number > 0 {
        command.stdout(Stdio::null());
    }
    prepare(number, &mut command)?;
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(fd)) => Ok(Rank { number, child, fd, ended: None }),
        other => {
            let _ = child.kill();
            let _ = child.wait();
            let reason =
                other.and_then(std::result::Result::err).map_or("no such process".into(), |e| e.to_string());
            Err(failed(&format!("watching it: {reason}")))
        }
    }
}

/// Waits until all have ended, or a while longer than the first that ended badly.
fn wait(ranks: &mut [Rank]) -> Result<Ending> {
    let mut until = None;
    loop {
        for rank in ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
            rank.ended =
                rank.child.try_wait().map_err(|e| Failure::new(format!("waiting for ranks: {e}")))?;
        }
        let fates: Vec<Fate> = ranks
            .iter()
            .map(|rank| Fate { number: rank.number, pid: rank.child.id(), status: rank.ended })
            .collect();
        if until.is_none() && fates.iter().any(|fate| fate.status.is_some_and(|status| !is_through(status))) {
            until = Some(Instant::now() + LAST_WORDS);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if fates.iter().all(|fate| fate.status.is_some()) || left.is_some_and(|left| left.is_zero()) {
            return judge(&fates);
        }
        let mut fds: Vec<PollFd<'_>> = ranks
            .iter()
            .filter(|rank| rank.ended.is_none())
            .map(|rank| PollFd::new(&rank.fd, PollFlags::IN))
            .collect();
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Failure::new(format!("waiting for ranks: {e}"))),
        }
    }
}

/// Whether a rank has done all that it had to do.
fn is_through(status: ExitStatus) -> bool {
    status.success() || status.code() == Some(i32::from(WRONG))
}

/// What became of a run: to blame are those that were killed, else those that hang, because the others fail for want
/// of them.
fn judge(fates: &[Fate]) -> Result<Ending> {
    let bad = || fates.iter().filter(|fate| fate.status.is_none_or(|status| !is_through(status)));
    let severity = |fate: &Fate| match fate.status {
        Some(status) if status.signal().is_some() => 2,
        None => 1,
        Some(_) => 0,
    };
    let Some(worst) = bad().map(severity).max() else {
        let is_wrong = fates.iter().any(|fate| fate.status.is_some_and(|status| !status.success()));
        return Ok(if is_wrong { Ending::WrongData } else { Ending::Well });
    };
    let blamed = bad().filter(|fate| severity(fate) == worst).map(Fate::to_string);
    Err(Failure::new(blamed.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn fates(all: &[Option<ExitStatus>]) -> Vec<Fate> {
        let fate = |(i, status): (usize, &Option<ExitStatus>)| {
            let number = i as u32;
            Fate { number, pid: 10 + number, status: *status }
        };
        all.iter().enumerate().map(fate).collect()
    }

    fn blame(all: &[Option<ExitStatus>]) -> String {
        judge(&fates(all)).unwrap_err().to_string()
    }

    #[test]
    fn who_was_killed_is_blamed() {
        let (failed, killed) = (Some(exited(1)), Some(ExitStatus::from_raw(9)));
        assert_eq!(blame(&[failed, killed, failed, None]), "rank 1 (process 11) was killed by signal 9");
        let text = "rank 1 (process 11) did not end when others failed, and was killed";
        assert_eq!(blame(&[failed, None, Some(exited(0))]), text);
        let text = "rank 0 (process 10) failed with status 1, rank 2 (process 12) failed with status 101";
        assert_eq!(blame(&[failed, Some(exited(0)), Some(exited(101))]), text);
    }

    #[test]
    fn wrong_data_is_no_failure_of_a_rank() {
        let (wrong, well) = (Some(exited(i32::from(WRONG))), Some(exited(0)));
        assert_eq!(judge(&fates(&[wrong, wrong])).unwrap(), Ending::WrongData);
        assert_eq!(judge(&fates(&[well, well])).unwrap(), Ending::Well);
    }

    #[test]
    fn secrets_are_long_enough_and_fresh() {
        let (a, b) = (fresh_secret().unwrap(), fresh_secret().unwrap());
        assert!(a.len() == 32 && a != b);
    }
}
