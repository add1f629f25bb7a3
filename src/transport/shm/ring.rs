//! A one-way ring of cache-line cells between two members.
//!
//! A fragment is a run of consecutive cells: a tag, a length, and bytes. A message is its first fragment, which
//! carries the header, and as many more as its bytes need. Invariants:
//!
//! 1. The tag of the cell after the last published fragment is 0. The sender writes that 0 before it publishes
//!    the fragment, so a receiver that waits there can never mistake old payload for a tag.
//! 2. A fragment never wraps around the end of the ring, so its bytes are contiguous.
//! 3. At least one cell is always free (it holds the 0 of invariant 1).
//! 4. `head` (cells released) never passes what was published, and the sender never writes a cell that has not
//!    been released. Both count cells since the beginning and never wrap (2^64).
//!
//! Publishing stores the tag with Release and the receiver loads it with Acquire; releasing stores `head` with
//! Release and the sender loads it with Acquire. These are the only two edges.

use super::segment::{CELL, CELLS, RingControl, Segment};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::types::Fingerprint;

/// Tag of a first fragment whose bytes are inside, and of the message if it is short.
pub const TAG_DATA: u32 = 0x11;
/// Tag of a further fragment.
pub const TAG_MORE: u32 = 0x12;
/// Tag of an announcement: the bytes are to be fetched from the sender's memory.
pub const TAG_PULL: u32 = 0x13;

/// Bytes in front of the payload of a first fragment.
pub const FIRST: usize = 40;
/// Bytes in front of the payload of a further fragment.
pub const MORE: usize = 8;
/// Longest fragment, in cells: a quarter of the ring, so that both sides copy at the same time.
const LONGEST: u64 = CELLS as u64 / 4;

/// One cell run that is about to be filled or read.
#[derive(Clone, Copy)]
pub struct Fragment {
    /// Where the payload is.
    pub payload: *mut u8,
    /// Payload bytes.
    pub len: usize,
    cell: *mut u8,
    cells: u64,
}

struct Cells {
    segment: Arc<Segment>,
    from: u32,
    to: u32,
}

impl Cells {
    fn control(&self) -> &RingControl {
        self.segment.control(self.from, self.to)
    }

    fn at(&self, position: u64) -> *mut u8 {
        let index = (position % u64::from(CELLS)) as usize;
        // SAFETY: `index < CELLS`, so the cell lies within the ring.
        unsafe { self.segment.cells(self.from, self.to).add(index * CELL) }
    }

    fn tag(&self, position: u64) -> &AtomicU32 {
        // SAFETY: cells are 64-aligned and inside the mapping that `segment` keeps alive. The first four bytes of a
        // cell that begins a fragment are only accessed as an atomic while both sides may touch them.
        unsafe { &*self.at(position).cast::<AtomicU32>() }
    }
}

/// The sending side.
pub struct Sender {
    ring: Cells,
    tail: u64,
    released: u64,
}

/// The receiving side.
pub struct Receiver {
    ring: Cells,
    next: u64,
}

/// A first fragment as the receiver found it. Nothing in it has been checked against anything.
pub struct First {
    /// `TAG_DATA` or `TAG_PULL`.
    pub tag: u32,
    /// What the sender announces; `None` when it is not a fingerprint.
    pub fp: Option<Fingerprint>,
    /// Bytes of the whole message.
    pub total: u64,
    /// The bytes in this fragment.
    pub fragment: Fragment,
}

impl Sender {
    /// The sending side of the ring from one member to another.
    pub fn new(segment: Arc<Segment>, from: u32, to: u32) -> Sender {
        Sender { ring: Cells { segment, from, to }, tail: 0, released: 0 }
    }

    /// The marks of the ring.
    pub fn control(&self) -> &RingControl {
        self.ring.control()
    }

    /// Room for a fragment of up to `want` payload bytes behind `overhead` bytes; shorter when the ring is nearly
    /// full or ends. `None` when there is no room at all.
    #[inline]
    pub fn reserve(&mut self, want: usize, overhead: usize) -> Option<Fragment> {
        let needed = (overhead.saturating_add(want).div_ceil(CELL) as u64).clamp(1, LONGEST);
        let capacity = u64::from(CELLS);
        let mut free = capacity - 1 - (self.tail - self.released);
        if free < needed {
            let head = self.control().head.load(Ordering::Acquire);
            // A correct receiver stays between what it released before and what was published.
            if head >= self.released && head <= self.tail {
                self.released = head;
            }
            free = capacity - 1 - (self.tail - self.released);
        }
        let to_end = capacity - self.tail % capacity;
        let cells = needed.min(free).min(to_end);
        if cells == 0 {
            return None;
        }
        let cell = self.ring.at(self.tail);
        let len = want.min(cells as usize * CELL - overhead);
        // SAFETY: the payload lies in cells that are free by invariant 4 and within the ring.
        Some(Fragment { payload: unsafe { cell.add(overhead) }, len, cell, cells })
    }

    /// Writes the header of a first fragment.
    #[inline]
    pub fn write_first(&self, f: &Fragment, fp: &Fingerprint, total: u64) {
        let raw = fp.encode();
        // SAFETY: 40 bytes at the start of a reserved cell; nobody reads them before the tag is published.
        unsafe {
            f.cell.add(8).cast::<u64>().write(total.to_le());
            f.cell.add(16).cast::<[u8; Fingerprint::SIZE]>().write(raw);
        }
    }

    /// Hands a filled fragment to the receiver.
    #[inline]
    pub fn publish(&mut self, f: &Fragment, tag: u32) {
        // SAFETY: as above: the length field of a reserved cell.
        unsafe { f.cell.add(4).cast::<u32>().write((f.len as u32).to_le()) };
        // Invariant 1. Relaxed: ordered before the tag by its Release.
        self.ring.tag(self.tail + f.cells).store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `peek`.
        self.ring.tag(self.tail).store(tag, Ordering::Release);
        self.tail += f.cells;
    }
}

impl Receiver {
    /// The receiving side of the ring from one member to another.
    pub fn new(segment: Arc<Segment>, from: u32, to: u32) -> Receiver {
        Receiver { ring: Cells { segment, from, to }, next: 0 }
    }

    /// The marks of the ring.
    pub fn control(&self) -> &RingControl {
        self.ring.control()
    }

    /// The tag at the reading position; 0 when nothing is there.
    #[inline]
    pub fn peek(&self) -> u32 {
        // Acquire: pairs with `publish`.
        self.ring.tag(self.next).load(Ordering::Acquire)
    }

    /// The fragment at the reading position, with `overhead` bytes in front of its payload. `None` when its length
    /// cannot be true.
    #[inline]
    fn fragment(&self, overhead: usize) -> Option<Fragment> {
        let cell = self.ring.at(self.next);
        // SAFETY: the length field of a cell within the ring.
        let len = u32::from_le(unsafe { cell.add(4).cast::<u32>().read() }) as usize;
        let cells = (overhead + len).div_ceil(CELL) as u64;
        let to_end = u64::from(CELLS) - self.next % u64::from(CELLS);
        if cells > LONGEST || cells > to_end {
            return None;
        }
        // SAFETY: `overhead` is at most one cell.
        Some(Fragment { payload: unsafe { cell.add(overhead) }, len, cell, cells })
    }

    /// The first fragment at the reading position; [`Receiver::peek`] said that one is there.
    #[inline]
    pub fn first(&self, tag: u32) -> Option<First> {
        let fragment = self.fragment(FIRST)?;
        // SAFETY: header bytes of a cell within the ring, published by the tag that `peek` loaded.
        let (total, raw) = unsafe {
            (
                u64::from_le(fragment.cell.add(8).cast::<u64>().read()),
                fragment.cell.add(16).cast::<[u8; Fingerprint::SIZE]>().read(),
            )
        };
        Some(First { tag, fp: Fingerprint::decode(&raw), total, fragment })
    }

    /// A further fragment at the reading position.
    #[inline]
    pub fn more(&self) -> Option<Fragment> {
        self.fragment(MORE)
    }

    /// Gives a fragment's cells back to the sender.
    #[inline]
    pub fn release(&mut self, f: &Fragment) {
        self.next += f.cells;
        // Release: our reads of the cells come before the sender's next writes.
        self.control().head.store(self.next, Ordering::Release);
    }
}
