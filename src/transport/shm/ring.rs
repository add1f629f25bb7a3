//! A one-way ring between two members: slots that describe, and bytes that are described.
//!
//! A fragment is one slot, a cache line: a tag, a length, the message's header if it is the first, and its bytes
//! if they are few. More bytes lie in the ring's data area. A message is its first fragment, and as many more as
//! its bytes need. Invariants:
//!
//! 1. The tag of a slot carries the parity of the lap in which it was published, so that what is left of the last lap
//!    is never taken for something new, and nobody has to clear it. A tag is never anything but a tag.
//! 2. The bytes of a fragment are contiguous.
//! 3. `head` (slots released) never passes what was published, and the sender never writes a slot, or data that a slot
//!    describes, before it was released. Both count from the beginning and never wrap (2^64).
//! 4. When nothing is under way, and it was not much, the sender begins at the start of the data area again: a
//!    connection that only ever carries little touches few pages, and one message at a time finds the same cache lines.
//!    Who carries much goes on around the area: what was read a lap ago has left the reader's own cache, from where
//!    it would be slow to take back.
//!
//! Short messages that follow each other and are alike share a slot, a *run*: the slot describes the first, the others
//! are the same but for their numbers, and their bytes lie one behind the other. What a message costs is mostly the
//! cache lines that change processors. The last slot may be held back until then ([`Sender::hold`]); whatever the
//! sender does next to the ring lets go of it.
//!
//! Publishing stores the tag with Release and the receiver loads it with Acquire; releasing stores `head` with
//! Release and the sender loads it with Acquire. These are the only two edges. What was released is also said in every
//! message that goes the opposite way, where the first edge carries it: in a conversation `head` never changes
//! processors.

use super::segment::{MOST_DATA, RingControl, SLOT, SLOTS, Segment};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::types::Fingerprint;

/// Tag of a first fragment whose bytes are inside, and of the message if it is short.
pub const TAG_DATA: u32 = 0x11;
/// Tag of a further fragment.
pub const TAG_MORE: u32 = 0x12;
/// Tag of an announcement: the bytes are to be fetched from the sender's memory.
pub const TAG_PULL: u32 = 0x13;
/// Tag of an announcement, too: the bytes are in a region.
pub const TAG_REGION: u32 = 0x14;

/// Tag of a run of messages.
pub const TAG_RUN: u32 = 0x15;

/// Messages of a run and bytes of all of them together at most, so that the receiver begins soon.
const RUN: u32 = 16;
const RUN_BYTES: usize = 4 << 10;

/// Where in a slot a fragment's few bytes are.
const INLINE_AT: usize = 40;
/// How many that can be.
pub const INLINE: usize = SLOT - INLINE_AT;
/// The first fragments of a message, so that the receiver begins soon, and the longest one. In between each is as long
/// as all before it: both sides copy at the same time, and neither waits often.
const SHORTEST: usize = 16 << 10;
const LONGEST: usize = 64 << 10;
/// Bytes under way one behind the other that are much: from here on taking lines back from the reader's cache costs more
/// than lines that no cache near has.
const MUCH: u64 = 8 << 10;
/// Fragments under way between looks at how many of them the receiver has released.
const LOOK: u64 = 4;
const LAP: u32 = 1 << 31;
/// Bits of a fragment's length, in a word with its place; of a message's length, in one with the upper bits of what is
/// said of the opposite ring; and of the latter altogether.
const LEN: u32 = 17;
const TOTAL: u32 = 48;
const SAID: u32 = 64 - TOTAL + 32;
const _: () = assert!(LONGEST >> LEN == 0 && (MOST_DATA / SLOT) >> (32 - LEN) <= 1);

/// All ones in so many of the lower bits.
const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A fragment that is about to be filled or read.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Where the payload is.
    pub payload: *mut u8,
    /// Payload bytes.
    pub len: usize,
    /// Where that is in the data area, in slots' lengths.
    at: u32,
}

// SAFETY: the pointer leads into the ring, which any thread may use; to whom the bytes belong is the protocol's affair.
unsafe impl Send for Fragment {}

struct Ring {
    segment: Arc<Segment>,
    slots: *mut u8,
    data: *mut u8,
    /// Bytes of the data area.
    size: usize,
    from: u32,
    to: u32,
}

// SAFETY: both pointers lead into the mapping that `segment` keeps, which any thread may use; what is written where is
// the protocol's affair.
unsafe impl Send for Ring {}

impl Ring {
    fn new(segment: Arc<Segment>, from: u32, to: u32) -> Ring {
        let (slots, data, size) = segment.ring(from, to);
        Ring { segment, slots, data, size, from, to }
    }

    fn control(&self) -> &RingControl {
        self.segment.control(self.from, self.to)
    }

    #[inline]
    fn slot(&self, position: u64) -> *mut u8 {
        let index = (position % SLOTS as u64) as usize;
        // SAFETY: `index < SLOTS`, so the slot lies within the ring.
        unsafe { self.slots.add(index * SLOT) }
    }

    #[inline]
    fn tag(&self, position: u64) -> &AtomicU32 {
        // SAFETY: slots are 64-aligned and inside the mapping that `segment` keeps alive. Their first four bytes are
        // only ever accessed as an atomic (invariant 1).
        unsafe { &*self.slot(position).cast::<AtomicU32>() }
    }

    /// The parity of the lap of a position. A slot that was never used says 0, which is that of the second lap.
    #[inline]
    fn lap(position: u64) -> u32 {
        if (position / SLOTS as u64).is_multiple_of(2) { LAP } else { 0 }
    }
}

/// The sending side.
pub struct Sender {
    ring: Ring,
    /// Slots published.
    tail: u64,
    /// Slots known to be released.
    released: u64,
    /// Bytes of the data area handed out and given back, counted from the beginning.
    data_tail: u64,
    data_head: u64,
    /// Where in that count the data began that is under way.
    begin: u64,
    /// Where the data of each slot ends, in the same count.
    ends: Box<[u64; SLOTS]>,
    /// The slot at `tail` is filled, and others may join it.
    held: Option<Held>,
    /// Slots released, as far as came with the opposite ring's slots.
    heard: u64,
    /// Slots of the opposite ring that this end has released.
    to_say: u64,
}

/// A slot that waits to be published.
#[derive(Debug)]
struct Held {
    /// What is announced first.
    fp: Fingerprint,
    /// Bytes of each message.
    each: usize,
    messages: u32,
    /// All of them.
    fragment: Fragment,
    /// Bytes there are for them.
    room: usize,
}

/// The receiving side.
pub struct Receiver {
    ring: Ring,
    next: u64,
}

/// A first fragment as the receiver found it. Nothing in it has been checked against anything.
#[derive(Debug)]
pub struct First {
    /// What the sender announces; `None` when it is not a fingerprint.
    pub fp: Option<Fingerprint>,
    /// Bytes of the whole message.
    pub total: u64,
    /// The bytes in this fragment.
    pub fragment: Fragment,
    /// For [`Sender::hear`].
    pub released: u64,
}

impl Sender {
    /// The sending side of the ring from one member to another.
    pub fn new(segment: Arc<Segment>, from: u32, to: u32) -> Sender {
        let ring = Ring::new(segment, from, to);
        Sender {
            ring,
            tail: 0,
            released: 0,
            data_tail: 0,
            data_head: 0,
            begin: 0,
            ends: Box::new([0; SLOTS]),
            held: None,
            heard: 0,
            to_say: 0,
        }
    }

    /// The marks of the ring.
    pub fn control(&self) -> &RingControl {
        self.ring.control()
    }

    /// What came with a message of the opposite ring: how many of this one's slots the peer had released. Only its lower
    /// bits count; before the others could differ, slots would have to pass for weeks.
    #[inline]
    pub fn hear(&mut self, released: u64) {
        let behind = self.tail.wrapping_sub(released) & low(SAID);
        self.heard = self.tail.saturating_sub(behind);
    }

    /// What goes with the next messages: how many of the opposite ring's slots this end has released.
    #[inline]
    pub fn say(&mut self, released: u64) {
        self.to_say = released;
    }

    /// Looks at what the receiver has given back.
    fn refresh(&mut self) {
        let head = self.control().head.load(Ordering::Acquire);
        self.advance(head);
    }

    /// Slots up to here have been given back, says the peer.
    fn advance(&mut self, head: u64) {
        // A correct receiver stays between what it released before and what was published.
        if head > self.released && head <= self.tail {
            self.data_head = self.ends[((head - 1) % SLOTS as u64) as usize];
            self.released = head;
        }
        if self.released == self.tail {
            // Invariant 4.
            if self.data_tail - self.begin <= MUCH {
                self.data_tail = self.data_tail.next_multiple_of(self.ring.size as u64);
            }
            self.data_head = self.data_tail;
            self.begin = self.data_tail;
        }
    }

    /// Room for a fragment of up to `want` payload bytes of a message of which `before` bytes have gone; shorter where
    /// the message is long, or the ring nearly full or at its end. `None` when there is no room at all.
    #[inline]
    pub fn reserve(&mut self, want: usize, before: usize) -> Option<Fragment> {
        self.let_go();
        if self.tail - self.released == SLOTS as u64 {
            self.advance(self.heard);
        }
        if self.tail - self.released == SLOTS as u64 {
            self.refresh();
            if self.tail - self.released == SLOTS as u64 {
                return None;
            }
        }
        if want <= INLINE {
            // SAFETY: within the slot.
            let payload = unsafe { self.ring.slot(self.tail).add(INLINE_AT) };
            return Some(Fragment { payload, len: want, at: 0 });
        }
        self.reserve_data(want, before)
    }

    fn reserve_data(&mut self, want: usize, before: usize) -> Option<Fragment> {
        let longest = before.clamp(SHORTEST, LONGEST.min(self.ring.size / 4));
        let (size, needed) = (self.ring.size as u64, want.min(longest).next_multiple_of(SLOT) as u64);
        // In a conversation the messages themselves tell what has been received, and the mark need not change processors.
        // The Acquire that found the last one pairs with the Release that published it.
        self.advance(self.heard);
        // The receiver's mark is on its processor: while it is behind there is no need to fetch it for every fragment.
        let ahead = self.tail - self.released;
        let is_due = ahead > 0 && (ahead.is_multiple_of(LOOK) || (before == 0 && ahead < LOOK));
        if is_due || self.data_tail + needed > self.data_head + size {
            self.refresh();
        }
        let free = self.data_head + size - self.data_tail;
        let at = self.data_tail % size;
        let room = needed.min(free).min(size - at);
        if room == 0 {
            return None;
        }
        self.data_tail += room;
        // SAFETY: `at + room` lies within the data area, in bytes that are free by invariant 3.
        let payload = unsafe { self.ring.data.add(at as usize) };
        Some(Fragment { payload, len: want.min(room as usize), at: (at / SLOT as u64) as u32 })
    }

    /// Whether the receiver is, as far as is known, still busy with what was published before.
    #[inline]
    pub fn is_ahead(&self) -> bool {
        self.tail != self.released
    }

    /// Writes the header of a first fragment.
    #[inline]
    pub fn write_first(&self, fp: &Fingerprint, total: u64) {
        let slot = self.ring.slot(self.tail);
        // SAFETY: bytes 8 to 40 of a slot that has been released; nobody reads them before the tag is published.
        unsafe {
            slot.add(8).cast::<u64>().write((total & low(TOTAL) | (self.to_say >> 32) << TOTAL).to_le());
            slot.add(36).cast::<u32>().write((self.to_say as u32).to_le());
            if cfg!(not(mw_without = "fingerprints")) {
                slot.add(16).cast::<[u8; Fingerprint::SIZE]>().write(fp.encode());
            }
        }
    }

    /// Publishes a filled fragment, a whole message of `len` bytes, with those that [`Sender::join`] it before
    /// [`Sender::let_go`].
    pub fn hold(&mut self, fp: &Fingerprint, fragment: Fragment) {
        let room = if fragment.len <= INLINE { INLINE } else { fragment.len.next_multiple_of(SLOT) };
        self.held = Some(Held { fp: *fp, each: fragment.len, messages: 1, fragment, room });
    }

    /// Lets a message join the one that is held, if they are alike and there is room.
    ///
    /// # Safety
    /// `len` bytes may be read at `ptr`.
    #[inline]
    pub unsafe fn join(&mut self, fp: &Fingerprint, ptr: *const u8, len: usize) -> bool {
        let Some(held) = &mut self.held else { return false };
        if held.each != len || !held.fp.is_followed(held.messages, fp) {
            return false;
        }
        let all = held.fragment.len + len;
        if all > held.room && !self.widen(all) {
            return false;
        }
        let Some(held) = &mut self.held else { return false };
        // SAFETY: `all` bytes fit, and the receiver does not know of them yet; the source is by this function's
        // contract the caller's.
        unsafe { std::ptr::copy_nonoverlapping(ptr, held.fragment.payload.add(held.fragment.len), len) };
        held.fragment.len = all;
        held.messages += 1;
        if held.messages == RUN {
            self.let_go();
        }
        true
    }

    /// Makes room for a run of `all` bytes and more. Answers whether there is.
    fn widen(&mut self, all: usize) -> bool {
        let is_inside = self.held.as_ref().is_some_and(|held| held.room == INLINE);
        if is_inside {
            // Invariant 4; what is held has no data yet.
            self.refresh();
        }
        let Some(mut held) = self.held.take() else { return false };
        let want = (RUN as usize * held.each).min(RUN_BYTES).next_multiple_of(SLOT) as u64;
        let has = if is_inside { 0 } else { held.room as u64 };
        let (size, start) = (self.ring.size as u64, self.data_tail - has);
        let room = want.min(self.data_head + size - start).min(size - start % size) as usize;
        if room < all {
            self.held = Some(held);
            return false;
        }
        self.data_tail = start + room as u64;
        if is_inside {
            let at = (start % size) as usize;
            // SAFETY: `room` bytes from there are free, by invariant 3; what is moved lies in the slot.
            let payload = unsafe { self.ring.data.add(at) };
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(held.fragment.payload, payload, held.fragment.len) };
            (held.fragment.payload, held.fragment.at) = (payload, (at / SLOT) as u32);
        }
        held.room = room;
        self.held = Some(held);
        true
    }

    /// Publishes what is held back.
    #[inline]
    pub fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.publish_held(held);
        }
    }

    fn publish_held(&mut self, held: Held) {
        if held.messages == 1 {
            return self.publish(&held.fragment, TAG_DATA);
        }
        if held.room > INLINE {
            // What was not needed.
            self.data_tail -= (held.room - held.fragment.len.next_multiple_of(SLOT)) as u64;
        }
        self.publish(&held.fragment, TAG_RUN);
    }

    /// Hands a filled fragment to the receiver.
    #[inline]
    pub fn publish(&mut self, f: &Fragment, tag: u32) {
        let slot = self.ring.slot(self.tail);
        // SAFETY: as above: bytes 4 to 8.
        unsafe { slot.add(4).cast::<u32>().write((f.at << LEN | f.len as u32).to_le()) };
        self.ends[(self.tail % SLOTS as u64) as usize] = self.data_tail;
        // Release: pairs with the Acquire in `peek`.
        self.ring.tag(self.tail).store(tag | Ring::lap(self.tail), Ordering::Release);
        self.tail += 1;
    }
}

impl Receiver {
    /// The receiving side of the ring from one member to another.
    pub fn new(segment: Arc<Segment>, from: u32, to: u32) -> Receiver {
        Receiver { ring: Ring::new(segment, from, to), next: 0 }
    }

    /// The marks of the ring.
    pub fn control(&self) -> &RingControl {
        self.ring.control()
    }

    /// Bytes of the data area.
    pub fn size(&self) -> usize {
        self.ring.size
    }

    /// The tag at the reading position; 0 when nothing is there.
    #[inline]
    pub fn peek(&self) -> u32 {
        // Acquire: pairs with `publish`.
        let tag = self.ring.tag(self.next).load(Ordering::Acquire);
        if tag & LAP == Ring::lap(self.next) { tag & !LAP } else { 0 }
    }

    /// The fragment at the reading position; [`Receiver::peek`] said that one is there. `None` when what it says of
    /// itself cannot be true.
    #[inline]
    pub fn fragment(&self) -> Option<Fragment> {
        let slot = self.ring.slot(self.next);
        // SAFETY: bytes of a slot within the ring, published by the tag that `peek` loaded.
        let place = u32::from_le(unsafe { slot.add(4).cast::<u32>().read() });
        let (at, len) = (place >> LEN, (u64::from(place) & low(LEN)) as usize);
        if len <= INLINE {
            // SAFETY: within the slot.
            return Some(Fragment { payload: unsafe { slot.add(INLINE_AT) }, len, at });
        }
        let start = at as usize * SLOT;
        if len > LONGEST || start + len > self.ring.size {
            return None;
        }
        // SAFETY: within the data area, as was just checked.
        Some(Fragment { payload: unsafe { self.ring.data.add(start) }, len, at })
    }

    /// The same for a first fragment.
    #[inline]
    pub fn first(&self) -> Option<First> {
        let fragment = self.fragment()?;
        let slot = self.ring.slot(self.next);
        // SAFETY: header bytes of a slot within the ring, published by the tag that `peek` loaded.
        let (total, raw, released) = unsafe {
            (
                u64::from_le(slot.add(8).cast::<u64>().read()),
                slot.add(16).cast::<[u8; Fingerprint::SIZE]>().read(),
                u32::from_le(slot.add(36).cast::<u32>().read()),
            )
        };
        let released = (total >> TOTAL) << 32 | u64::from(released);
        Some(First { fp: Fingerprint::decode(&raw), total: total & low(TOTAL), fragment, released })
    }

    /// Gives the fragment at the reading position back to the sender. Answers how many slots that makes.
    #[inline]
    pub fn release(&mut self) -> u64 {
        self.next += 1;
        // Release: our reads come before the sender's next writes.
        self.control().head.store(self.next, Ordering::Release);
        self.next
    }
}
