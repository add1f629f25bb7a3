//! The memory that the members of one world on one machine share.
//!
//! | at | what |
//! |---|---|
//! | 0 | header |
//! | 128 | one block per member: its bell, its process, a word to test direct reads with, its processors; whether it rests |
//! | then | one control block of 256 bytes per ordered pair |
//! | page-aligned | the slots and the data area of one ring per ordered pair |
//!
//! Pages are taken when they are touched, so pairs that never talk cost nothing. Everything is accessed through
//! atomics or raw copies; nothing that a peer wrote is trusted to be in range.

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, OnceLock};
use crate::sys::memory::SharedMemory;
use crate::sys::process;
use std::os::fd::OwnedFd;

const MAGIC: u64 = u64::from_le_bytes(*b"mwsegm01");
const HEADER: usize = 128;
/// Bytes of a ring's slot: a cache line.
pub const SLOT: usize = 64;
/// Slots per ring.
pub const SLOTS: usize = 128;
/// Bytes of the data area of a ring between two members that are alone: more than a core's own cache holds, so that what
/// was read a lap ago has left the reader's. In larger worlds it is less.
pub const MOST_DATA: usize = 2 << 20;
const LEAST_DATA: usize = 64 << 10;
const PAGE: usize = 4096;
/// Members one segment can serve.
pub const MAX_MEMBERS: u32 = 1024;

#[repr(C)]
struct Header {
    magic: AtomicU64,
    members: AtomicU32,
}

/// What a member publishes about itself.
#[repr(C, align(128))]
pub struct MemberLine {
    /// Rung by whoever has something for this member.
    pub bell: AtomicU32,
    /// Process id, for direct reads.
    pub pid: AtomicU32,
    /// Address of a word in the process's private memory.
    pub probe_at: AtomicU64,
    /// What that word holds.
    pub probe: AtomicU64,
    /// The processors that it may run on.
    pub processors: [AtomicU64; process::SET_WORDS],
    /// See [`Rest`].
    pub rest: Rest,
}

/// Whether a member waits and has given its processor away, 1, on a cache line of its own: it changes often.
#[repr(C, align(128))]
pub struct Rest(pub AtomicU32);

/// The two sides' marks of one ring, on cache lines of their own.
#[repr(C, align(128))]
pub struct RingControl {
    /// Consumer: slots released so far.
    pub head: AtomicU64,
    /// Consumer: large messages read completely so far.
    pub pulled: AtomicU64,
    /// Consumer: 1 when it can read the sender's memory directly, 2 when it cannot, 0 while unknown.
    pub can_pull: AtomicU32,
    /// Consumer: the classes of long messages that it would rather read directly; see `choice`.
    pub direct: AtomicU32,
    /// Consumer: it reads no more.
    pub gone: AtomicU32,
    _pad: [u32; 9],
    /// Sender: no more messages will come.
    pub finished: AtomicU32,
    /// Sender: large messages that were announced and not read completely are void.
    pub cancelled: AtomicU32,
    /// Sender: nanoseconds that the first fragment of the last long message took it.
    pub first: AtomicU32,
}

/// One mapping of the shared memory.
pub struct Segment {
    memory: SharedMemory,
    members: u32,
    rings_at: usize,
    data_at: usize,
    /// Bytes of a ring's data area.
    data: usize,
}

impl Segment {
    /// Bytes of a segment for this many members.
    fn layout(members: u32) -> Result<(usize, usize, usize, usize)> {
        if members == 0 || members > MAX_MEMBERS {
            return Err(Error::argument(format!("nranks: {members} members cannot share memory")));
        }
        let n = members as usize;
        let rings_at = HEADER + n * size_of::<MemberLine>();
        let data_at = (rings_at + n * n * size_of::<RingControl>()).next_multiple_of(PAGE);
        let data = (2 * MOST_DATA / n).next_power_of_two().clamp(LEAST_DATA, MOST_DATA);
        Ok((rings_at, data_at, data, data_at + n * n * (SLOTS * SLOT + data)))
    }

    /// A new one, and the descriptor to send to the other members.
    pub fn create(members: u32, use_memfd: bool) -> Result<(Arc<Segment>, OwnedFd)> {
        let (rings_at, data_at, data, len) = Segment::layout(members)?;
        let (memory, fd) = SharedMemory::create(c"multiworld", len, use_memfd)?;
        let s = Segment { memory, members, rings_at, data_at, data };
        s.header().members.store(members, Ordering::Relaxed);
        s.header().magic.store(MAGIC, Ordering::Release);
        Ok((Arc::new(s), fd))
    }

    /// Maps one that a peer created.
    pub fn open(fd: OwnedFd, members: u32) -> Result<Arc<Segment>> {
        let (rings_at, data_at, data, len) = Segment::layout(members)?;
        let s = Segment { memory: SharedMemory::open(fd, len)?, members, rings_at, data_at, data };
        let h = s.header();
        if h.magic.load(Ordering::Acquire) != MAGIC || h.members.load(Ordering::Relaxed) != members {
            return Err(Error::internal("a peer's shared memory is not laid out as expected"));
        }
        Ok(Arc::new(s))
    }

    /// Members it is laid out for.
    pub fn members(&self) -> u32 {
        self.members
    }

    /// Bytes of address space.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn header(&self) -> &Header {
        // SAFETY: within the mapping, page-aligned; only atomics.
        unsafe { self.memory.base().cast::<Header>().as_ref() }
    }

    /// The line of a member.
    ///
    /// # Panics
    /// When `member` is not below `members()`: callers pass indices of this process, never a peer's.
    pub fn member(&self, member: u32) -> &MemberLine {
        assert!(member < self.members);
        // SAFETY: within the mapping by the assertion; 128-aligned; only atomics.
        unsafe { self.memory.base().add(HEADER).cast::<MemberLine>().add(member as usize).as_ref() }
    }

    /// Fills this process's part of a member's line, so that the others can try to read its memory.
    pub fn introduce(&self, member: u32) {
        static PROBE: OnceLock<u64> = OnceLock::new();
        let probe = PROBE.get_or_init(|| getrandom::u64().unwrap_or(MAGIC));
        let line = self.member(member);
        for (word, mine) in line.processors.iter().zip(process::processor_set()) {
            word.store(mine, Ordering::Relaxed);
        }
        line.pid.store(process::pid(), Ordering::Release);
        line.probe_at.store(std::ptr::from_ref(probe) as u64, Ordering::Release);
        line.probe.store(*probe, Ordering::Release);
    }

    /// How many processors the members may run on, all together. When all have introduced themselves.
    pub fn processors(&self) -> usize {
        let union = |at: usize| {
            (0..self.members).fold(0, |all, m| all | self.member(m).processors[at].load(Ordering::Relaxed))
        };
        (0..process::SET_WORDS).map(|at| union(at).count_ones() as usize).sum()
    }

    fn pair(&self, from: u32, to: u32) -> usize {
        assert!(from < self.members && to < self.members);
        from as usize * self.members as usize + to as usize
    }

    /// The marks of the ring from one member to another.
    pub fn control(&self, from: u32, to: u32) -> &RingControl {
        let at = self.rings_at + self.pair(from, to) * size_of::<RingControl>();
        // SAFETY: within the mapping by `pair`; `rings_at` is 128-aligned; only atomics.
        unsafe { self.memory.base().add(at).cast::<RingControl>().as_ref() }
    }

    /// The slots and the data area of the ring from one member to another, and the data area's bytes.
    pub fn ring(&self, from: u32, to: u32) -> (*mut u8, *mut u8, usize) {
        let at = self.data_at + self.pair(from, to) * (SLOTS * SLOT + self.data);
        // SAFETY: within the mapping by `pair`.
        unsafe {
            let slots = self.memory.base().as_ptr().add(at);
            (slots, slots.add(SLOTS * SLOT), self.data)
        }
    }
}
