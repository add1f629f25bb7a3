//! Memory that processes of one machine share besides their worlds': what of it goes over their control link.

use super::Watchdog;
use super::link::Link;
use super::message::Message;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sys::memory::Identity;
use crate::transport::shm::Neighbour;
use crate::transport::shm::neighbour::Courier;
use crate::transport::shm::region::{Offer, RegionId};
use crate::types::ProcessId;
use std::os::fd::OwnedFd;

/// Over the link to this process, if there still is one.
struct OverLink(ProcessId);

impl OverLink {
    fn send(&self, message: &Message, fds: Vec<OwnedFd>) -> Result<()> {
        let w = Watchdog::get(None)?;
        let link = w.links.lock().by_process.get(&self.0).cloned();
        if let Some(link) = link {
            w.send(&link, message, fds);
        }
        Ok(())
    }
}

impl Courier for OverLink {
    fn offer(&self, offer: &Offer<'_>) -> Result<()> {
        let fd = offer.fd.try_clone_to_owned();
        let fd = fd.map_err(|e| Error::system("duplicating a descriptor of memory for a peer", &e))?;
        let message = Message::Region { id: offer.id, len: offer.len as u64, identity: offer.identity };
        self.send(&message, vec![fd])
    }

    fn withdraw(&self, id: RegionId) {
        if let Err(e) = self.send(&Message::RegionFreed { id }, Vec::new()) {
            tracing::debug!("telling of freed memory: {e}");
        }
    }
}

impl Watchdog {
    /// What this process and another one on this machine, which there is a link to, know of each other's memory.
    pub fn neighbour(&self, process: &ProcessId) -> Arc<Neighbour> {
        if *process == self.address.process {
            return Neighbour::own();
        }
        let mut neighbours = self.neighbours.lock();
        if let Some(known) = neighbours.get(process) {
            return known.clone();
        }
        let neighbour = Neighbour::new(Box::new(OverLink(*process)));
        // With the lock held: `process_died` takes the link away first and then what is here.
        if self.links.lock().by_process.contains_key(process) {
            neighbours.insert(*process, neighbour.clone());
        } else {
            neighbour.end();
        }
        neighbour
    }

    pub(super) fn known_neighbour(&self, process: &ProcessId) -> Option<Arc<Neighbour>> {
        self.neighbours.lock().get(process).cloned()
    }

    pub(super) fn forget_neighbour(&self, process: &ProcessId) {
        let gone = self.neighbours.lock().remove(process);
        if let Some(gone) = gone {
            gone.end();
        }
    }

    /// A peer offers memory; it is told what came of it.
    pub(super) fn map_region(
        &self,
        link: &Link,
        id: RegionId,
        len: u64,
        identity: Identity,
        fd: Option<OwnedFd>,
    ) {
        if link.host != self.address.host {
            return;
        }
        let mapped = match fd {
            Some(fd) => self.neighbour(&link.peer).map(id, len, identity, fd),
            None => Err(Error::internal("its descriptor did not come along; have they run out?")),
        };
        if let Err(e) = &mapped {
            tracing::warn!("memory of {:?}: {e}; its messages come the usual ways", link.peer);
        }
        self.send(link, &Message::RegionAnswer { id, mapped: mapped.is_ok() }, Vec::new());
    }
}
