//! What two processes of a machine know of each other's regions. Once for each pair of them, however many worlds they
//! have in common.
//!
//! A region is offered to a peer when the first long message from it goes there; whoever offers does not wait. The
//! peer maps it and says so, and from then on messages say where in the region they are. When a region is freed its
//! peers hear it and unmap it, as soon as nothing of it is being read.
//!
//! How this is told is the [`Courier`]'s affair; what a peer tells is checked here.

use super::region::{self, Offer, RegionId, Standing};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::sys::memory::{Identity, SharedMemory, identity};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// Regions of one peer that are mapped here at most: a process has a bounded number of mappings.
const MOST: usize = 4096;

/// Tells the peer's process something, without ever waiting for it.
pub trait Courier: Send + Sync {
    /// Here is a region.
    fn offer(&self, offer: &Offer<'_>) -> Result<()>;
    /// It is gone.
    fn withdraw(&self, id: RegionId);
}

/// The peer's process.
pub struct Neighbour {
    /// `None` when that is this process.
    courier: Option<Box<dyn Courier>>,
    /// Changes whenever `offered` does, after it has.
    epoch: AtomicU64,
    /// Own regions that were offered, and whether they are mapped there.
    offered: Mutex<HashMap<RegionId, bool>>,
    theirs: Mutex<HashMap<RegionId, Arc<SharedMemory>>>,
    /// There is no way to it any more.
    gone: AtomicBool,
}

impl Neighbour {
    /// Another process.
    pub fn new(courier: Box<dyn Courier>) -> Arc<Neighbour> {
        let neighbour = Arc::new(Neighbour::with(Some(courier)));
        region::introduce(&neighbour);
        neighbour
    }

    /// This process: members of a world can be threads.
    pub fn own() -> Arc<Neighbour> {
        Arc::new(Neighbour::with(None))
    }

    fn with(courier: Option<Box<dyn Courier>>) -> Neighbour {
        Neighbour {
            courier,
            epoch: AtomicU64::new(0),
            offered: Mutex::default(),
            theirs: Mutex::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// Changes whenever the standing of a region does.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        // Relaxed: seeing it late only means the usual ways for some messages more.
        self.epoch.load(Ordering::Relaxed)
    }

    /// Runs `body` with the standing of every region; answers the epoch that it belongs to.
    pub(super) fn standing(&self, body: impl FnOnce(&dyn Fn(RegionId) -> Standing)) -> u64 {
        let offered = self.offered.lock();
        body(&|id| match offered.get(&id) {
            _ if self.courier.is_none() => Standing::Mapped,
            None => Standing::Unknown,
            Some(false) => Standing::Offered,
            Some(true) => Standing::Mapped,
        });
        self.epoch()
    }

    /// With the lock of `offered` held.
    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the peer to map a region, once.
    #[cold]
    pub(super) fn offer(&self, id: RegionId) {
        static SAID: AtomicBool = AtomicBool::new(false);
        let Some(courier) = self.courier.as_ref().filter(|_| !self.is_gone()) else { return };
        region::with_offer(id, |offer| {
            let mut offered = self.offered.lock();
            if offered.insert(id, false).is_some() {
                return;
            }
            self.changed();
            if let Err(e) = courier.offer(&offer)
                && !SAID.swap(true, Ordering::Relaxed)
            {
                tracing::warn!("{e}; messages from this memory (mwMemAlloc) take the usual ways");
            }
        });
    }

    /// A region is gone. With the registry's lock held, so that the offer has been told before.
    pub(super) fn withdraw(&self, id: RegionId) {
        let mut offered = self.offered.lock();
        if offered.remove(&id).is_some() {
            self.changed();
            if let Some(courier) = self.courier.as_ref().filter(|_| !self.is_gone()) {
                courier.withdraw(id);
            }
        }
    }

    /// The peer has mapped a region of this process, or cannot.
    pub fn answered(&self, id: RegionId, mapped: bool) {
        let mut offered = self.offered.lock();
        // It may be gone already.
        if let Some(standing) = offered.get_mut(&id) {
            *standing = mapped;
            self.changed();
        }
    }

    /// The peer offers a region: maps it. An error is to be told, and nothing else comes of it.
    pub fn map(&self, id: RegionId, len: u64, expected: Identity, fd: OwnedFd) -> Result<()> {
        let mut theirs = self.theirs.lock();
        if theirs.contains_key(&id) {
            return Ok(());
        }
        if theirs.len() >= MOST {
            return Err(Error::internal(format!("a peer offers more than {MOST} regions of memory")));
        }
        if identity(fd.as_fd())? != expected {
            return Err(Error::internal("a peer's memory came with another descriptor than its own"));
        }
        let len = usize::try_from(len).ok().filter(|len| *len > 0);
        let len = len.ok_or_else(|| Error::internal("a peer offers memory of an impossible size"))?;
        theirs.insert(id, Arc::new(SharedMemory::open_to_read(fd, len)?));
        Ok(())
    }

    /// The peer has freed a region: unmapped as soon as nobody reads it.
    pub fn unmap(&self, id: RegionId) {
        let gone = self.theirs.lock().remove(&id);
        drop(gone);
    }

    /// A region of the peer, while it is mapped here.
    pub(super) fn mapping(&self, id: RegionId) -> Option<Arc<SharedMemory>> {
        if self.courier.is_none() { region::memory(id) } else { self.theirs.lock().get(&id).cloned() }
    }

    /// What was offered and not answered may have been lost with the connection.
    pub fn reconnected(&self) {
        let mut offered = self.offered.lock();
        offered.retain(|_, mapped| *mapped);
        self.changed();
    }

    /// The way to the peer's process has ended, most likely with it.
    pub fn end(&self) {
        self.gone.store(true, Ordering::Release);
        let theirs = std::mem::take(&mut *self.theirs.lock());
        drop(theirs);
    }

    /// Whether it has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
