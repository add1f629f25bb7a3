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

/// Starts `ranks` processes with this one's arguments and waits for their end.
pub fn start(ranks: u32) -> Result<Ending> {
    let secret = fresh_secret()?;
    let store = host_store(&secret)?;
    let address = format!("tcp://{}", store.addr());
    let mut started = Vec::new();
    let outcome = (0..ranks)
        .try_for_each(|number| spawn(number, ranks, &address, &secret).map(|rank| started.push(rank)))
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

fn spawn(number: u32, ranks: u32, store: &str, secret: &str) -> Result<Rank> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("starting rank {number}: {e}"));
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
        let ended: Vec<(u32, u32, ExitStatus)> = ranks
            .iter()
            .filter_map(|rank| rank.ended.map(|status| (rank.number, rank.child.id(), status)))
            .collect();
        if until.is_none() && ended.iter().any(|(.., status)| !is_through(*status)) {
            until = Some(Instant::now() + LAST_WORDS);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if ended.len() == ranks.len() || left.is_some_and(|left| left.is_zero()) {
            return judge(&ended);
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

/// What became of a run, by rank, process and status of those that have ended: the one that is to blame is the one
/// that was killed, because the others fail for want of it.
fn judge(ended: &[(u32, u32, ExitStatus)]) -> Result<Ending> {
    let bad: Vec<_> = ended.iter().filter(|(.., status)| !is_through(*status)).collect();
    let killed: Vec<_> = bad.iter().copied().filter(|(.., status)| status.signal().is_some()).collect();
    let blamed = if killed.is_empty() { &bad } else { &killed };
    if !blamed.is_empty() {
        let texts = blamed.iter().map(|(number, pid, status)| {
            let how = match status.signal() {
                Some(signal) => format!("was killed by signal {signal}"),
                None => format!("failed with status {}", status.code().unwrap_or_default()),
            };
            format!("rank {number} (process {pid}) {how}")
        });
        return Err(Failure::new(texts.collect::<Vec<_>>().join(", ")));
    }
    let is_wrong = ended.iter().any(|(.., status)| !status.success());
    Ok(if is_wrong { Ending::WrongData } else { Ending::Well })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn who_was_killed_is_blamed() {
        let killed = ExitStatus::from_raw(9);
        let text = judge(&[(0, 10, exited(1)), (1, 11, killed), (2, 12, exited(1))]).unwrap_err().to_string();
        assert_eq!(text, "rank 1 (process 11) was killed by signal 9");
        let text = judge(&[(0, 10, exited(1)), (1, 11, exited(101))]).unwrap_err().to_string();
        assert_eq!(
            text,
            "rank 0 (process 10) failed with status 1, rank 1 (process 11) failed with status 101"
        );
    }

    #[test]
    fn wrong_data_is_no_failure_of_a_rank() {
        let wrong = exited(i32::from(WRONG));
        assert_eq!(judge(&[(0, 10, wrong), (1, 11, wrong)]).unwrap(), Ending::WrongData);
        assert_eq!(judge(&[(0, 10, exited(0)), (1, 11, exited(0))]).unwrap(), Ending::Well);
    }

    #[test]
    fn secrets_are_long_enough_and_fresh() {
        let (a, b) = (fresh_secret().unwrap(), fresh_secret().unwrap());
        assert!(a.len() == 32 && a != b);
    }
}
