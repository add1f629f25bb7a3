//! Words of shared memory that the kernel marks when this process dies.
//!
//! A dying process first runs through the robust-futex lists of its threads and only then gives back its memory,
//! closes its sockets and signals its pidfd. For a serving process with tens of gigabytes the difference is
//! hundreds of milliseconds, so this is how peers on one machine learn of a death.
//!
//! One thread of the process owns a page with an array of slots, each a list node and a word that holds the
//! thread's id. Every watching process gets a slot of its own, because the kernel wakes only one waiter per word.
//! The page also carries the process's heartbeat counter: whoever can map it needs no messages to know that its
//! owner still runs.
//!
//! Invariants:
//! 1. A slot's word is `tid | WAITERS` from before the slot is given to a watcher until the owner dies.
//! 2. The list is consistent at every instant: a node's `next` is written before the node becomes reachable.
//! 3. Nodes are never unlinked, so a walk by the kernel never meets a half-removed one. Free slots are re-used.

use super::futex;
use super::memory::SharedMemory;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MAGIC: u64 = u64::from_le_bytes(*b"mwalive1");
const HEADER: usize = 128;
/// Watchers one process can have. The kernel stops after 2048 nodes.
const SLOTS: usize = 1024;
const LEN: usize = HEADER + SLOTS * size_of::<Slot>();

#[repr(C)]
struct Slot {
    /// The kernel's list: address of the next node, valid in the owner's address space only.
    next: AtomicUsize,
    word: AtomicU32,
    _pad: u32,
}

#[repr(C)]
struct Header {
    magic: AtomicU64,
    _pad: [u64; 7],
    heartbeat: AtomicU64,
}

/// `struct robust_list_head` of the kernel.
#[repr(C)]
struct Head {
    next: AtomicUsize,
    offset: libc::c_long,
    pending: usize,
}

/// The owner's side: exists once per process.
pub struct Liveness {
    page: SharedMemory,
    fd: OwnedFd,
    /// Never freed: the kernel reads it when the owning thread ends.
    head: &'static Head,
    tid: u32,
    free: Mutex<(Vec<u32>, u32)>,
}

fn header(page: &SharedMemory) -> &Header {
    // SAFETY: the page is at least `LEN` bytes, page-aligned, and only accessed through atomics.
    unsafe { page.base().cast::<Header>().as_ref() }
}

fn slot(page: &SharedMemory, index: u32) -> Option<&Slot> {
    let index = index as usize;
    if index >= SLOTS {
        return None;
    }
    // SAFETY: `index < SLOTS`, so the slot lies within `LEN` bytes; only atomics.
    unsafe { Some(page.base().add(HEADER + index * size_of::<Slot>()).cast::<Slot>().as_ref()) }
}

impl Liveness {
    /// Makes the calling thread the one whose end marks the slots; it must live as long as the process. With
    /// `robust` false no list is registered: the page then only carries the heartbeat.
    pub fn adopt_thread(use_memfd: bool, robust: bool) -> Result<Liveness> {
        let (page, fd) = SharedMemory::create(c"multiworld-liveness", LEN, use_memfd)?;
        let head: &'static Head = Box::leak(Box::new(Head {
            next: AtomicUsize::new(0),
            offset: std::mem::offset_of!(Slot, word) as libc::c_long,
            pending: 0,
        }));
        head.next.store(&raw const head.next as usize, Ordering::Relaxed);
        if robust {
            // glibc registered a list of its own for this thread; it stays unused, since this thread locks no
            // robust pthread mutex.
            // SAFETY: `head` is a valid list head that lives for ever.
            let rc =
                unsafe { libc::syscall(libc::SYS_set_robust_list, head as *const Head, size_of::<Head>()) };
            if rc != 0 {
                let e = std::io::Error::last_os_error();
                return Err(Error::system("set_robust_list", &e));
            }
        }
        header(&page).magic.store(MAGIC, Ordering::Release);
        let tid = if robust { super::process::tid() } else { 0 };
        Ok(Liveness { page, fd, head, tid, free: Mutex::new((Vec::new(), 0)) })
    }

    /// A slot for one watcher; `None` when there are none left or none work.
    pub fn take_slot(&self) -> Option<u32> {
        if self.tid == 0 {
            return None;
        }
        let mut free = self.free.lock();
        if let Some(index) = free.0.pop() {
            return Some(index);
        }
        let index = free.1;
        let s = slot(&self.page, index)?;
        s.word.store(self.tid | futex::WAITERS, Ordering::Relaxed);
        s.next.store(self.head.next.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: the kernel walks from the head on; it must find the node complete (invariant 2).
        self.head.next.store(&raw const s.next as usize, Ordering::Release);
        free.1 += 1;
        Some(index)
    }

    /// Gives back a slot whose watcher is gone.
    pub fn release_slot(&self, index: u32) {
        self.free.lock().0.push(index);
    }

    /// The descriptor for watchers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A sign of life.
    pub fn beat(&self) {
        header(&self.page).heartbeat.fetch_add(1, Ordering::Relaxed);
    }
}

/// A watcher's side.
pub struct Watch {
    page: SharedMemory,
    index: Option<u32>,
}

impl Watch {
    /// Maps a peer's page; `index` is the slot that the peer gave to this process, if any.
    pub fn open(fd: OwnedFd, index: Option<u32>) -> Result<Arc<Watch>> {
        let page = SharedMemory::open(fd, LEN)?;
        if header(&page).magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::internal("a peer's liveness page has the wrong magic"));
        }
        if let Some(i) = index
            && slot(&page, i).is_none()
        {
            return Err(Error::internal("a peer gave a liveness slot that does not exist"));
        }
        Ok(Arc::new(Watch { page, index }))
    }

    /// The word to wait on, if the peer has one for us.
    pub fn word(&self) -> Option<&AtomicU32> {
        slot(&self.page, self.index?).map(|s| &s.word)
    }

    /// Whether the kernel has marked the peer dead.
    pub fn is_dead(&self) -> bool {
        self.word().is_some_and(|w| w.load(Ordering::Acquire) & futex::OWNER_DIED != 0)
    }

    /// The peer's heartbeat counter.
    pub fn heartbeat(&self) -> u64 {
        header(&self.page).heartbeat.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn every_watcher_is_woken_when_the_owner_ends() {
        let (to_test, from_owner) = mpsc::channel();
        let (to_owner, from_test) = mpsc::channel::<()>();
        let owner = std::thread::spawn(move || {
            let l = Liveness::adopt_thread(true, true).unwrap();
            l.beat();
            for _ in 0..3 {
                let i = l.take_slot();
                to_test.send((l.fd().try_clone_to_owned().unwrap(), i)).unwrap();
            }
            from_test.recv().unwrap_err();
            // The page outlives the thread here because watchers have it mapped, and is forgotten because the
            // kernel looks at it after the thread's last Rust code has run.
            std::mem::forget(l);
        });
        let watches: Vec<_> =
            (0..3).map(|_| from_owner.recv().unwrap()).map(|(fd, i)| Watch::open(fd, i).unwrap()).collect();
        assert!(watches.iter().all(|w| !w.is_dead() && w.heartbeat() == 1));
        let sleepers: Vec<_> = watches
            .into_iter()
            .map(|w| {
                std::thread::spawn(move || {
                    while !w.is_dead() {
                        let word = w.word().unwrap();
                        let seen = word.load(Ordering::Acquire);
                        if seen & futex::OWNER_DIED == 0 {
                            futex::wait(word, seen, std::time::Duration::from_secs(60));
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(to_owner);
        for s in sleepers {
            s.join().unwrap();
        }
        owner.join().unwrap();
    }
}
