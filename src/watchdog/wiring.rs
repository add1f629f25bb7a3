//! How members of a world find each other while it is set up: links, data connections, what one gives to all.

use super::dial::{Knock, find_gone};
use super::link::Link;
use super::message::{Handout, Message};
use super::{DIAL_PATIENCE, DataKey, Watchdog, service, unix_name};
use crate::auth::{KeyId, Purpose};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Condvar, MutexGuard};
use crate::sys::poll::Interest;
use crate::sys::{sleeper, socket};
use crate::types::{Address, HostId, ProcessId, Secret, WorldId};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

impl Watchdog {
    /// Gives a world's shared memory to the members in a process on this machine.
    pub fn share_segment(&self, process: &ProcessId, world: (WorldId, u64), fd: OwnedFd) -> Result<()> {
        if *process == self.address.process {
            self.segments.lock().insert(world, fd);
            self.segments_changed.notify_all();
            return Ok(());
        }
        let link = self.links.lock().by_process.get(process).cloned();
        // There was one a moment ago.
        let link = link
            .ok_or_else(|| Error::new(Code::Remote, Extent::Operation, "its control connection is gone"))?;
        self.send(&link, &Message::Segment { world: world.0, epoch: world.1 }, vec![fd]);
        Ok(())
    }

    /// Waits for a world's shared memory; `give_up` ends the wait early.
    pub fn await_segment(
        &self,
        world: (WorldId, u64),
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<OwnedFd> {
        let mut segments = self.segments.lock();
        loop {
            if let Some(fd) = segments.get(&world) {
                return fd.try_clone().map_err(|e| Error::system("duplicating a descriptor", &e));
            }
            give_up()?;
            pause(&self.segments_changed, &mut segments, deadline, "shared memory from another member")?;
        }
    }

    /// Closes the descriptor of a world's shared memory: every member here has mapped it.
    pub fn forget_segment(&self, world: (WorldId, u64)) {
        self.segments.lock().remove(&world);
    }

    /// Waits for a data connection that another member dials.
    pub fn await_data(
        &self,
        key: DataKey,
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<TcpStream> {
        let mut inbox = self.inbox.lock();
        loop {
            if let Some(s) = inbox.remove(&key) {
                return Ok(s);
            }
            give_up()?;
            pause(&self.inbox_changed, &mut inbox, deadline, "a connection from another member")?;
        }
    }

    /// Dials another member's process for a data connection; `give_up` ends the attempts early.
    pub fn dial_data(
        &self,
        to: &Address,
        key: DataKey,
        secret: &Secret,
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<TcpStream> {
        let mut claim = key.0.0.to_vec();
        claim.extend(key.1.to_le_bytes());
        claim.extend(key.2.to_le_bytes());
        claim.extend(key.3.to_le_bytes());
        let knock = Knock { key: KeyId(key.0.0), secret, purpose: Purpose::Data, claim: &claim };
        knock.until(deadline, give_up, |soon| socket::connect_tcp(to.tcp, soon), || find_gone(to, false))
    }

    /// Makes sure that there is a control link to a process, and answers its doorbell if it is on this machine. The
    /// process with the smaller identity dials; the other one waits.
    pub fn ensure_link(
        &self,
        to: &Address,
        world: WorldId,
        secret: &Secret,
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<Option<Arc<OwnedFd>>> {
        let same_host = to.host == self.address.host;
        let mut look_again = Instant::now() + DIAL_PATIENCE;
        let mut links = self.links.lock();
        loop {
            if let Some(link) = links.by_process.get(&to.process) {
                if !same_host {
                    return Ok(None);
                }
                if let Some(bell) = link.doorbell.get() {
                    return Ok(Some(bell.clone()));
                }
            } else if self.address.process < to.process && links.dialling.insert(to.process) {
                drop(links);
                let dialled = self.dial_link(to, same_host, world, secret, deadline, give_up);
                links = self.links.lock();
                links.dialling.remove(&to.process);
                self.links_changed.notify_all();
                dialled?;
                continue;
            } else if Instant::now() >= look_again {
                // Whoever dies before it has dialled leaves no link whose end would tell.
                drop(links);
                if let Some(gone) = find_gone(to, same_host) {
                    return Err(gone);
                }
                look_again = Instant::now() + DIAL_PATIENCE;
                links = self.links.lock();
                continue;
            }
            give_up()?;
            pause(&self.links_changed, &mut links, deadline, "a control link to another member's process")?;
        }
    }

    fn dial_link(
        &self,
        to: &Address,
        same_host: bool,
        world: WorldId,
        secret: &Secret,
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut claim = self.address.process.0.to_vec();
        claim.extend(self.address.host.0);
        claim.extend(to.process.0);
        let knock = Knock { key: KeyId(world.0), secret, purpose: Purpose::Control, claim: &claim };
        let gone = || find_gone(to, same_host);
        let socket: OwnedFd = if same_host {
            let name = unix_name(&to.process);
            knock.until(deadline, give_up, |soon| connect_unix(&name, soon), gone)?.into()
        } else {
            knock.until(deadline, give_up, |soon| socket::connect_tcp(to.tcp, soon), gone)?.into()
        };
        self.adopt_link(to.process, to.host, socket)
    }

    /// Takes an authenticated control connection into service.
    pub(super) fn adopt_link(&self, peer: ProcessId, host: HostId, socket: OwnedFd) -> Result<()> {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let same_host = host == self.address.host;
        let slot = if same_host { self.liveness.take_slot() } else { None };
        service::set_nonblocking(&socket)?;
        let link = Arc::new(Link::new(peer, host, socket, token, slot));
        if same_host {
            let copy = |fd: std::os::fd::BorrowedFd<'_>| {
                fd.try_clone_to_owned().map_err(|e| Error::system("duplicating a descriptor", &e))
            };
            let fds = vec![copy(self.liveness.fd())?, copy(sleeper::doorbell()?.as_fd())?];
            link.send(&Message::Alive { slot }, fds);
        }
        let old = {
            let mut links = self.links.lock();
            // The watchdog's thread waits for this lock before it looks up whom an event is about.
            let added = self.epoll.add(&link.fd(), token, Interest::READ);
            if let Err(e) = added {
                if let Some(slot) = slot {
                    self.liveness.release_slot(slot);
                }
                return Err(Error::system("epoll_ctl of a control link", &e));
            }
            let old = links.by_process.insert(peer, link.clone());
            if let Some(old) = &old {
                links.by_token.remove(&old.token);
            }
            links.by_token.insert(token, link.clone());
            old
        };
        if let Some(old) = old {
            // The peer found its end of the old one closed and dialled again: the newer one is the one it uses.
            self.retire_link(&old);
            self.hear_out(&old, &old.hearing.lock());
            if let Some(neighbour) = self.known_neighbour(&peer) {
                neighbour.reconnected();
            }
        }
        self.links_changed.notify_all();
        self.kick_sentinel();
        self.nudge();
        Ok(())
    }

    /// Gives a few bytes to the members of a world in a process.
    pub fn hand_out(&self, process: &ProcessId, world: (WorldId, u64), bytes: &Handout) -> Result<()> {
        if *process == self.address.process {
            self.handouts.lock().insert(world, *bytes);
            self.handouts_changed.notify_all();
            return Ok(());
        }
        let link = self.links.lock().by_process.get(process).cloned();
        // There was one a moment ago.
        let link = link
            .ok_or_else(|| Error::new(Code::Remote, Extent::Operation, "its control connection is gone"))?;
        self.send(&link, &Message::Handout { world: world.0, epoch: world.1, bytes: *bytes }, Vec::new());
        Ok(())
    }

    /// Waits for what another member hands out; `give_up` ends the wait early.
    pub fn await_handout(
        &self,
        world: (WorldId, u64),
        deadline: Instant,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<Handout> {
        let mut handouts = self.handouts.lock();
        loop {
            if let Some(bytes) = handouts.get(&world) {
                return Ok(*bytes);
            }
            give_up()?;
            pause(&self.handouts_changed, &mut handouts, deadline, "word from rank 0")?;
        }
    }
}

/// Connects to the process of this user that has this name: whoever else listens there only pretends to be it.
fn connect_unix(name: &[u8], deadline: Instant) -> Result<UnixStream> {
    let stream = socket::connect_abstract(name, deadline)?;
    match socket::is_trusted_user(&stream) {
        Ok(true) => Ok(stream),
        Ok(false) => {
            Err(Error::new(Code::Unauthorized, Extent::Operation, "its socket belongs to another user"))
        }
        Err(e) => Err(Error::system("asking whose a socket is", &e)),
    }
}

/// One wait on a condition, in slices so that what nobody announces is noticed too.
fn pause<T>(changed: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant, what: &str) -> Result<()> {
    let now = Instant::now();
    if now >= deadline {
        return Err(Error::timeout(format!("joining: no {what} in time")));
    }
    changed.wait_until(guard, deadline.min(now + Duration::from_millis(20)));
    Ok(())
}
